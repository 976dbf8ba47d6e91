"""What a container says is shown of each image: FFmpeg decodes the rest of it as well."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from captioner.files.boxes import (
    CLEAN_APERTURE_BYTES,
    LARGEST_FILE,
    Box,
    Boxes,
    clean_aperture,
)

_SAMPLE_ENTRY_BYTES = 78  # of a video, before the boxes in it (ISO/IEC 14496-12, 12.1.3)
_HEAD_BYTES = 1024 * 1024  # of a Matroska file; its tracks are described at the beginning
_SEGMENT, _TRACKS, _TRACK, _VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0xE0
_WIDTH, _HEIGHT = 0xB0, 0xBA
_BOTTOM, _TOP, _LEFT, _RIGHT = 0x54AA, 0x54BB, 0x54CC, 0x54DD


@dataclass(frozen=True, slots=True)
class Crop:
    """What is shown of images of one size, in pixels as they are stored.

    Attributes:
        size: (width, height) of the whole images.
        edges: left, top, right and bottom of what is shown.
    """

    size: tuple[int, int]
    edges: tuple[int, int, int, int]

    @property
    def width(self) -> int:
        """Of what is shown."""
        return self.edges[2] - self.edges[0]

    @property
    def height(self) -> int:
        """Of what is shown."""
        return self.edges[3] - self.edges[1]


def find_crop(path: Path, width: int, height: int) -> Crop | None:
    """What is shown of a video whose images are stored in this size; None for all of them.

    Reads the box ``clap`` of MP4 and QuickTime, and Matroska's PixelCrop. A file that is damaged
    there is shown as a whole.
    """
    edges = None
    with suppress(OSError, struct.error), path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"\x1a\x45\xdf\xa3":
            file.seek(0)
            edges = _matroska_edges(file.read(_HEAD_BYTES), width, height)
        elif head[4:8] in (b"ftyp", b"moov", b"wide", b"mdat", b"free", b"skip"):
            edges = _mp4_edges(file, width, height)
    return None if edges is None else Crop((width, height), edges)


def _mp4_edges(file: IO[bytes], width: int, height: int) -> tuple[int, int, int, int] | None:
    boxes = Boxes(file)
    for entry in _sample_entries(boxes):
        head = boxes.content(entry, _SAMPLE_ENTRY_BYTES)
        if len(head) < _SAMPLE_ENTRY_BYTES or struct.unpack(">HH", head[24:28]) != (width, height):
            continue  # Sound, or another track.
        found = boxes.inside(entry, _SAMPLE_ENTRY_BYTES).get(b"clap")
        if found is not None:
            return clean_aperture(boxes.content(found, CLEAN_APERTURE_BYTES), width, height)
    return None


def _sample_entries(boxes: Boxes) -> Iterator[Box]:
    """What describes the images or the sound of each track first."""
    for top in boxes.between(0, LARGEST_FILE):
        if top.kind != b"moov":
            continue
        for box in boxes.between(top.start, top.end):
            for kind in (b"trak", b"mdia", b"minf", b"stbl", b"stsd"):
                if kind != b"trak":
                    inner = boxes.inside(box).get(kind)
                    if inner is None:
                        break
                    box = inner
                elif box.kind != kind:
                    break
            else:
                yield from boxes.inside(box, head=8).values()
        return


def _matroska_edges(data: bytes, width: int, height: int) -> tuple[int, int, int, int] | None:
    """See RFC 9559, 5.1.4.1.28."""
    found = [data]
    for kind in (_SEGMENT, _TRACKS, _TRACK, _VIDEO):
        found = [part for each in found for number, part in _elements(each) if number == kind]
    for video in found:
        values = {number: int.from_bytes(value, "big") for number, value in _elements(video)}
        if (values.get(_WIDTH), values.get(_HEIGHT)) != (width, height):
            continue
        left, top, right, bottom = (values.get(each, 0) for each in (_LEFT, _TOP, _RIGHT, _BOTTOM))
        if left + right < width and top + bottom < height and left + top + right + bottom:
            return left, top, width - right, height - bottom
    return None


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The numbers and contents of the elements that follow each other (RFC 8794)."""
    place = 0
    while place < len(data):
        id_bytes = 9 - data[place].bit_length()
        number = int.from_bytes(data[place : place + id_bytes], "big")
        place += id_bytes
        if place >= len(data):
            return
        size_bytes = 9 - data[place].bit_length()
        size = int.from_bytes(data[place : place + size_bytes], "big")
        unknown = (1 << 7 * size_bytes) - 1
        size &= unknown  # without the bit that ends the length of the length
        place += size_bytes
        end = len(data) if size == unknown else place + size
        yield number, data[place:end]
        place = end
