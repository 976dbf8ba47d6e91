"""The colours that an AVIF file describes by numbers (ISO/IEC 14496-12 and 23008-12, boxes).

Pillow gives the profile of an AVIF image, but not its box of numbers, which most files have
instead.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

MAX_BOXES = 1000
"""Boxes that are looked at; some tens are usual."""

MAX_LINKS = 100_000  # bytes of the list of which image has which properties
_LARGEST_FILE = 2**62


def avif_numbers(file: IO[bytes]) -> tuple[int, int] | None:
    """The primaries and the transfer function of the main image, by ITU-T H.273.

    Args:
        file: any file; its place afterwards is anywhere.

    Returns:
        None where it says nothing, or is damaged.
    """
    try:
        return _numbers(_Boxes(file))
    except struct.error:
        return None


@dataclass(frozen=True, slots=True)
class _Box:
    kind: bytes
    start: int  # of the content, in bytes of the file
    end: int


class _Boxes:
    """The boxes of a file, of which only so many are looked at."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self._left = MAX_BOXES

    def between(self, start: int, end: int) -> Iterator[_Box]:
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
            yield _Box(kind, start + head, start + size)
            start += size

    def inside(self, box: _Box, head: int = 0) -> dict[bytes, _Box]:
        """The first box of each kind in a box, whose own fields have this many bytes."""
        found: dict[bytes, _Box] = {}
        for each in self.between(box.start + head, box.end):
            found.setdefault(each.kind, each)
        return found

    def content(self, box: _Box, most: int) -> bytes:
        """What a box holds, the first bytes of it."""
        self.file.seek(box.start)
        return self.file.read(min(most, box.end - box.start))


def _numbers(boxes: _Boxes) -> tuple[int, int] | None:
    for top in boxes.between(0, _LARGEST_FILE):
        if top.kind == b"meta":
            return _numbers_of_item(boxes, boxes.inside(top, head=4))
    return None


def _numbers_of_item(boxes: _Boxes, meta: dict[bytes, _Box]) -> tuple[int, int] | None:
    if b"pitm" not in meta or b"iprp" not in meta:
        return None
    data = boxes.content(meta[b"pitm"], 8)
    (main,) = struct.unpack_from(">I" if data[:1] > b"\0" else ">H", data, 4)
    inside = boxes.inside(meta[b"iprp"])
    if b"ipco" not in inside or b"ipma" not in inside:
        return None
    own = set(_links(boxes.content(inside[b"ipma"], MAX_LINKS), main))
    container = inside[b"ipco"]
    for number, each in enumerate(boxes.between(container.start, container.end), start=1):
        if number in own and each.kind == b"colr":
            kind, primaries, transfer = struct.unpack(">4sHH", boxes.content(each, 8).ljust(8))
            if kind == b"nclx":
                return primaries, transfer
    return None


def _links(data: bytes, item: int) -> Iterator[int]:
    """The numbers of the properties that an image has, from 1 (box ipma)."""
    flags, count = struct.unpack_from(">II", data)
    entry = struct.Struct(">IB" if flags >> 24 else ">HB")
    link, mask = (struct.Struct(">H"), 0x7FFF) if flags & 1 else (struct.Struct(">B"), 0x7F)
    place = 8
    for _ in range(count):
        found, links = entry.unpack_from(data, place)
        place += entry.size
        if found == item:
            for i in range(links):
                yield link.unpack_from(data, place + i * link.size)[0] & mask
        place += links * link.size
