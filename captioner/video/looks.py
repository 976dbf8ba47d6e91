"""What a frame looks like, small, and whether two frames show the same thing."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from captioner.video.frames import Frame, Pixels

THUMBNAIL_SIZE = (160, 90)
"""(width, height) in pixels of what is compared, whatever the shape of the video: that of the
frames may change within one."""

SAME_SHAPES = 0.7
"""Minimum correlation of two frames, one moved over the other, that show the same."""

SAME_SHAPES_ALONE = 0.85
"""The same where the colours are not even similar, as when a light is switched off."""

SIMILAR_COLOURS = 0.4
"""Minimum intersection of the colour histograms of similar frames (Swain and Ballard 1991)."""

SAME_COLOURS = 0.7
"""Minimum intersection of the colour histograms of two frames that show the same."""

_SHAPE_SIZE = (80, 45)  # (width, height) in pixels, for the correlation
_MARGIN = 0.2  # of the width and the height, by which one frame may be moved over the other
_BINS = (8, 4, 8)  # of hue, saturation and brightness
_RANGES = (0, 180, 0, 256, 0, 256)  # from and to, of each

Grey = np.ndarray[Any, np.dtype[np.float32]]


class Look:
    """What one frame looks like. All but the change is computed when it is first asked for.

    Attributes:
        time_s: when it is shown, in seconds.
        until_s: when the next frame is; infinite until that is known.
        change: mean difference from the frame before, of 255.
    """

    def __init__(self, frame: Frame, before: Look | None) -> None:
        """Look at a frame, and record in the one before until when it was shown."""
        import cv2

        self.time_s = frame.time_s
        self.until_s = float("inf")
        self.change = 0.0
        self._thumbnail: Pixels = frame.thumbnail(*THUMBNAIL_SIZE)
        if before is not None:
            before.until_s = self.time_s
            total = cv2.norm(self._thumbnail, before._thumbnail, cv2.NORM_L1)
            self.change = total / self._thumbnail.size

    @cached_property
    def shapes(self) -> Grey:
        """The frame in grey, float32 (45, 80), from 0 to 255."""
        import cv2

        grey = cv2.cvtColor(self._thumbnail, cv2.COLOR_BGR2GRAY)
        small = cv2.resize(grey, _SHAPE_SIZE, interpolation=cv2.INTER_AREA)
        return np.asarray(small, dtype=np.float32)

    @cached_property
    def colours(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The share of each colour, float32 (8, 4, 8); their sum is 1."""
        import cv2

        hsv = cv2.cvtColor(self._thumbnail, cv2.COLOR_BGR2HSV)
        counts = cv2.calcHist([hsv], [0, 1, 2], None, list(_BINS), list(_RANGES))
        return np.asarray(counts / counts.sum(), dtype=np.float32)

    def is_like(self, other: Look, same_colours: float = SAME_COLOURS) -> bool:
        """Whether both show the same, from another place or in another light at most.

        Args:
            other: another frame of the video.
            same_colours: minimum intersection of their histograms at which the colours suffice.
        """
        colours = float(np.minimum(self.colours, other.colours).sum())
        if colours >= same_colours:
            return True
        shapes = max(_overlap(self.shapes, other.shapes), _overlap(other.shapes, self.shapes))
        return shapes >= (SAME_SHAPES if colours >= SIMILAR_COLOURS else SAME_SHAPES_ALONE)


def _overlap(a: Grey, b: Grey) -> float:
    """Correlation of the middle of one frame with where it fits best in the other, in [-1, 1]."""
    import cv2

    height, width = a.shape
    top, left = round(height * _MARGIN), round(width * _MARGIN)
    middle = np.ascontiguousarray(a[top : height - top, left : width - left])
    if middle.std() < 1:  # All of one brightness, it fits everywhere and nowhere.
        return 0.0
    return float(np.max(cv2.matchTemplate(b, middle, cv2.TM_CCOEFF_NORMED)))
