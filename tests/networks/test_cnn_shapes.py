"""Shapes of a CNN's maps: computed, they are those of a run, or there are none."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from captioner.networks.cnn_graph import MAX_VALUES, CnnGraph, GraphNetwork
from captioner.networks.cnn_shapes import compute_shapes
from helpers.encoders import make_encoder

RELU = {"op": "relu", "inputs": [0]}
CONV = {"op": "conv", "inputs": [0], "module": "a", "sizes": [3, 4, 1]}


@pytest.mark.parametrize(
    "name",
    [
        "timm/tf_efficientnet_lite0",
        "timm/mobilenetv3_small_050",
        "timm/resnet18",
        "timm/convnextv2_atto",
        "timm/rexnet_100",
        "torchvision/squeezenet1_1",
        "torchvision/shufflenet_v2_x0_5",
        "torchvision/googlenet",
        pytest.param("timm/hrnet_w18_small", marks=pytest.mark.slow),
        pytest.param("timm/ghostnet_050", marks=pytest.mark.slow),
        pytest.param("torchvision/vgg11", marks=pytest.mark.slow),
    ],
)
def test_shapes_are_those_of_a_run(name: str) -> None:
    network = make_encoder(name).backbone
    for size in ((64, 64), (97, 75), (160, 131)):
        found = compute_shapes(network.graph.nodes, size, MAX_VALUES)
        assert found == network.run_shapes(size)


def test_windows_are_counted_as_torch_counts_them() -> None:
    kinds: list[dict[str, Any]] = [{"op": "max_pool", "ceil": ceil} for ceil in (False, True)]
    kinds += [{"op": "avg_pool", "ceil": True}, CONV, CONV | {"padding": None}]
    for kind, kernel, stride, zeros, dilation in product(
        kinds, (1, 2, 3, 5), (1, 2, 3), (0, 1, 2), (1, 2)
    ):
        window = {"kernel": [kernel, 3], "stride": [stride, 2], "dilation": [dilation, 1]}
        padding = {} if "padding" in kind else {"padding": [zeros, 1]}
        for height in (3, 6, 7, 8):
            _compare([{"inputs": [0], **padding, **kind, **window}], (7, height))


@pytest.mark.parametrize(
    "nodes",
    [
        [CONV | {"sizes": [2, 4, 1]}],
        [CONV | {"kernel": [9, 1]}],
        [{"op": "linear", "inputs": [0], "module": "a", "sizes": [4, 2]}],
        [{"op": "batch_norm", "inputs": [0], "module": "a", "sizes": [4]}],
        [{"op": "layer_norm", "inputs": [0], "module": "a", "sizes": [2]}],
        [{"op": "max_pool", "inputs": [0], "kernel": [3, 3], "padding": [2, 2]}],
        [{"op": "avg_pool", "inputs": [0], "kernel": [9, 9]}],
        [{"op": "shuffle", "inputs": [0], "sizes": [2]}],
        [RELU | {"op": "mean"}, CONV | {"inputs": [1]}, {"op": "add", "inputs": [0, 2]}],
        [RELU | {"op": "mean"}, {"op": "concatenate", "inputs": [0, 1]}],
        [{"op": "concatenate", "inputs": [0], "kernel": [64, 64]}] * 2
        + [{"op": "concatenate", "inputs": [1] * 999, "kernel": [64, 64]}],
        [{"op": "upsample", "inputs": [place], "kernel": [64, 64]} for place in range(3)],
    ],
)
def test_what_does_not_fit_is_left_to_a_run(nodes: list[dict[str, Any]]) -> None:
    graph = CnnGraph.from_dict(nodes)
    assert compute_shapes(graph.nodes, (8, 8), MAX_VALUES) is None
    with pytest.raises((RuntimeError, ValueError)) as run:
        GraphNetwork(graph).eval().run_shapes((8, 8))
    with pytest.raises(run.type) as raised:
        GraphNetwork(graph).eval().shapes((8, 8))
    assert str(raised.value) == str(run.value)


def test_maps_that_a_run_alone_can_tell() -> None:
    nothing = CnnGraph.from_dict([{"op": "channels", "inputs": [0], "sizes": [3, 4]}])
    assert compute_shapes(nothing.nodes, (8, 8), MAX_VALUES) is None
    assert GraphNetwork(nothing).eval().shapes((8, 8))[-1] == torch.Size((1, 0, 8, 8))
    large = CnnGraph.from_dict([CONV])
    assert compute_shapes(large.nodes, (8, 8), 4 * 8 * 8 - 1) is None
    assert compute_shapes(large.nodes, (8, 8), 4 * 8 * 8) is not None


def _compare(nodes: list[dict[str, Any]], size: tuple[int, int]) -> None:
    network = GraphNetwork(CnnGraph.from_dict(nodes)).eval()
    found = compute_shapes(network.graph.nodes, size, MAX_VALUES)
    try:
        run = network.run_shapes(size)
    except RuntimeError:
        run = None
    assert found == run, (nodes, size)
