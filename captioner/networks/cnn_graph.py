"""A CNN as the list of its layers: a model file carries it, and no library has to build it.

Covers networks made of convolutions, BatchNorm, the usual activations, max pooling, residual sums
and squeeze-and-excitation, such as EfficientNet, MobileNet and ResNet. Others have no graph and are
built by their library.
"""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from captioner.networks.depthwise import TiledConv2d
from captioner.networks.weights import ZerosOnly

MAX_NODES = 2000
MAX_CHANNELS = 16384
MAX_EXTENT = 64
"""Bounds of what a file may ask for; the largest CNNs in use stay far below."""

_NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)*", re.ASCII)
_SAME = 1e-4
"""Largest relative difference of features that is rounding and no mistake."""


@dataclass(frozen=True)
class Node:
    """One layer.

    Attributes:
        op: ``conv``, ``batch_norm``, ``max_pool`` or a key of :data:`FUNCTIONS`.
        inputs: what it reads: 0 is the picture, n what node n - 1 gives.
        module: its name in the network, where it has weights.
        sizes: conv: input and output channels, groups; batch_norm: channels.
        kernel: conv and max_pool: (height, width), as the next three.
        stride: steps.
        padding: zeros on every side; None pads as TensorFlow's "same" does, by the input's size.
        dilation: of the kernel.
        bias: conv: whether it has one.
        eps: batch_norm: what is added to the variance.
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

    def __post_init__(self) -> None:
        for name in ("inputs", "sizes", "kernel", "stride", "padding", "dilation"):
            value = getattr(self, name)
            if isinstance(value, list):  # as JSON gives them
                object.__setattr__(self, name, tuple(value))
        if self.op not in _ARITY or len(self.inputs) != _ARITY[self.op]:
            raise ValueError(f"layer {self.op!r} with {len(self.inputs)} inputs is not known")
        if len(self.sizes) != {"conv": 3, "batch_norm": 1}.get(self.op, 0):
            raise ValueError(f"layer {self.module or self.op}: sizes={self.sizes}")
        if bool(self.sizes) != bool(_NAME.fullmatch(self.module)):
            raise ValueError(f"layer {self.op}: module={self.module!r}")
        extents = (self.kernel, self.stride, self.dilation, self.padding or (0, 0))
        for least, values in zip((1, 1, 1, 0), extents, strict=True):
            if len(values) != 2:
                raise ValueError(f"layer {self.module or self.op}: {values} is not (height, width)")
            _check_whole(values, least, MAX_EXTENT)
        _check_whole(self.sizes, 1, MAX_CHANNELS)
        if not isinstance(self.eps, float) or not 0 < self.eps < 1:
            raise ValueError(f"layer {self.module}: eps={self.eps!r}")


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "silu": functional.silu,
    "hardswish": functional.hardswish,
    "sigmoid": torch.sigmoid,
    "hardsigmoid": functional.hardsigmoid,
    "mean": lambda grid: grid.mean((2, 3), keepdim=True),
    "add": torch.add,
    "mul": torch.mul,
}
"""Layers without weights or sizes; ``mean`` is that of a map's cells, (B, C, 1, 1)."""

_ARITY = {"conv": 1, "batch_norm": 1, "max_pool": 1, **dict.fromkeys(FUNCTIONS, 1)}
_ARITY |= {"add": 2, "mul": 2}


