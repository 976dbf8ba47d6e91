"""In how many parts the picture of a TIFF file is said to lie, before a decoder makes a list."""

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
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None or len(start) < 16 or start[2:4] not in _VERSIONS:
        return 0
    is_big = start[2] == 43
    (place,) = struct.unpack_from(order + ("Q" if is_big else "I"), start, 8 if is_big else 4)
    if place >= 2**63:
        return 0
    file.seek(place)
    number = struct.Struct(order + ("Q" if is_big else "H"))
    entry = struct.Struct(order + ("HHQ8x" if is_big else "HHI4x"))
    found = file.read(number.size)
    if len(found) < number.size:
        return 0
    (length,) = number.unpack(found)
    if length > _LONGEST_DIRECTORY:
        return ENDLESS
    data = file.read(entry.size * length)
    entries = entry.iter_unpack(data[: len(data) // entry.size * entry.size])
    counts = (count for tag, _, count in entries if tag in (_STRIP_OFFSETS, _TILE_OFFSETS))
    return max(counts, default=0)
