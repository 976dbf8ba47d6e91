"""A CNN as the list of its layers, which training, inference and model files share.

A model file carries the list, and no library has to build the CNN then. Layers that only their
library can compute stand in it as `library`: such a CNN is trained and run like others, and its
model file needs the library.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from captioner.networks.cnn_layers import (
    FUNCTIONS,
    ChannelLinear,
    ChannelNorm,
    ResponseNorm,
    SameConv2d,
    drop_depth,
)
from captioner.networks.cnn_shapes import compute_shapes
from captioner.networks.depthwise import TiledConv2d

MAX_NODES = 2000
MAX_CHANNELS = 16384
MAX_EXTENT = 64
"""Bounds of what a file may ask for; the largest CNNs in use stay far below."""
MAX_NUMBER = 100.0
MAX_VALUES = 2**28
"""Of a map that is put together or repeated: neither needs weights that would bound it."""

LIBRARY = "library"

_NAME = re.compile(r"[A-Za-z_]\w*(\.[\w-]+)*", re.ASCII)  # torchvision has "block1-0"


class _Kind(NamedTuple):
    """What a layer has: how many inputs (None: any number), how many sizes, and whether a name."""

    inputs: int | None = 1
    sizes: tuple[int, ...] = (0,)
    named: bool = False


_KINDS = {
    "conv": _Kind(sizes=(3,), named=True),
    "batch_norm": _Kind(sizes=(1,), named=True),
    "layer_norm": _Kind(sizes=(1,), named=True),
    "response_norm": _Kind(sizes=(1,), named=True),
    "linear": _Kind(sizes=(2,), named=True),
    "scale": _Kind(sizes=(1, 3), named=True),
    LIBRARY: _Kind(inputs=None, named=True),
    "max_pool": _Kind(),
    "avg_pool": _Kind(),
    "upsample": _Kind(),
    "channels": _Kind(sizes=(2,)),
    "shuffle": _Kind(sizes=(1,)),
    "dropout": _Kind(),
    "drop_depth": _Kind(),
    "leaky_relu": _Kind(),
    "add_number": _Kind(),
    "mul_number": _Kind(),
    **dict.fromkeys(FUNCTIONS, _Kind()),
    **dict.fromkeys(("add", "subtract", "mul"), _Kind(inputs=2)),
    "concatenate": _Kind(inputs=None),
}


@dataclass(frozen=True)
class Node:
    """One layer.

    Attributes:
        op: ``conv``, ``batch_norm``, ``layer_norm``, ``response_norm``, ``linear``, ``scale`` (a
            factor for each channel), ``max_pool``, ``avg_pool``, ``upsample`` (each cell
            repeated), ``channels`` (some of them), ``shuffle`` (of their groups), ``dropout``,
            ``drop_depth``, ``leaky_relu``, ``add_number``, ``mul_number``, ``library``, or a key of
            :data:`captioner.networks.cnn_layers.FUNCTIONS`.
        inputs: what it reads: 0 is the image, n what node n - 1 gives.
        module: its name in the network, where it has weights.
        sizes: conv: input and output channels, groups; norms: channels; scale: channels, or the
            channels and two ones, as its library has it; linear: inputs and outputs; channels: the
            first and the end; shuffle: groups.
        kernel: conv and pools: (height, width), as the next three; upsample: the factors.
        stride: steps; library: by how much the map shrinks.
        padding: zeros on every side; None pads as TensorFlow's "same" does, by the input's size.
        dilation: of the kernel.
        bias: conv and linear: whether it has one.
        eps: norms: what is added to the variance.
        momentum: batch_norm: the share of a batch in the running statistics, in training.
        ceil: pools: the last window may reach over the edge.
        count_padding: avg_pool: the zeros count in the mean.
        number: dropout and drop_depth: the share left out in training; leaky_relu: the slope below
            0; add_number and mul_number: the number.

    Raises:
        ValueError: when it is not a layer that can be computed within the bounds.
    """

    op: str
    inputs: tuple[int, ...]
    module: str = ""
    sizes: tuple[int, ...] = ()
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] | None = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    bias: bool = False
    eps: float = 1e-5
    momentum: float = 0.1
    ceil: bool = False
    count_padding: bool = True
    number: float = 0.0

    def __post_init__(self) -> None:
        for name in ("inputs", "sizes", "kernel", "stride", "padding", "dilation"):
            value = getattr(self, name)
            if isinstance(value, list):  # as JSON gives them
                object.__setattr__(self, name, tuple(value))
        kind = _KINDS.get(self.op) if isinstance(self.op, str) else None
        count = len(self.inputs)
        if kind is None or (count < 1 if kind.inputs is None else count != kind.inputs):
            raise ValueError(f"layer {self.op!r} with {count} inputs is not known")
        if len(self.sizes) not in kind.sizes:
            raise ValueError(f"layer {self.module or self.op}: sizes={self.sizes}")
        if kind.named != bool(_NAME.fullmatch(self.module)):
            raise ValueError(f"layer {self.op}: module={self.module!r}")
        self._check_numbers()

    def _check_numbers(self) -> None:
        extents = (self.kernel, self.stride, self.dilation, self.padding or (0, 0))
        for minimum, values in zip((1, 1, 1, 0), extents, strict=True):
            if len(values) != 2:
                raise ValueError(f"layer {self.module or self.op}: {values} is not (height, width)")
            _check_whole(values, minimum, MAX_EXTENT)
        first = 0 if self.op == "channels" else 1
        _check_whole(self.sizes[:1], first, MAX_CHANNELS)
        _check_whole(self.sizes[1:], 1, MAX_CHANNELS)
        for name in ("bias", "ceil", "count_padding"):
            if not isinstance(value := getattr(self, name), bool):
                raise ValueError(f"layer {self.module or self.op}: {name}={value!r}")
        share = self.op in ("dropout", "drop_depth")
        for name, low, high in (
            ("eps", 0, 1),
            ("momentum", 0, 1),
            ("number", -MAX_NUMBER, 1 if share else MAX_NUMBER),
        ):
            value = getattr(self, name)
            inside = isinstance(value, float) and low <= value <= high
            if not inside or (name == "eps" and not 0 < value < 1):
                raise ValueError(f"layer {self.module or self.op}: {name}={value!r}")


def _check_whole(values: Sequence[int], minimum: int, most: int) -> None:
    for value in values:
        if type(value) is not int or not minimum <= value <= most:
            raise ValueError(f"{value!r} in a layer: expected {minimum} to {most}")


@dataclass(frozen=True)
class CnnGraph:
    """The layers in the order they run; the last one gives the grid.

    Raises:
        ValueError: when there are none or too many, one reads what comes later, or two have the
            same name.
    """

    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.nodes) <= MAX_NODES:
            raise ValueError(f"a network of {len(self.nodes)} layers (limit {MAX_NODES})")
        for place, node in enumerate(self.nodes):
            _check_whole(node.inputs, 0, place)
        names = [node.module for node in self.nodes if node.module]
        if len(set(names)) != len(names):
            raise ValueError("two layers have the same name")

    @property
    def needs_library(self) -> bool:
        """Whether a layer can only be had from the CNN's library, so that no file carries it."""
        return any(node.op == LIBRARY for node in self.nodes)

    def to_dict(self) -> list[dict[str, Any]]:
        """JSON primitives; what is as by default is left out."""
        plain = asdict(Node("add", (0, 0)))
        return [
            {key: value for key, value in asdict(node).items() if value != plain.get(key)}
            | {"op": node.op, "inputs": node.inputs}
            for node in self.nodes
        ]

    @classmethod
    def from_dict(cls, nodes: Sequence[Mapping[str, Any]]) -> CnnGraph:
        """From :meth:`to_dict`.

        Raises:
            ValueError: when a layer's kind is unknown; TypeError, when it is not a layer at all.
        """
        if len(nodes) > MAX_NODES:
            raise ValueError(f"a network of {len(nodes)} layers (limit {MAX_NODES})")
        found = cls(tuple(Node(**node) for node in nodes))
        if found.needs_library:
            raise ValueError("a file cannot have a layer that only a library computes")
        return found