def _check_whole(values: Sequence[int], least: int, most: int) -> None:
    for value in values:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"{value!r} in a layer: a whole number from {least} to {most} is due")


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
            ValueError: when a layer is not one of ours; TypeError, when it is no layer at all.
        """
        if len(nodes) > MAX_NODES:
            raise ValueError(f"a network of {len(nodes)} layers (limit {MAX_NODES})")
        return cls(tuple(Node(**node) for node in nodes))


class GraphNetwork(nn.Module):
    """The network of a graph; its parameters have the names that they have in its library's.

    Args:
        graph: the layers.
    """

    def __init__(self, graph: CnnGraph) -> None:
        super().__init__()
        self.graph = graph
        for node in graph.nodes:
            if node.module:
                _register(self, node.module, _layer(node))

    def forward(self, images: Tensor, start: int = 0) -> Tensor:
        """Images (B, 3, height, width), or the value ``start`` of them -> grid (B, D, h, w)."""
        for value in self.values(images, start):
            grid = value
        return grid

    def values(self, images: Tensor, start: int = 0) -> Iterator[Tensor]:
        """The images, then what each layer gives; memory that no later layer reads is freed.

        Args:
            images: (B, 3, height, width), or what layer ``start`` gave where that is a cut.
            start: the number of layers that are left out.
        """
        nodes = self.graph.nodes
        last_use = {read: place for place, node in enumerate(nodes) for read in node.inputs}
        known = {start: images}
        yield images
        for place, node in enumerate(nodes[start:], start):
            known[place + 1] = self._run(node, [known[read] for read in node.inputs])
            for read in set(node.inputs):
                if last_use[read] == place:
                    del known[read]
            yield known[place + 1]

    def _run(self, node: Node, inputs: list[Any]) -> Tensor:
        if node.module:
            found: Tensor = self.get_submodule(node.module)(inputs[0])
            return found
        if node.op == "max_pool":
            return functional.max_pool2d(
                inputs[0], node.kernel, node.stride, node.padding or 0, node.dilation
            )
        return FUNCTIONS[node.op](*inputs)


class SameConv2d(TiledConv2d):
    """A convolution padded as TensorFlow's "same": ceil(input / stride) outputs, the odd zero last.

    (https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2)
    """

    def forward(self, images: Tensor) -> Tensor:
        """Pad by the size of the input (B, C, height, width), and convolve."""
        return super().forward(functional.pad(images, self.margins(images.shape[-2:])))

    def margins(self, size: Sequence[int]) -> list[int]:
        """Zeros at the left, right, top and bottom of an input (height, width)."""
        found: list[int] = []
        steps = zip(size, self.kernel_size, self.stride, self.dilation, strict=True)
        for length, kernel, stride, dilation in steps:
            outputs = -(-length // stride)
            missing = max(0, (outputs - 1) * stride + (kernel - 1) * dilation + 1 - length)
            found = [missing // 2, missing - missing // 2, *found]
        return found


def _register(root: nn.Module, name: str, layer: nn.Module) -> None:
    *path, last = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(last, layer)


def _layer(node: Node) -> nn.Module:
    if node.op == "batch_norm":
        return nn.BatchNorm2d(node.sizes[0], eps=node.eps)
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


# --- a network in two parts ----------------------------------------------------------------


def last_cut(network: GraphNetwork, example: Tensor) -> int:
    """How many layers can run once and for all because no parameter up to there is trained.

    Among the places where everything behind reads nothing from before but one map, the last whose
    map is at most twice the smallest: little is kept, and little is run again.

    Args:
        network: some of its parameters may be trained.
        example: an input (1, 3, height, width).
    """
    nodes = network.graph.nodes
    trained = [
        place
        for place, node in enumerate(nodes)
        if node.module
        and any(each.requires_grad for each in network.get_submodule(node.module).parameters())
    ]
    with torch.no_grad():
        sizes = [value.numel() for value in network.values(example)]
    # The first value that anything behind value n reads, n itself left out.
    reads = [min(node.inputs) for node in nodes]
    cuts = [
        n for n in range(min(trained, default=len(nodes)) + 1) if min(reads[n:], default=n) >= n
    ]
    smallest = min(sizes[n] for n in cuts)
    return max(n for n in cuts if sizes[n] <= 2 * smallest)


def first_layers(network: GraphNetwork, count: int) -> GraphNetwork:
    """The network's first layers as a network, with the same weights."""
    with ZerosOnly():
        made = GraphNetwork(CnnGraph(network.graph.nodes[:count]))
    state = network.state_dict()
    made.load_state_dict({name: state[name] for name in made.state_dict()}, assign=True)
    return made.requires_grad_(False).eval()


# --- inference -----------------------------------------------------------------------------


def without_batch_norm(network: GraphNetwork) -> GraphNetwork:
    """A copy whose BatchNorms are part of the convolutions before them (Jacob et al. 2018, 3.2).

    A BatchNorm that does not read a convolution, or not alone, stays.
    """
    readers = Counter(read for node in network.graph.nodes for read in node.inputs)
    values = [0]  # what each value of the network is in the copy
    nodes: list[Node] = []
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for node in network.graph.nodes:
        inputs = tuple(values[read] for read in node.inputs)
        before = nodes[inputs[0] - 1] if inputs[0] else node
        if node.op == "batch_norm" and before.op == "conv" and readers[node.inputs[0]] == 1:
            nodes[inputs[0] - 1] = replace(before, bias=True)
            _fold(state, before.module, node)
            values.append(inputs[0])
        else:
            nodes.append(replace(node, inputs=inputs))
            values.append(len(nodes))
    with ZerosOnly():
        folded = GraphNetwork(CnnGraph(tuple(nodes)))
    folded.load_state_dict(state, assign=True)
    return folded.requires_grad_(False).eval()


def _fold(state: dict[str, Tensor], conv: str, norm: Node) -> None:
    parts = ("running_mean", "running_var", "weight", "bias", "num_batches_tracked")
    mean, variance, scale, bias, _ = (state.pop(f"{norm.module}.{part}") for part in parts)
    state[f"{conv}.weight"], state[f"{conv}.bias"] = fuse_conv_bn_weights(
        state[f"{conv}.weight"], state.get(f"{conv}.bias"), mean, variance, norm.eps, scale, bias
    )


# --- reading a network ---------------------------------------------------------------------


