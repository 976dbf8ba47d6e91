"""Which tags a video gets. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

from captioner.options import check_options, option


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

    min_confidence: float = option(
        0.25, "minimum confidence of a tag, from 0 to 1", metavar="P", minimum=0, maximum=1
    )
    min_coverage: float = option(
        0.05, "minimum share of the time that a tag covers", metavar="P", minimum=0, maximum=1
    )
    max_tags: int = option(20, "maximum number of tags of a video", metavar="N", minimum=0)
    max_gap_s: float = option(
        2.0, "join spans of a tag over gaps of up to S seconds", metavar="S", minimum=0
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class FrameBatchOptions:
    """How a command goes through the frames of videos.

    Attributes:
        batch_size: frames whose captions are searched for at once.
    """

    batch_size: int = option(16, "frames at once", metavar="B", minimum=1)

    def __post_init__(self) -> None:
        check_options(self)
