"""Damaged images of all formats, and small files that would keep a decoder busy for hours."""

from __future__ import annotations

import struct
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from captioner.images import depths
from captioner.images import reading as images
from captioner.images.limits import ENDLESS, LimitedFile, TooMuchWork, count_parts
from captioner.images.reading import FORMATS, ImageError, read_image
from captioner.images.transform import ImageTransform
from fuzz.mutations import (
    MAKERS,
    PNG_START,
    chunk,
    damaged,
    saved,
    textured,
    tiff,
    tiled_tiff,
    whole_files,
)

CASES = 60  # for each format; `python tests/fuzz/fuzz_images.py` runs as many as you like
GREY_8 = {
    256: (3, 1, 8), 257: (3, 1, 8), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1),
    273: (4, 1, 8), 277: (3, 1, 1), 278: (3, 1, 8), 279: (4, 1, 64),
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_warnings() -> None:
    warnings.simplefilter("ignore")


def test_every_format_that_is_read_is_damaged() -> None:
    assert set(MAKERS) == set(FORMATS)


@pytest.mark.parametrize("format", MAKERS)
def test_the_undamaged_files_are_images(format: str, tmp_path: Path) -> None:
    for number, data in enumerate(whole_files(format)):
        (tmp_path / "whole").write_bytes(data)
        assert read_image(tmp_path / "whole").mode == "RGB", number


@pytest.mark.parametrize("format", MAKERS)
def test_a_damaged_file_is_an_image_or_an_error_with_a_short_reason(
    format: str, tmp_path: Path
) -> None:
    transform, path = ImageTransform((32, 32)), tmp_path / "damaged"
    outcomes = set()
    for case in range(CASES):
        path.write_bytes(damaged(format, case))
        try:
            image = read_image(path, min_side=transform.min_side, max_pixels=10**7)
        except ImageError as error:
            assert error.reason.isprintable() and 0 < len(error.reason) < 160, case
            assert error.path == path
            outcomes.add("refused")
        else:
            assert image.mode == "RGB"
            assert transform(image).isfinite().all()
            outcomes.add("decoded")
    assert outcomes == {"decoded", "refused"}


def test_a_case_is_the_same_file_whenever_it_is_made() -> None:
    assert damaged("GIF", 7) == damaged("GIF", 7) != damaged("GIF", 8)


# --- what the fuzzing found ----------------------------------------------------------------


def reason_of(data: bytes, path: Path) -> str:
    path.write_bytes(data)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    return caught.value.reason


def small_png(*extra: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + bytes(24)) * 8)
    parts = chunk(b"IHDR", header), *extra, chunk(b"IDAT", pixels), chunk(b"IEND", b"")
    return PNG_START + b"".join(parts)


def test_a_palette_image_without_a_palette(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 1, 1, 8, 3, 0, 0, 0)
    data = PNG_START + chunk(b"IHDR", header) + chunk(b"tRNS", b"\0")
    data += chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")
    assert reason_of(data, tmp_path / "x.png") == "damaged file (it has no palette)"


def test_too_many_bytes_are_refused_unopened(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    with path.open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)  # A hole: it takes no room on the disk.
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert caught.value.reason == "512000001 bytes are too many (limit 512000000)"
    with path.open("wb") as file:
        file.truncate(images.MAX_BYTES)
    with pytest.raises(ImageError, match="zero bytes and not the image"):
        read_image(path)


def test_a_jpeg_of_many_scans_is_refused(tmp_path: Path) -> None:
    data = saved(textured(64, 64), "JPEG", progressive=True)
    last, scans = data.rindex(b"\xff\xda"), data.count(b"\xff\xda")
    path = tmp_path / "scans.jpg"

    def with_scans(count: int) -> bytes:
        return data[:last] + data[last:-2] * (count - scans + 1) + data[-2:]

    path.write_bytes(with_scans(images.MAX_SCANS))
    assert read_image(path).size == (64, 64)
    assert reason_of(with_scans(images.MAX_SCANS + 1), path) == "more than 100 scans"


