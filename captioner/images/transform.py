"""The one way an image becomes a tensor, in training and in use alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from captioner.errors import CaptionerError

if TYPE_CHECKING:
    from torch import Tensor

MAX_SIDE = 1024
"""Largest side of an input in pixels; a bound, so that no model file can ask for all memory."""

DECODE_MARGIN = 3
"""Large JPEGs are decoded at no less than this many times the model's resolution.

A 12-megapixel photo is ready two to three times as soon, and no pixel of the model's input differs
by more than 2 of 255 from a full decode; with a margin of 1 the difference reaches 18.
"""

RESIZE_MODES = ("squash", "crop", "pad")
INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class ImageTransform:
    """Resize and normalise an RGB image; it travels with the model in its file.

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
        for name in ("size", "mean", "std"):
            value = getattr(self, name)
            if isinstance(value, list):  # as JSON gives them; equal transforms must be equal
                object.__setattr__(self, name, tuple(value))
        if not _are_numbers(self.size, 2) or not all(
            isinstance(side, int) and 1 <= side <= MAX_SIDE for side in self.size
        ):
            raise ValueError(
                f"size={self.size}: give (width, height) in whole pixels, from 1 to {MAX_SIDE}"
            )
        if self.resize not in RESIZE_MODES:
            raise ValueError(f"resize={self.resize!r}: choose one of {', '.join(RESIZE_MODES)}")
        if not isinstance(self.interpolation, str) or self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise ValueError(f"interpolation={self.interpolation!r}: choose one of {known}")
        if not _are_numbers(self.mean, 3) or not all(0 <= value <= 1 for value in self.mean):
            raise ValueError(f"mean={self.mean}: give one number a channel, three from 0 to 1")
        if not _are_numbers(self.std, 3) or not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"std={self.std}: give one number a channel, three above 0")

    def __call__(self, image: Image.Image) -> Tensor:
        """Turn an RGB image into the network's input, float32 of shape (3, height, width).

        Raises:
            CaptionerError: when the image is not of mode RGB.
        """
        if image.mode != "RGB":
            raise CaptionerError(
                f"an image of mode {image.mode} cannot be transformed; make it RGB with "
                "captioner.images.reading.to_rgb"
            )
        return self.normalize(self.fit(image))

    @property
    def min_side(self) -> int:
        """Pixels that the shorter side of a JPEG is decoded to at least; see DECODE_MARGIN."""
        return DECODE_MARGIN * max(self.size)

    def fit(self, image: Image.Image) -> Image.Image:
        """Bring an RGB image to ``size`` in the way ``resize`` says."""
        method = INTERPOLATIONS[self.interpolation]
        if image.size == self.size:
            return image
        if self.resize == "crop":
            return ImageOps.fit(image, self.size, method)
        if self.resize == "pad":
            return self._pad(image, method)
        return image.resize(self.size, method)

    def _pad(self, image: Image.Image, method: Image.Resampling) -> Image.Image:
        # Not ImageOps.pad: a very thin image gets no pixel from it, or raises in older versions.
        scale = min(self.size[0] / image.width, self.size[1] / image.height)
        width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        colour = tuple(round(255 * mean) for mean in self.mean)
        padded = Image.new("RGB", self.size, colour)
        corner = ((self.size[0] - width) // 2, (self.size[1] - height) // 2)
        padded.paste(image.resize((width, height), method), corner)
        return padded

    def normalize(self, image: Image.Image) -> Tensor:
        """Scale the pixels of an RGB image of the right size; float32 (3, height, width)."""
        import torch  # Here: a process that only decodes and resizes videos goes without it.

        # In NumPy: torch would start its threads for so little, in every thread that reads images.
        channels = np.ascontiguousarray(np.asarray(image, np.uint8).transpose(2, 0, 1))
        pixels = channels.astype(np.float32)
        pixels /= 255
        pixels -= np.array(self.mean, np.float32)[:, None, None]
        pixels /= np.array(self.std, np.float32)[:, None, None]
        return torch.from_numpy(pixels)

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
            missing = {field.name for field in fields(cls)} - set(values)
            if missing:
                raise ValueError(f"{', '.join(sorted(missing))} missing")
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise CaptionerError(f"the model's image transform cannot be used: {error}") from error


def _are_numbers(values: object, count: int) -> bool:
    return (
        isinstance(values, tuple)
        and len(values) == count
        and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    )
