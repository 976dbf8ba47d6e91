"""Graphs of CNNs: what a file may ask for, and the networks that are made of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from captioner.networks.cnn_graph import CnnGraph, GraphNetwork
from captioner.networks.cnn_layers import SameConv2d
from captioner.networks.configs import EncoderConfig
from captioner.networks.encoder import Encoder
from helpers.encoders import difference, make_encoder


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
