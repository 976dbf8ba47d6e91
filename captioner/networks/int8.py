"""What a CNN needs to run its convolutions in int8, on whole numbers of 8 bits.

(Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-
Only Inference", section 2.) Weights are signed and have a scale for each output channel; the maps
between the layers are unsigned, and the scale of each follows from its range. What rounding adds
to a channel on average is subtracted again (Nagel et al. 2019, "Data-Free Quantization Through
Weight Equalization and Bias Correction", section 4.2). The first five convolutions stay in float32:
they cost little, and what they lose all others miss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from captioner.errors import damaged
from captioner.networks.cnn_graph import CnnGraph, GraphNetwork, Node
from captioner.networks.measured import Measured

IMAGES = 64
"""Images that are enough to measure ranges on."""

FLOAT_LAYERS = 5
"""Convolutions at the beginning that stay in float32."""

WEIGHT_LIMIT = 127
"""Of the whole numbers that stand for weights."""

STEPS = 255
"""Of the whole numbers that stand for the values of a map: 0 to 255."""

_SHARE = 0.99999
"""Of a map's values that lie below its upper end, and of those that lie above its lower end: what
is further out is cut off, so that all others have finer steps."""

_SAMPLES = 4096
"""Values of each map that are drawn from each image."""

_CHUNK = 16
"""Images whose maps are in memory at once."""


@dataclass(frozen=True)
class Plan:
    """What of a graph is computed how; layers are numbered from 0.

    Attributes:
        quantized: convolutions of whole numbers, in their order.
        rounded: layers whose maps are rounded to whole numbers.
        clipped_by: the ReLU or ReLU6 after a convolution of whole numbers, where nothing else
            reads that one: the range of its map does the same.
    """

    quantized: tuple[int, ...]
    rounded: frozenset[int]
    clipped_by: Mapping[int, int]

    @classmethod
    def of(cls, graph: CnnGraph) -> Plan:
        """For an inference graph."""
        nodes = graph.nodes
        convolutions = [place for place, node in enumerate(nodes) if node.op in ("conv", "linear")]
        # Those that read the image itself stay as well: it has no range.
        quantized = tuple(
            place for place in convolutions[FLOAT_LAYERS:] if nodes[place].inputs[0] > 0
        )
        readers = Counter(read for node in nodes for read in node.inputs)
        clipped_by = {
            node.inputs[0] - 1: place
            for place, node in enumerate(nodes)
            if node.op in ("relu", "relu6")
            and node.inputs[0] - 1 in quantized
            and readers[node.inputs[0]] == 1
        }
        read = {nodes[place].inputs[0] - 1 for place in quantized}
        sums = {place for place, node in enumerate(nodes) if node.op == "add"}
        given = {clipped_by.get(place, place) for place in quantized}
        return cls(quantized, frozenset(read | sums | given), clipped_by)


class Int8(Measured):
    """The ranges of a CNN's maps, and what is added to its channels; a model file keeps it.

    Args:
        low: (L,) the lower end of each layer's map, at most 0.
        high: (L,) the upper end, at least 0.
        corrections: what is added to the channels of all convolutions of whole numbers, one
            behind the other.

    Raises:
        CaptionerError: when a tensor has an impossible shape or value.
    """

    part = "int8"

    low: Tensor
    high: Tensor
    corrections: Tensor

    def __init__(self, low: Tensor, high: Tensor, corrections: Tensor) -> None:
        super().__init__()
        if low.ndim != 1 or low.shape != high.shape or corrections.ndim != 1:
            raise _damaged(f"ranges {tuple(low.shape)} and {tuple(high.shape)} do not fit")
        if not all(part.isfinite().all() for part in (low, high, corrections)):
            raise _damaged("a value is not finite")
        if (low > 0).any() or (high < 0).any():
            raise _damaged("0 lies outside of a range")
        self.register_buffer("low", low.to(torch.float32))
        self.register_buffer("high", high.to(torch.float32))
        self.register_buffer("corrections", corrections.to(torch.float32))

    @classmethod
    @torch.no_grad()
    def measure(cls, network: GraphNetwork, images: Sequence[Tensor]) -> Int8:
        """Measure the maps of some images.

        Args:
            network: without BatchNorm, in eval mode.
            images: each (1, 3, height, width), scaled.
        """
        low, high = _ranges(network, images)
        plan = Plan.of(network.graph)
        shifts = [
            torch.cat([torch.zeros(0), *_shifts(network, torch.cat([*chunk]), plan, low, high)])
            for chunk in (images[n : n + _CHUNK] for n in range(0, len(images), _CHUNK))
        ]
        return cls(low, high, torch.stack(shifts).mean(dim=0))

    def check_fits(self, graph: CnnGraph) -> None:
        """Compare it with the inference graph of the CNN that it is to be of.

        Raises:
            CaptionerError: when it is of another one.
        """
        channels = sum(graph.nodes[place].sizes[1] for place in Plan.of(graph).quantized)
        if (len(self.low), len(self.corrections)) != (len(graph.nodes), channels):
            raise _damaged(
                f"it is of {len(self.low)} layers and {len(self.corrections)} channels, the CNN "
                f"has {len(graph.nodes)} and {channels}"
            )


def scale_of(low: float, high: float) -> float:
    """What one step of a map's whole numbers is worth."""
    return max(high - low, 1e-6) / STEPS


