"""Caption frames in batches, while the next ones are decoded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from captioner.decoding.options import DecodingOptions
from captioner.model.caption_model import CaptionModel
from captioner.model.device import torch_threads
from captioner.model.results import CaptionResult
from captioner.networks.fast_encoder import CHUNK
from captioner.networks.features import ImageFeatures

TakeResult = Callable[[CaptionResult, np.ndarray[Any, Any]], object]
"""Called with the caption of an image, and its pooled features as a unit vector (D,)."""


class FrameCaptioner:
    """Collects images of whatever video and captions them when a batch is full.

    On a CPU the CNN encodes them earlier, in small groups: it works while the next ones are
    decoded, and little is left to do when the last video ends.

    Args:
        model: the captioner.
        decoding: how captions are searched for.
        batch_size: images whose captions are searched for at once, except the last ones.
    """

    def __init__(self, model: CaptionModel, decoding: DecodingOptions, batch_size: int) -> None:
        self.model = model
        self._decoding = decoding
        self._batch_size = batch_size
        self._group_size = min(CHUNK, batch_size) if model.device.type == "cpu" else batch_size
        self._waiting: list[TakeResult] = []
        self._images: list[Tensor] = []  # of the last ones that wait: not encoded yet
        self._features: list[ImageFeatures] = []  # of the others, in groups

    def add(self, pixels: bytes, take_result: TakeResult) -> None:
        """Caption an image, now or later.

        Args:
            pixels: RGB, of the size that the model's transform gives.
            take_result: called with what comes of it, in the order of the images.
        """
        transform = self.model.transform
        width, height = transform.size
        image = np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
        self._waiting.append(take_result)
        self._images.append(transform.pixels_of(image))
        if len(self._images) == self._group_size:
            self._encode()
        if len(self._waiting) == self._batch_size:
            self.flush()

    @torch.inference_mode()
    def _encode(self) -> None:
        images = torch.stack(self._images)
        missing = self._group_size - len(images)
        images = functional.pad(images, (0, 0, 0, 0, 0, 0, 0, missing))  # one shape for all
        self._features.append(self.model.encode(images))
        self._images = []

    @torch.inference_mode()
    def flush(self, *, is_last: bool = False) -> None:
        """Caption all images that wait.

        Args:
            is_last: whether no more come; then nothing is decoded meanwhile.
        """
        if self._images:
            self._encode()
        if not self._waiting:
            return
        features = ImageFeatures(*map(torch.cat, zip(*self._features, strict=True)))
        # The decoder has the other half. The search is made of many small steps: threads that wait
        # for each other after every one cost more than they bring where something else runs.
        threads = torch.get_num_threads()
        with torch_threads(threads if is_last else max(1, threads // 2)):
            results = self.model.caption_features(features, self._decoding, fixed_shape=True)
        for take_result, result, look in zip(self._waiting, results, _unit(features), strict=False):
            take_result(result, look)
        self._waiting, self._features = [], []


def _unit(features: ImageFeatures) -> np.ndarray[Any, Any]:
    """The pooled features as unit vectors (B, D)."""
    unit: np.ndarray[Any, Any] = functional.normalize(features.pooled, dim=1).cpu().numpy()
    return unit
