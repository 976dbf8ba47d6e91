"""Limits on image files: how long and how often they are read, and in how many parts they lie.

A few kilobytes can keep a decoder busy for hours: directories whose entries all lead to the same
data, endless lists of empty parts, an image drawn again in every one of ten thousand scans. All of
them read while they work, so that is where they are stopped.
"""

from __future__ import annotations

import io
import struct
import time
from pathlib import Path
from typing import IO

MAX_PROFILE_BYTES = 4_000_000
"""Longer colour profiles are ignored; those of printing presses have up to three million bytes."""

MAX_MEMORY_BYTES = 6_000_000_000
"""Address space of a process that decodes; an image of the most pixels takes two thirds of it."""

MAX_CHUNKS = 1000
"""Chunks of a PNG that are looked at; some tens are usual."""


class TooMuchWork(Exception):
    """Reading took too long; the message says how."""


class LimitedFile(io.BufferedReader):
    """A regular file, open for reading, whose reader has to come to an end.

    Args:
        source: the file, or what one holds.
        max_seconds: processor time that the reading thread may take from here on. Not time on the
            clock: neither a slow disk nor other work on the machine spends it.
        max_readings: how often, on average, each byte may be read.

    Raises:
        OSError: it cannot be opened.
        TooMuchWork: from `read`, beyond one of the limits.
    """

    def __init__(self, source: Path | bytes, max_seconds: float, max_readings: int) -> None:
        if isinstance(source, bytes):
            size = len(source)
            super().__init__(io.BytesIO(source))
        else:
            super().__init__(io.FileIO(source))
            size = source.stat().st_size
        self._max_seconds = max_seconds
        self._ends_s = time.thread_time() + max_seconds
        # A short file is read as a whole for its format alone, once by every decoder.
        self._bytes_left = max_readings * (size + 65_536)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file does."""
        if time.thread_time() > self._ends_s:
            raise TooMuchWork(f"more than {self._max_seconds:g} s")
        if self._bytes_left < 0:
            raise TooMuchWork("the same bytes are read again and again")
        data = super().read(size)
        self._bytes_left -= len(data)
        return data


def png_chunk(file: IO[bytes], name: bytes) -> bytes | None:
    """What a chunk of a PNG before its pixels holds (PNG, third edition, section 5.3).

    Args:
        file: any file.
        name: of the chunk, one that is short.

    Returns:
        None for no such chunk among the first `MAX_CHUNKS`, or one of more than 1000 bytes.
    """
    file.seek(8)
    for _ in range(MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8 or head[4:] in (b"IDAT", b"IEND"):
            return None
        size = int.from_bytes(head[:4], "big")
        if head[4:] == name:
            return file.read(size) if size <= 1000 else None
        file.seek(size + 4, 1)
    return None


# --- the first directory of a TIFF file ----------------------------------------------------


# Behind II or MM, as Pillow takes them: in either order of bytes; 43 (+) is BigTIFF's, but
# Pillow sees one only where it comes first.
_VERSIONS = (b"*\0", b"\0*", b"+\0", b"\0+")
ENDLESS = 2**64
_LONGEST_DIRECTORY = 65_535
_STRIP_OFFSETS, _TILE_OFFSETS = 273, 324


def count_parts(file: IO[bytes]) -> int:
    """The number of strips or tiles by the first directory (TIFF 6.0, section 2, "IFD").

    Args:
        file: any file, at its beginning.

    Returns:
        What the file says; 0 for a file that is not a TIFF or says nothing; :data:`ENDLESS` for a
        directory longer than those of classic TIFF can be, which nobody needs.
    """
    found = _entries(file, as_pillow=True)
    if found is None:
        return 0
    order, entries = found
    if entries is None:
        return ENDLESS
    counts = (count for tag, _, count, _ in entries if tag in (_STRIP_OFFSETS, _TILE_OFFSETS))
    return max(counts, default=0)


def directory(file: IO[bytes]) -> tuple[str, dict[int, tuple[int, int, bytes]]] | None:
    """The first directory.

    Args:
        file: any file, at its beginning.

    Returns:
        The order of bytes as `struct` calls it, and for each tag its type, the number of its
        values, and the field with the values or, where they are too many, their place; None for a
        file that is not a TIFF, or one without end.
    """
    found = _entries(file)
    if found is None or found[1] is None:
        return None
    return found[0], {tag: (kind, count, field) for tag, kind, count, field in found[1]}


def _entries(
    file: IO[bytes], as_pillow: bool = False
) -> tuple[str, list[tuple[int, int, int, bytes]] | None] | None:
    """The order of bytes, and tag, type, count and field of each entry; None of too many."""
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None or len(start) < 16 or start[2:4] not in _VERSIONS:
        return None
    is_big = start[2] == 43 if as_pillow else 43 in start[2:4]
    (place,) = struct.unpack_from(order + ("Q" if is_big else "I"), start, 8 if is_big else 4)
    if place >= 2**63:
        return None
    file.seek(place)
    number = struct.Struct(order + ("Q" if is_big else "H"))
    entry = struct.Struct(order + ("HHQ8s" if is_big else "HHI4s"))
    found = file.read(number.size)
    if len(found) < number.size:
        return None
    (length,) = number.unpack(found)
    if length > _LONGEST_DIRECTORY:
        return order, None
    data = file.read(entry.size * length)
    return order, list(entry.iter_unpack(data[: len(data) // entry.size * entry.size]))
