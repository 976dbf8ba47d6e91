"""Neighbouring segments with one caption, as one: what subtitles and transcripts show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

NOTHING: Mapping[str, Any] = {"text": None, "confidence": 0.0}


@dataclass(frozen=True)
class Passage:
    """A stretch of time with one caption, whatever cuts are in it.

    Attributes:
        start_s: where it begins, in seconds.
        end_s: where it is over.
        text: the caption; None where there is nothing to see.
        confidence: mean of the segments' over the time, in [0, 1].
    """

    start_s: float
    end_s: float
    text: str | None
    confidence: float


def passages(segments: Iterable[Mapping[str, Any]], language: str | None = None) -> list[Passage]:
    """Join segments that follow each other without a gap and have the same caption.

    Args:
        segments: of a record, in the order of time.
        language: one of the other languages of the record; None for its first one.
    """
    found: list[Passage] = []
    for segment in segments:
        said = segment
        if language is not None:
            said = segment.get("other_languages", {}).get(language, NOTHING)
        new = Passage(segment["start"], segment["end"], said["text"], said["confidence"])
        if found and found[-1].text == new.text and found[-1].end_s == new.start_s:
            new = _joined(found.pop(), new)
        found.append(new)
    return found


def _joined(a: Passage, b: Passage) -> Passage:
    a_s, b_s = a.end_s - a.start_s, b.end_s - b.start_s
    # Without any time, as in a video that was given up at once, they count the same.
    share = a_s / (a_s + b_s) if a_s + b_s > 0 else 0.5
    confidence = share * a.confidence + (1 - share) * b.confidence
    return Passage(a.start_s, b.end_s, a.text, confidence)
