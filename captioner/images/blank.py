"""Whether an image shows nothing: one colour all over, or nearly."""

from __future__ import annotations

from typing import Any

import numpy as np

EVEN = 3.0
"""Standard deviation of each colour, of 255, below which an image has one colour: noise and the
artefacts of compression stay below, a word in small letters on a card is above."""


def is_blank(pixels: np.ndarray[Any, Any]) -> bool:
    """Whether an image has no content.

    Args:
        pixels: uint8 (height, width, 3).
    """
    channels = np.ascontiguousarray(pixels.reshape(-1, 3).T)  # rows: ten times as fast as columns
    return bool((channels.std(axis=1, dtype=np.float64) < EVEN).all())
