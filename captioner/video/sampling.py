"""Which frames of a video are looked at: one pass, bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from captioner.video.frames import Frame, Video
from captioner.video.options import SamplingOptions
from captioner.video.shots import find_cuts

SETTLE_S = 0.25
"""A shot without a regular sample is shown by its frame so long after the cut, when a fade and the
coarse frames that encoders make of a new scene are over; or by its last one if it is shorter."""


@dataclass(frozen=True)
class Cut:
    """A shot ends and another begins.

    Attributes:
        time_s: time of the new shot's first frame, in seconds.
    """

    time_s: float


def sample(
    video: Video,
    frames: Iterable[Frame],
    options: SamplingOptions,
    alive: Callable[[], object] = lambda: None,
) -> Iterator[Frame | Cut]:
    """Choose the frames to look at, in the order of time.

    Args:
        video: what ``frames`` come from.
        frames: all frames of the video; none are read after the end of the part.
        options: which to choose.
        alive: called now and then while no frame is decoded.

    Yields:
        The chosen frames, whose `until_s` is known, and before the first frame of each new shot
        its cut.
    """
    length_s = None
    if options.max_frames is not None:
        length_s = video.info.announced_s if video.info.is_exact else None
        length_s = options.part_length_s(length_s or video.lengths(alive).video_s)
    due = _Due(options, length_s)
    shot_start_s = options.start_s
    seen = False  # whether a frame of this shot was chosen
    spare: Frame | None = None
    frames = _part(_with_ends(frames), options)
    for frame, is_cut in find_cuts(frames) if options.shots else ((each, False) for each in frames):
        if is_cut:
            if spare is not None and not seen and due.takes_spare(spare):
                yield spare
            yield Cut(frame.time_s)
            shot_start_s, seen, spare = frame.time_s, False, None
        if due.takes(frame):
            seen, spare = True, None
            yield frame
        elif not seen and (spare is None or frame.time_s <= shot_start_s + SETTLE_S):
            spare = frame
    if spare is not None and not seen and due.takes_spare(spare):
        yield spare


def _with_ends(frames: Iterable[Frame]) -> Iterator[Frame]:
    """The same frames, each with the time until which it is shown."""
    before: Frame | None = None
    for frame in frames:
        if before is not None:
            before.until_s = frame.time_s
            yield before
        before = frame
    if before is not None:
        before.until_s = before.time_s + (before.duration_s or 0.0)
        yield before


def _part(frames: Iterable[Frame], options: SamplingOptions) -> Iterator[Frame]:
    """The frames of the part; what is shown when it begins belongs to it from then on."""
    for frame in frames:
        if options.end_s is not None and frame.time_s >= options.end_s:
            return
        if frame.until_s is None or frame.until_s > options.start_s or options.start_s == 0:
            frame.time_s = max(frame.time_s, options.start_s)
            yield frame


class _Due:
    """Whose turn it is.

    Of a bounded number of frames each moment may have taken only its share, so that many shots at
    the beginning leave some for the end.
    """

    def __init__(self, options: SamplingOptions, length_s: float | None) -> None:
        self._every = options.every_n_frames or 1
        self._interval_s = 1 / options.fps if options.every_n_frames is None else 0.0
        self._share = 0.0  # frames per second that may be taken; 0: as many as there are
        if options.max_frames is not None and length_s is not None:
            self._interval_s = max(self._interval_s, length_s / options.max_frames)
            self._share = options.max_frames / length_s
        self._start_s = options.start_s
        self._next_s = 0.0  # since the start
        self._taken = 0
        self._most = options.max_frames

    def takes(self, frame: Frame) -> bool:
        """Whether the frame is looked at because of its time or number."""
        # Times are fractions as floats: the frame of the third second may be shown at 2.9999999.
        now_s = frame.time_s - self._start_s + 1e-6
        until_s = now_s if frame.until_s is None else frame.until_s - self._start_s - 1e-6
        # Shown at two times that are due, it would be missed, and the next one come too late.
        stays = self._interval_s > 0 and until_s > self._next_s + self._interval_s
        if frame.index % self._every or (now_s < self._next_s and not stays):
            return False
        if not self._take(now_s):
            return False
        if self._interval_s > 0:
            reached_s = until_s if now_s < self._next_s else now_s
            self._next_s = (int(reached_s / self._interval_s) + 1) * self._interval_s
        return True

    def takes_spare(self, frame: Frame) -> bool:
        """Whether the frame is looked at although it is out of turn: the next has to wait."""
        return self._take(frame.time_s - self._start_s, ahead=1)

    def _take(self, time_s: float, ahead: int = 0) -> bool:
        if self._most is not None:
            if self._taken == self._most:
                return False
            if self._share > 0 and self._taken > self._share * time_s + ahead:
                return False
        self._taken += 1
        return True
