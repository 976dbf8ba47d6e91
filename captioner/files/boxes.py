"""The boxes of MP4, QuickTime, HEIC and AVIF files (ISO/IEC 14496-12, 4.2)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import IO

MAX_BOXES = 1000
"""Boxes of a file that are looked at; some tens are usual."""

LARGEST_FILE = 2**62
CLEAN_APERTURE_BYTES = 32


@dataclass(frozen=True, slots=True)
class Box:
    """A box in a file.

    Attributes:
        kind: its name, four bytes.
        start: of its content, in bytes of the file.
        end: of it.
    """

    kind: bytes
    start: int
    end: int


class Boxes:
    """The boxes of a file, of which only so many are looked at.

    Where one is damaged, `struct.error` is raised, or the boxes end.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self._left = MAX_BOXES

    def between(self, start: int, end: int) -> Iterator[Box]:
        """Those that follow each other between two places."""
        while start + 8 <= end and self._left > 0:
            self._left -= 1
            self.file.seek(start)
            size, kind = struct.unpack(">I4s", self.file.read(8))
            head = 8
            if size == 1:
                head = 16
                (size,) = struct.unpack(">Q", self.file.read(8))
            elif size == 0:  # up to the end
                size = end - start
            if size < head or start + size > end:
                return
            yield Box(kind, start + head, start + size)
            start += size

    def inside(self, box: Box, head: int = 0) -> dict[bytes, Box]:
        """The first box of each kind in a box, whose own fields have this many bytes."""
        found: dict[bytes, Box] = {}
        for each in self.between(box.start + head, box.end):
            found.setdefault(each.kind, each)
        return found

    def content(self, box: Box, most: int) -> bytes:
        """What a box holds, the first bytes of it."""
        self.file.seek(box.start)
        return self.file.read(min(most, box.end - box.start))


def clean_aperture(content: bytes, width: int, height: int) -> tuple[int, int, int, int] | None:
    """What is shown of an image with a box ``clap`` (ISO/IEC 14496-12, 12.1.4).

    Args:
        content: of the box.
        width: of the whole image, in pixels.
        height: likewise.

    Returns:
        Its left, top, right and bottom edge, in whole pixels from the left and the top; None if
        that is all of it, or makes no sense.
    """
    if len(content) < CLEAN_APERTURE_BYTES:
        return None
    numbers = struct.unpack(">8i", content[:CLEAN_APERTURE_BYTES])
    if min(numbers[1::2]) < 1:
        return None
    wide, high, right, down = (Fraction(*numbers[i : i + 2]) for i in range(0, 8, 2))
    # `right` and `down` lead from the centre of the image to that of what is shown.
    left, top = right + (width - wide) / 2, down + (height - high) / 2
    edges = round(left), round(top), round(left + wide), round(top + high)
    is_inside = 0 <= edges[0] < edges[2] <= width and 0 <= edges[1] < edges[3] <= height
    return edges if is_inside and edges != (0, 0, width, height) else None
