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

COPIED_PIXELS = 4_000_000
"""Images of more pixels are resized by Pillow: torch needs a copy of the whole image."""

RESIZE_MODES = ("squash", "crop", "pad")
INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
IN_TORCH = ("bilinear", "bicubic")
"""Interpolations that torch has too, four times as fast on processors with AVX2."""


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
        """Turn an RGB image into what the CNN computes with, float32 of shape (3, height, width).

        Raises:
            CaptionerError: when the image is not of mode RGB.
        """
        return self.scale(self.pixels(image))

    def pixels(self, image: Image.Image) -> Tensor:
        """Bring an RGB image to ``size`` and leave its values: uint8 of shape (3, height, width).

        A quarter of the bytes of what :meth:`__call__` gives, and cheaper to make:
        `CaptionModel.encode` scales the values itself, on its device.

        Raises:
            CaptionerError: when the image is not of mode RGB.
        """
        import torch  # Here: a process that only decodes and resizes videos goes without it.

        if image.mode != "RGB":
            raise CaptionerError(
                f"an image of mode {image.mode} cannot be transformed; make it RGB with "
                "captioner.images.reading.to_rgb"
            )
        if self._suits_torch(image):
            # torch resizes bytes in whole numbers: the same on every processor. With AVX2 it does
            # so in this thread alone.
            whole = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
            return torch.nn.functional.interpolate(
                whole, self.size[::-1], mode=self.interpolation, antialias=True
            )[0]
        return self.pixels_of(np.asarray(self.fit(image)))

    @staticmethod
    def pixels_of(array: np.ndarray[Any, Any]) -> Tensor:
        """What :meth:`pixels` gives of an image that has the right size.

        Args:
            array: uint8 (height, width, 3).
        """
        import torch

        # In NumPy: torch would start its threads for so little, in every thread that reads images.
        return torch.from_numpy(np.array(array.transpose(2, 0, 1), order="C"))

    def scale(self, pixels: Tensor) -> Tensor:
        """Scale what :meth:`pixels` gives: uint8 (..., 3, height, width) -> float32, same shape."""
        import torch

        device = pixels.device
        factors, shifts = (torch.tensor(each, device=device) for each in self.scaling)
        return pixels.float().mul_(factors[:, None, None]).add_(shifts[:, None, None])

    @property
    def scaling(self) -> tuple[list[float], list[float]]:
        """What each channel's values from 0 to 255 are multiplied by, and what is added then."""
        pairs = list(zip(self.mean, self.std, strict=True))
        return [1 / (255 * std) for _, std in pairs], [-mean / std for mean, std in pairs]

    @property
    def min_side(self) -> int:
        """Pixels that the shorter side of a JPEG is decoded to at least; see DECODE_MARGIN."""
        return DECODE_MARGIN * max(self.size)

    def _suits_torch(self, image: Image.Image) -> bool:
        return (
            self.resize == "squash"
            and self.interpolation in IN_TORCH
            and image.size != self.size
            and image.width * image.height <= COPIED_PIXELS
        )

    def fit(self, image: Image.Image) -> Image.Image:
        """Bring an RGB image to ``size`` in the way ``resize`` says, with Pillow alone.

        :meth:`pixels` differs from it by 1 of 255 in a few values of a hundred, seldom by more.
        """
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
