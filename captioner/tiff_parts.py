"""What the first directory of a TIFF file says, before a decoder makes lists of it."""

from __future__ import annotations

import struct
from typing import IO

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
        What the file says; 0 for a file that is no TIFF or says nothing; :data:`ENDLESS` for a
        directory longer than those of classic TIFF can be, which nobody needs.
    """
    found = _entries(file)
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
        file that is no TIFF, or one without end.
    """
    found = _entries(file)
    if found is None or found[1] is None:
        return None
    return found[0], {tag: (kind, count, field) for tag, kind, count, field in found[1]}


def _entries(file: IO[bytes]) -> tuple[str, list[tuple[int, int, int, bytes]] | None] | None:
    """The order of bytes, and tag, type, count and field of each entry; None of too many."""
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None or len(start) < 16 or start[2:4] not in _VERSIONS:
        return None
    is_big = start[2] == 43
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