def graph_of(network: nn.Module, example: Tensor) -> CnnGraph | None:
    """The graph of a CNN, or None where it has layers that graphs do not know.

    Args:
        network: in eval mode.
        example: an input (1, 3, height, width), with which the two are compared.
    """
    if isinstance(network, GraphNetwork):
        return network.graph
    try:
        traced = _Tracer().trace(network)
        graph = CnnGraph(tuple(_Reader(network).read(traced)))
    except (_Unknown, ValueError, TypeError, fx.proxy.TraceError):
        return None
    try:
        same = as_graph(network, graph)
        noise = torch.rand(example.shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            grid, wanted = (each(noise.to(example.device)) for each in (same, network))
    except RuntimeError:
        return None
    wanted = wanted["grid"] if isinstance(wanted, dict) else wanted
    close = grid.shape == wanted.shape and (grid - wanted).norm() <= _SAME * wanted.norm()
    return graph if close else None


def as_graph(network: nn.Module, graph: CnnGraph) -> GraphNetwork:
    """The same network, with the same weights, as its graph runs it."""
    if isinstance(network, GraphNetwork):
        return network
    with ZerosOnly():
        made = GraphNetwork(graph)
    made.load_state_dict(network.state_dict(), strict=False, assign=True)
    return made.eval()


class _Unknown(Exception):
    """A layer that graphs do not know."""


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        # timm's BatchNorm with an activation behind it; all else is traced down to its leaves.
        return type(module).__name__ == "BatchNormAct2d" or not list(module.children())


class _Reader:
    """Turns what was traced into nodes; layers that do nothing vanish."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._nodes: list[Node] = []
        self._value_of: dict[fx.Node, int] = {}

    def read(self, traced: fx.Graph) -> list[Node]:
        for node in traced.nodes:
            if node.op == "placeholder":
                self._value_of[node] = 0
            elif node.op == "call_module":
                self._value_of[node] = self._module(node)
            elif node.op == "call_function" and node.target in _OPERATORS:
                self._value_of[node] = self._put(Node(_OPERATORS[node.target], self._inputs(node)))
            elif node.op == "call_method" and _is_mean(node):
                self._value_of[node] = self._put(Node("mean", (self._value_of[node.args[0]],)))
            elif node.op == "output":
                result: Any = node.args[0]
                result = result.get("grid") if isinstance(result, dict) else result
                if self._value_of.get(result) != len(self._nodes):
                    raise _Unknown("the grid is not what the last layer gives")
            else:
                raise _Unknown(str(node.target))
        return self._nodes

    def _inputs(self, node: fx.Node) -> tuple[int, ...]:
        if node.kwargs or not all(isinstance(read, fx.Node) for read in node.args):
            raise _Unknown(str(node.target))
        return tuple(self._value_of[read] for read in node.args if isinstance(read, fx.Node))

    def _put(self, node: Node) -> int:
        self._nodes.append(node)
        return len(self._nodes)

    def _module(self, node: fx.Node) -> int:
        name = str(node.target)
        return self._layer(self._network.get_submodule(name), name, self._inputs(node))

    def _layer(self, module: nn.Module, name: str, inputs: tuple[int, ...]) -> int:
        kind = type(module).__name__
        if kind == "Identity":
            return inputs[0]
        if kind in ("Conv2d", "Conv2dSame"):
            assert isinstance(module, nn.Conv2d)
            return self._put(_conv_node(module, name, inputs))
        if kind in ("BatchNorm2d", "BatchNormAct2d"):
            assert isinstance(module, nn.BatchNorm2d)
            if module.running_mean is None or not module.affine:
                raise _Unknown(name)
            value = self._put(
                Node("batch_norm", inputs, name, (module.num_features,), eps=module.eps)
            )
            for part in ("drop", "act"):
                if isinstance(behind := getattr(module, part, None), nn.Module):
                    value = self._layer(behind, name, (value,))
            return value
        if kind in _ACTIVATIONS:
            return self._put(Node(_ACTIVATIONS[kind], inputs))
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
            return self._put(Node("mean", inputs))
        if isinstance(module, nn.MaxPool2d) and not module.ceil_mode:
            window = (module.kernel_size, module.stride, module.padding, module.dilation)
            kernel, stride, padding, dilation = map(_pair, window)
            return self._put(Node("max_pool", inputs, "", (), kernel, stride, padding, dilation))
        raise _Unknown(f"{name}: {kind}")


_OPERATORS: dict[Any, str] = {
    operator.add: "add",
    operator.iadd: "add",
    torch.add: "add",
    operator.mul: "mul",
    operator.imul: "mul",
    torch.mul: "mul",
}
_ACTIVATIONS = {
    "ReLU": "relu",
    "ReLU6": "relu6",
    "SiLU": "silu",
    "Hardswish": "hardswish",
    "Sigmoid": "sigmoid",
    "Hardsigmoid": "hardsigmoid",
}


def _is_mean(node: fx.Node) -> bool:
    known = node.target == "mean" and node.args[1:] == ((2, 3),)
    return known and dict(node.kwargs) == {"keepdim": True}


def _conv_node(conv: nn.Conv2d, name: str, inputs: tuple[int, ...]) -> Node:
    same = type(conv).__name__ == "Conv2dSame"
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        raise _Unknown(name)
    return Node(
        "conv",
        inputs,
        name,
        (conv.in_channels, conv.out_channels, conv.groups),
        _pair(conv.kernel_size),
        _pair(conv.stride),
        None if same else _pair(conv.padding),
        _pair(conv.dilation),
        bias=conv.bias is not None,
    )


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
