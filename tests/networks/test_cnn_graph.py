"""A CNN's graph computes what the CNN does, in torch and in ONNX Runtime, within bounds."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captioner.networks.cnn_graph import (
    CnnGraph,
    GraphNetwork,
    SameConv2d,
    as_graph,
    graph_of,
    without_batch_norm,
)
from captioner.networks.encoder import Encoder, EncoderConfig
from helpers.encoders import difference, make_encoder, trained_norms

EXAMPLE = torch.zeros(1, 3, 64, 64)
CNNS = {
    "timm/tf_efficientnet_lite0": 140,
    "timm/efficientnet_b0": 250,
    "timm/mobilenetv3_small_050": 152,
    "timm/resnet18": 66,
    "torchvision/mobilenet_v3_small": 152,
    "torchvision/vgg11": 21,
}


def norms_in(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("name", CNNS)
def test_the_graph_computes_what_the_cnn_does(name: str) -> None:
    backbone = make_encoder(name).backbone
    graph = graph_of(backbone, EXAMPLE)
    assert graph is not None
    network = as_graph(backbone, graph)
    assert set(network.state_dict()) == {
        key for key in backbone.state_dict() if not key.startswith(("classifier", "pre_logits"))
    }
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        found, expected = network(pictures), backbone(pictures)
    expected = expected["grid"] if isinstance(expected, dict) else expected
    assert difference(found, expected) < 1e-6
    again = CnnGraph.from_dict(json.loads(json.dumps(graph.to_dict())))
    assert again == graph


@pytest.mark.parametrize("name", CNNS)
def test_folding_leaves_no_batch_norm_and_the_same_result(name: str) -> None:
    encoder = make_encoder(name)
    assert encoder.graph is not None
    network = as_graph(encoder.backbone, encoder.graph)
    folded = without_batch_norm(network)
    assert norms_in(folded) == 0
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        assert difference(folded(pictures), network(pictures)) < 1e-4


@pytest.mark.parametrize("name", CNNS)
def test_onnx_runtime_computes_what_the_cnn_does(name: str) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    from captioner.networks.onnx_runtime import OnnxNetwork

    encoder = make_encoder(name)
    assert encoder.graph is not None
    network = as_graph(encoder.backbone, encoder.graph)
    pictures = torch.rand(3, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        expected = network(pictures)
    for each in (network, without_batch_norm(network)):
        assert difference(OnnxNetwork(each, (64, 64))(pictures), expected) < 1e-4


@pytest.mark.parametrize("name", ["timm/convnext_atto", "torchvision/densenet121"])
def test_other_cnns_have_no_graph(name: str) -> None:
    assert make_encoder(name).graph is None


class ReadTwice(nn.Module):
    """The convolution's output is read by a BatchNorm and by the sum behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, pictures: Tensor) -> Tensor:
        found: Tensor = self.conv(pictures)
        return found + self.norm(found)


class UsedTwice(nn.Module):
    """One convolution with a BatchNorm for each of its two uses."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(3)])

    def forward(self, pictures: Tensor) -> Tensor:
        for norm in self.norms:
            pictures = norm(self.conv(pictures))
        return pictures


class Branches(nn.Module):
    """What runs depends on the picture: nothing that can be traced."""

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures if pictures.sum() > 0 else -pictures


def test_a_norm_that_does_not_read_alone_stays() -> None:
    network = ReadTwice().eval()
    trained_norms(network)
    graph = graph_of(network, EXAMPLE)
    assert graph is not None
    folded = without_batch_norm(as_graph(network, graph))
    assert norms_in(folded) == 1
    pictures = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(folded(pictures), network(pictures))


@pytest.mark.parametrize("kind", [UsedTwice, Branches])
def test_what_is_no_plain_list_of_layers_has_no_graph(kind: type[nn.Module]) -> None:
    assert graph_of(kind().eval(), EXAMPLE) is None


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


CONV = {"op": "conv", "inputs": [0], "module": "a", "sizes": [3, 4, 1]}


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([], "0 layers"),
        ([{"op": "relu", "inputs": [0]}] * 2001, "2001 layers"),
        ([{"op": "eval", "inputs": [0]}], "'eval' with 1 inputs is not known"),
        ([{"op": "relu", "inputs": [1]}], "1 in a layer: a whole number from 0 to 0"),
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
        ([{"op": "batch_norm", "inputs": [0], "module": "a", "sizes": [3], "eps": -1.0}], "eps"),
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
    pictures = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert difference(encoder.eval()(pictures).grid, library(pictures).grid) < 1e-6
    trained = {name for name, each in encoder.named_parameters() if each.requires_grad}
    same = Encoder(config)
    assert trained == {name for name, each in same.named_parameters() if each.requires_grad}
