"""Records of tagged videos, and the files that are written of them."""

from __future__ import annotations

from typing import Any

from captioner.tagging.writers import TAG_WRITERS

NOTE = 'NOTE What the video shows, told by a program; for <track kind="descriptions">\n'

DOG = {"name": "dog", "type": "noun", "confidence": 0.9}
RIDE = {"name": "ride", "type": "verb", "confidence": 0.5012}


def segment(start: float, end: float, text: str, confidence: float = 0.72) -> dict[str, Any]:
    return {
        "start": start,
        "end": end,
        "shot": 0,
        "text": text,
        "confidence": confidence,
        "avg_logprob": -0.3285,
        "agreement": 1.0,
        "frames": [0],
        "tags": [DOG],
    }


def video_tag(tag: dict[str, Any], coverage: float, *spans: tuple[float, float]) -> dict[str, Any]:
    return {
        **tag,
        "coverage": coverage,
        "score": 1.25,
        "segments": [
            {"start": start, "end": end, "confidence": 0.8, "frames": [0]} for start, end in spans
        ],
    }


def record(**changes: Any) -> dict[str, Any]:
    """A clip of seven seconds with a cut, and whatever is said to be different."""
    return {
        "schema": "captioner-video-2",
        "status": "ok",
        "error": None,
        "video": {
            "file_name": "trips/käse.mp4",
            "duration_s": 7.04,
            "width": 1280,
            "height": 720,
            "rotation": 0,
            "average_fps": 29.97,
            "is_vfr": False,
            "frame_count": 211,
            "decode_failures": 0,
        },
        "shots": [{"start": 0.0, "end": 3.0}, {"start": 3.0, "end": 7.04}],
        "segments": [
            segment(0.0, 3.0, "a dog"),
            segment(3.0, 7.04, "a man in a red shirt rides a bike along a dirt road", 0.5),
        ],
        "frames": [
            {
                "time": 0.0,
                "frame_index": 0,
                "shot": 0,
                "text": "a dog",
                "confidence": 0.72,
                "avg_logprob": -0.3285,
                "tags": [DOG, RIDE],
            }
        ],
        "tags": [
            video_tag(RIDE, 0.5739, (3.0, 7.04)),
            video_tag(DOG, 0.9858, (0.0, 3.0), (3.1, 7.04)),
        ],
        "model": {"encoder": "lite0", "calibrated": True},
        "settings": {"sampling": {"fps": 1.0}},
        **changes,
    }


def named(name: str) -> dict[str, Any]:
    return record(video={**record()["video"], "file_name": name})


PARTIAL = record(
    status="partial",
    error={"code": "cut_off", "message": "it ends after 7.04 s, and 90.00 s were announced"},
)
FAILED = record(
    status="failed",
    error={"code": "empty_file", "message": "empty file"},
    video={**dict.fromkeys(record()["video"]), "file_name": "a.mp4", "duration_s": 0.0},
    shots=[],
    segments=[],
    frames=[],
    tags=[],
)
UNTAGGED = record(tags=[], segments=[])


def text_of(format: str, values: dict[str, Any], **options: Any) -> str:
    return TAG_WRITERS[format](**options).text(values)
