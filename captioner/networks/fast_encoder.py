"""The encoder as inference runs it: BatchNorm folded into the convolutions, weights cast once.

On a CPU it runs in ONNX Runtime, where that is installed and the computation is in float32.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from captioner.networks.cnn_graph import GraphNetwork, as_graph, without_batch_norm
from captioner.networks.encoder import Encoder, ImageFeatures, as_cells, as_grid
from captioner.networks.weights import versions

if TYPE_CHECKING:
    from captioner.networks.onnx_runtime import OnnxNetwork

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

CHUNK = 4
"""Pictures that a CPU encodes at once: of more, the maps between the layers leave its caches."""


class FastEncoder:
    """A copy of an encoder for inference; computes what the encoder does, up to rounding.

    Attributes:
        engine: what computes, ``onnxruntime`` or ``torch``.

    Args:
        encoder: whose weights are taken as they are now.
        precision: one of :data:`PRECISIONS`.
    """

    def __init__(self, encoder: Encoder, precision: str) -> None:
        self.made_of = versions(encoder), precision
        self._dtype = PRECISIONS[precision]
        self._device = next(encoder.parameters()).device
        # bfloat16 has the range of float32, so that all can be cast; of float16 torch knows better.
        self._cast = self._dtype is torch.bfloat16
        network = _simplest(encoder)
        self._onnx: OnnxNetwork | None = None
        if self._dtype is None and self._device.type == "cpu":
            self._onnx = _in_onnx_runtime(network, encoder.transform.size)
        if self._onnx is None:
            self._network = network.to(torch.bfloat16 if self._cast else None)
            self._network.to(memory_format=torch.channels_last)
        self.engine = "torch" if self._onnx is None else "onnxruntime"

    def is_of(self, encoder: Encoder, precision: str) -> bool:
        """Whether it still is the copy of this encoder, with the weights that it has now."""
        return self.made_of == (versions(encoder), precision)

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> ImageFeatures:
        """Features, float32, of transformed pictures (B, 3, height, width)."""
        chunk = CHUNK if self._device.type == "cpu" else len(pixels)
        parts = torch.split(pixels, max(1, chunk))
        return ImageFeatures.from_grid(torch.cat([as_cells(self._grid(part)) for part in parts]))

    def _grid(self, pixels: Tensor) -> Tensor:
        if self._onnx is not None:
            return self._onnx(pixels)
        pixels = pixels.to(self._device, torch.bfloat16 if self._cast else None, non_blocking=True)
        autocast = self._dtype is not None and not self._cast
        with torch.autocast(self._device.type, self._dtype, enabled=autocast):
            found = self._network(pixels.contiguous(memory_format=torch.channels_last))
        grid: Tensor = as_grid(found)
        return grid.float()


def _simplest(encoder: Encoder) -> nn.Module:
    """A copy of the CNN, folded where its graph is known."""
    if encoder.graph is None:
        # A traced network's copy forgets that it was in eval mode.
        return copy.deepcopy(encoder.backbone).eval().requires_grad_(False)
    return without_batch_norm(as_graph(encoder.backbone, encoder.graph))


def _in_onnx_runtime(network: nn.Module, size: tuple[int, int]) -> OnnxNetwork | None:
    if not isinstance(network, GraphNetwork):
        return None
    try:
        from captioner.networks.onnx_runtime import OnnxNetwork
    except ImportError:
        return None  # An extra, and not installed.
    return OnnxNetwork(network, size)
