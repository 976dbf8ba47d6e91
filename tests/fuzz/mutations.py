"""Real image files of every format, and a thousand ways to damage them; by seed, so that any
case can be made again.

Run by `tests/fuzz/test_fuzz_images.py` (a few hundred cases) and `tests/fuzz/fuzz_images.py` (any
number).
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "data" / "examples"
PNG_START = b"\x89PNG\r\n\x1a\n"
SIZES = (0, 1, 2, 255, 4096, 13_000, 13_342, 16_383, 30_000, 65_535, 178_000_000, 2**31 - 1)
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


# --- whole files ---------------------------------------------------------------------------


def textured(width: int = 40, height: int = 24, seed: int = 0) -> Image.Image:
    """An image with some texture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height))


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and content of a whole PNG file's chunks."""
    found, at = [], len(PNG_START)
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += size + 12
    return found


def png_of(parts: list[tuple[bytes, bytes]]) -> bytes:
    return PNG_START + b"".join(chunk(kind, data) for kind, data in parts)


def interlaced_png() -> bytes:
    """Adam7 (PNG, section 8.2), which Pillow does not write; each line with filter 0."""
    pixels = np.asarray(textured())
    height, width = pixels.shape[:2]
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
    lines = [
        b"\0" + line.tobytes()
        for x, y, step_x, step_y in (*passes, (0, 1, 1, 2))
        for line in pixels[y::step_y, x::step_x]
    ]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    return png_of([(b"IHDR", header), (b"IDAT", zlib.compress(b"".join(lines))), (b"IEND", b"")])


