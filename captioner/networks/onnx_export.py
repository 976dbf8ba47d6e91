"""Write a CNN's graph as the model that https://onnx.ai/onnx/operators/ describes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from onnx import StringStringEntryProto, TensorProto, helper, numpy_helper
from torch import nn

from captioner.images.transform import ImageTransform
from captioner.networks.cnn_graph import GraphNetwork, Node
from captioner.networks.cnn_layers import SameConv2d
from captioner.networks.int8 import Int8
from captioner.networks.onnx_int8 import quantize

OPSET = 17
IR_VERSION = 8
"""Both of 2022: any ONNX Runtime that is in use reads them."""

_SAME_NAME = {
    "relu": "Relu",
    "hardswish": "HardSwish",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "add": "Add",
    "subtract": "Sub",
    "mul": "Mul",
    "dropout": "Identity",
    "drop_depth": "Identity",
}
Array = np.ndarray[Any, Any]

Step = tuple[str, list[str], dict[str, Any]]
"""An ONNX operator, its further inputs, its options."""

_CHANNELS_LAST: Step = ("Transpose", [], {"perm": [0, 2, 3, 1]})
_CHANNELS_FIRST: Step = ("Transpose", [], {"perm": [0, 3, 1, 2]})


def to_onnx(
    network: GraphNetwork,
    transform: ImageTransform,
    scales: bool,
    int8: Int8 | None = None,
) -> tuple[bytes, dict[str, Array]]:
    """The network as an ONNX model, serialised, and the weights that it only names.

    Weights inside the model would be copied several times on their way; those beside it can be the
    network's own memory.

    Args:
        network: in eval mode, without layers of a library.
        transform: of its images; TensorFlow's padding goes by their size.
        scales: take images as `ImageTransform.pixels` gives them, uint8 (B, 3, height, width), and
            scale their values; otherwise they are scaled already, float32.
        int8: what the network needs for int8; None computes in float32.
    """
    width, height = transform.size
    shapes = network.shapes(transform.size)
    made = _Model()
    if scales:
        made.add_scaling(transform)
    for place, node in enumerate(network.graph.nodes):
        layer = None if node.op == "scale" else network.get_submodule(node.module)
        made.add(node, layer, str(place + 1), shapes[node.inputs[0]])
    # To be made whole numbers, weights have to be in the model.
    keep = made.keep_beside if int8 is None else made.keep
    read = {name for step in made.steps for name in step.input}
    for name, tensor in network.state_dict().items():
        if name in read:
            keep(name, tensor.float().contiguous().numpy())
    kind = TensorProto.UINT8 if scales else TensorProto.FLOAT
    graph = helper.make_graph(
        made.steps,
        "cnn",
        [helper.make_tensor_value_info(made.input, kind, ["B", 3, height, width])],
        [helper.make_tensor_value_info(str(len(network.graph.nodes)), TensorProto.FLOAT, None)],
        made.constants,
    )
    if int8 is not None:
        quantize(graph, network.graph, int8)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    return model.SerializeToString(), made.beside


class _Model:
    """The parts of an ONNX model.

    Attributes:
        input: the name of its input.
        steps: its nodes, in the order they run.
        constants: weights and numbers.
        beside: the weights that `constants` only name.
    """

    def __init__(self) -> None:
        self.input = "0"
        self.steps: list[Any] = []
        self.constants: list[Any] = []
        self.beside: dict[str, Array] = {}
        self._output = ""

    def keep(self, name: str, values: Any, kind: type = np.float32) -> str:
        """Keep an array or a number; returns its name."""
        self.constants.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def keep_beside(self, name: str, values: Array) -> None:
        """Keep an array of float32 beside the model."""
        place = StringStringEntryProto(key="location", value="beside")
        self.constants.append(
            TensorProto(
                name=name,
                data_type=TensorProto.FLOAT,
                dims=values.shape,
                data_location=TensorProto.EXTERNAL,
                external_data=[place],
            )
        )
        self.beside[name] = values

    def add_scaling(self, transform: ImageTransform) -> None:
        """Add what `ImageTransform.scale` does, before all layers."""
        self.input = "pixels"
        factors, shifts = (np.reshape(each, (1, 3, 1, 1)) for each in transform.scaling)
        factor, shift = self.keep("scaling.factors", factors), self.keep("scaling.shifts", shifts)
        self.steps += [
            helper.make_node("Cast", [self.input], ["scaling.cast"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["scaling.cast", factor], ["scaling.multiplied"]),
            helper.make_node("Add", ["scaling.multiplied", shift], ["0"]),
        ]

    def add(self, node: Node, layer: nn.Module | None, output: str, shape: torch.Size) -> None:
        """Add a layer; ``shape`` is that of its first input."""
        self._output = output
        inputs = [str(read) for read in node.inputs]
        if node.op in _SAME_NAME:
            steps: list[Step] = [(_SAME_NAME[node.op], inputs[1:], {})]
        elif node.op == "concatenate":
            steps = [("Concat", inputs[1:], {"axis": 1})]
        elif node.module:
            assert layer is not None or node.op == "scale"
            steps = self._with_weights(node, layer, shape)
        elif node.op.endswith("_pool"):
            steps = [_pool(node)]
        else:
            steps = self._function(node, inputs[0], shape)
        read = inputs[0]
        for place, (op, more, options) in enumerate(steps, 1):
            gives = output if place == len(steps) else f"{output}.{place}"
            # Operators such as Resize have a second input that nobody uses, named "".
            self.steps.append(helper.make_node(op, [read, *more], [gives], **options))
            read = gives

    def _number(self, value: Any, kind: type = np.float32) -> str:
        return self.keep(f"{self._output}.constant{len(self.constants)}", value, kind)

    def _whole(self, *values: int) -> str:
        return self._number(values, np.int64)

    def _with_weights(self, node: Node, layer: nn.Module | None, shape: torch.Size) -> list[Step]:
        name = node.module
        if node.op == "conv":
            assert isinstance(layer, nn.Conv2d)
            parts = [f"{name}.{part}" for part in ("weight", "bias")][: 1 + node.bias]
            margins = layer.margins(shape[-2:]) if isinstance(layer, SameConv2d) else None
            return [("Conv", parts, {"group": node.sizes[2], **_window(node, margins)})]
        if node.op == "linear":
            assert isinstance(layer, nn.Linear)
            kernel = self._number(layer.weight.detach().float().numpy()[:, :, None, None])
            return [("Conv", [kernel, *[f"{name}.bias"][: node.bias]], {})]
        if node.op == "batch_norm":
            parts = [f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
            return [("BatchNormalization", parts, {"epsilon": node.eps})]
        if node.op == "layer_norm":
            options = {"axis": -1, "epsilon": node.eps}
            norm = ("LayerNormalization", [f"{name}.weight", f"{name}.bias"], options)
            return [_CHANNELS_LAST, norm, _CHANNELS_FIRST]
        if node.op == "scale":
            return [("Mul", [self._of_channels(name)], {})]
        assert node.op == "response_norm", node.op
        return self._response_norm(node)

    def _of_channels(self, name: str) -> str:
        """A parameter of C values as (1, C, 1, 1)."""
        made = f"{self._output}.{name}"
        self.steps.append(helper.make_node("Reshape", [name, self._whole(1, -1, 1, 1)], [made]))
        return made

    def _response_norm(self, node: Node) -> list[Step]:
        read, lengths = str(node.inputs[0]), f"{self._output}.lengths"
        means = f"{self._output}.means"
        raised = f"{self._output}.raised"
        self.steps += [
            helper.make_node("ReduceL2", [read], [lengths], axes=[2, 3], keepdims=1),
            helper.make_node("ReduceMean", [lengths], [means], axes=[1], keepdims=1),
            helper.make_node("Add", [means, self._number(node.eps)], [raised]),
        ]
        return [
            ("Mul", [lengths], {}),
            ("Div", [raised], {}),
            ("Mul", [self._of_channels(f"{node.module}.weight")], {}),
            ("Add", [self._of_channels(f"{node.module}.bias")], {}),
            ("Add", [read], {}),
        ]

    def _function(self, node: Node, read: str, shape: torch.Size) -> list[Step]:
        number, whole = self._number, self._whole
        _, channels, height, width = shape
        groups = node.sizes[0] if node.op == "shuffle" else 1
        known: dict[str, Callable[[], Sequence[Step]]] = {
            "upsample": lambda: [("Resize", ["", number([1, 1, *node.kernel])], _REPEATED)],
            "channels": lambda: [
                ("Slice", [whole(node.sizes[0]), whole(node.sizes[1]), whole(1)], {})
            ],
            "shuffle": lambda: [
                ("Reshape", [whole(-1, groups, channels // groups, height, width)], {}),
                ("Transpose", [], {"perm": [0, 2, 1, 3, 4]}),
                ("Reshape", [whole(-1, channels, height, width)], {}),
            ],
            "leaky_relu": lambda: [("LeakyRelu", [], {"alpha": node.number})],
            "add_number": lambda: [("Add", [number(node.number)], {})],
            "mul_number": lambda: [("Mul", [number(node.number)], {})],
            "mean": lambda: [("ReduceMean", [], {"axes": [2, 3], "keepdims": 1})],
            "relu6": lambda: [("Clip", [number(0), number(6)], {})],
            "hardsigmoid": lambda: [("HardSigmoid", [], {"alpha": 1 / 6, "beta": 0.5})],
            "silu": lambda: [("Sigmoid", [], {}), ("Mul", [read], {})],
            "gelu": lambda: self._gelu(read, [("Mul", [number(0.5**0.5)], {}), ("Erf", [], {})]),
            "gelu_tanh": lambda: self._gelu(
                read,
                [
                    ("Mul", [read], {}),
                    ("Mul", [number(0.044715)], {}),
                    ("Add", [number(1)], {}),
                    ("Mul", [read], {}),
                    ("Mul", [number((2 / np.pi) ** 0.5)], {}),
                    ("Tanh", [], {}),
                ],
            ),
        }
        return list(known[node.op]())

    def _gelu(self, read: str, curve: list[Step]) -> list[Step]:
        """Half the input times (1 + curve)."""
        one, half = self._number(1), self._number(0.5)
        return [*curve, ("Add", [one], {}), ("Mul", [half], {}), ("Mul", [read], {})]


_REPEATED = {
    "mode": "nearest",
    "nearest_mode": "floor",
    "coordinate_transformation_mode": "asymmetric",
}


def _pool(node: Node) -> Step:
    window = {**_window(node, None), "ceil_mode": int(node.ceil)}
    if node.op == "max_pool":
        return "MaxPool", [], window
    del window["dilations"]  # Of means, later versions have them.
    return "AveragePool", [], {**window, "count_include_pad": int(node.count_padding)}


def _window(node: Node, margins: list[int] | None) -> dict[str, Any]:
    """Of a sliding window; ``margins`` at the left, right, top and bottom."""
    rows, columns = node.padding or (0, 0)
    left, right, top, bottom = margins or (columns, columns, rows, rows)
    return {
        "kernel_shape": list(node.kernel),
        "strides": list(node.stride),
        "dilations": list(node.dilation),
        "pads": [top, left, bottom, right],
    }
