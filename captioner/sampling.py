"""Which frames of a video are looked at, and where its shots begin: one pass, bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from captioner.video import READERS, Frame, Video, VideoInfo

SHORTEST_SHOT_S = 0.5
"""Cuts closer to the last one than this are flashes, not shots."""

SETTLE_S = 0.25
"""A shot without a regular sample is shown by its frame so long after the cut, when a fade and the
coarse pictures that encoders make of a new scene are over; or by its last one if it is shorter."""

THUMBNAIL_WIDTH = 160  # pixels: what the shot detector looks at

_TIME_BASE = Fraction(1, 1_000_000)


@dataclass(frozen=True)
class SamplingOptions:
    """How a video is read. Checked in full when made; ValueError names what is wrong.

    Attributes:
        fps: frames looked at per second of video: those shown at 0, 1 / fps, 2 / fps, ... seconds.
        every_n_frames: take every so manieth frame instead, whatever its time; None goes by `fps`.
        shots: find the cuts; every shot then has at least one frame. Without, all is one shot.
        max_frames: most frames looked at in one video. A video announced to be longer is sampled
            more thinly, so that its end is seen too. None sets no bound.
        reader: ``pyav`` or ``opencv``; see `captioner.video`.
        time_limit_s: a video whose reader delivers nothing for so many seconds is given up.
    """

    fps: float = 1.0
    every_n_frames: int | None = None
    shots: bool = True
    max_frames: int | None = None
    reader: str = "pyav"
    time_limit_s: float = 60.0

    def __post_init__(self) -> None:
        for name, most in (("fps", 1000.0), ("time_limit_s", 1e6)):
            value = getattr(self, name)
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not 0 < value <= most
            ):
                raise ValueError(f"{name}={value!r}: give a number above 0, at most {most:g}")
        for name in ("every_n_frames", "max_frames"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name}={value!r}: give a whole number of at least 1")
        if self.reader not in READERS:
            raise ValueError(f"reader={self.reader!r}: choose one of {', '.join(READERS)}")


@dataclass(frozen=True)
class Cut:
    """A shot ends and another begins.

    Attributes:
        time_s: time of the new shot's first frame, in seconds.
    """

    time_s: float


def sample(
    video: Video, frames: Iterable[Frame], options: SamplingOptions
) -> Iterator[Frame | Cut]:
    """Choose the frames to look at, in the order of time.

    Args:
        video: what ``frames`` come from.
        frames: all frames of the video.
        options: which to choose.

    Yields:
        The chosen frames, and before the first frame of each new shot its cut.
    """
    due = _Due(options, video.info)
    shot_start_s = 0.0
    seen = False  # whether a frame of this shot was chosen
    spare: Frame | None = None
    for frame, is_cut in find_cuts(frames) if options.shots else ((each, False) for each in frames):
        if is_cut:
            if spare is not None and not seen and due.take_spare():
                yield spare
            yield Cut(frame.time_s)
            shot_start_s, seen, spare = frame.time_s, False, None
        if due.takes(frame):
            seen, spare = True, None
            yield frame
        elif not seen and (spare is None or frame.time_s <= shot_start_s + SETTLE_S):
            spare = frame
    if spare is not None and not seen and due.take_spare():
        yield spare


class _Due:
    """Whose turn it is."""

    def __init__(self, options: SamplingOptions, info: VideoInfo) -> None:
        self._every = options.every_n_frames or 1
        self._interval_s = 1 / options.fps if options.every_n_frames is None else 0.0
        if options.max_frames is not None and info.announced_s is not None:
            self._interval_s = max(self._interval_s, info.announced_s / options.max_frames)
        self._next_s = 0.0
        self._left = options.max_frames

    def takes(self, frame: Frame) -> bool:
        # Times are fractions as floats: the frame of the third second may be shown at 2.9999999.
        now_s = frame.time_s + 1e-6
        if frame.index % self._every or now_s < self._next_s or not self.take_spare():
            return False
        if self._interval_s > 0:
            self._next_s = (int(now_s / self._interval_s) + 1) * self._interval_s
        return True

    def take_spare(self) -> bool:
        """Count a frame that is chosen out of turn; whether it may be."""
        if self._left is None:
            return True
        if self._left == 0:
            return False
        self._left -= 1
        return True


def find_cuts(frames: Iterable[Frame]) -> Iterator[tuple[Frame, bool]]:
    """Mark the frames with which a new shot begins.

    PySceneDetect's adaptive detector: a cut is a frame that differs from the one before by at
    least 3 times as much as its neighbours do from theirs, in the mean over hue, saturation and
    brightness; so a moving camera is no cut. It has to see two frames more before it can say.

    Yields:
        Every frame, in order, and whether a shot begins with it; the first frame is no cut.
    """
    from scenedetect import FrameTimecode
    from scenedetect.common import Timecode
    from scenedetect.detectors import AdaptiveDetector

    detector = AdaptiveDetector(min_scene_len=SHORTEST_SHOT_S)
    waiting: deque[Frame] = deque()
    cuts: set[int] = set()
    for frame in frames:
        waiting.append(frame)
        # The detector compares times, and gives back those of the frames that it was given.
        stamp = Timecode(round(frame.time_s / _TIME_BASE), _TIME_BASE)
        found = detector.process_frame(
            FrameTimecode(stamp, fps=25.0), frame.thumbnail(THUMBNAIL_WIDTH)
        )
        cuts.update(round(cut.seconds / _TIME_BASE) for cut in found)
        if len(waiting) > detector.event_buffer_length:
            yield _marked(waiting.popleft(), cuts)
    while waiting:
        yield _marked(waiting.popleft(), cuts)


def _marked(frame: Frame, cuts: set[int]) -> tuple[Frame, bool]:
    stamp = round(frame.time_s / _TIME_BASE)
    is_cut = stamp in cuts
    cuts.discard(stamp)
    return frame, is_cut
