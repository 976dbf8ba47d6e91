"""Products with whole numbers of 8 bits, in ONNX Runtime."""

from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from captioner.networks.int8 import weight_scales
from captioner.networks.onnx_runtime import open_session

LARGEST, MIDDLE = 127, 128
"""The input 1 is so many steps above the byte that stands for 0."""

LARGEST_WEIGHT = 64
"""Whole number that stands for an output's largest weight. A processor without VNNI keeps the sum
of two products in 16 bits: with this, 2 * 255 * 64, none overflows."""

_TINY = 1e-30
"""Stands for the largest number where all are 0."""


class Int8Product:
    """``rows @ weight.T + bias``, nearly.

    Numbers are rounded to whole ones, weights with a scale for each output; their sums are exact.

    Args:
        weight: (M, D) float32.
        bias: (M,) float32, None for zeros.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        scale = weight_scales(weight, LARGEST_WEIGHT)
        whole = (weight / scale[:, None]).round().to(torch.int8)
        constants = {
            "weight": whole.T.contiguous(),
            "scale": scale,
            "middle": torch.tensor(MIDDLE, dtype=torch.uint8),
        }
        inputs = ["bytes", "weight", "step", "scale", "middle"]
        if bias is not None:
            constants["bias"] = bias
            inputs += ["", "bias"]
        graph = helper.make_graph(
            [
                helper.make_node("QuantizeLinear", ["rows", "step", "middle"], ["bytes"]),
                helper.make_node(
                    "MatMulIntegerToFloat", inputs, ["product"], domain="com.microsoft"
                ),
            ],
            "product",
            [
                helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["N", weight.shape[1]]),
                helper.make_tensor_value_info("step", TensorProto.FLOAT, []),
            ],
            [helper.make_tensor_value_info("product", TensorProto.FLOAT, ["N", len(weight)])],
            [numpy_helper.from_array(c.detach().numpy(), name) for name, c in constants.items()],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        self._model = model.SerializeToString()
        self._sessions: dict[int, Any] = {}
        self._lock = Lock()

    def __call__(self, rows: Tensor, largest: float = 1.0) -> Tensor:
        """The product (N, M) with rows (N, D).

        Args:
            rows: float32, on a CPU.
            largest: numbers beyond it, or below its negative, count as these.
        """
        inputs = {"rows": rows.numpy(), "step": np.array(largest / LARGEST, np.float32)}
        [found] = self._session(torch.get_num_threads()).run(None, inputs)
        return torch.from_numpy(found)

    def with_one_range(self, rows: Tensor) -> Tensor:
        """The product with rows of any numbers, the largest of which sets the steps of all."""
        low, high = rows.aminmax()
        return self(rows, max(-float(low), float(high), _TINY))

    def row_by_row(self, rows: Tensor) -> Tensor:
        """The product with rows of any numbers, each brought to [-1, 1] by itself."""
        largest = rows.abs().amax(dim=1, keepdim=True).clamp_(min=_TINY)
        return self(rows / largest).mul_(largest)

    def _session(self, threads: int) -> Any:
        with self._lock:
            if threads not in self._sessions:
                self._sessions[threads] = open_session(self._model, threads)
            return self._sessions[threads]
