"""What every reader of videos gives: frames with their times, or what is wrong.

Times are presentation timestamps in seconds, measured from the first frame that can be shown.
They are never a frame's number divided by a rate: that is wrong wherever the rate varies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from captioner.errors import CaptionerError
from captioner.files.finding import printable
from captioner.images.transform import ImageTransform
from captioner.video.options import LONGEST_VIDEO_S

READING = 6
"""Rises when the same files give other images, times or cuts than before: results do not mix."""

LONGEST_GAP_S = 3600.0
"""Longest time that a frame is believed to be shown, unless the video is announced to be longer."""

MAX_PIXEL_ASPECT = 8
"""Pixels that are announced to be more oblong than that are taken for square ones."""

MAX_WIDTH = 16_384
"""Pixels to which an image may be widened because its stored ones are not square."""

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


class VideoError(CaptionerError):
    """One video cannot be used.

    Attributes:
        code: which kind of trouble, a fixed word for programs: ``not_found``, ``unreadable``,
            ``empty_file``, ``not_a_video``, ``no_video_stream``, ``no_frames``, ``no_decoder``,
            ``time_limit``, ``decoder_died``, ``out_of_range`` (it ends before the part that was
            asked for).
        reason: the same for people, in a few words without the path.
        path: the file.
    """

    def __init__(self, code: str, reason: str, path: Path) -> None:
        """Keep all three; the message is ``path: reason``."""
        super().__init__(f"{printable(path)}: {reason}")
        self.code = code
        self.reason = reason
        self.path = path


@dataclass(frozen=True)
class Lengths:
    """How long a file is by the times of its packets, in seconds since the first frame.

    Attributes:
        video_s: when the last frame is over, as far as the file says.
        end_s: when all is over, sound included.
        lead_s: how long there is sound before the first frame.
    """

    video_s: float
    end_s: float
    lead_s: float


@dataclass(frozen=True)
class VideoInfo:
    """What the container says before anything is decoded; only the size is certain.

    Attributes:
        width: of the image as it is shown, in square pixels.
        height: likewise.
        rotation: degrees clockwise by which stored images are turned to be shown: 0, 90, 180
            or 270. It is applied already, after mirroring where the file asks for that too.
        announced_s: length of the video in seconds according to the container; None if it does
            not say.
        file_s: length of the file, sound included, in seconds; None if it does not say.
        is_exact: whether `announced_s` comes from an index of this stream, and is no estimate.
    """

    width: int
    height: int
    rotation: int
    announced_s: float | None
    file_s: float | None = field(default=None, compare=False)
    is_exact: bool = field(default=False, compare=False)

    @property
    def expected_s(self) -> float | None:
        """How long the video is likely to be, in seconds; None if the container does not say."""
        return self.announced_s or self.file_s


class Frame(ABC):
    """One decoded image. It is converted only when asked for: most frames are never looked at.

    Attributes:
        index: 0, 1, 2, ... in the order of showing, of the frames that could be decoded.
        time_s: seconds since the first frame.
        duration_s: how long it is shown, in seconds; None if the file does not say.
        until_s: when the next frame is shown, in seconds since the first; None until it is known.
    """

    def __init__(self, index: int, time_s: float, duration_s: float | None) -> None:
        self.index = index
        self.time_s = time_s
        self.duration_s = duration_s
        self.until_s: float | None = None

    @abstractmethod
    def rgb(self) -> Pixels:
        """The image as it is shown, upright: (height, width, 3) in the order RGB."""

    def fitted(self, transform: ImageTransform) -> Image.Image:
        """The image as it is shown, RGB, in the size and way of a model's transform."""
        return transform.fit(Image.fromarray(self.rgb()))

    @abstractmethod
    def thumbnail(self, width: int, height: int) -> Pixels:
        """A small copy as it is stored, not turned: (height, width, 3) in the order BGR."""


class Video(ABC):
    """An open video: iterate once over its frames, then close it (or use it as a context).

    Attributes:
        path: the file.
        info: what the container says.
        decode_failures: packets and frames, so far, that could not be decoded and were skipped.
        ended_early: why the frames ended before the file did, in a few words; None if they did
            not, or not yet.
    """

    path: Path
    info: VideoInfo

    def __init__(self, path: Path) -> None:
        self.path = path
        self.decode_failures = 0
        self.ended_early: str | None = None

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """The frames in the order of showing, with rising times."""

    @abstractmethod
    def close(self) -> None:
        """Close the file. Closing twice does nothing."""

    @abstractmethod
    def lengths(self, alive: Callable[[], object] = lambda: None) -> Lengths:
        """The lengths by the times of all packets: the file is read once more, but not decoded.

        Args:
            alive: called after each packet.

        Returns:
            Zeros where they cannot be found out.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Clock:
    """Timestamps as a file has them -> seconds since the first frame, always rising."""

    def __init__(self, rate: Fraction | float | None, announced_s: float | None) -> None:
        """Take what the container says: frames per second, and the video's length in seconds."""
        # The frame distance to be used where a file gives none.
        self._usual_s = 1 / Fraction(rate) if rate and 1 <= rate <= 1000 else Fraction(1, 25)
        self._longest_gap_s = max(LONGEST_GAP_S, announced_s or 0)
        self._offset: Fraction | None = None
        self._last: Fraction | None = None
        self._is_behind = False

    def time(self, stamp_s: Fraction | None) -> Fraction:
        """The time of the next frame; without a usable stamp it follows the last one closely."""
        last = self._last
        if last is None:
            self._offset = stamp_s
            now = Fraction(0)
        elif stamp_s is None:
            now = last + self._usual_s
        else:
            if self._offset is None:
                self._offset = stamp_s - last - self._usual_s
            now = stamp_s - self._offset
            if _LEAST_DISTANCE_S <= now - last <= self._longest_gap_s:
                self._is_behind = False
            elif 0 <= last - now < _STUMBLE * self._usual_s and not self._is_behind:
                # One frame twice at a time, or two swapped: the next will be on time again.
                now = last + self._usual_s / 100
                self._is_behind = True
            else:
                # The timestamps start over, as where two recordings were joined, or one is damaged
                # and names a time far away: so does the offset.
                now = last + self._usual_s
                self._offset = stamp_s - now
        self._last = now
        return now


_STUMBLE = 3  # frame distances that one stamp may lie back without being a new beginning
_LEAST_DISTANCE_S = Fraction(1, 1_000_000)  # of frames, so that each has a time of its own


def plausible(seconds: float | None) -> float | None:
    """A length in seconds, None if it is nonsense."""
    return seconds if seconds is not None and 0 < seconds <= LONGEST_VIDEO_S else None


def shown_width(width: int, pixel_aspect: Fraction | float | None) -> int:
    """The width in pixels as high as they are wide, of images whose pixels need not be so.

    Args:
        width: of what is stored.
        pixel_aspect: width of a stored pixel over its height; None or 0 if it is not known.
    """
    if not pixel_aspect or not 1 / MAX_PIXEL_ASPECT <= pixel_aspect <= MAX_PIXEL_ASPECT:
        return width
    shown = max(1, round(width * pixel_aspect))
    return shown if shown <= max(width, MAX_WIDTH) else width