def run_length_bmp() -> bytes:
    """BMP with RLE8: runs and a literal stretch in every row."""
    row = bytes([17, 1, 0, 4, 5, 6, 7, 8, 19, 2, 0, 0])
    data = row * 24 + bytes([0, 1])
    palette = b"".join(bytes([i, 255 - i, i // 2, 0]) for i in range(256))
    info = struct.pack("<IiiHHIIiiII", 40, 40, 24, 1, 8, 1, len(data), 0, 0, 256, 0)
    start = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + info + palette + data


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "camera"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    return exif.tobytes()


def _jpegs() -> list[bytes]:
    image, exif = textured(), _exif()
    icc = {"icc_profile": bytes(range(256)) * 4, "comment": b"words"}
    return [
        saved(image, "JPEG"),
        saved(image, "JPEG", progressive=True, quality=90),
        saved(image.convert("CMYK"), "JPEG"),
        saved(image.convert("L"), "JPEG", restart_marker_blocks=1),
        saved(image, "JPEG", exif=exif, subsampling=0, **icc),
        saved(image, "MPO", save_all=True, append_images=[textured(seed=1)]),
        saved(textured(400, 300), "JPEG", progressive=True),
        *(path.read_bytes() for path in sorted(EXAMPLES.glob("*.jpg"))),
    ]


def _pngs() -> list[bytes]:
    image = textured()
    palette = image.quantize(7)
    deep = Image.fromarray(np.arange(40 * 24, dtype=np.uint16).reshape(24, 40) * 60)
    animation = {"save_all": True, "append_images": [textured(seed=1), textured(seed=2)]}
    described = chunks(saved(image, "PNG", exif=_exif(), icc_profile=bytes(500)))
    described[1:1] = [
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"words " * 100)),
        (b"iTXt", b"Title\0\1\0en\0\0" + zlib.compress(b"more words")),
        (b"tEXt", b"Author\0nobody"),
    ]
    return [
        *(saved(image.convert(mode), "PNG") for mode in ("1", "L", "RGB", "RGBA", "LA")),
        saved(palette, "PNG", transparency=bytes([0, 128, 255])),
        saved(palette, "PNG", bits=4),
        saved(deep, "PNG"),
        saved(image, "PNG", transparency=(0, 0, 0)),
        saved(image, "PNG", **animation, duration=50),
        png_of(described),
        interlaced_png(),
    ]


def _webps() -> list[bytes]:
    image, clear = textured(), textured()
    clear.putalpha(image.convert("L"))
    animation = {"save_all": True, "append_images": [textured(seed=1), textured(seed=2)]}
    return [
        saved(image, "WEBP"),
        saved(image, "WEBP", lossless=True),
        saved(clear, "WEBP", quality=50),
        saved(clear, "WEBP", lossless=True),
        saved(image, "WEBP", exif=_exif(), icc_profile=bytes(300), xmp=b"<x/>"),
        saved(image, "WEBP", **animation, duration=40),
        saved(clear, "WEBP", **animation, lossless=True),
    ]


def _gifs() -> list[bytes]:
    image = textured()
    animation = {"save_all": True, "append_images": [textured(seed=1), textured(seed=2)]}
    return [
        saved(image, "GIF"),
        saved(image, "GIF", interlace=0),
        saved(image.convert("L"), "GIF", comment=b"words"),
        saved(image.quantize(5), "GIF", transparency=1),
        saved(image, "GIF", **animation, loop=0, disposal=2),
        saved(image, "GIF", **animation, duration=[10, 20, 30]),
    ]


def _bmps() -> list[bytes]:
    image = textured()
    modes = [image.convert(mode) for mode in ("RGB", "RGBA", "L", "1")]
    return [
        *(saved(each, "BMP") for each in modes),
        saved(image.quantize(4), "BMP"),
        run_length_bmp(),
    ]


def _tiffs() -> list[bytes]:
    image = textured()
    names = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma")
    compressed = [saved(image, "TIFF", compression=name) for name in names]
    faxes = [saved(image.convert("1"), "TIFF", compression=name) for name in ("group3", "group4")]
    deep = np.arange(40 * 24).reshape(24, 40)
    depths = [deep.astype(kind) for kind in ("<u2", ">u2", np.int32, np.float32)]
    return [
        *compressed,
        *faxes,
        *(saved(Image.fromarray(values), "TIFF") for values in depths),
        *(saved(image.convert(mode), "TIFF") for mode in ("CMYK", "RGBA", "LAB", "YCbCr")),
        saved(image.quantize(9), "TIFF", compression="tiff_lzw"),
        saved(image, "TIFF", big_tiff=True),
        saved(image, "TIFF", exif=_exif(), icc_profile=bytes(100)),
        saved(image, "TIFF", save_all=True, append_images=[textured(seed=1)]),
        tiled_tiff(),
    ]


def tiff(entries: dict[int, tuple[int, int, int | bytes]], after: bytes = b"") -> bytes:
    """A little-endian TIFF: tag -> (type, count, value or data), and bytes after the directory."""
    start = 8 + 2 + 12 * len(entries) + 4
    fields, blob = b"", b""
    for tag, (kind, count, value) in sorted(entries.items()):
        if isinstance(value, bytes):
            value, blob = start + len(blob), blob + value
        fields += struct.pack("<HHII", tag, kind, count, value)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + fields + bytes(4) + blob + after


def tiled_tiff() -> bytes:
    """40 x 24 grey in six tiles of 16 x 16, uncompressed."""
    tiles = np.random.default_rng(0).integers(0, 256, (6, 256), dtype=np.uint8)
    start = 8 + 2 + 12 * 10 + 4 + 48
    offsets = struct.pack("<6I", *(start + 256 * i for i in range(6)))
    sizes = struct.pack("<6I", *[256] * 6)
    return tiff(
        {
            256: (3, 1, 40), 257: (3, 1, 24), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1),
            277: (3, 1, 1), 322: (3, 1, 16), 323: (3, 1, 16), 324: (4, 6, offsets),
            325: (4, 6, sizes),
        },
        tiles.tobytes(),
    )  # fmt: skip


def _ppms() -> list[bytes]:
    image = textured()
    deep = np.arange(40 * 24, dtype=np.uint16).reshape(24, 40) * 60
    plain = [f"P1 8 2\n{'1 0 ' * 8}", f"P2\n# grey\n4 2 999\n{'7 999 ' * 4}"]
    plain += [f"P3 4 2 255\n{'0 128 255 ' * 8}"]
    return [
        *(saved(image.convert(mode), "PPM") for mode in ("1", "L", "RGB")),
        saved(Image.fromarray(deep), "PPM"),
        saved(Image.fromarray(deep.astype(np.float32)), "PPM"),
        *(text.encode() for text in plain),
        b"P6 5 4 1023\n" + bytes(range(120)),
        b"P0CMYK 4 4 255\n" + bytes(64),
    ]


def _avifs() -> list[bytes]:
    image, clear = textured(), textured()
    clear.putalpha(image.convert("L"))
    animation = {"save_all": True, "append_images": [textured(seed=1), textured(seed=2)]}
    return [
        saved(image, "AVIF"),
        saved(clear, "AVIF", quality=90, subsampling="4:4:4"),
        saved(image.convert("L"), "AVIF"),
        saved(image, "AVIF", exif=_exif(), icc_profile=bytes(200), xmp=b"<x/>"),
        saved(image, "AVIF", **animation, duration=40),
    ]


