"""Which tags a video gets, as options. Loads no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TagOptions:
    """Which tags a video gets. Checked in full when made; ValueError names what is wrong.

    Attributes:
        min_confidence: minimum confidence of a tag of the video or of a segment, in [0, 1].
        min_coverage: minimum share of the video's time that a tag of the video covers, in [0, 1].
            With the default a word said on one frame in sixty does not tag the video.
        max_tags: most tags of the video, and of each segment.
        max_gap_s: spans of a tag in one shot with no larger gap become one, in seconds.
    """

    min_confidence: float = 0.25
    min_coverage: float = 0.05
    max_tags: int = 20
    max_gap_s: float = 2.0

    def __post_init__(self) -> None:
        for name, most in (("min_confidence", 1.0), ("min_coverage", 1.0), ("max_gap_s", math.inf)):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value <= most:
                limit = "at least 0" if most == math.inf else "from 0 to 1"
                raise ValueError(f"{name}={value!r}: give a number {limit}")
        if type(self.max_tags) is not int or self.max_tags < 0:
            raise ValueError(f"max_tags={self.max_tags!r}: give a whole number of at least 0")
