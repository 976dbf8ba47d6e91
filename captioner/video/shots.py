"""Where the shots of a video begin, from the look of its frames.

`benchmarks/shots.py` compares it with the detectors of PySceneDetect.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from captioner.video.fades import Fades
from captioner.video.frames import Frame
from captioner.video.looks import SAME_COLOURS, Look
from captioner.video.slides import Slides

SHORTEST_SHOT_S = 0.5
"""A cut closer to the last one than this begins no shot."""

FLASH_S = 0.2
"""An image that is back so soon after it changed was lit by a flash, and not cut away from."""

MIN_CHANGE = 5.0
"""Mean difference of two frames, of 255, below which they show the same in any case."""

ABRUPT = 3.0
"""How many times the mean of the changes around it a change is that stands out, as at a cut."""

SAME_COLOURS_ABRUPT = 0.88
"""Minimum intersection of the histograms of frames that show the same although the change between
them is abrupt; see `captioner.video.looks.SAME_COLOURS`."""

_AROUND = 4  # the greatest changes around one, with whose mean it is compared


def find_cuts(frames: Iterable[Frame]) -> Iterator[tuple[Frame, bool]]:
    """Mark the frames with which a new shot begins.

    A shot begins with a frame that shows something else than the one before: neither its shapes,
    moved a little, nor its colours are the same. If the change is much greater than those around
    it, the colours have to be much more alike to count as the same. So neither a moving camera nor
    a frame that is stored several times is a cut, whatever the frame rate, and each slide is one.
    A cut after which the old image is back within `FLASH_S` does not count.

    Of a fade or a dissolve, and of a slide that comes in from one side, one frame begins the new
    shot; see `captioner.video.fades` and `captioner.video.slides`.

    Yields:
        Every frame, in order, and whether a shot begins with it; the first frame is not a cut.
    """
    shots = _Shots()
    waiting: deque[tuple[Frame, Look]] = deque()
    look: Look | None = None
    for frame in frames:
        look = Look(frame, look)
        waiting.append((frame, look))
        yield from _decided(waiting, shots, frame.time_s)
    yield from _decided(waiting, shots, math.inf)


def _decided(
    waiting: deque[tuple[Frame, Look]], shots: _Shots, reached_s: float
) -> Iterator[tuple[Frame, bool]]:
    """Take all waiting frames that can be decided."""
    while waiting:
        frame, look = waiting[0]
        may_be_cut = shots.may_begin_with(look)
        if may_be_cut and reached_s <= look.time_s + FLASH_S:
            return
        later = [each for _, each in islice(waiting, 1, None)]
        if not later and reached_s < math.inf:
            return
        comes_in = shots.slide_into(look, later)  # To be asked of every frame.
        is_cut = may_be_cut and shots.begin_with(look, later)
        is_cut = is_cut or shots.fade_into(look) or comes_in
        waiting.popleft()
        shots.add(look, is_cut)
        yield frame, is_cut


class _Shots:
    """Decides on one frame after another; remembers those of the last `FLASH_S`."""

    def __init__(self) -> None:
        self._recent: deque[Look] = deque()
        self._start_s = 0.0
        self._fades = Fades()
        self._slides = Slides()

    def may_begin_with(self, look: Look) -> bool:
        """Whether a shot can begin here, as far as can be said without what comes later."""
        if not self._recent or not self._is_long_enough(look) or look.change < MIN_CHANGE:
            return False
        return not look.is_like(self._recent[-1], SAME_COLOURS_ABRUPT)

    def begin_with(self, look: Look, later: Sequence[Look]) -> bool:
        """Whether a shot does begin here.

        Args:
            look: of a frame with which it may begin.
            later: the frames after it, those of `FLASH_S` at least.
        """
        before = self._recent[-1]
        same_colours = SAME_COLOURS
        if self._is_abrupt(look, later):
            same_colours = SAME_COLOURS_ABRUPT
        elif look.is_like(before):
            return False
        # Times are fractions as floats: what lasts 0.2 s may be over 0.2000001 s later.
        flash_s = FLASH_S + 1e-6
        soon = (each for each in later if each.time_s <= look.time_s + flash_s)
        lately = (each for each in self._recent if each.until_s >= look.time_s - flash_s)
        return not (
            any(before.is_like(each, same_colours) for each in soon)
            or any(look.is_like(each, same_colours) for each in lately)
        )

    def _is_abrupt(self, look: Look, later: Sequence[Look]) -> bool:
        around = [each.change for each in (*self._recent, *later)]
        greatest = sorted(around)[-_AROUND:]
        return look.change >= ABRUPT * sum(greatest) / len(greatest)

    def fade_into(self, look: Look) -> bool:
        """Whether a shot begins here because another has turned into it."""
        return self._fades.has_turned(look) and self._is_long_enough(look)

    def slide_into(self, look: Look, later: Sequence[Look]) -> bool:
        """Whether a shot begins here because it has come in from one side."""
        after = later[0] if later else None
        return self._slides.has_come_in(look, after) and self._is_long_enough(look)

    def _is_long_enough(self, look: Look) -> bool:
        return look.time_s - self._start_s >= SHORTEST_SHOT_S - 1e-6

    def add(self, look: Look, is_cut: bool) -> None:
        """Advance to the next frame."""
        if is_cut:
            self._start_s = look.time_s
            self._fades.clear()
        if not self._recent:
            self._start_s = look.time_s
        while len(self._recent) > 1 and self._recent[1].time_s < look.time_s - FLASH_S:
            self._recent.popleft()
        self._recent.append(look)
