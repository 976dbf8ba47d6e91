"""The subtitles of a video: which lines are shown when, whatever the format."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import Any

from captioner.tagging.passages import Passage, passages
from captioner.text.scripts import display_width, is_wide, pieces, wrap

LINE_LENGTH = 42  # columns of a subtitle's line: a Chinese character takes two
WIDE_LINE_LENGTH = 32  # of one in Chinese, whose 16 characters are about as wide as 42 letters
LINES = 2
LONGEST_CUE_MS = 7000
LATEST_MS = 100 * 3_600_000 - 1  # SRT has two digits for the hours


@dataclass(frozen=True)
class Cue:
    """One subtitle.

    Attributes:
        start_ms: when it appears, in milliseconds.
        end_ms: when it is gone; later than `start_ms`.
        lines: one or two, of at most `LINE_LENGTH` columns, or `WIDE_LINE_LENGTH`.
    """

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


def make_cues(
    segments: Iterable[Mapping[str, Any]],
    min_confidence: float = 0.0,
    language: str | None = None,
) -> list[Cue]:
    """The subtitles of a video, in the order of time; none overlap.

    Neighbouring segments with one caption, whatever cuts are between them, have one subtitle. It is
    shown from their start for at most `LONGEST_CUE_MS`. A text that needs more than two lines
    becomes several, which share the segments' time in proportion to their length;
    each is shown from the start of its share, for as long at most. What would be shown for less
    than a millisecond, or later than SRT can say, is left out.

    Args:
        segments: of a record.
        min_confidence: captions that are less sure, in the mean over their time, have none.
        language: one of the other languages of the record; None for its first one.
    """
    cues: list[Cue] = []
    for passage in passages(segments, language):
        if passage.text is not None and passage.confidence >= min_confidence:
            cues += _cues_of(passage, passage.text)
    return cues


def _cues_of(passage: Passage, text: str) -> Iterable[Cue]:
    texts = _fit(text)
    # A passage's end is the next one's start: rounded alike, they cannot overlap.
    start_ms = round(1000 * passage.start_s)
    end_ms = min(round(1000 * passage.end_s), LATEST_MS)
    lengths = [sum(map(display_width, lines)) for lines in texts]
    edges_ms = [
        start_ms + (end_ms - start_ms) * done // max(1, sum(lengths))
        for done in accumulate(lengths, initial=0)
    ]
    for lines, (from_ms, to_ms) in zip(texts, pairwise(edges_ms), strict=True):
        if to_ms > from_ms:
            yield Cue(from_ms, min(to_ms, from_ms + LONGEST_CUE_MS), lines)


# Nothing can show these, WebVTT forbids the first and UTF-8 cannot hold the last.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def _fit(text: str) -> list[tuple[str, ...]]:
    """The lines of each of the cues that a text needs."""
    text = _UNPRINTABLE.sub("\ufffd", " ".join(text.split()))
    most = WIDE_LINE_LENGTH if is_wide(text) else LINE_LENGTH
    lines = wrap(text, most)
    if len(lines) > LINES:
        # The narrowest that needs no more lines: then the last cue is not a left-over word.
        longest = min(most, max(display_width(each.strip()) for each in pieces(text)))
        widths = range(max(2, longest), most)
        narrow = (narrower for width in widths if len(narrower := wrap(text, width)) == len(lines))
        lines = next(narrow, lines)
    return [
        _balanced(list(chain.from_iterable(lines[i : i + LINES])), most)
        for i in range(0, len(lines), LINES)
    ]


def _balanced(parts: list[str], most: int) -> tuple[str, ...]:
    """Pieces of a text that need two lines at most, on one line or on two of similar width.

    A second line of a single piece is what is taken if nothing else fits.
    """
    whole = _line(parts)
    if display_width(whole) <= most:
        return (whole,)
    last = len(parts) - 1
    ways = [
        (place == last, _line(parts[:place]), _line(parts[place:]))
        for place in range(1, len(parts))
    ]
    fitting = [way for way in ways if max(map(display_width, way[1:])) <= most]
    return min(fitting, key=lambda way: (way[0], max(map(display_width, way[1:]))))[1:]


def _line(parts: Iterable[str]) -> str:
    return "".join(parts).strip()
