"""Fades and dissolves: one shot turns into another, and no frame looks unlike the one before."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from captioner.video.looks import Look

SPANS_S = (0.2, 0.4, 0.8, 1.6)
"""The times in which one image may have turned into another, in seconds."""

UNLIKE = 0.6
"""Correlation of two images below which one may have turned into the other."""

MAX_UNEXPLAINED = 0.1
"""Share of an image's variance that a mix of two others may leave unexplained."""

MIN_MIXED = 2
"""Frames that have to be mixed of both: one alone can be a cut that an encoder blurred."""

BLANK = 3.0
"""Standard deviation, of 255, below which an image shows nothing."""

_SIZE = (32, 18)  # (width, height) in pixels
_MIN_DISTANCE_S = 0.039  # between two images that are kept
_MIXED = (0.15, 0.85)  # share of the old image in a mixed one
_STUMBLE = 0.05  # by which a share may change in the wrong direction

Images = np.ndarray[Any, np.dtype[np.float32]]


class _Kept(NamedTuple):
    """A frame that is remembered.

    Attributes:
        time_s: when it is shown, less the time in which nothing was.
        look: what it looks like.
        image: see `_image`.
        energy: the sum of the image's squares.
        is_blank: whether it shows nothing.
    """

    time_s: float
    look: Look
    image: Images
    energy: float
    is_blank: bool


class Fades:
    """Looks at one frame after another, and remembers those of the longest of `SPANS_S`."""

    def __init__(self) -> None:
        self._kept: deque[_Kept] = deque()
        self._blank_s = 0.0  # How long nothing was shown: for that long no time passes.

    def clear(self) -> None:
        """Forget all frames: a shot begins."""
        self._kept.clear()

    def has_turned(self, look: Look) -> bool:
        """Whether what was shown before turns, or has turned, into what this frame shows.

        Then each frame between them is a sum of both, the share of the old one falls and that of
        the new one rises. Motion is not such a sum.
        """
        image = _image(look)
        energy = float(image @ image)
        is_blank = energy < image.size * BLANK**2
        if is_blank and self._kept and self._kept[-1].is_blank:
            self._blank_s = look.time_s - self._kept[-1].time_s
            return False
        time_s = look.time_s - self._blank_s
        if self._kept and time_s - self._kept[-1].time_s < _MIN_DISTANCE_S:
            return False
        self._kept.append(_Kept(time_s, look, image, energy, is_blank))
        while self._kept[0].time_s < time_s - SPANS_S[-1] - _MIN_DISTANCE_S:
            self._kept.popleft()
        return not is_blank and any(map(self._has_turned_since, self._starts(time_s)))

    def _starts(self, time_s: float) -> list[int]:
        """Which of the images were shown just within each of the spans, the latest first."""
        times_s = [kept.time_s for kept in self._kept]
        starts = {bisect_left(times_s, time_s - span_s) for span_s in SPANS_S}
        return sorted(starts, reverse=True)

    def _has_turned_since(self, start: int) -> bool:
        old, new = self._kept[start], self._kept[-1]
        if len(self._kept) - start - 2 < MIN_MIXED or old.is_blank or not _are_unlike(old, new):
            return False
        images = [kept.image for kept in islice(self._kept, start, None)]
        return _is_mixing(images) and not old.look.is_like(new.look)


def _image(look: Look) -> Images:
    """The frame in grey less its mean, float32 (P,)."""
    import cv2

    small = np.asarray(cv2.resize(look.shapes, _SIZE, interpolation=cv2.INTER_AREA), np.float32)
    return np.asarray(small - small.mean(), dtype=np.float32).ravel()


def _are_unlike(old: _Kept, new: _Kept) -> bool:
    product = float(old.image @ new.image)
    return product < UNLIKE * math.sqrt(old.energy * new.energy)


def _is_mixing(images: Sequence[Images]) -> bool:
    """Whether the first of some images (P,) turns into the last one by mixing the two."""
    first, *between, last = images
    ends = np.stack([first, last])
    if _shares(ends, between[len(between) // 2][np.newaxis]) is None:
        return False  # One decides about most motion.
    shares = _shares(ends, np.stack(between))
    if shares is None:
        return False
    of_old, of_new = shares
    if (np.diff(of_old) > _STUMBLE).any() or (np.diff(of_new) < -_STUMBLE).any():
        return False
    is_mixed = (of_old > _MIXED[0]) & (of_old < _MIXED[1])
    return int(is_mixed.sum()) >= MIN_MIXED


def _shares(ends: Images, images: Images) -> Images | None:
    """How much of two images (2, P) each of others (N, P) is the sum of, by least squares.

    Returns:
        The shares (2, N); None if one of the images is not such a sum.
    """
    shares: Images = np.linalg.solve(ends @ ends.T, ends @ images.T)
    unexplained = ((images - shares.T @ ends) ** 2).sum(axis=1)
    whole = np.maximum((images**2).sum(axis=1), images.shape[1] * BLANK**2)
    return None if (unexplained > MAX_UNEXPLAINED * whole).any() else shares
