"""The encoder as inference runs it: BatchNorm folded into the convolutions, weights cast once.

On a CPU it runs in ONNX Runtime, where that is installed and the computation is in float32.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from captioner.networks.cnn_graph import GraphNetwork, as_graph, first_layers, without_batch_norm
from captioner.networks.encoder import Encoder, ImageFeatures, as_cells, as_grid
from captioner.networks.weights import versions

if TYPE_CHECKING:
    from captioner.networks.onnx_runtime import OnnxNetwork

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

CHUNK = 4
"""Pictures that a CPU encodes at once: of more, the maps between the layers leave its caches."""


class FastNetwork:
    """A CNN, or its first layers, as inference runs it.

    Attributes:
        engine: what computes, ``onnxruntime`` or ``torch``.

    Args:
        network: in eval mode, and this object's own.
        size: ``(width, height)`` of its images.
        precision: one of :data:`PRECISIONS`.
        device: where it computes.
    """

    def __init__(
        self, network: nn.Module, size: tuple[int, int], precision: str, device: torch.device
    ) -> None:
        self._dtype = PRECISIONS[precision]
        self._device = device
        # bfloat16 has the range of float32, so that all can be cast; of float16 torch knows better.
        self._cast = self._dtype is torch.bfloat16
        self._onnx: OnnxNetwork | None = None
        if self._dtype is None and device.type == "cpu":
            self._onnx = _in_onnx_runtime(network, size)
        if self._onnx is None:
            self._network = network.to(torch.bfloat16 if self._cast else None)
            self._network.to(memory_format=torch.channels_last)
        self.engine = "torch" if self._onnx is None else "onnxruntime"

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """The last layer's map (B, C, h, w), float32, of transformed images."""
        chunk = CHUNK if self._device.type == "cpu" else len(pixels)
        parts = torch.split(pixels, max(1, chunk))
        return torch.cat([self._map(part) for part in parts])

    def _map(self, pixels: Tensor) -> Tensor:
        if self._onnx is not None:
            return self._onnx(pixels)
        pixels = pixels.to(self._device, torch.bfloat16 if self._cast else None, non_blocking=True)
        autocast = self._dtype is not None and not self._cast
        with torch.autocast(self._device.type, self._dtype, enabled=autocast):
            found = self._network(pixels.contiguous(memory_format=torch.channels_last))
        grid: Tensor = as_grid(found)
        return grid.float()


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
        device = next(encoder.parameters()).device
        self._network = FastNetwork(_simplest(encoder), encoder.transform.size, precision, device)
        self.engine = self._network.engine

    def is_of(self, encoder: Encoder, precision: str) -> bool:
        """Whether it still is the copy of this encoder, with the weights that it has now."""
        return self.made_of == (versions(encoder), precision)

    def __call__(self, pixels: Tensor) -> ImageFeatures:
        """Features, float32, of transformed images (B, 3, height, width)."""
        return ImageFeatures.from_grid(as_cells(self._network(pixels)))


def frozen_part(encoder: Encoder) -> FastNetwork:
    """The layers that training leaves as they are, as inference runs them, in float32.

    All of them of a frozen encoder; else those before :attr:`Encoder.frozen_layers`.
    """
    device = next(encoder.parameters()).device
    if encoder.config.frozen:
        network = _simplest(encoder)
    else:
        assert isinstance(encoder.backbone, GraphNetwork) and encoder.frozen_layers
        network = without_batch_norm(first_layers(encoder.backbone, encoder.frozen_layers))
    return FastNetwork(network, encoder.transform.size, "fp32", device)


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
