"""Images of more than 8 bits, and large ones of any depth, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

_TILE_SIDE = 2048


def grey8(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits or floating -> 8 bits."""
    if image.mode.startswith("I;16"):
        return in_tiles(
            image, "L", lambda tile: Image.fromarray(scaled(np.asarray(tile), 0.0, 65535.0))
        )
    low, high = _range(image)
    tops = [1.0, 255.0, 65535.0] if image.mode == "F" else [255.0, 65535.0]
    if image.format == "PPM" and image.mode == "I":
        tops = [65535.0]  # Pillow scales deep PGM files to 16 bits, however dark they are.
    top = next((top for top in tops if low >= 0 and high <= top), None)
    first, last = (low, high) if top is None else (0.0, top)

    def scale(tile: Image.Image) -> Image.Image:
        values = np.asarray(tile).astype(np.float64)
        return Image.fromarray(scaled(np.where(np.isfinite(values), values, low), first, last))

    return in_tiles(image, "L", scale)


def _range(image: Image.Image) -> tuple[float, float]:
    """The smallest and the largest finite value, 0 and 0 if there is none."""
    low, high = np.inf, -np.inf
    for tile, _ in _tiles(image):
        values = np.asarray(tile)
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return (low, high) if low <= high else (0.0, 0.0)


def scaled(values: np.ndarray[Any, Any], low: float, high: float) -> np.ndarray[Any, Any]:
    """Values from `low` to `high` as 0 to 255, uint8, in the same shape."""
    span = high - low or 1.0
    return np.rint((values.astype(np.float64) - low) * (255.0 / span)).astype(np.uint8)


def in_tiles(
    image: Image.Image, mode: str, change: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """Change an image part by part: what it takes on the way are not several whole images."""
    result = Image.new(mode, image.size)
    for tile, corner in _tiles(image):
        result.paste(change(tile), corner)
    return result


def _tiles(image: Image.Image) -> Iterator[tuple[Image.Image, tuple[int, int]]]:
    width, height = image.size
    for top in range(0, height, _TILE_SIDE):
        for left in range(0, width, _TILE_SIDE):
            right, bottom = min(left + _TILE_SIDE, width), min(top + _TILE_SIDE, height)
            yield image.crop((left, top, right, bottom)), (left, top)
