"""Make the ONNX model of a CNN compute with whole numbers of 8 bits; see `networks.int8`.

Scales stand between the layers (QuantizeLinear and DequantizeLinear), from which ONNX Runtime makes
layers of whole numbers when it loads the model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from onnx import helper, numpy_helper

from captioner.networks.cnn_graph import CnnGraph
from captioner.networks.int8 import Int8, Plan, scale_of, weight_scales


def quantize(model: Any, graph: CnnGraph, int8: Int8) -> None:
    """Change an ONNX GraphProto in place.

    Args:
        model: of :func:`captioner.networks.onnx_export.to_onnx`, in which layer n gives the value
            "n" (the first one "1").
        graph: from which it was made.
        int8: of this graph.
    """
    plan = Plan.of(graph)
    channels = [graph.nodes[place].sizes[1] for place in plan.quantized]
    parts = torch.split(int8.corrections.cpu(), channels)
    shifts = dict(zip(plan.quantized, parts, strict=True))
    rewriter = _Rewriter(model, plan, int8)
    dropped = {str(place + 1) for place in plan.clipped_by.values()}
    for node in list(model.node):
        name = node.output[0]
        place = int(name) - 1 if name.isdecimal() else -1
        if name in dropped:
            continue
        if place in shifts:
            rewriter.quantize_weights(node, shifts[place].numpy())
            place = plan.clipped_by.get(place, place)
        rewriter.add(node, place)
    rewriter.finish()


class _Rewriter:
    """The nodes and constants of a model, rewritten one after the other.

    Args:
        model: an ONNX GraphProto.
        plan: what is computed how.
        int8: the ranges of its maps.
    """

    def __init__(self, model: Any, plan: Plan, int8: Int8) -> None:
        self._model = model
        self._plan = plan
        self._ranges = list(zip(int8.low.tolist(), int8.high.tolist(), strict=True))
        self._constants = {each.name: each for each in model.initializer}
        self._nodes: list[Any] = []

    def add(self, node: Any, place: int) -> None:
        """Keep a node, which gives the map of a layer; -1: of none."""
        self._nodes.append(node)
        if place < 0:
            return
        name = node.output[0] = str(place + 1)
        if place not in self._plan.rounded:
            return
        low, high = self._ranges[place]
        scale = np.float32(scale_of(low, high))
        zero = np.uint8(round(-low / float(scale)))
        parts = [self._keep(f"{name}.scale", scale), self._keep(f"{name}.zero", zero)]
        node.output[0], whole = f"{name}.exact", f"{name}.whole"
        self._nodes += [
            helper.make_node("QuantizeLinear", [f"{name}.exact", *parts], [whole]),
            helper.make_node("DequantizeLinear", [whole, *parts], [name]),
        ]

    def quantize_weights(self, node: Any, shifts: np.ndarray[Any, Any]) -> None:
        """Give a convolution whole numbers, and add the shifts (C,) to its bias."""
        read, weight, *bias = node.input
        kernels = numpy_helper.to_array(self._constants.pop(weight))
        scales = weight_scales(torch.from_numpy(kernels.copy())).numpy()
        steps = np.rint(kernels / scales.reshape(-1, *[1] * (kernels.ndim - 1)))
        self._replace(weight, steps.astype(np.int8), scales)
        if not bias:
            node.input.append(f"{weight}.bias")
        own = numpy_helper.to_array(self._constants.pop(bias[0])) if bias else 0
        units = np.float32(scale_of(*self._ranges[int(read) - 1])) * scales
        limit = np.iinfo(np.int32).max
        whole = np.clip(np.rint((own + shifts) / units.astype(np.float64)), -limit, limit)
        self._replace(node.input[2], whole.astype(np.int32), units)

    def finish(self) -> None:
        """Put all into the model."""
        del self._model.node[:], self._model.initializer[:]
        self._model.node.extend(self._nodes)
        self._model.initializer.extend(self._constants.values())

    def _replace(
        self, name: str, whole: np.ndarray[Any, Any], scales: np.ndarray[Any, Any]
    ) -> None:
        """Keep whole numbers instead of a constant; they are scaled where it is read."""
        parts = [
            self._keep(f"{name}.whole", whole),
            self._keep(f"{name}.scale", scales),
            self._keep(f"{name}.zero", np.zeros(len(scales), whole.dtype)),
        ]
        self._nodes.append(helper.make_node("DequantizeLinear", parts, [name], axis=0))

    def _keep(self, name: str, value: Any) -> str:
        self._constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name