def _ranges(network: GraphNetwork, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    drawn: list[list[Tensor]] = [[] for _ in network.graph.nodes]
    random = torch.Generator().manual_seed(0)
    for image in images:
        values = network.values(image)
        next(values)  # the image itself
        for parts, given in zip(drawn, values, strict=True):
            flat = given.flatten().float().cpu()
            parts.append(flat[torch.randint(len(flat), (_SAMPLES,), generator=random)])
    ordered = [torch.cat(parts).sort().values for parts in drawn]
    last = round(_SHARE * (len(ordered[0]) - 1))
    low = torch.stack([values[len(values) - 1 - last] for values in ordered]).clamp(max=0)
    return low, torch.stack([values[last] for values in ordered]).clamp(min=0)


def _shifts(
    network: GraphNetwork, images: Tensor, plan: Plan, low: Tensor, high: Tensor
) -> list[Tensor]:
    """By how much the channels of each convolution of whole numbers are too low on average.

    One after the other: each reads maps that are corrected already.
    """
    nodes = network.graph.nodes
    last_use = {read: place for place, node in enumerate(nodes) for read in node.inputs}
    exact, whole = {0: images}, {0: images}
    shifts = []
    for place, node in enumerate(nodes):
        wanted = network.run(node, [exact[read] for read in node.inputs])
        inputs = [whole[read] for read in node.inputs]
        if place in plan.quantized:
            found = _run_rounded(network, node, inputs)
            shifts.append((wanted - found).mean(dim=(0, 2, 3)))
            found = found + shifts[-1][:, None, None]
        else:
            found = network.run(node, inputs)
        if place in plan.rounded:
            found = _rounded(found, low[place].item(), high[place].item())
        exact[place + 1], whole[place + 1] = wanted, found
        for read in set(node.inputs):
            if last_use[read] == place:
                del exact[read], whole[read]
    return [shift.cpu() for shift in shifts]


def _run_rounded(network: GraphNetwork, node: Node, inputs: list[Tensor]) -> Tensor:
    """A convolution with the weights that its whole numbers stand for."""
    weight = network.get_submodule(node.module).get_parameter("weight")
    kept = weight.detach().clone()
    scales = weight_scales(kept).view(-1, *[1] * (kept.ndim - 1))
    try:
        weight.copy_((kept / scales).round() * scales)
        return network.run(node, inputs)
    finally:
        weight.copy_(kept)


def weight_scales(weight: Tensor, limit: int = WEIGHT_LIMIT) -> Tensor:
    """What one step of a layer's whole numbers, up to a limit, is worth for each output (C,)."""
    return weight.abs().flatten(1).amax(dim=1).clamp_min(1e-12) / limit


def _rounded(values: Tensor, low: float, high: float) -> Tensor:
    scale = scale_of(low, high)
    zero = round(-low / scale)
    return ((values / scale).round().add(zero).clamp(0, STEPS) - zero) * scale


_damaged = partial(damaged, Int8.part)
