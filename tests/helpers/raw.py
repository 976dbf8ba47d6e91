"""Raw photos made for the tests: DNG files (Adobe, DNG specification 1.4) of a few samples."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

Tags = dict[int, tuple[int, tuple[int, ...] | bytes]]
_FORMATS = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B"}
SHORT, LONG, TEXT, BYTE = 3, 4, 2, 1
SIDE = 64  # of the samples


def dng(path: Path, preview: bytes | np.ndarray | None, orientation: int = 1) -> Path:
    """Write grey samples and a preview beside them.

    Args:
        path: where to.
        preview: a JPEG file, pixels of uint8 (height, width, 3), or None for none.
        orientation: of samples and preview, as in EXIF.
    """
    samples: Tags = {
        254: (LONG, (0,)),
        256: (LONG, (SIDE,)),
        257: (LONG, (SIDE,)),
        258: (SHORT, (16,)),
        259: (SHORT, (1,)),
        262: (SHORT, (32803,)),
        277: (SHORT, (1,)),
        278: (LONG, (SIDE,)),
        33421: (SHORT, (2, 2)),
        33422: (BYTE, (0, 1, 1, 2)),
    }
    first: Tags = {
        271: (TEXT, b"Captioner\0"),
        272: (TEXT, b"Test\0"),
        274: (SHORT, (orientation,)),
        50706: (BYTE, (1, 4, 0, 0)),
        50707: (BYTE, (1, 1, 0, 0)),
        50708: (TEXT, b"Captioner Test\0"),
    }
    data = np.full((SIDE, SIDE), 2000, "<u2").tobytes()
    if preview is None:
        path.write_bytes(_file([{**samples, **first}], [data]))
        return path
    if isinstance(preview, np.ndarray):
        height, width = preview.shape[:2]
        kind, content = (1, 2), preview.tobytes()
    else:
        height, width = _jpeg_size(preview)
        kind, content = (7, 6), preview
    first |= {
        254: (LONG, (1,)),
        256: (LONG, (width,)),
        257: (LONG, (height,)),
        258: (SHORT, (8, 8, 8)),
        259: (SHORT, (kind[0],)),
        262: (SHORT, (kind[1],)),
        277: (SHORT, (3,)),
        278: (LONG, (height,)),
    }
    path.write_bytes(_file([first, samples], [content, data]))
    return path


def _jpeg_size(data: bytes) -> tuple[int, int]:
    place = 2
    while data[place + 1] not in (0xC0, 0xC2):
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    height, width = struct.unpack_from(">HH", data, place + 5)
    return height, width


def _file(directories: list[Tags], strips: list[bytes]) -> bytes:
    """Of two directories the second is the first one's SubIFD."""
    start, offsets = 8, []
    for strip in strips:
        offsets.append(start)
        start += len(strip) + len(strip) % 2
    blob = b"".join(strip + bytes(len(strip) % 2) for strip in strips)
    place = None
    for number in reversed(range(len(directories))):
        tags = dict(directories[number])
        tags[273] = (LONG, (offsets[number],))
        tags[279] = (LONG, (len(strips[number]),))
        if place is not None:
            tags[330] = (LONG, (place,))
        place = 8 + len(blob)
        blob += _directory(tags, place)
    return struct.pack("<2sHI", b"II", 42, place or 0) + blob


def _directory(tags: Tags, place: int) -> bytes:
    fields, behind = struct.pack("<H", len(tags)), b""
    start = place + 2 + 12 * len(tags) + 4
    for tag, (kind, values) in sorted(tags.items()):
        data = struct.pack(f"<{len(values)}{_FORMATS[kind]}", *values)
        if len(data) > 4:
            found, behind = (
                struct.pack("<I", start + len(behind)),
                behind + data + bytes(len(data) % 2),
            )
        else:
            found = data.ljust(4, b"\0")
        fields += struct.pack("<HHI", tag, kind, len(values)) + found
    return fields + bytes(4) + behind
