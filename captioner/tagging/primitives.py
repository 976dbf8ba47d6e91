"""The parts of a video's record as JSON primitives; docs/video-tags.md explains the fields.

Times are in seconds, rounded to milliseconds, probabilities have four digits.
"""

from __future__ import annotations

from typing import Any

from captioner.tagging.timeline import CaptionedFrame, Segment, VideoTag


def interval(part: Any) -> dict[str, float]:
    """Where a shot, a segment or a span begins and is over."""
    return {"start": round(part.start_s, 3), "end": round(part.end_s, 3)}


def _caption_dict(part: CaptionedFrame | Segment) -> dict[str, Any]:
    return {
        "text": part.text,
        "confidence": round(part.confidence, 4),
        "avg_logprob": None if part.avg_logprob is None else round(part.avg_logprob, 4),
    }


def frame_dict(frame: CaptionedFrame) -> dict[str, Any]:
    """A frame that was looked at."""
    return {
        "time": round(frame.time_s, 3),
        "frame_index": frame.frame_index,
        "shot": frame.shot,
        **_caption_dict(frame),
        "tags": [tag.to_dict() for tag in frame.tags],
    }


def segment_dict(segment: Segment) -> dict[str, Any]:
    """A segment with its caption and its tags."""
    others = {
        language: {"text": each.text, "confidence": round(each.confidence, 4)}
        for language, each in segment.others.items()
    }
    return {
        **interval(segment),
        "shot": segment.shot,
        **_caption_dict(segment),
        **({"other_languages": others} if others else {}),
        "agreement": round(segment.agreement, 4),
        "frames": list(segment.frames),
        "tags": [tag.to_dict() for tag in segment.tags],
    }


def video_tag_dict(tag: VideoTag) -> dict[str, Any]:
    """A tag of the video and where it holds."""
    return {
        "name": tag.name,
        "type": tag.type,
        "confidence": round(tag.confidence, 4),
        "coverage": round(tag.coverage, 4),
        "score": round(tag.score, 4),
        "segments": [
            {
                **interval(span),
                "confidence": round(span.confidence, 4),
                "frames": list(span.frames),
            }
            for span in tag.spans
        ],
    }
