"""The encoder of inference computes what the encoder does and notices new weights."""

from __future__ import annotations

import copy
import sys

import pytest
import torch

from captioner.model.caption_model import CaptionModel
from captioner.networks.fast_encoder import CHUNK, FastEncoder, versions
from helpers.encoders import difference, make_encoder

pytestmark = pytest.mark.arithmetic


@pytest.mark.parametrize(
    "name",
    ["timm/tf_efficientnet_lite0", "torchvision/mobilenet_v3_small", "timm/mobilevit_xs"],
)
def test_features_are_those_of_the_encoder(name: str) -> None:
    encoder = make_encoder(name)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    fast = FastEncoder(encoder, "fp32")
    with torch.inference_mode():
        expected, found = encoder(images), fast(images)
    assert found.grid.shape == expected.grid.shape
    assert difference(found.grid, expected.grid) < 1e-4
    assert difference(found.pooled, expected.pooled) < 1e-4


def test_bfloat16_is_a_little_less_exact() -> None:
    encoder = make_encoder("timm/tf_efficientnet_lite0")
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    exact, rounded = (FastEncoder(encoder, each)(images).grid for each in ("fp32", "bf16"))
    assert rounded.dtype == torch.float32
    assert 0 < difference(rounded, exact) < 0.1


@pytest.mark.parametrize("count", [1, CHUNK, 2 * CHUNK + 1])
def test_images_in_parts_are_those_at_once(count: int) -> None:
    encoder = make_encoder("timm/resnet18")
    images = torch.rand(count, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        expected = encoder(images)
    found = FastEncoder(encoder, "fp32")(images)
    assert found.grid.shape == expected.grid.shape
    assert difference(found.grid, expected.grid) < 1e-4


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_values_of_bytes_are_scaled_by_the_network(precision: str, count: int) -> None:
    encoder = make_encoder("timm/resnet18")
    pixels = torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8)
    fast = FastEncoder(encoder, precision)
    found, expected = fast(pixels), fast(encoder.transform.scale(pixels))
    assert found.grid.shape == expected.grid.shape
    assert found.grid.shape[0] == count
    assert count == 0 or difference(found.grid, expected.grid) < 1e-5


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_an_image_is_the_same_with_any_threads(threads: int) -> None:
    encoder = make_encoder("timm/tf_efficientnet_lite0")
    pixels = torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8)
    fast = FastEncoder(encoder, "fp32")
    expected = torch.cat([fast.maps(pixels[n : n + 1], 1) for n in range(5)])
    assert torch.equal(fast.maps(pixels, threads), expected)


@pytest.mark.parametrize(
    ("name", "precision", "engine"),
    [
        ("timm/resnet18", "fp32", "onnxruntime"),
        ("timm/resnet18", "bf16", "torch"),
        ("timm/convnext_atto", "fp32", "onnxruntime"),
        ("timm/mobilevit_xs", "fp32", "torch"),
    ],
)
def test_which_engine_computes(name: str, precision: str, engine: str) -> None:
    assert FastEncoder(make_encoder(name), precision).engine == engine


def test_without_onnx_runtime_torch_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make_encoder("timm/resnet18")
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        expected = encoder(images)
    monkeypatch.setitem(sys.modules, "captioner.networks.onnx_runtime", None)
    fast = FastEncoder(encoder, "fp32")
    assert (fast.engine, fast.why_torch) == (
        "torch",
        "ONNX Runtime is not installed (pip install onnx onnxruntime)",
    )
    assert difference(fast(images).grid, expected.grid) < 1e-5


def test_the_encoder_stays_as_it_is() -> None:
    encoder = make_encoder("timm/resnet18")
    before, modes = copy.deepcopy(encoder.state_dict()), [m.training for m in encoder.modules()]
    FastEncoder(encoder, "bf16")
    after = encoder.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert [module.training for module in encoder.modules()] == modes


def test_a_change_of_weights_is_noticed(tiny_model: CaptionModel) -> None:
    model = CaptionModel(
        copy.deepcopy(tiny_model.encoder), tiny_model.decoder, tiny_model.tokenizer
    ).eval()
    images = torch.rand(2, 3, *model.transform.size)
    with torch.inference_mode():
        before = model.encode(images).grid
        assert torch.equal(model.encode(images).grid, before)
    first = versions(model.encoder)
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.mul_(1.5)
    assert versions(model.encoder) != first
    with torch.inference_mode():
        after, expected = model.encode(images).grid, model.encoder(images).grid
    assert difference(after, before) > 0.1
    assert difference(after, expected) < 1e-4
    assert set(model.state_dict()) == set(tiny_model.state_dict())
