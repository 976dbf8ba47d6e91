"""Turn a traced CNN into the layers of its graph, one call after another.

Where the network keeps the channels last, or cuts and regroups them, the reader follows what each
value is of the maps (B, C, h, w) that the graph has.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, fx, nn

from captioner.networks.cnn_graph import LIBRARY, Node
from captioner.networks.cnn_values import (
    Channel,
    Grouped,
    Map,
    Pieces,
    UnknownLayer,
    Weights,
    ends_of,
    not_known,
    pair,
    permuted,
    whole,
    with_channels_first,
)


class PartlyUnknown(UnknownLayer):
    """What a module does is not known; all of it can be left to its library.

    Attributes:
        module: its name.
    """

    def __init__(self, module: str, reason: str) -> None:
        super().__init__(reason)
        self.module = module


class Reader:
    """Turns what was traced into nodes; layers that do nothing vanish.

    Args:
        network: the CNN.
        found: what each node of its trace gave.
        is_part: whether a module, by name, is left to its library.

    Attributes:
        of_library: the modules by name that nodes leave to their library.
    """

    def __init__(
        self,
        network: nn.Module,
        found: Mapping[fx.Node, Any],
        is_part: Callable[[str, nn.Module], bool],
    ) -> None:
        self._network = network
        self._found = found
        self._is_part = is_part
        self._nodes: list[Node] = []
        self._known: dict[fx.Node, Any] = {}
        self.of_library: dict[str, nn.Module] = {}

    def read(self, graph: fx.Graph, last: fx.Node) -> list[Node]:
        """The nodes of what node ``last`` of the trace gives.

        Raises:
            UnknownLayer: when the network itself computes something that is not known;
                PartlyUnknown, when one of its modules does.
        """
        needed = _needed(last)
        for node in graph.nodes:
            # Sizes and the like are looked up as they are.
            if node in needed and _has_tensors(self._found[node]):
                self._known[node] = self._read_or_blame(node)
        if self._known[last] != Map(len(self._nodes)):
            raise UnknownLayer("the grid is not what the last layer gives")
        return self._nodes

    def _read_or_blame(self, node: fx.Node) -> Any:
        try:
            return self._read(node)
        except (UnknownLayer, ValueError, TypeError, KeyError) as error:
            inside = node.meta["inside"]
            inside = inside[:-1] if node.op == "call_module" else inside
            reason = f"{node.target}: {error}"
            if not inside:
                raise UnknownLayer(reason) from error
            raise PartlyUnknown(inside[-1], reason) from error

    def _read(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return Map(0)
        if node.op == "get_attr":
            return Weights(str(node.target))
        if node.op == "call_module":
            return self._module(node)
        name = node.target if node.op == "call_method" else _FUNCTIONS.get(node.target)
        if name is None:  # Some of torch's functions are one object for each call.
            name = getattr(node.target, "__name__", "")
        return self._call(str(name).rstrip("_"), node)

    def _put(self, op: str, *inputs: Map, **options: Any) -> Map:
        """Add a layer that treats channels alike, or does so to maps that have them first."""
        last = inputs[0].last
        if any(read.last != last for read in inputs):
            raise UnknownLayer("one map has its channels last, the other first")
        self._nodes.append(Node(op, tuple(read.value for read in inputs), **options))
        return Map(len(self._nodes), last)

    # --- modules ---------------------------------------------------------------------------

    def _module(self, node: fx.Node) -> Any:
        name = str(node.target)
        module = self._network.get_submodule(name)
        if not self._is_part(name, module) and len(node.args) == 1 and not node.kwargs:
            try:
                return self._layer(module, name, self._value(node.args[0]))
            except (UnknownLayer, ValueError):
                pass
        return self._of_library(module, name, node)

    def _of_library(self, module: nn.Module, name: str, node: fx.Node) -> Map:
        inputs = [with_channels_first(self._value(read)) for read in node.args]
        if node.kwargs or not inputs or self._found[node].ndim != 4:
            raise UnknownLayer(type(module).__name__)
        before, after = (self._found[each].shape[2] for each in (node.all_input_nodes[0], node))
        stride = max(1, round(before / after)) if after > 1 else 1
        self.of_library[name] = module
        return self._put(LIBRARY, *inputs, module=name, stride=(stride, stride))

    def _layer(self, module: nn.Module, name: str, read: Any) -> Any:
        kind = type(module).__name__
        if kind == "Identity" or (kind == "Sequential" and not len(module)):  # type: ignore[arg-type]
            return read
        if kind == "Permute":  # torchvision's
            dims: Any = module.dims
            return permuted(read, dims)
        if kind in _ACTIVATIONS:
            return self._put(_ACTIVATIONS[kind], read)
        if kind in _NUMBER_OF:
            op, number = _NUMBER_OF[kind]
            return self._with_number(op, read, getattr(module, number))
        if kind == "StochasticDepth" and module.mode == "row":
            return self._with_number("drop_depth", read, module.p)
        if kind == "GELU":
            tanh = getattr(module, "approximate", "none") == "tanh"
            return self._put("gelu_tanh" if tanh else "gelu", read)
        if kind in ("LayerScale", "LayerScale2d"):
            return self._scale(f"{name}.gamma", read)
        found = self._of_cells(module, kind, name, read)
        return (
            self._of_maps(module, kind, name, with_channels_first(read)) if found is None else found
        )

    def _of_cells(self, module: nn.Module, kind: str, name: str, read: Any) -> Map | None:
        """A layer that works on the channels of each cell; None where it is not such a layer."""
        if kind in ("LayerNorm", "LayerNorm2d"):
            assert isinstance(module, nn.LayerNorm)
            if read.last != (kind == "LayerNorm") or not module.elementwise_affine:
                raise UnknownLayer(kind)
            return self._put(
                "layer_norm", read, module=name, sizes=module.normalized_shape, eps=module.eps
            )
        if kind == "Linear" and read.last:
            assert isinstance(module, nn.Linear)
            sizes = (module.in_features, module.out_features)
            bias = module.bias is not None
            return self._put("linear", read, module=name, sizes=sizes, bias=bias)
        if kind == "GlobalResponseNorm" and read.last == (module.channel_dim == -1):
            sizes = tuple(module.weight.shape)  # type: ignore[arg-type]
            return self._put("response_norm", read, module=name, sizes=sizes, eps=module.eps)
        return None

    def _of_maps(self, module: nn.Module, kind: str, name: str, read: Map) -> Map:
        if kind in ("Conv2d", "Conv2dSame"):
            assert isinstance(module, nn.Conv2d)
            return self._put("conv", read, module=name, **_conv_options(module, kind))
        if kind in ("BatchNorm2d", "BatchNormAct2d"):
            assert isinstance(module, nn.BatchNorm2d)
            return self._batch_norm(module, name, read)
        if kind == "AdaptiveAvgPool2d" and module.output_size in (1, (1, 1)):
            return self._put("mean", read)
        if kind == "MaxPool2d":
            assert isinstance(module, nn.MaxPool2d)
            window = (module.kernel_size, module.stride, module.padding)
            return self._pool("max_pool", read, *window, module.ceil_mode, module.dilation)
        if kind == "AvgPool2d" and module.divisor_override is None:
            assert isinstance(module, nn.AvgPool2d)
            window = (module.kernel_size, module.stride, module.padding)
            counts = module.count_include_pad
            return self._pool("avg_pool", read, *window, module.ceil_mode, count_padding=counts)
        if kind == "Upsample" and module.mode == "nearest":
            return self._put("upsample", read, kernel=pair(whole(module.scale_factor)))
        raise UnknownLayer(kind)

    def _batch_norm(self, module: nn.BatchNorm2d, name: str, read: Map) -> Map:
        if module.running_mean is None or not module.affine or module.momentum is None:
            raise UnknownLayer("BatchNorm2d without statistics or weights")
        options = {"eps": module.eps, "momentum": module.momentum}
        value = self._put("batch_norm", read, module=name, sizes=(module.num_features,), **options)
        for part in ("drop", "act"):
            if isinstance(behind := getattr(module, part, None), nn.Module):
                value = self._layer(behind, name, value)
        return value

    def _pool(
        self,
        op: str,
        read: Map,
        kernel: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil: bool = False,
        dilation: Any = 1,
        count_padding: bool = True,
    ) -> Map:
        return self._put(
            op,
            with_channels_first(read),
            kernel=pair(kernel),
            stride=pair(kernel if stride in (None, []) else stride),
            padding=pair(padding),
            dilation=pair(dilation),
            ceil=ceil,
            count_padding=count_padding,
        )

    def _with_number(self, op: str, read: Map, number: Any) -> Map:
        """A layer with a number, unless it leaves everything as it is."""
        neutral = {"mul_number": 1.0, "leaky_relu": None}.get(op, 0.0)
        number = float(number)
        return read if number == neutral else self._put(op, read, number=number)

    def _scale(self, name: str, read: Map) -> Map:
        shape = tuple(self._network.get_parameter(name).shape)
        return self._put("scale", read, module=name, sizes=shape)

    # --- functions and methods -------------------------------------------------------------

    def _call(self, name: str, node: fx.Node) -> Any:
        given = [self._value(each) for each in node.args]
        options = {key: self._value(each) for key, each in node.kwargs.items() if key != "inplace"}
        read = given[0]
        if name in ("contiguous", "clone"):
            return read
        if name in _PLAIN and len(given) + len(options) == 1:
            return self._put(name, read)
        if name in ("add", "mul", "sub", "truediv") and not options:
            return self._arithmetic(name, *given)
        if name in ("max_pool2d", "avg_pool2d") and len(given) <= 4:
            return self._pool(name[:8], read, *given[1:], **_pool_options(options))
        if name == "dropout":
            return self._with_number("dropout", read, _option(given, options, 1, "p", 0.5))
        if name == "gelu":
            return self._put("gelu" if not options else f"gelu_{options['approximate']}", read)
        if name == "leaky_relu":
            slope = _option(given, options, 1, "negative_slope", 0.01)
            return self._with_number("leaky_relu", read, slope)
        if name == "mean" or name == "adaptive_avg_pool2d":
            return self._mean(name, given, options)
        return self._regroup(name, node, given, options)

    def _arithmetic(self, name: str, one: Any, other: Any) -> Map:
        if name in ("add", "mul") and not isinstance(one, Map):
            one, other = other, one
        if isinstance(other, int | float):
            if name == "sub":
                return self._with_number("add_number", one, -other)
            if name == "truediv":
                return self._with_number("mul_number", one, 1 / other)
            return self._with_number(f"{name}_number", one, other)
        if isinstance(other, Weights) and name == "mul":
            return self._scale(other.name, one)
        if name == "truediv" or not isinstance(one, Map) or not isinstance(other, Map):
            raise UnknownLayer(name)
        return self._put("subtract" if name == "sub" else name, one, other)

    def _mean(self, name: str, given: Sequence[Any], options: Mapping[str, Any]) -> Map:
        read = given[0]
        if name == "adaptive_avg_pool2d":
            known = _option(given, options, 1, "output_size", None) in (1, (1, 1), [1, 1])
            return self._put("mean", with_channels_first(read)) if known else not_known(name)
        cells = [(1, 2)] if read.last else [(2, 3), (-2, -1)]
        dims = tuple(_option(given, options, 1, "dim", ()))
        if dims not in cells or not _option(given, options, 2, "keepdim", False):
            raise UnknownLayer(name)
        return self._put("mean", read)

    def _regroup(
        self, name: str, node: fx.Node, given: Sequence[Any], options: Mapping[str, Any]
    ) -> Any:
        """What cuts, joins or reorders maps."""
        read = given[0]
        shape: Sequence[int] = getattr(self._found[node], "shape", ())
        if name == "cat":
            dim = _option(given, options, 1, "dim", 0)
            if dim not in ((3, -1) if read[0].last else (1,)):
                raise UnknownLayer(f"cat of dimension {dim}")
            return self._put("concatenate", *read) if len(read) > 1 else read[0]
        if name in ("split", "chunk"):
            ends = ends_of([piece.shape[1] for piece in self._found[node]])
            dim = _option(given, options, 2, "dim", 0)
            return Pieces(with_channels_first(read).value, ends) if dim == 1 else not_known(name)
        if name == "getitem":
            return self._item(read, given[1], self._found[node.args[0]])  # type: ignore[index]
        if name == "unsqueeze" and isinstance(read, Channel) and given[1:] == [1]:
            return self._channels(read.value, read.channel, read.channel + 1)
        if name == "permute":
            return permuted(read, given[1:] if len(given) > 2 else given[1])
        if isinstance(read, Weights) and name in ("reshape", "view"):
            return read
        if name in ("reshape", "view") and isinstance(read, Map) and len(shape) == 5:
            return Grouped(with_channels_first(read).value, shape[1])
        if name == "transpose" and isinstance(read, Grouped) and tuple(given[1:]) == (1, 2):
            return read._replace(swapped=not read.swapped)
        if name in ("reshape", "view") and isinstance(read, Grouped) and read.swapped:
            return self._put("shuffle", Map(read.value), sizes=(read.groups,))
        raise UnknownLayer(name)

    def _item(self, read: Any, index: Any, of: Any) -> Any:
        if isinstance(read, Pieces):
            return self._channels(read.value, *read.ends[index])
        rest = [part for place, part in enumerate(index) if place != 1]
        if any(part != slice(None) for part in rest):
            raise UnknownLayer(f"getitem {index}")
        chosen = range(of.shape[1])[index[1]]
        value = with_channels_first(read).value
        if isinstance(chosen, int):
            return Channel(value, chosen) if len(index) == 2 else not_known("getitem")
        if chosen.step != 1:
            raise UnknownLayer(f"getitem {index}")
        return self._channels(value, chosen.start, chosen.stop)

    def _channels(self, value: int, first: int, end: int) -> Map:
        return self._put("channels", Map(value), sizes=(first, end))

    def _value(self, given: Any) -> Any:
        """What an argument is: a known value of a node, and anything else as it is."""
        if isinstance(given, fx.Node):
            return self._known[given] if given in self._known else self._found[given]
        if isinstance(given, list | tuple):
            return type(given)(self._value(each) for each in given)
        return given


_PLAIN = {
    "relu",
    "relu6",
    "silu",
    "hardswish",
    "sigmoid",
    "hardsigmoid",
    "tanh",
}
_FUNCTIONS: dict[Any, str] = {
    operator.iadd: "add",
    operator.imul: "mul",
    operator.isub: "sub",
}
_ACTIVATIONS = {
    "ReLU": "relu",
    "ReLU6": "relu6",
    "SiLU": "silu",
    "Hardswish": "hardswish",
    "Sigmoid": "sigmoid",
    "Hardsigmoid": "hardsigmoid",
    "GELUTanh": "gelu_tanh",
    "Tanh": "tanh",
}
_NUMBER_OF = {
    "LeakyReLU": ("leaky_relu", "negative_slope"),
    "Dropout": ("dropout", "p"),
    "DropPath": ("drop_depth", "drop_prob"),
}


def _needed(last: fx.Node) -> set[fx.Node]:
    """The node and all that it depends on."""
    found: set[fx.Node] = set()
    waiting = [last]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.all_input_nodes
    return found


def _has_tensors(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_has_tensors, value))
    return isinstance(value, Tensor)


def _option(
    given: Sequence[Any], options: Mapping[str, Any], place: int, name: str, default: Any
) -> Any:
    """An argument that is given by its place or its name."""
    return given[place] if len(given) > place else options.get(name, default)


def _pool_options(options: Mapping[str, Any]) -> dict[str, Any]:
    names = {
        "kernel_size": "kernel",
        "stride": "stride",
        "padding": "padding",
        "ceil_mode": "ceil",
        "dilation": "dilation",
        "count_include_pad": "count_padding",
    }
    return {names[key]: value for key, value in options.items()}


def _conv_options(conv: nn.Conv2d, kind: str) -> dict[str, Any]:
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        raise UnknownLayer(f"padding {conv.padding} {conv.padding_mode}")
    return {
        "sizes": (conv.in_channels, conv.out_channels, conv.groups),
        "kernel": pair(conv.kernel_size),
        "stride": pair(conv.stride),
        "padding": None if kind == "Conv2dSame" else pair(conv.padding),
        "dilation": pair(conv.dilation),
        "bias": conv.bias is not None,
    }
