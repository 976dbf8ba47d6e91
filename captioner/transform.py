"""The one way a picture becomes a tensor, in training and in use alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from captioner.errors import CaptionerError

RESIZE_MODES = ("squash", "crop", "pad")
INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class ImageTransform:
    """Resize and normalise an RGB picture; it travels with the model in its file.

    Args:
        size: ``(width, height)`` of the network's input, in pixels.
        resize: ``squash`` ignores the aspect ratio; ``crop`` fits the shorter side and cuts the
            middle out; ``pad`` fits the longer side and fills up with the mean colour.
        interpolation: one of ``bilinear``, ``bicubic``, ``lanczos``.
        mean: mean of each channel, in [0, 1], subtracted first.
        std: standard deviation of each channel, divided by last.

    Raises:
        ValueError: when an option has a value that cannot be used.
    """

    size: tuple[int, int] = (224, 224)
    resize: str = "squash"
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"size={self.size}: give (width, height) in pixels, both at least 1")
        if self.resize not in RESIZE_MODES:
            raise ValueError(f"resize={self.resize!r}: choose one of {', '.join(RESIZE_MODES)}")
        if self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise ValueError(f"interpolation={self.interpolation!r}: choose one of {known}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean={self.mean}, std={self.std}: three channels, std above 0")

    def __call__(self, image: Image.Image) -> Tensor:
        """Turn an RGB picture into the network's input, float32 of shape (3, height, width)."""
        return self.normalize(self.fit(image))

    def fit(self, image: Image.Image) -> Image.Image:
        """Bring an RGB picture to ``size`` in the way ``resize`` says."""
        method = INTERPOLATIONS[self.interpolation]
        if image.size == self.size:
            return image
        if self.resize == "crop":
            return ImageOps.fit(image, self.size, method)
        if self.resize == "pad":
            colour = tuple(round(255 * mean) for mean in self.mean)
            return ImageOps.pad(image, self.size, method, color=colour)
        return image.resize(self.size, method)

    def normalize(self, image: Image.Image) -> Tensor:
        """Scale the pixels of an RGB picture of the right size; float32 (3, height, width)."""
        pixels = torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1)
        mean = torch.tensor(self.mean).view(3, 1, 1)
        std = torch.tensor(self.std).view(3, 1, 1)
        return (pixels.float().div_(255) - mean) / std

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives from which :meth:`from_dict` makes an equal transform."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ImageTransform:
        """Read what :meth:`to_dict` wrote.

        Raises:
            CaptionerError: when a value is missing, unknown or cannot be used.
        """
        try:
            return cls(
                **{
                    key: tuple(value) if isinstance(value, list) else value
                    for key, value in values.items()
                }
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise CaptionerError(f"the model's image transform cannot be used: {error}") from error
