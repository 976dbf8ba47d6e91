"""Images as callers give them: paths, Pillow images or arrays, one or several."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captioner.errors import CaptionerError
from captioner.files.urls import refuse_url
from captioner.images.reading import to_rgb
from captioner.images.transform import ImageTransform

AnImage: TypeAlias = str | Path | Image.Image | np.ndarray[Any, Any]
"""A path, a Pillow image or an array (H, W, 3)."""


def is_single(images: AnImage | Iterable[AnImage]) -> bool:
    """Whether this is one image and not several; an array of four dimensions is several."""
    if isinstance(images, np.ndarray):
        return images.ndim < 4
    return isinstance(images, (str, Path, Image.Image))


def pixels_of(
    images: AnImage | Iterable[AnImage],
    transform: ImageTransform,
    read: Callable[[str | Path], Tensor],
) -> Tensor:
    """The images as a model looks at them: uint8 (B, 3, height, width).

    Args:
        images: one or several.
        transform: of the model, for images in memory.
        read: a file as the transform would have it.

    Raises:
        captioner.images.reading.ImageError: when an image cannot be read.
        CaptionerError: these are no images, or a path is a URL or a folder.
    """
    try:
        listed: list[Any] = [images] if is_single(images) else [*images]  # type: ignore[misc]
    except TypeError:
        raise CaptionerError(
            f"{images!r:.80} is not an image: give paths, Pillow images or arrays"
        ) from None
    pixels = []
    for image in listed:
        if isinstance(image, (str, Path)):
            _check_path(image)
            pixels.append(read(image))
        else:
            pixels.append(transform.pixels(to_rgb(image)))
    if not pixels:
        return torch.zeros(0, 3, *reversed(transform.size), dtype=torch.uint8)
    return torch.stack(pixels)


def _check_path(path: str | Path) -> None:
    refuse_url(path)
    if Path(path).is_dir():
        raise CaptionerError(
            f"{path} is a folder, and this takes images: captioner.caption_images takes folders"
        )
