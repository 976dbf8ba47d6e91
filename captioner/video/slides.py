"""Slides that come in from one side: each frame looks like the one before, as under a camera."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, product

import numpy as np

from captioner.video.fades import BLANK
from captioner.video.looks import Grey, Look

STILL = 1.5
"""Mean difference of two frames, of 255, below which nothing moves."""

STAYS_S = 0.2
"""A frame that is shown for this long stands still, whatever comes after it."""

LONGEST_S = 2.0
"""The longest time that a slide takes to come in, in seconds."""

MAX_UNEXPLAINED = 0.1
"""Share of an image's variance that parts of two others may leave unexplained."""

SEAM = 30.0
"""Minimum mean difference, of 255, of the columns at the seam between two slides."""

SEAM_STANDS_OUT = 2.0
"""Minimum of the same as a multiple of the differences close to the seam, `_NEAR` columns apart."""

_MIN_PARTS = 2  # frames that have to show parts of both slides
_MOST_LOOKED_AT = 8  # of the frames between
_PART = (0.1, 0.9)  # share of the new slide in a frame that shows parts of both
_NEAR = 3
_BLURRED = 2  # columns on each side of a seam that hold some of both
_STUMBLE = 1  # columns by which the new slide may go back


class Slides:
    """Looks at one frame after another, and remembers those since the last that stood still."""

    def __init__(self) -> None:
        self._still: Look | None = None
        self._moved: list[Look] = []

    def has_come_in(self, look: Look, after: Look | None) -> bool:
        """Whether one slide has taken the place of another with this frame, from one side.

        Both stand still before and after. Between them each frame consists of a part of the old
        one and a part of the new one, and the new part grows. Either may move or be uncovered.

        Args:
            look: of a frame; all have to be asked about, in their order.
            after: of the next one; None at the end.
        """
        stays = after is None or after.change < STILL or after.time_s - look.time_s >= STAYS_S
        if look.change >= STILL:
            self._moved.append(look)
        if not stays:
            if self._moved and look.time_s - self._moved[0].time_s > LONGEST_S:
                self._still, self._moved = None, []
            return False
        old, moved = self._still, self._moved
        self._still, self._moved = look, []
        return old is not None and len(moved) > _MIN_PARTS and _replaces(old, moved)


def _replaces(old: Look, moved: Sequence[Look]) -> bool:
    *between, new = moved
    if old.is_like(new):
        return False
    picked = np.linspace(0, len(between) - 1, min(len(between), _MOST_LOOKED_AT)).round()
    images = [_smooth(each) for each in (old, new, *(between[int(i)] for i in picked))]
    return any(_comes_from_the_right(*_turned(images, *way)) for way in product((0, 1), repeat=2))


def _smooth(look: Look) -> Grey:
    """The frame in grey (H, W), without what half a pixel of motion changes."""
    import cv2

    return np.asarray(cv2.GaussianBlur(look.shapes, (0, 0), 1.5), dtype=np.float32)


def _turned(images: Sequence[Grey], is_upright: int, is_reversed: int) -> Iterator[Grey]:
    """The images turned so that what came from one of the four sides comes from the right."""
    for image in images:
        turned = image.T if is_upright else image
        yield np.ascontiguousarray(turned[:, ::-1] if is_reversed else turned)


def _comes_from_the_right(old: Grey, new: Grey, *between: Grey) -> bool:
    width = old.shape[1]
    for old_moves, new_moves in product((True, False), repeat=2):
        if old_moves and new_moves and not _has_seam(old, new):
            continue  # A camera that moves by one width shows the same.
        parts = [_new_columns(each, old, new, old_moves, new_moves) for each in between]
        if any(part is None for part in parts):
            continue
        grown = [part for part in parts if part is not None]
        mixed = [part for part in grown if _PART[0] < part / width < _PART[1]]
        if len(mixed) >= _MIN_PARTS and all(b >= a - _STUMBLE for a, b in pairwise(grown)):
            return True
    return False


def _has_seam(old: Grey, new: Grey) -> bool:
    """Whether the right edge of one and the left edge of the other do not belong together."""
    if max(old[:, -1].std(), new[:, 0].std()) < BLANK:
        return True  # Paper, or the wall between two things: one full width of it moves by.
    at_seam = float(np.abs(old[:, -1] - new[:, 0]).mean())
    near = (np.abs(old[:, -1] - old[:, -1 - _NEAR]), np.abs(new[:, 0] - new[:, _NEAR]))
    return at_seam >= max(SEAM, SEAM_STANDS_OUT * max(float(each.mean()) for each in near))


def _new_columns(image: Grey, old: Grey, new: Grey, old_moves: bool, new_moves: bool) -> int | None:
    """How many columns on the right of an image show the new slide; None if it is no such mix."""
    width = image.shape[1]
    whole = max(float(((image - image.mean()) ** 2).sum()), image.size * BLANK**2)
    errors = []
    for columns in range(width + 1):
        kept = width - columns
        of_old = old[:, columns:] if old_moves else old[:, :kept]
        of_new = new[:, :columns] if new_moves else new[:, kept:]
        error_old = (image[:, :kept] - of_old)[:, : max(0, kept - _BLURRED)]
        error_new = (image[:, kept:] - of_new)[:, _BLURRED:]
        errors.append(float((error_old**2).sum() + (error_new**2).sum()))
    best = int(np.argmin(errors))
    return best if errors[best] <= MAX_UNEXPLAINED * whole else None
