"""Features of the images of a batch, whatever the batch holds of them."""

from __future__ import annotations

import torch
from torch import Tensor

from captioner.networks.encoder import Encoder
from captioner.networks.fast_encoder import FastNetwork, frozen_part
from captioner.networks.features import ImageFeatures, as_cells
from captioner.networks.weights import evaluating


class BatchFeatures:
    """Computes features with gradients of what is trained.

    On a CPU, what stays as it is runs as in inference (in ONNX Runtime, where it can),
    in float32 whatever the precision is. Its weights are taken when the first pixels come.

    Args:
        encoder: in training or in eval mode.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._frozen: FastNetwork | None = None
        self._has_frozen = encoder.config.frozen
        if not self._has_frozen:
            with evaluating(encoder):  # a blank image shall not count in the statistics
                self._has_frozen = encoder.frozen_layers > 0

    def __call__(self, images: Tensor) -> ImageFeatures:
        """Features of B images.

        Args:
            images: pixels or what is kept of the frozen part; see
                :class:`~captioner.training.batches.Batch`.
        """
        if images.ndim == 3:
            return ImageFeatures.from_grid(images.float())
        if images.dtype is torch.float16:
            return self.encoder.finish(images.float())
        if images.device.type != "cpu" or not self._has_frozen:
            features: ImageFeatures = self.encoder(images)
            return features
        if self._frozen is None:
            self._frozen = frozen_part(self.encoder)
        maps = self._frozen(images)  # (B, C, h, w)
        if self.encoder.config.frozen:
            return ImageFeatures.from_grid(as_cells(maps))
        return self.encoder.finish(maps.permute(0, 2, 3, 1).contiguous())