MAKERS: dict[str, Callable[[], list[bytes]]] = {
    "JPEG": _jpegs,
    "PNG": _pngs,
    "WEBP": _webps,
    "GIF": _gifs,
    "BMP": _bmps,
    "DIB": lambda: [data[14:] for data in _bmps()],
    "TIFF": _tiffs,
    "PPM": _ppms,
    "AVIF": _avifs,
}
"""One of each of `captioner.images.reading.FORMATS`."""


@cache
def whole_files(format: str) -> tuple[bytes, ...]:
    """Files of a format that decode."""
    return tuple(MAKERS[format]())


# --- damage --------------------------------------------------------------------------------


def _place(data: bytes, rng: random.Random) -> int:
    """Somewhere in the data; half of the time where its header is."""
    return rng.randrange(max(1, min(len(data), rng.choice((32, 256, len(data) or 1)))))


def _flip(data: bytes, rng: random.Random, other: bytes) -> bytes:
    result = bytearray(data)
    for _ in range(rng.choice((1, 2, 4, 16, 64))):
        if result:
            result[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(result)


def _overwrite(data: bytes, rng: random.Random, other: bytes) -> bytes:
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        size, order = rng.choice((1, 2, 4)), rng.choice(("big", "little"))
        number = rng.choice((*NUMBERS, rng.getrandbits(32))) % 256**size
        at = _place(data, rng)
        result[at : at + size] = number.to_bytes(size, order)
    return bytes(result)


def _truncate(data: bytes, rng: random.Random, other: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _delete(data: bytes, rng: random.Random, other: bytes) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + rng.choice((1, 2, 4, 30, 1000)) :]


def _duplicate(data: bytes, rng: random.Random, other: bytes) -> bytes:
    at, size = _place(data, rng), rng.choice((1, 4, 30, 500, 5000))
    return data[:at] + data[at : at + size] * rng.choice((2, 3, 20)) + data[at + size :]


def _insert(data: bytes, rng: random.Random, other: bytes) -> bytes:
    at, size = _place(data, rng), rng.choice((1, 2, 4, 100, 3000))
    new = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))
    return data[:at] + new + data[at:]


def _splice(data: bytes, rng: random.Random, other: bytes) -> bytes:
    return data[: _place(data, rng)] + other[_place(other, rng) :]


def _resize(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Another width or height, wherever the old one seems to stand."""
    old = rng.choice((40, 24, 39, 23, 16, 4, 300, 400))
    layouts = ("<H", ">H", "<I", ">I", "<Q")
    layout = rng.choice(layouts)
    found, at = [], -1
    while (at := data.find(struct.pack(layout, old), at + 1, 2000)) >= 0:
        found.append(at)
    if old < 100:  # In PPM files the sizes are text.
        text = str(old).encode()
        if data[:1] == b"P" and text in data[:40]:
            return data.replace(text, str(rng.choice(SIZES)).encode(), 1)
    if not found:
        return _overwrite(data, rng, other)
    at, size = rng.choice(found), struct.calcsize(layout)
    new = struct.pack(layout, rng.choice(SIZES) % 256**size)
    return data[:at] + new + data[at + size :]


_GENERAL = (_flip, _overwrite, _truncate, _delete, _duplicate, _insert, _splice, _resize)


def _chunkwise(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Damage a PNG file in one chunk or in their order, with checksums that are right."""
    parts, others = chunks(data), chunks(other)
    if not parts or not others:
        return data
    at = rng.randrange(len(parts))
    kind, content = parts[at]
    way = rng.randrange(6)
    if way == 0:
        parts.insert(rng.randrange(len(parts)), rng.choice(others))
    elif way == 1:
        parts[at : at + 1] = [parts[at]] * rng.choice((0, 2, 50))
    elif way == 2:
        rng.shuffle(parts)
    elif way == 3 and kind == b"IDAT":
        try:
            lines = zlib.decompress(content)
        except zlib.error:
            return data
        parts[at] = kind, zlib.compress(rng.choice(_GENERAL)(lines, rng, lines))
    else:
        parts[at] = kind, rng.choice(_GENERAL)(content, rng, content)
    return png_of(parts)


def damaged(format: str, case: int) -> bytes:
    """The file of a number: the same bytes whenever it is made."""
    rng = random.Random(f"{format} {case}")
    files = whole_files(format)
    data, other = rng.choice(files), rng.choice(files)
    ways = (*_GENERAL, _resize, *[_chunkwise] * 12) if format == "PNG" else (*_GENERAL, _resize)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(ways)(data, rng, other)
    return data
