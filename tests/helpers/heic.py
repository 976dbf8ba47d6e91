"""HEIC and AVIF files made for the tests (ISO/IEC 23008-12), box by box around an encoded frame."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

_PARAMETERS = {32, 33, 34}  # types of NAL units: video, sequence and picture parameter sets


def box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def full(kind: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def irot(quarters: int) -> bytes:
    """Turns by 90 degrees against the clock."""
    return box(b"irot", bytes([quarters]))


def imir(axis: int) -> bytes:
    """A mirror image; 0: top and bottom change places, 1: left and right."""
    return box(b"imir", bytes([axis]))


def icc(profile: bytes) -> bytes:
    return box(b"colr", b"prof", profile)


def nclx(primaries: int, transfer: int, matrix: int = 6, full_range: bool = True) -> bytes:
    """Colours by the numbers of ITU-T H.273."""
    return box(b"colr", b"nclx", struct.pack(">HHHB", primaries, transfer, matrix, full_range << 7))


def _frame(pixels: np.ndarray) -> tuple[list[bytes], bytes]:
    """The parameter sets and the slice of one frame without loss, BT.601 in full range."""
    codec = av.CodecContext.create("libx265", "w")
    assert isinstance(codec, av.VideoCodecContext)
    codec.height, codec.width = pixels.shape[:2]
    codec.pix_fmt, codec.time_base, codec.color_range = "yuv444p", Fraction(1, 25), 2
    quiet = "log-level=none:lossless=1:keyint=1:repeat-headers=1:info=0"
    codec.options = {"x265-params": quiet, "preset": "ultrafast"}
    rgb = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    frame = rgb.reformat(format="yuv444p", dst_colorspace="ITU601", dst_color_range="JPEG")
    data = b"".join(bytes(packet) for packet in (*codec.encode(frame), *codec.encode(None)))
    units = [unit for unit in re.split(rb"\0\0\0?\x01", data) if unit]
    sets = [unit for unit in units if unit[0] >> 1 & 63 in _PARAMETERS]
    slices = [unit for unit in units if unit[0] >> 1 & 63 not in _PARAMETERS]
    return sets, b"".join(struct.pack(">I", len(unit)) + unit for unit in slices)


def _hvcc(sets: Sequence[bytes]) -> bytes:
    """The decoder's configuration (ISO/IEC 14496-15): Main 4:4:4, lengths of four bytes."""
    head = bytes([1, 4]) + bytes([0x08, 0, 0, 0]) + bytes(6) + bytes([60])
    head += bytes([0xF0, 0, 0xFC, 0xFF, 0xF8, 0xF8, 0, 0, 0x0F, len(sets)])
    arrays = [
        bytes([0x80 | unit[0] >> 1 & 63]) + struct.pack(">HH", 1, len(unit)) + unit for unit in sets
    ]
    return box(b"hvcC", head, *arrays)


def clap(width: int, height: int, right: int = 0, down: int = 0, divisor: int = 1) -> bytes:
    """Shows this much, around a place so far from the centre; all to be divided by ``divisor``."""
    values = (each for value in (width, height, right, down) for each in (value, divisor))
    return box(b"clap", struct.pack(">8i", *values))


def heic(
    path: Path,
    pixels: np.ndarray,
    properties: Sequence[bytes] = (),
    *,
    exif: bytes = b"",
    size: tuple[int, int] | None = None,
    brand: bytes = b"heic",
) -> Path:
    """Write an image.

    Args:
        path: where to.
        pixels: uint8 (height, width, 3).
        properties: further ones, such as `irot` and `icc`.
        exif: an EXIF block, from its order of bytes on.
        size: (width, height) that the file claims; None for the truth.
        brand: of the file.
    """
    sets, coded = _frame(pixels)
    size = size or (pixels.shape[1], pixels.shape[0])
    own = [_hvcc(sets), full(b"ispe", struct.pack(">II", *size)), *properties]
    path.write_bytes(_file(b"hvc1", coded, own, exif, box(b"ftyp", brand, bytes(4), b"mif1heic")))
    return path


def avif(path: Path, pixels: np.ndarray, properties: Sequence[bytes] = ()) -> Path:
    """Write an image without visible loss; the arguments are those of `heic`."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "AVIF", quality=100, subsampling="4:4:4")
    whole = data.getvalue()

    def taken(kind: bytes) -> bytes:
        start = whole.index(kind) - 4
        return whole[start : start + int.from_bytes(whole[start : start + 4], "big")]

    own = [taken(kind) for kind in (b"av1C", b"ispe", b"pixi", b"colr")]
    ftyp = box(b"ftyp", b"avif", bytes(4), b"avifmif1miaf")
    path.write_bytes(_file(b"av01", taken(b"mdat")[8:], [*own, *properties], b"", ftyp))
    return path


def _file(kind: bytes, coded: bytes, own: Sequence[bytes], exif: bytes, ftyp: bytes) -> bytes:
    links = bytes([0x80 | number for number in range(1, len(own) + 1)])
    ipma = full(b"ipma", struct.pack(">IHB", 1, 1, len(own)), links)
    items = [(1, kind, coded)]
    if exif:
        items.append((2, b"Exif", struct.pack(">I", 0) + exif))
    infos = [
        full(b"infe", struct.pack(">HH", number, 0), kind, b"\0", version=2)
        for number, kind, _ in items
    ]
    fixed = [
        full(b"hdlr", bytes(4), b"pict", bytes(13)),
        full(b"pitm", struct.pack(">H", 1)),
        full(b"iinf", struct.pack(">H", len(items)), *infos),
        box(b"iprp", box(b"ipco", *own), ipma),
    ]
    if exif:
        fixed.append(full(b"iref", box(b"cdsc", struct.pack(">HHH", 2, 1, 1))))
    iloc_bytes = 16 + 14 * len(items)
    start = len(ftyp) + 12 + sum(map(len, fixed)) + iloc_bytes + 8
    places = b""
    for number, _, data in items:
        places += struct.pack(">HHHII", number, 0, 1, start, len(data))
        start += len(data)
    iloc = full(b"iloc", bytes([0x44, 0]), struct.pack(">H", len(items)), places)
    assert len(iloc) == iloc_bytes
    mdat = box(b"mdat", *(data for _, _, data in items))
    return ftyp + full(b"meta", *fixed, iloc) + mdat
