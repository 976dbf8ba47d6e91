"""The options of reading videos. Loads neither NumPy nor a reader."""

from __future__ import annotations

from dataclasses import dataclass

from captioner.options import check_options, option

READERS = ("pyav", "opencv")

LONGEST_VIDEO_S = 1e6  # Announced lengths above are nonsense: 11 days.


@dataclass(frozen=True)
class SamplingOptions:
    """How a video is read. Checked in full when made; ValueError names what is wrong.

    Attributes:
        fps: frames looked at per second of video: the first of each 1 / fps seconds, and each that
            is shown for longer than that and would be missed.
        every_n_frames: take every Nth frame instead, whatever its time; None goes by `fps`.
        shots: find the cuts; every shot then has at least one frame. Without, all is one shot.
        max_frames: most frames looked at in one video. They are spread over all of a longer video;
            where no index says how long it is, the file is read once more, without decoding, to
            find out. None sets no bound.
        reader: ``pyav`` or ``opencv``; see `captioner.video.opening`.
        time_limit_s: a video whose reader delivers nothing for this many seconds is given up.
        start_s: where the part of the video that is looked at begins, in seconds. What comes before
            is decoded too, unless no cuts are searched for and the packets say enough; see
            `captioner.video.skipping`.
        end_s: where it is over, in seconds; None for the end of the video.
    """

    fps: float = option(
        1.0, "look at N frames per second of video", metavar="N", above=0, maximum=1000
    )
    every_n_frames: int | None = option(
        None,
        "look at every Nth frame instead",
        kind=int,
        metavar="N",
        minimum=1,
    )
    shots: bool = option(True, "find the cuts, and look at every shot; without, all is one shot")
    max_frames: int | None = option(
        None,
        "maximum number of frames of a video, spread over all of a longer one",
        kind=int,
        metavar="N",
        default_text="no limit",
        minimum=1,
    )
    reader: str = option(
        READERS[0],
        "of the files: pyav has exact times and counts damage; opencv for files that pyav cannot "
        "read",
        choices=READERS,
    )
    time_limit_s: float = option(
        60.0,
        "give up a video whose decoder delivers nothing for S seconds",
        metavar="S",
        above=0,
        maximum=1e6,
    )
    start_s: float = option(
        0.0,
        "look only at what is shown from here on: seconds, mm:ss or hh:mm:ss",
        flag="--start",
        metavar="TIME",
        default_text="",
        minimum=0,
        maximum=LONGEST_VIDEO_S,
    )
    end_s: float | None = option(
        None,
        "and only at what is shown before this. Times stay those of the whole video",
        kind=float,
        flag="--end",
        metavar="TIME",
        minimum=0,
        maximum=LONGEST_VIDEO_S,
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError(
                f"end_s={self.end_s:g}: give a time after start_s={self.start_s:g}, in seconds"
            )

    def part_length_s(self, length_s: float | None) -> float | None:
        """How much of a video of this length is looked at, in seconds; None if not known."""
        ends_s = [each for each in (length_s, self.end_s) if each is not None]
        length_s = min(ends_s) - self.start_s if ends_s else 0.0
        return length_s if length_s > 0 else None
