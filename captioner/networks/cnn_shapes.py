"""The shapes of a CNN's maps, by arithmetic: a run on a blank image takes a tenth of a second."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import torch

from captioner.networks.cnn_layers import FUNCTIONS

if TYPE_CHECKING:
    from captioner.networks.cnn_graph import Node

Shape = tuple[int, int, int]
"""(channels, height, width)."""

_OF_CHANNELS = ("batch_norm", "layer_norm", "response_norm", "scale")
_ALIKE = ("dropout", "drop_depth", "leaky_relu", "add_number", "mul_number")


def compute_shapes(
    nodes: Sequence[Node], size: tuple[int, int], max_values: int
) -> list[torch.Size] | None:
    """What `GraphNetwork.shapes` says, or None where only a run can tell, or fails.

    Args:
        nodes: the layers.
        size: (width, height) of the image.
        max_values: of a map; of a larger one only a run can tell.
    """
    width, height = size
    shapes: list[Shape] = [(3, height, width)]
    for node in nodes:
        inputs = [shapes[read] for read in node.inputs]
        shape = _shape(node, inputs)
        if shape is None or min(shape) < 1 or prod(shape) > max_values:
            return None
        shapes.append(shape)
    return [torch.Size((1, *shape)) for shape in shapes]


def _shape(node: Node, inputs: list[Shape]) -> Shape | None:
    first = inputs[0]
    channels, height, width = first
    if node.op in ("add", "subtract", "mul"):
        return _broadcast(first, inputs[1])
    match node.op:
        case "conv" | "linear":
            return _convolved(node, first)
        case "max_pool" | "avg_pool":
            return _pooled(node, first)
        case "mean":
            return channels, 1, 1
        case "concatenate":
            # With a kernel, a run refuses fewer values.
            fit = node.kernel == (1, 1) and all(each[1:] == first[1:] for each in inputs)
            return (sum(each[0] for each in inputs), height, width) if fit else None
        case "upsample":
            return channels, height * node.kernel[0], width * node.kernel[1]
        case "channels":
            return len(range(channels)[slice(*node.sizes)]), height, width
        case "shuffle":
            return first if channels % node.sizes[0] == 0 else None
    if node.op in _OF_CHANNELS:
        return first if node.sizes[0] == channels else None
    return first if node.op in FUNCTIONS or node.op in _ALIKE else None


def _broadcast(one: Shape, other: Shape) -> Shape | None:
    if any(a != b and 1 not in (a, b) for a, b in zip(one, other, strict=True)):
        return None
    channels, height, width = map(max, one, other)
    return channels, height, width


def _convolved(node: Node, shape: Shape) -> Shape | None:
    channels, *sides = shape
    if channels != node.sizes[0]:
        return None
    if node.op == "linear":
        return node.sizes[1], *shape[1:]
    if node.padding is None:
        height, width = (-(-side // step) for side, step in zip(sides, node.stride, strict=True))
    else:
        windows = zip(sides, node.kernel, node.stride, node.padding, node.dilation, strict=True)
        height, width = (_windows(*each, may_reach_over=False) for each in windows)
    return node.sizes[1], height, width


def _pooled(node: Node, shape: Shape) -> Shape | None:
    channels, *sides = shape
    padding = node.padding or (0, 0)
    if any(2 * zeros > length for zeros, length in zip(padding, node.kernel, strict=True)):
        return None
    dilation = node.dilation if node.op == "max_pool" else (1, 1)
    windows = zip(sides, node.kernel, node.stride, padding, dilation, strict=True)
    height, width = (_windows(*each, may_reach_over=node.ceil) for each in windows)
    return channels, height, width


def _windows(
    length: int, kernel: int, step: int, zeros: int, dilation: int, *, may_reach_over: bool
) -> int:
    """How many windows fit into a side; less than 1 if none does."""
    room = length + 2 * zeros - dilation * (kernel - 1) - 1
    if not may_reach_over:
        return room // step + 1
    count = -(-room // step) + 1
    # The last window begins inside the map or the zeros before it.
    return count - ((count - 1) * step >= length + zeros)
