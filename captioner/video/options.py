"""Which frames of a video are looked at, as options. Loads no reader and no NumPy."""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_VIDEO_S = 1e6
"""Announced lengths above are nonsense: 11 days."""

READERS = ("pyav", "opencv")
"""Of files; see `captioner.video.opening`."""


@dataclass(frozen=True)
class SamplingOptions:
    """How a video is read. Checked in full when made; ValueError names what is wrong.

    Attributes:
        fps: frames looked at per second of video: the first of each 1 / fps seconds, and each that
            is shown for longer than that and would be missed.
        every_n_frames: take every so manieth frame instead, whatever its time; None goes by `fps`.
        shots: find the cuts; every shot then has at least one frame. Without, all is one shot.
        max_frames: most frames looked at in one video. They are spread over all of a longer video;
            where the file does not say how long it is, it is read once more, without decoding, to
            find out. None sets no bound.
        reader: ``pyav`` or ``opencv``; see `captioner.video.opening`.
        time_limit_s: a video whose reader delivers nothing for this many seconds is given up.
        start_s: where the part of the video that is looked at begins, in seconds. What comes before
            is decoded all the same.
        end_s: where it is over, in seconds; None for the end of the video.
    """

    fps: float = 1.0
    every_n_frames: int | None = None
    shots: bool = True
    max_frames: int | None = None
    reader: str = "pyav"
    time_limit_s: float = 60.0
    start_s: float = 0.0
    end_s: float | None = None

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
        self._check_part()

    def _check_part(self) -> None:
        for name, value in (("start_s", self.start_s), ("end_s", self.end_s)):
            if value is None and name == "end_s":
                continue
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not 0 <= value <= LONGEST_VIDEO_S
            ):
                raise ValueError(f"{name}={value!r}: give seconds, 0 to {LONGEST_VIDEO_S:g}")
        if self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError(f"end_s={self.end_s!r}: give a time after start_s={self.start_s!r}")

    def part_length_s(self, length_s: float | None) -> float | None:
        """How much of a video of this length is looked at, in seconds; None if not known."""
        ends_s = [each for each in (length_s, self.end_s) if each is not None]
        length_s = min(ends_s) - self.start_s if ends_s else 0.0
        return length_s if length_s > 0 else None
