"""Graphs of CNNs: what a file may ask for, and the networks that are made of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from captioner.networks.cnn_graph import CnnGraph, GraphNetwork, Node
from captioner.networks.cnn_layers import SameConv2d
from captioner.networks.configs import EncoderConfig
from captioner.networks.encoder import Encoder
from helpers.encoders import difference, make_encoder, trained_norms


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "margins"),
    [
        ((8, 8), 3, 1, [1, 1, 1, 1]),
        ((8, 8), 3, 2, [0, 1, 0, 1]),
        ((7, 8), 5, 2, [1, 2, 2, 2]),
        ((5, 5), 1, 2, [0, 0, 0, 0]),
    ],
)
def test_same_padding_is_tensorflows(
    size: tuple[int, int], kernel: int, stride: int, margins: list[int]
) -> None:
    conv = SameConv2d(3, 2, kernel, stride)
    assert conv.margins(size) == margins
    rows, columns = (-(-side // stride) for side in size)
    assert conv(torch.zeros(1, 3, *size)).shape == (1, 2, rows, columns)


NORM = {"op": "batch_norm", "inputs": [0], "module": "a", "sizes": [3]}
CONV = {"op": "conv", "inputs": [0], "module": "a", "sizes": [3, 4, 1]}


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([], "0 layers"),
        ([{"op": "relu", "inputs": [0]}] * 2001, "2001 layers"),
        ([{"op": "eval", "inputs": [0]}], "'eval' with 1 inputs is not known"),
        ([{"op": "relu", "inputs": [1]}], "1 in a layer: expected 0 to 0"),
        ([{"op": "relu", "inputs": [-1]}], "-1 in a layer"),
        ([{"op": "add", "inputs": [0]}], "'add' with 1 inputs"),
        ([CONV, CONV], "same name"),
        ([CONV | {"module": "a..b"}], "module='a..b'"),
        ([CONV | {"module": ""}], "module=''"),
        ([CONV | {"sizes": [3, 10**9, 1]}], "1000000000 in a layer"),
        ([CONV | {"sizes": [3, 4]}], r"sizes=\(3, 4\)"),
        ([CONV | {"padding": [10**9, 0]}], "1000000000 in a layer"),
        ([CONV | {"stride": [0, 1]}], "0 in a layer"),
        ([CONV | {"stride": [True, 1]}], "True in a layer"),
        ([CONV | {"kernel": [3]}], "is not .height, width."),
        ([NORM | {"eps": -1.0}], "eps"),
        ([NORM | {"momentum": 2.0}], "momentum"),
        ([CONV | {"bias": 1}], "bias=1"),
        ([{"op": "dropout", "inputs": [0], "number": 1.5}], "number=1.5"),
        ([{"op": "mul_number", "inputs": [0], "number": 1e9}], "number=1000000000.0"),
        ([{"op": "channels", "inputs": [0], "sizes": [-1, 2]}], "-1 in a layer"),
        ([{"op": "shuffle", "inputs": [0]}], r"sizes=\(\)"),
        ([{"op": "concatenate", "inputs": []}], "'concatenate' with 0 inputs"),
        ([{"op": "library", "inputs": [0], "module": "a"}], "only a library computes"),
    ],
)
def test_a_crafted_graph_is_refused(nodes: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        CnnGraph.from_dict(nodes)


def test_a_layer_may_not_have_fields_of_its_own() -> None:
    with pytest.raises(TypeError, match="evil"):
        CnnGraph.from_dict([CONV | {"evil": 1}])


def test_an_encoder_of_a_graph_is_that_of_its_library() -> None:
    library = make_encoder("timm/tf_efficientnet_lite0")
    assert library.graph is not None
    config = EncoderConfig(
        name="timm/tf_efficientnet_lite0", weights="none", image_size=64, trainable=2
    )
    encoder = Encoder(config, load_weights=False, graph=(library.graph, library.transform))
    assert isinstance(encoder.backbone, GraphNetwork)
    assert encoder.feature_size == library.feature_size == 1280
    assert encoder.grid_shape == library.grid_shape == (2, 2)
    encoder.load_state_dict(library.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert difference(encoder.eval()(images).grid, library(images).grid) < 1e-6
    trained = {name for name, each in encoder.named_parameters() if each.requires_grad}
    same = Encoder(config)
    assert trained == {name for name, each in same.named_parameters() if each.requires_grad}


@pytest.mark.parametrize(
    "doubled",
    [{"op": "concatenate", "inputs": [0, 0]}, {"op": "upsample", "inputs": [0], "kernel": [2, 2]}],
)
def test_maps_that_grow_without_end_are_refused(doubled: dict[str, Any]) -> None:
    nodes = [doubled | {"inputs": [place] * len(doubled["inputs"])} for place in range(40)]
    network = GraphNetwork(CnnGraph.from_dict(nodes))
    with pytest.raises(ValueError, match=rf"layer {doubled['op']}: a map of \d+ values"):
        network(torch.zeros(1, 3, 8, 8))


NORMED = CnnGraph(
    (
        Node("conv", (0,), "stem", (3, 6, 1), (3, 3), (2, 2), padding=None),
        Node("batch_norm", (1,), "first", (6,)),
        Node("relu6", (2,)),
        Node("conv", (3,), "deep", (6, 6, 6), (5, 5), padding=(2, 2), bias=True),
        Node("batch_norm", (4,), "second", (6,), eps=1e-3),
        Node("conv", (5,), "last", (6, 4, 1)),
        Node("batch_norm", (6,), "third", (4,)),
        Node("add", (6, 7)),  # the last convolution is read twice
    )
)


@pytest.mark.parametrize(("start", "apart"), [(0, ["third"]), (1, ["first", "third"])])
def test_a_frozen_batch_norm_is_computed_with_its_convolution(start: int, apart: list[str]) -> None:
    torch.manual_seed(1)
    network = GraphNetwork(NORMED).train()
    trained_norms(network)
    called: list[str] = []
    norms = [network.get_submodule(name).eval() for name in ("first", "second", "third")]
    for name, norm in zip(("first", "second", "third"), norms, strict=True):
        norm.register_forward_hook(lambda *_, name=name: called.append(name))
    learnt = [network.get_parameter(f"{name}.weight") for name in ("deep", "last")]
    images = torch.randn(2, 6 if start else 3, 10, 12)

    def run() -> list[Tensor]:
        called.clear()
        grid = network(images, start)
        return [grid, *torch.autograd.grad(grid.square().sum(), learnt)]

    expected = run()
    assert called == ["first", "second", "third"]  # as their scales are learnt
    for norm in norms:
        norm.requires_grad_(False)
    found = run()
    assert called == apart
    for each, other in zip(found, expected, strict=True):
        torch.testing.assert_close(each, other, rtol=1e-4, atol=1e-4)
