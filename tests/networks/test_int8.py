"""A CNN in int8 gives nearly what it gives in float32, and says what it needs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from captioner.errors import CaptionerError
from captioner.model.shipped import load_model
from captioner.networks.encoder import Encoder
from captioner.networks.fast_encoder import FastEncoder, without_batch_norm
from captioner.networks.int8 import Int8, Plan
from helpers.encoders import difference, make_encoder

EXAMPLES = Path(__file__).parents[2] / "data" / "examples"


def noise_bytes(count: int, seed: int = 4) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=random)


def measured(encoder: Encoder) -> Int8:
    images = [encoder.transform.scale(image)[None] for image in noise_bytes(8)]
    return Int8.measure(without_batch_norm(encoder.backbone), images)


def test_ranges_are_those_of_the_layers() -> None:
    encoder = make_encoder("timm/tf_efficientnet_lite0")
    network, int8 = without_batch_norm(encoder.backbone), measured(encoder)
    with torch.no_grad():
        values = list(network.values(encoder.transform.scale(noise_bytes(1, seed=5))))[1:]
    ends = zip(int8.low.tolist(), int8.high.tolist(), strict=True)
    for (low, high), node, given in zip(ends, network.graph.nodes, values, strict=True):
        assert low <= 0 <= high
        if node.op == "relu6":
            assert low == 0
            assert high <= 6
        assert ((given >= low) & (given <= high)).float().mean() > 0.99
    int8.check_fits(network.graph)


def test_what_is_computed_in_whole_numbers() -> None:
    network = without_batch_norm(make_encoder("timm/resnet18").backbone)
    ops = [node.op for node in network.graph.nodes]
    plan = Plan.of(network.graph)
    assert [ops[place] for place in plan.quantized] == ["conv"] * (ops.count("conv") - 5)
    assert all(ops[place] == "relu" for place in plan.clipped_by.values())
    sums = {place for place, op in enumerate(ops) if op == "add"}
    assert sums <= plan.rounded
    assert not plan.rounded & set(plan.clipped_by)


@pytest.mark.arithmetic
@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("timm/tf_efficientnet_lite0", 0.2),  # ReLU6, sums, TensorFlow's padding
        ("timm/resnet18", 0.06),  # ReLU, a pooled map between
        ("timm/convnext_atto", 0.06),  # linear layers, and others that stay in float32 between them
        ("torchvision/squeezenet1_1", 0.06),  # maps that are put together
    ],
)
def test_features_are_nearly_those_of_float32(name: str, most: float) -> None:
    encoder, pixels = make_encoder(name), noise_bytes(3, seed=5)
    whole = FastEncoder(encoder, "int8", measured(encoder))(pixels)
    exact = FastEncoder(encoder, "fp32")(pixels)
    assert whole.grid.shape == exact.grid.shape
    assert 0.0001 < difference(whole.grid, exact.grid) < most


@pytest.mark.arithmetic
def test_corrections_bring_the_means_of_channels_back() -> None:
    encoder, pixels = make_encoder("timm/tf_efficientnet_lite0"), noise_bytes(8)
    with_them = measured(encoder)
    without = Int8(with_them.low, with_them.high, torch.zeros_like(with_them.corrections))
    exact = FastEncoder(encoder, "fp32")(pixels).grid.mean(dim=(0, 1))
    far, near = (
        difference(FastEncoder(encoder, "int8", each)(pixels).grid.mean(dim=(0, 1)), exact)
        for each in (without, with_them)
    )
    assert near < far


@pytest.mark.arithmetic
def test_the_shipped_model_sees_nearly_the_same() -> None:
    exact, whole = (load_model(device="cpu", precision=each) for each in ("fp32", "int8"))
    assert whole.encoder_engine == "onnxruntime"
    pixels = torch.stack([exact.read(path) for path in sorted(EXAMPLES.glob("*.jpg"))])
    expected, found = exact.encode(pixels), whole.encode(pixels)
    assert 0.01 < difference(found.grid, expected.grid) < 0.12
    assert 0.005 < difference(found.pooled, expected.pooled) < 0.06


@pytest.mark.parametrize("lacks", ["measurements", "onnxruntime"])
def test_what_it_needs_is_named(lacks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make_encoder("timm/resnet18")
    if lacks == "measurements":
        int8, message = None, "precision int8: the model's file lacks what this needs; `captioner c"
    else:
        int8, message = (
            measured(encoder),
            "precision int8: only ONNX Runtime computes it, and ONNX R",
        )
        monkeypatch.setitem(sys.modules, "captioner.networks.onnx_runtime", None)
    with pytest.raises(CaptionerError, match=message):
        FastEncoder(encoder, "int8", int8)


def test_the_measurements_of_another_network_are_refused() -> None:
    int8 = measured(make_encoder("timm/resnet18"))
    with pytest.raises(CaptionerError, match="int8: it is of .* layers and .* channels, the CNN"):
        FastEncoder(make_encoder("timm/tf_efficientnet_lite0"), "int8", int8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low": torch.zeros(3)}, r"ranges \(3,\) and \(2,\) do not fit"),
        ({"low": torch.ones(2)}, "0 lies outside of a range"),
        ({"high": torch.tensor([1.0, float("nan")])}, "a value is not finite"),
        ({"more": torch.zeros(2)}, "its tensors are low, high, corrections, more"),
    ],
)
def test_a_damaged_file_is_refused(changes: dict[str, Any], message: str) -> None:
    state = {"low": torch.zeros(2), "high": torch.ones(2), "corrections": torch.zeros(4)}
    with pytest.raises(CaptionerError, match=f"int8: {message}; the file is damaged"):
        Int8.from_state(state | changes)
