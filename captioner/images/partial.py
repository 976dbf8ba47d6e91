"""Images that are cut short, as far as they go."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from PIL import Image, ImageFile

from captioner.images.limits import LimitedFile

PARTIAL = "captioner_partial"
"""The key in `PIL.Image.Image.info` of an image that shows less than its file should hold."""

_END = b"\xff\xd9"
_MOST_ENDS = 16  # A decoder that asks for more will never have enough.


class EndedFile(LimitedFile):
    """A JPEG file that gets an end mark after its last byte, however often more is asked for.

    A progressive image is drawn when all of it is there; the mark ends the part that exists.

    Attributes:
        is_jpeg: whether it is one.
    """

    def __init__(self, source: Path | bytes, max_seconds: float, max_readings: int) -> None:
        super().__init__(source, max_seconds, max_readings)
        self._ends = 0
        self.is_jpeg = super().read(2) == b"\xff\xd8"
        self.seek(0)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Seek as in any file; the end is marked again for the next reader."""
        self._ends = 0
        return super().seek(offset, whence)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file does."""
        data = super().read(size)
        if data or size == 0 or self._ends >= _MOST_ENDS:
            return data
        self._ends += 1
        return _END


def is_cut_short(error: BaseException) -> bool:
    """Whether an error of Pillow's says that a file ends too early."""
    return isinstance(error, EOFError) or "truncated" in str(error).lower()


def load_rows(image: Image.Image) -> tuple[int, int] | None:
    """Decode as much of an image as there is.

    Args:
        image: opened, not loaded.

    Returns:
        The first of the rows that were decoded and the one after the last; None if all were.

    Raises:
        OSError: the image is damaged, or not a single row is there.
        EOFError: the same.
    """
    try:
        image.load()
    except (OSError, EOFError) as error:
        if not is_cut_short(error) or not isinstance(image, ImageFile.ImageFile):
            raise
        # Pillow has decoded into the image until there was nothing left, and would begin again.
        image.tile = []
        # Memory for an image is given as zeros, and what is decoded is rarely black alone.
        box = image.im.getbbox() if image.im is not None else None
        if box is None:
            raise
        return cast(tuple[int, int], (box[1], box[3]))
    return None


def has_content(image: Image.Image) -> bool:
    """Whether an image is more than one colour, as it is where nothing was decoded."""
    return any(low != high for low, high in cast(list[tuple[int, int]], image.getextrema()))
