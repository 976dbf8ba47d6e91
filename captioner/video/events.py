"""Events of a video, and how one process sends them to another: lines of JSON, and pixels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import IO, Any

from captioner.images.transform import MAX_SIDE
from captioner.video.frames import VideoInfo
from captioner.video.sampling import Cut

MAX_LINE = 100_000  # bytes: no message is longer
MAX_DATA = 3 * MAX_SIDE**2


@dataclass(frozen=True)
class Opened:
    """The video could be opened and its first frame decoded."""

    info: VideoInfo


@dataclass(frozen=True)
class ChosenFrame:
    """A frame that was chosen.

    Attributes:
        time_s: when it is shown, in seconds since the first frame.
        frame_index: its number among the frames that could be decoded.
        pixels: what the model's transform made of it, RGB, height * width * 3 bytes; None if it
            looks the same as the image before, whose caption is its caption.
        until_s: when the next frame is shown, likewise; None if that is not known.
    """

    time_s: float
    frame_index: int
    pixels: bytes | None
    until_s: float | None = None


@dataclass(frozen=True)
class Ended:
    """The video is read.

    Attributes:
        duration_s: from the first frame to the end of the last one, in seconds, or to the end of
            the part that was asked for.
        frame_count: frames that were decoded, and those that did not have to be.
        average_fps: frames per second, 1 over the mean distance between frames.
        is_vfr: whether the frame rate varies: more than one distance in a hundred between frames
            differs from the most common one by over a tenth (and 2 ms).
        decode_failures: packets and frames that could not be decoded.
        partial: why this is not all of the video, in a few words; None if it is.
    """

    duration_s: float
    frame_count: int
    average_fps: float
    is_vfr: bool
    decode_failures: int
    partial: str | None


@dataclass(frozen=True)
class Failed:
    """The video, or the rest of it, could not be read; see `captioner.video.frames.VideoError`."""

    code: str
    reason: str


Event = Opened | ChosenFrame | Cut | Ended | Failed


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """The next message; None at the end, also where it is torn or not a message."""
    try:
        line = stream.readline(MAX_LINE)
        header: Any = json.loads(line) if line.endswith(b"\n") else None
        size = header["bytes"]
        if not 0 <= size <= MAX_DATA:
            return None
        data = stream.read(size)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return None if len(data) < size else (header, data)


def event_of(header: dict[str, Any], data: bytes) -> Event | None:
    """What a message says; None for a sign of life."""
    kind, values = header["event"], header.get("values", {})
    if kind == "opened":
        return Opened(VideoInfo(**values))
    if kind == "frame":
        return ChosenFrame(**values, pixels=data or None)
    if kind == "cut":
        return Cut(**values)
    if kind == "ended":
        return Ended(**values)
    if kind == "failed":
        return Failed(**values)
    assert kind == "alive", kind
    return None
