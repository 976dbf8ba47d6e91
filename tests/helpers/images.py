"""Images made for the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 64, 48


RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quadrants(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Red, green, blue and white quarters, uint8 (height, width, 3): no two sides alike."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = RED
    pixels[: height // 2, width // 2 :] = GREEN
    pixels[height // 2 :, : width // 2] = BLUE
    pixels[height // 2 :, width // 2 :] = WHITE
    return pixels


def noise(seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """An image with some texture, different for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height))


def stored_for_orientation(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels a camera stores with this EXIF orientation, after the standard's definition.

    JEITA CP-3451, tag 274: which visual side the stored row 0 and column 0 are.
    """
    height, width = upright.shape[:2]
    row, column = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    swapped = row in ("left", "right")
    stored = np.empty((width, height, 3) if swapped else (height, width, 3), np.uint8)
    for i in range(stored.shape[0]):
        for j in range(stored.shape[1]):
            side = {row: i, column: j}
            y = side["top"] if "top" in side else height - 1 - side["bottom"]
            x = side["left"] if "left" in side else width - 1 - side["right"]
            stored[i, j] = upright[y, x]
    return stored


def exif_with(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def draw(folder: Path, names: list[str], first_seed: int = 0) -> None:
    for seed, name in enumerate(names, start=first_seed):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((32, 24)).save(path)
