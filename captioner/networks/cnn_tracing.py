"""Read the graph of a CNN out of the network that timm or torchvision built.

The network is traced, run once, and read layer by layer. A part that graphs do not know stays what
its library made of it (`library`): the smallest module that has it inside.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from captioner.networks.cnn_graph import CnnGraph, GraphNetwork
from captioner.networks.cnn_reading import PartlyUnknown, Reader
from captioner.networks.cnn_values import UnknownLayer
from captioner.networks.weights import ZerosOnly

NO_GRID = "it gives no grid of features (B, D, h, w)"
_SAME = 1e-4
"""Largest relative difference of features that is rounding and no mistake."""


def graph_network(network: nn.Module, example: Tensor, *, headless: bool = False) -> GraphNetwork:
    """The network of a CNN's graph, with the CNN's weights.

    Args:
        network: in eval mode.
        example: an input (1, 3, height, width), the two are compared with.
        headless: the network ends in a classifier: the graph ends with the last grid before it.

    Raises:
        UnknownLayer: when the network cannot be followed, has no grid, or would be another.
    """
    noise = torch.rand(example.shape, generator=torch.Generator().manual_seed(0))
    parts = _Parts()
    while True:
        try:
            return _read(network, noise.to(example.device), parts, headless)
        except _Coarser:
            continue


def _read(network: nn.Module, noise: Tensor, parts: _Parts, headless: bool) -> GraphNetwork:
    try:
        graph = _Tracer(parts).trace(network)
    except UnknownLayer as error:
        with torch.no_grad():
            if not is_grid(network(noise)):  # which is the better reason
                raise UnknownLayer(NO_GRID) from error
        raise
    run = _Recorder(fx.GraphModule(network, graph))
    try:
        with torch.no_grad():
            run.run(noise)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise UnknownLayer(str(error)) from error
    last = _last_grid(network, graph, run.found) if headless else _result(graph)
    wanted = run.found.get(last)
    if not isinstance(wanted, Tensor) or not is_grid(wanted):
        raise UnknownLayer(NO_GRID)
    reader = Reader(network, run.found, parts.has)
    try:
        nodes = reader.read(graph, last)
    except PartlyUnknown as error:
        parts.add(error.module, network.get_submodule(error.module))
        raise _Coarser from error
    with ZerosOnly():
        try:
            made = GraphNetwork(CnnGraph(tuple(nodes)), reader.of_library)
        except ValueError as error:
            raise UnknownLayer(str(error)) from error
    made.load_state_dict(network.state_dict(), strict=False, assign=True)
    made.eval()
    with torch.no_grad():
        grid = made(noise)
    if grid.shape != wanted.shape or (grid - wanted).norm() > _SAME * wanted.norm():
        raise UnknownLayer("its layers, one after the other, give other features")
    return made


def is_grid(value: Any) -> bool:
    """Whether this is a feature map (B, D, h, w) of a square image, with more than one cell."""
    known = isinstance(value, Tensor) and value.ndim == 4
    return known and value.shape[2] == value.shape[3] > 1


def _result(graph: fx.Graph) -> fx.Node:
    found: Any = next(node for node in graph.nodes if node.op == "output").args[0]
    if not isinstance(found, fx.Node):
        raise UnknownLayer("it gives no single map")
    return found


def _last_grid(network: nn.Module, graph: fx.Graph, found: dict[fx.Node, Any]) -> fx.Node:
    """The last node whose value is a grid, not yet pooled."""
    last: fx.Node | None = None
    for node in graph.nodes:
        value = found.get(node)
        # Neither VGG's pooling, which fixes the grid's size, nor SqueezeNet's convolutional
        # classifier is wanted.
        target = str(node.target)
        module = network.get_submodule(target) if node.op == "call_module" else None
        pooled = isinstance(module, nn.AdaptiveAvgPool2d)
        if is_grid(value) and not pooled and not target.startswith("classifier"):
            last = node
        elif isinstance(value, Tensor) and value.ndim == 3 and _is_sequence(node):
            last = None  # (B, N, D): what follows a vision transformer's first convolution
    if last is None:
        raise UnknownLayer(NO_GRID)
    return last


def _is_sequence(node: fx.Node) -> bool:
    return node.target is not operator.getitem  # A colour alone is (B, height, width).


# --- tracing -------------------------------------------------------------------------------


class _Coarser(Exception):
    """One more module is left to its library: trace again."""


class _Parts:
    """The modules that are not looked into, because something in them is not known."""

    def __init__(self) -> None:
        self._types: set[type[nn.Module]] = set()
        self._names: set[str] = set()

    def has(self, name: str, module: nn.Module) -> bool:
        """Whether this module is one of them."""
        return name in self._names or type(module) in self._types

    def add(self, name: str, module: nn.Module) -> None:
        """Leave it to its library, and all of its kind where that is not a mere container."""
        if type(module).__module__.startswith("torch.nn"):
            self._names.add(name)
        else:
            self._types.add(type(module))


class _Tracer(fx.Tracer):
    def __init__(self, parts: _Parts) -> None:
        super().__init__()
        self._parts = parts
        self._inside: list[str] = []

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        # timm's BatchNorm with an activation after it; all else is traced down to its leaves.
        whole = type(module).__name__ == "BatchNormAct2d" or self._parts.has(name, module)
        return whole or not list(module.children())

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        name = self.path_of_module(m)
        self._inside.append(name)
        try:
            return super().call_module(m, forward, args, kwargs)
        except _Coarser:
            raise
        except Exception as error:  # It branches on what it reads, and has many names for that.
            self._parts.add(name, m)
            raise _Coarser from error
        finally:
            self._inside.pop()

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        node.meta["inside"] = tuple(self._inside)
        return node

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        try:
            return super().trace(root, concrete_args)
        except _Coarser:
            raise
        except Exception as error:
            raise UnknownLayer(str(error)) from error


class _Recorder(fx.Interpreter):
    """Runs a traced network, and keeps what each node gives."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        found = super().run_node(n)
        # Of what layers write over, the shape is what counts.
        self.found[n] = found.clone() if isinstance(found, Tensor) else found
        return found
