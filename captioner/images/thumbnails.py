"""Small images of a video's segments, from the frames that the model looks at anyway."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from captioner.images.transform import ImageTransform

LONG_SIDE = 240
"""Most pixels of the longer side. The model's images, their source, are little larger."""

SMALL_SIDE = 112
"""The same for videos with too many segments for large ones."""

MOST_BYTES = 4_000_000
"""Of all thumbnails of a video together: its page holds them."""


class Filmstrip:
    """Keeps one frame of each segment, the one whose caption is surest, as a JPEG.

    Memory does not grow with the number of frames: of the current segment only the surest frame
    so far is kept, and it is compressed when the segment is over.

    Args:
        transform: the one that made the model's images.
    """

    def __init__(self, transform: ImageTransform) -> None:
        self._transform = transform
        self._done: list[bytes] = []
        self._latest: bytes | None = None
        self._surest: bytes | None = None
        self._confidence = 0.0

    def add(
        self, pixels: bytes | None, confidence: float, starts_segment: bool, size: tuple[int, int]
    ) -> None:
        """Take the next frame.

        Args:
            pixels: the model's image of the frame, RGB; None if it looks like the frame before.
            confidence: of its caption.
            starts_segment: whether a segment begins with it.
            size: (width, height) of the video.
        """
        if starts_segment:
            self._finish(size)
        self._latest = pixels or self._latest
        if self._surest is None or confidence > self._confidence:
            self._surest, self._confidence = self._latest, confidence

    def finish(self, size: tuple[int, int]) -> tuple[bytes, ...]:
        """The thumbnails of all segments, in their order."""
        self._finish(size)
        return tuple(self._done)

    def _finish(self, size: tuple[int, int]) -> None:
        if self._surest is not None:
            self._done.append(_thumbnail(self._surest, self._transform, size))
        self._surest = None


def within(images: Sequence[bytes], importance: Sequence[float]) -> list[bytes | None]:
    """Shrink or drop thumbnails until they fit in MOST_BYTES.

    Args:
        images: JPEG files.
        importance: of each. If even small ones are too many, the least important are None.
    """
    if sum(map(len, images)) <= MOST_BYTES:
        return list(images)
    small = [_smaller(data) for data in images]
    kept: list[bytes | None] = [None] * len(small)
    left = MOST_BYTES
    for place in sorted(range(len(small)), key=lambda place: (-importance[place], place)):
        if len(small[place]) > left:
            break
        kept[place] = small[place]
        left -= len(small[place])
    return kept


def _thumbnail(pixels: bytes, transform: ImageTransform, size: tuple[int, int]) -> bytes:
    """A JPEG in the shape of the video: the model sees it squashed, cut or with a margin."""
    image = Image.frombytes("RGB", transform.size, pixels)
    width, height = transform.size
    if transform.resize == "pad":
        scale = min(width / size[0], height / size[1])
        inside = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
        left, top = (width - inside[0]) // 2, (height - inside[1]) // 2
        image = image.crop((left, top, left + inside[0], top + inside[1]))
    shape = image.size if transform.resize == "crop" else size
    scale = min(LONG_SIDE, max(transform.size)) / max(shape)
    wanted = max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
    return _jpeg(image.resize(wanted, Image.Resampling.BICUBIC))


def _smaller(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        image.thumbnail((SMALL_SIDE, SMALL_SIDE))
        return _jpeg(image)


def _jpeg(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=72, optimize=True)
    return data.getvalue()
