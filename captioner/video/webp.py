"""Read animated WebP, which FFmpeg does not, with Pillow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from captioner.video.containers import no_frames, not_opened
from captioner.video.frames import Frame, Lengths, Pixels, Video, VideoInfo
from captioner.video.opencv import ImageFrame

SHORTEST_S, USUAL_S = 0.01, 0.1
"""A frame that claims to be shown no longer than the first is shown for the second, in browsers."""


class WebPVideo(Video):
    """An animated WebP, or a still as a video of one frame, whatever reader was asked for."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._image = _open(path)
        except _PILLOW_ERRORS as error:
            raise not_opened(path) from error
        self._frames = _frames_of(self._image)
        self._first = self._next()
        if self._first is None:
            self.close()
            raise no_frames(path)
        self.info = VideoInfo(*self._image.size, 0, None)

    def lengths(self, alive: Callable[[], object] = lambda: None) -> Lengths:
        """See `Video.lengths`."""
        total_s = 0.0
        with suppress(*_PILLOW_ERRORS), _open(self.path) as image:
            for _, lasts_s in _frames_of(image):
                total_s += lasts_s
                alive()
        return Lengths(total_s, total_s, 0.0)

    def _next(self) -> tuple[Pixels, float] | None:
        try:
            return next(self._frames, None)
        except _PILLOW_ERRORS:
            self.decode_failures += 1
            self.ended_early = "a damaged frame"
            return None

    def __iter__(self) -> Iterator[Frame]:
        index, time_s, found = 0, 0.0, self._first
        self._first = None
        while found is not None:
            image, lasts_s = found
            height, width = image.shape[:2]
            bgr = np.ascontiguousarray(image[:, :, ::-1])
            frame = ImageFrame(index, time_s, bgr, (width, height))
            frame.duration_s = lasts_s
            yield frame
            index, time_s, found = index + 1, time_s + lasts_s, self._next()

    def close(self) -> None:
        """Close the file."""
        self._image.close()


_PILLOW_ERRORS = (OSError, ValueError, SyntaxError, RuntimeError, Image.DecompressionBombError)


def _open(path: Path) -> Image.Image:
    """Open a WebP file.

    Raises:
        OSError, ValueError, SyntaxError: it cannot be read, Pillow's too large image included.
    """
    return Image.open(path, formats=["WEBP"])


def _frames_of(image: Image.Image) -> Iterator[tuple[Pixels, float]]:
    """Each frame as RGB over white, uint8 (height, width, 3), and how long it is shown, in seconds.

    Raises:
        OSError, ValueError, SyntaxError: a frame cannot be decoded.
    """
    for frame in ImageSequence.Iterator(image):
        clear = frame.convert("RGBA")
        lasts_s = frame.info.get("duration", 0) / 1000
        flat = Image.new("RGB", clear.size, "white")
        flat.paste(clear, mask=clear.getchannel("A"))
        yield np.asarray(flat), lasts_s if lasts_s > SHORTEST_S else USUAL_S
