"""What an AVIF file says of its image and Pillow does not tell (ISO/IEC 23008-12, boxes).

Pillow gives the profile of an AVIF image, but not the numbers that most files have instead, and
shows what the file cuts off at the edges.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO

from PIL import Image

from captioner.files.boxes import (
    CLEAN_APERTURE_BYTES,
    LARGEST_FILE,
    Box,
    Boxes,
    clean_aperture,
)

MAX_LINKS = 100_000  # bytes of the list of which image has which properties


def avif_numbers(file: IO[bytes]) -> tuple[int, int] | None:
    """The primaries and the transfer function of the main image, by ITU-T H.273.

    Args:
        file: any file; its place afterwards is anywhere.

    Returns:
        None where it says nothing, or is damaged.
    """
    boxes = Boxes(file)
    try:
        for each in _properties(boxes):
            if each.kind == b"colr":
                kind, primaries, transfer = struct.unpack(">4sHH", boxes.content(each, 8).ljust(8))
                if kind == b"nclx":
                    return primaries, transfer
    except struct.error:
        pass
    return None


def avif_edges(image: Image.Image, file: IO[bytes]) -> tuple[int, int, int, int] | None:
    """The left, top, right and bottom edge of what is shown of an image, before it is turned.

    Args:
        image: opened.
        file: of it.

    Returns:
        None where that is all of it, or the file is damaged; for other formats than AVIF as well.
    """
    if image.format != "AVIF":
        return None
    place, boxes = file.tell(), Boxes(file)
    try:
        for each in _properties(boxes):
            if each.kind == b"clap":
                return clean_aperture(boxes.content(each, CLEAN_APERTURE_BYTES), *image.size)
    except struct.error:
        pass
    finally:
        file.seek(place)
    return None


def _properties(boxes: Boxes) -> Iterator[Box]:
    """The boxes that describe the main image."""
    meta = next((top for top in boxes.between(0, LARGEST_FILE) if top.kind == b"meta"), None)
    parts = {} if meta is None else boxes.inside(meta, head=4)
    if b"pitm" not in parts or b"iprp" not in parts:
        return
    data = boxes.content(parts[b"pitm"], 8)
    (main,) = struct.unpack_from(">I" if data[:1] > b"\0" else ">H", data, 4)
    inside = boxes.inside(parts[b"iprp"])
    if b"ipco" not in inside or b"ipma" not in inside:
        return
    own = set(_links(boxes.content(inside[b"ipma"], MAX_LINKS), main))
    container = inside[b"ipco"]
    for number, each in enumerate(boxes.between(container.start, container.end), start=1):
        if number in own:
            yield each


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