def test_a_tiff_of_a_million_parts_is_refused(tmp_path: Path) -> None:
    count = 1_000_001
    entries = GREY_8 | {273: (4, count, struct.pack("<I", 8) * count), 257: (4, 1, count)}
    start_s = time.process_time()
    assert reason_of(tiff(entries), tmp_path / "x.tif") == "more than 1000000 strips or tiles"
    assert time.process_time() - start_s < 1


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (tiff(GREY_8), 1),
        (tiled_tiff(), 6),
        (tiff(GREY_8 | {273: (3, 70_000, 0), 324: (4, 5, 0)}), 70_000),
        (b"MM\0*\0\0\0\x08\0\x01\x01\x11\0\4\0\0\0\x09" + bytes(4), 9),
        (b"II+\0\x08\0\0\0" + struct.pack("<QQHHQ8x", 16, 1, 273, 4, 2**40), 2**40),
        (b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**60), ENDLESS),
        (b"II*\0\xff\xff\xff\xff" + bytes(8), 0),
        (b"II*\0", 0),
        (b"II+\0\x08\0\0\0" + b"\xff" * 8, 0),
        (saved(textured(), "PNG"), 0),
        (b"", 0),
    ],
)
def test_the_parts_of_a_tiff(data: bytes, expected: int, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(data)
    with (tmp_path / "x").open("rb") as file:
        assert count_parts(file) == expected


def test_reading_stops_after_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_SECONDS", 0.2)
    # Every empty chunk costs Pillow as much as a full one.
    data = small_png(chunk(b"prVt", b"") * 1_000_000)
    start_s = time.process_time()
    assert reason_of(data, tmp_path / "x.png") == "too much work to decode (more than 0.2 s)"
    assert time.process_time() - start_s < 2


def test_a_file_is_not_read_again_and_again(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(1000))
    with LimitedFile(tmp_path / "x", 60, 2) as file:
        for _ in range(2 * (1000 + 65_536) // 1000 + 1):
            file.seek(0)
            assert file.read() == bytes(1000)
        with pytest.raises(TooMuchWork, match="again and again"):
            file.read(1)


def peak_mb(work: Callable[[], object]) -> int:
    """The most memory that some work adds, in MB."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not clear.exists():
        pytest.skip("needs /proc")

    def read(name: str) -> int:
        return int(status.read_text().partition(f"{name}:")[2].split()[0]) // 1024

    clear.write_text("5")
    before = read("VmRSS")
    work()
    return read("VmHWM") - before


def with_exif(data: bytes, exif: bytes) -> bytes:
    """A JPEG with EXIF data in as many segments as it takes."""
    segments = b"".join(
        b"\xff\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\0\0" + part
        for part in (exif[at : at + 65_000] for at in range(0, len(exif), 65_000))
    )
    return data[:2] + segments + data[2:]


# Two thousand entries that are all the same 400 KB.
MANY_TAGS = {tag: (7, 400_000, 8) for tag in range(1000, 3000)}


def compressed_zeros(megabytes: int) -> bytes:
    """As `zlib.compress` makes it of so many million zero bytes, a thousandth of their number."""
    compress = zlib.compressobj(9, zlib.DEFLATED, -15)
    part = compress.compress(bytes(10**6)) + compress.flush(zlib.Z_FULL_FLUSH)  # needs no other
    adler_32 = megabytes * 10**6 % 65_521 << 16 | 1
    return b"\x78\xda" + part * megabytes + compress.flush() + struct.pack(">I", adler_32)


BOMB = compressed_zeros(200)


@pytest.mark.parametrize(
    "data",
    [
        small_png(chunk(b"zTXt", b"a\0\0" + BOMB)),
        small_png(chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB)),
        small_png(chunk(b"iCCP", b"a\0\0" + BOMB)),
        small_png(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**6), 9)) * 500),
        PNG_START
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", BOMB),
        tiff(GREY_8 | MANY_TAGS, bytes(400_000)),
        with_exif(saved(textured(), "JPEG"), tiff(MANY_TAGS, bytes(400_000))),
        small_png(chunk(b"eXIf", tiff(MANY_TAGS, bytes(400_000)))),
        # An image of 16 x 16 in one tile of 3.6 billion, which 3 MB would fill.
        tiff(
            {
                256: (3, 1, 16), 257: (3, 1, 16), 258: (3, 1, 8), 259: (3, 1, 8),
                262: (3, 1, 1), 277: (3, 1, 1), 322: (4, 1, 60_000), 323: (4, 1, 60_000),
                324: (4, 1, 134), 325: (4, 1, len(BOMB)),
            },
            BOMB,
        ),
    ],
    ids=["zTXt", "iTXt", "iCCP", "many texts", "pixels", "TIFF tags", "JPEG", "eXIf", "TIFF tile"],
)  # fmt: skip
def test_a_few_bytes_do_not_become_much_memory(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "bomb").write_bytes(data)

    def read() -> None:
        try:
            read_image(tmp_path / "bomb")
        except ImageError as error:
            assert error.reason.isprintable()

    assert peak_mb(read) < 100


def test_a_large_image_takes_little_more_than_its_pixels(tmp_path: Path) -> None:
    side = 4000  # Pillow has 4 bytes for a pixel of RGB: 64 MB, as many in RGBA, 32 MB of 16 bits
    image = Image.new("RGBA", (side, side), (255, 0, 0, 0))
    image.save(tmp_path / "clear.png", compress_level=1)
    Image.new("I;16", (side, side), 257).save(tmp_path / "deep.png", compress_level=1)
    del image
    assert peak_mb(lambda: read_image(tmp_path / "clear.png")) < 260
    assert peak_mb(lambda: read_image(tmp_path / "deep.png")) < 260


def test_tiles_make_the_same_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {}
    clear = textured(50, 30)
    clear.putalpha(textured(50, 30, seed=3).convert("L"))
    clear.save(tmp_path / "clear.png")
    for format in ("TIFF", "PPM", "PNG"):
        for number, data in enumerate(whole_files(format)):
            (tmp_path / f"{number}.{format}").write_bytes(data)
    for path in sorted(tmp_path.iterdir()):
        whole[path] = read_image(path).tobytes()
    monkeypatch.setattr(depths, "_TILE_SIDE", 7)
    assert {path: read_image(path).tobytes() for path in whole} == whole


def test_a_file_is_not_mapped_into_memory(tmp_path: Path) -> None:
    # Pillow maps uncompressed files that it opens by name; cutting one short would end us.
    textured(64, 64).save(tmp_path / "x.bmp")
    with LimitedFile(tmp_path / "x.bmp", 60, 8) as file, Image.open(file) as image:
        image.load()
        assert getattr(image, "map", None) is None