class GraphNetwork(nn.Module):
    """The network of a graph; its parameters have the names that they have in its library's.

    Args:
        graph: the layers.
        of_library: those layers by name that only the library computes.
    """

    def __init__(self, graph: CnnGraph, of_library: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__()
        self.graph = graph
        self._shapes: dict[tuple[int, int], list[torch.Size]] = {}
        for node in graph.nodes:
            if node.op == LIBRARY:
                _register(self, node.module, (of_library or {})[node.module])
            elif node.module:
                _register(self, node.module, _layer(node))
        readers = Counter(read for node in graph.nodes for read in node.inputs)
        # The place of the BatchNorm that alone reads a convolution, by the convolution's place.
        self._norms_of = {
            read - 1: place
            for place, node in enumerate(graph.nodes)
            for read in node.inputs
            if node.op == "batch_norm"
            and read
            and graph.nodes[read - 1].op == "conv"
            and readers[read] == 1
        }

    @property
    def of_library(self) -> dict[str, nn.Module]:
        """The layers by name that only the library computes."""
        names = [node.module for node in self.graph.nodes if node.op == LIBRARY]
        return {name: self.get_submodule(name) for name in names}

    def parameters_of(self, node: Node) -> list[nn.Parameter]:
        """The parameters of one of the graph's layers."""
        if not node.module:
            return []
        if node.op == "scale":
            return [self.get_parameter(node.module)]
        return list(self.get_submodule(node.module).parameters())

    def forward(self, images: Tensor, start: int = 0) -> Tensor:
        """Images (B, 3, height, width), or the value ``start`` of them -> grid (B, D, h, w)."""
        for value in self.values(images, start):
            grid = value
        return grid

    def values(self, images: Tensor, start: int = 0) -> Iterator[Tensor]:
        """The images, then what each layer gives; memory that no later layer reads is freed.

        In training, where a frozen BatchNorm alone reads a convolution, the convolution computes
        both and gives what the BatchNorm does: one pass less over the map and over its gradient.

        Args:
            images: (B, 3, height, width), or what layer ``start`` gave where that is a cut.
            start: the number of layers that are left out.
        """
        nodes = self.graph.nodes
        last_use = {read: place for place, node in enumerate(nodes) for read in node.inputs}
        known = {start: images}
        norms = self._frozen_norms(start)
        done = {nodes[norm].inputs[0]: norm for norm in norms.values()}
        yield images
        for place, node in enumerate(nodes[start:], start):
            inputs = [known[read] for read in node.inputs]
            if place in norms:
                conv = self.get_submodule(node.module)
                known[place + 1] = conv(*inputs, self.get_submodule(nodes[norms[place]].module))
            elif done.get(node.inputs[0]) == place:
                known[place + 1] = inputs[0]
            else:
                known[place + 1] = self.run(node, inputs)
            for read in set(node.inputs):
                if last_use[read] == place:
                    del known[read]
            yield known[place + 1]

    def shapes(self, size: tuple[int, int]) -> list[torch.Size]:
        """Of an image of ``size``, (width, height), and of what each layer gives for it.

        In eval mode, on the CPU. A blank image is run where its shapes cannot be computed; that
        takes as long as to encode one, and so is done once.
        """
        if size not in self._shapes:
            assert not self.training, "layers in training mode change their statistics"
            computed = compute_shapes(self.graph.nodes, size, MAX_VALUES)
            self._shapes[size] = computed or self.run_shapes(size)
        return self._shapes[size]

    @torch.no_grad()
    def run_shapes(self, size: tuple[int, int]) -> list[torch.Size]:
        """What :meth:`shapes` says, of a blank image that is run."""
        return [value.shape for value in self.values(torch.zeros(1, 3, *reversed(size)))]

    def take_shapes(self, network: GraphNetwork, values: Sequence[int]) -> None:
        """Take over the shapes that are known of a network that computes the same.

        Args:
            network: the other one.
            values: what each of its values is here, from its images on.
        """
        for size, shapes in network._shapes.items():
            here = dict(zip(values, shapes, strict=True))
            self._shapes[size] = [here[number] for number in range(len(here))]

    def _frozen_norms(self, start: int) -> dict[int, int]:
        """Places of convolutions from ``start`` on, and those of BatchNorms computed with them."""
        if not self.training:  # inference folds them once and for all: `fast_encoder`
            return {}
        return {
            conv: place
            for conv, place in self._norms_of.items()
            if conv >= start and _is_frozen(self.get_submodule(self.graph.nodes[place].module))
        }

    def run(self, node: Node, inputs: list[Tensor]) -> Tensor:
        """What one of the graph's layers gives."""
        if node.op in ("concatenate", "upsample"):
            values = sum(map(Tensor.numel, inputs)) * node.kernel[0] * node.kernel[1]
            if values > MAX_VALUES * len(inputs[0]):
                raise ValueError(f"layer {node.op}: a map of {values} values")
        if node.op == "scale":
            return inputs[0] * self.get_parameter(node.module).view(-1, 1, 1)
        if node.module:
            found: Tensor = self.get_submodule(node.module)(*inputs)
            return found
        if node.op in FUNCTIONS:
            return FUNCTIONS[node.op](*inputs)
        if node.op.endswith("_pool"):
            return _pool(node, inputs[0])
        return _with_numbers(node, inputs[0], self.training)


def _is_frozen(norm: nn.Module) -> bool:
    return not norm.training and not any(each.requires_grad for each in norm.parameters())


def _pool(node: Node, maps: Tensor) -> Tensor:
    window = (node.kernel, node.stride, node.padding or 0)
    if node.op == "max_pool":
        return functional.max_pool2d(maps, *window, node.dilation, node.ceil)
    return functional.avg_pool2d(maps, *window, node.ceil, node.count_padding)


def _with_numbers(node: Node, maps: Tensor, training: bool) -> Tensor:
    match node.op:
        case "channels":
            return maps[:, node.sizes[0] : node.sizes[1]]
        case "shuffle":
            return functional.channel_shuffle(maps, node.sizes[0])
        case "upsample":
            scale = tuple(map(float, node.kernel))
            return functional.interpolate(maps, scale_factor=scale, mode="nearest")
        case "dropout":
            return functional.dropout(maps, node.number, training)
        case "drop_depth":
            return drop_depth(maps, node.number, training)
        case "leaky_relu":
            return functional.leaky_relu(maps, node.number)
        case "add_number":
            return maps + node.number
        case "mul_number":
            return maps * node.number
    raise AssertionError(node.op)


def _register(root: nn.Module, name: str, layer: nn.Module | nn.Parameter) -> None:
    *path, last = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    if isinstance(layer, nn.Parameter):
        root.register_parameter(last, layer)
    else:
        root.add_module(last, layer)


def _layer(node: Node) -> nn.Module | nn.Parameter:
    match node.op:
        case "batch_norm":
            return nn.BatchNorm2d(node.sizes[0], node.eps, node.momentum)
        case "layer_norm":
            return ChannelNorm(node.sizes[0], node.eps)
        case "response_norm":
            return ResponseNorm(node.sizes[0], node.eps)
        case "linear":
            inputs, outputs = node.sizes
            return ChannelLinear(inputs, outputs, bias=node.bias)
        case "scale":
            return nn.Parameter(torch.ones(node.sizes))
    made = SameConv2d if node.padding is None else TiledConv2d
    inputs, outputs, groups = node.sizes
    return made(
        inputs,
        outputs,
        node.kernel,
        node.stride,
        node.padding or 0,
        node.dilation,
        groups,
        bias=node.bias,
    )
