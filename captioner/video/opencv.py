"""Read videos with OpenCV, where PyAV cannot."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from captioner.video.containers import (
    CONTAINERS,
    has_encrypted_packets,
    measured_lengths,
    no_frames,
    not_opened,
    open_container,
    video_stream,
)
from captioner.video.frames import (
    Clock,
    Frame,
    Lengths,
    Pixels,
    Video,
    VideoError,
    VideoInfo,
    plausible,
    shown_width,
)


@contextmanager
def _opencv_options() -> Iterator[None]:
    """Forbid playlists; OpenCV takes FFmpeg's options from the environment and nowhere else."""
    name = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
    before = os.environ.get(name)
    os.environ[name] = f"protocol_whitelist;file|format_whitelist;{CONTAINERS}"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class ImageFrame(Frame):
    """A frame whose pixels are there, BGR."""

    def __init__(
        self, index: int, time_s: float, image: Pixels, shown_size: tuple[int, int]
    ) -> None:
        super().__init__(index, time_s, None)
        self._image = image
        self._shown_size = shown_size

    def rgb(self) -> Pixels:
        """See `Frame.rgb`."""
        import cv2

        height, width = self._image.shape[:2]
        shown = self._image
        if (width, height) != self._shown_size:
            shown = np.asarray(cv2.resize(shown, self._shown_size), dtype=np.uint8)
        image: Pixels = np.ascontiguousarray(shown[:, :, ::-1])
        return image

    def thumbnail(self, width: int, height: int) -> Pixels:
        """See `Frame.thumbnail`."""
        import cv2

        small = cv2.resize(self._image, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(small, dtype=np.uint8)


def _opencv_size(
    shape: Sequence[int], rotation: int, pixel_aspect: float | None
) -> tuple[int, int]:
    """(width, height) at which images are shown that OpenCV has turned already."""
    height, width = shape[:2]
    if rotation % 180:
        return width, shown_width(height, pixel_aspect)
    return shown_width(width, pixel_aspect), height


class OpenCvVideo(Video):
    """OpenCV turns images upright itself; its clock is the timestamp, its counts are guesses.

    What it does not do: it decodes no AV1, ends in silence at what it cannot decode, turns
    mirrored images wrongly, takes a sound file's cover for a video, brings all frames to one
    size, cannot open names that are not UTF-8, takes the longest stream's length for the video's
    in Matroska, takes what has no container for 25 frames a second, and shows high dynamic range
    and BT.709 as if they were BT.601, and transparent pixels in the colour that lies behind.
    """

    def __init__(self, path: Path) -> None:
        import cv2

        super().__init__(path)
        self._cv2 = cv2
        try:
            os.fspath(path).encode()
        except UnicodeEncodeError as error:
            raise VideoError("unreadable", "OpenCV needs a name in UTF-8", path) from error
        with _opencv_options():
            # With the folder, so that no file name is taken for a protocol.
            self._capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)
        try:
            if not self._capture.isOpened():
                with open_container(path) as container:
                    video_stream(container, path)  # It knows more of what is wrong.
                raise not_opened(path)
            read, first = self._capture.read()
            if not read or has_encrypted_packets(path):
                raise no_frames(path)
        except BaseException:
            self.close()
            raise
        self._first: Any = first
        get = self._capture.get
        rate, count = get(cv2.CAP_PROP_FPS), get(cv2.CAP_PROP_FRAME_COUNT)
        self._rate = rate
        rotation = int(get(cv2.CAP_PROP_ORIENTATION_META)) % 360
        high = get(cv2.CAP_PROP_SAR_DEN)
        pixel_aspect = get(cv2.CAP_PROP_SAR_NUM) / high if high > 0 else None
        self._shown_size = _opencv_size(first.shape, rotation, pixel_aspect)
        announced_s = plausible(count / rate if rate > 0 else None)
        self.info = VideoInfo(*self._shown_size, rotation, announced_s)

    def __iter__(self) -> Iterator[Frame]:
        clock = Clock(self._rate, self.info.announced_s)
        index, image = 0, self._first
        self._first = None
        while image is not None:
            stamp_ms = self._capture.get(self._cv2.CAP_PROP_POS_MSEC)
            # Zero also stands for a stamp that is not known.
            stamp = Fraction(stamp_ms) / 1000 if index == 0 or stamp_ms != 0 else None
            yield ImageFrame(index, float(clock.time(stamp)), image, self._shown_size)
            read, image = self._capture.read()
            index, image = index + 1, image if read else None

    def lengths(self, alive: Callable[[], object] = lambda: None) -> Lengths:
        """See `Video.lengths`."""
        return measured_lengths(self.path, alive)

    def close(self) -> None:
        """Close the file."""
        self._capture.release()
