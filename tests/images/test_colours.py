"""What profiles say of colours becomes sRGB."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from captioner.images import colours
from captioner.images.reading import read_image, to_rgb
from helpers.icc import (
    ADOBE,
    D50_XY,
    P3,
    PROPHOTO,
    SRGB,
    SWAPPED,
    cmyk_profile,
    encoded,
    grey_profile,
    profile,
    rgb_profile,
)
from helpers.images import noise

SHIRT = (200, 20, 20)
SPACES = {
    "P3": (P3, 2.2),
    "Adobe RGB": (ADOBE, 2.19921875),
    "ProPhoto": (PROPHOTO, 1.8, D50_XY),
    "gamma 1.4": (SRGB, 1.4),
    "swapped": (SWAPPED, 2.2),
}
SUFFIXES = {
    "png": {},
    "jpg": {"quality": 100, "subsampling": 0},
    "tif": {"compression": "tiff_lzw"},
    "webp": {"lossless": True},
    "avif": {"quality": 100, "subsampling": "4:4:4"},
}


def one_colour(image: Image.Image) -> tuple[int, ...]:
    assert image.mode == "RGB"
    colour = image.getpixel((8, 8))
    assert isinstance(colour, tuple)
    return colour


def close(found: tuple[int, ...], expected: tuple[int, ...], most: int) -> bool:
    return max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= most


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("space", SPACES)
def test_one_red_is_that_red_from_every_space(tmp_path: Path, space: str, suffix: str) -> None:
    stored = encoded(SHIRT, *SPACES[space])
    assert max(abs(a - b) for a, b in zip(stored, SHIRT, strict=True)) > 8
    path = tmp_path / f"red.{suffix}"
    image = Image.new("RGB", (32, 32), stored)
    image.save(path, icc_profile=rgb_profile(*SPACES[space]), **SUFFIXES[suffix])
    assert close(one_colour(read_image(path)), SHIRT, 4)
    image.info["icc_profile"] = rgb_profile(*SPACES[space])
    assert close(one_colour(to_rgb(image)), SHIRT, 4)


def test_a_large_jpeg_is_still_decoded_small(tmp_path: Path) -> None:
    stored = encoded(SHIRT, *SPACES["ProPhoto"])
    image = Image.new("RGB", (1600, 1200), stored)
    image.save(tmp_path / "x.jpg", quality=95, icc_profile=rgb_profile(*SPACES["ProPhoto"]))
    found = read_image(tmp_path / "x.jpg", min_side=300)
    assert found.size == (400, 300)
    assert close(one_colour(found), SHIRT, 4)


@pytest.mark.parametrize(
    "stamp",
    [
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        rgb_profile(SRGB, None),
        rgb_profile(SRGB, None, kind=b"scnr"),
    ],
    ids=["Pillow's", "table", "of a scanner"],
)
def test_srgb_stays_as_it_is_to_the_last_bit(tmp_path: Path, stamp: bytes) -> None:
    plain = noise(0, 64, 64)
    plain.save(tmp_path / "x.png", icc_profile=stamp)
    assert read_image(tmp_path / "x.png").tobytes() == plain.tobytes()
    assert not colours.is_converted("RGB", stamp)
    assert colours.to_srgb(plain, stamp) is plain


def test_grey_by_its_profile(tmp_path: Path) -> None:
    levels = np.arange(0, 256, 5, dtype=np.uint8)[None]
    grey = Image.fromarray(levels)
    grey.save(tmp_path / "x.png", icc_profile=grey_profile(1.0))
    found = np.asarray(read_image(tmp_path / "x.png")).astype(int)
    shares = levels / 255
    expected = np.where(shares <= 0.0031308, 12.92 * shares, 1.055 * shares ** (1 / 2.4) - 0.055)
    assert np.abs(found - 255 * expected[..., None]).max() <= 2
    deep = Image.fromarray(levels.astype(np.uint16) * 257)
    deep.save(tmp_path / "deep.tif", icc_profile=grey_profile(1.0))
    assert np.abs(np.asarray(read_image(tmp_path / "deep.tif")).astype(int) - found).max() <= 1


def test_grey_with_the_profile_of_colours(tmp_path: Path) -> None:
    stamp = rgb_profile(SRGB, 1.0)
    Image.new("L", (16, 16), 55).save(tmp_path / "x.png", icc_profile=stamp)
    assert close(one_colour(read_image(tmp_path / "x.png")), (128, 128, 128), 1)
    Image.new("LA", (16, 16), (55, 255)).save(tmp_path / "la.png", icc_profile=stamp)
    assert close(one_colour(read_image(tmp_path / "la.png")), (128, 128, 128), 1)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_inks_by_their_profile(tmp_path: Path, suffix: str) -> None:
    for ink, expected in [
        ((0, 0, 0, 0), (255, 255, 255)),
        ((255, 0, 0, 0), (119, 119, 119)),  # L* 50.2
        ((0, 0, 0, 255), (0, 0, 0)),
    ]:
        path = tmp_path / f"x.{suffix}"
        Image.new("CMYK", (16, 16), ink).save(path, icc_profile=cmyk_profile())
        assert close(one_colour(read_image(path)), expected, 3), ink
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(tmp_path / f"y.{suffix}")
    assert close(one_colour(read_image(tmp_path / f"y.{suffix}")), (0, 255, 255), 1)


def test_palettes_and_transparency_by_the_profile(tmp_path: Path) -> None:
    stored, stamp = encoded(SHIRT, *SPACES["swapped"]), rgb_profile(*SPACES["swapped"])
    palette = Image.new("RGB", (16, 16), stored).quantize(2)
    palette.save(tmp_path / "p.png", icc_profile=stamp)
    assert close(one_colour(read_image(tmp_path / "p.png")), SHIRT, 4)
    palette.save(tmp_path / "half.png", icc_profile=stamp, transparency=bytes([128, 128]))
    over_white = tuple(round(255 - (255 - each) * 128 / 255) for each in SHIRT)
    assert close(one_colour(read_image(tmp_path / "half.png")), over_white, 4)
    Image.new("RGBA", (16, 16), (*stored, 128)).save(tmp_path / "c.png", icc_profile=stamp)
    assert close(one_colour(read_image(tmp_path / "c.png")), over_white, 4)
    Image.new("LA", (16, 16), (55, 0)).save(tmp_path / "la.png", icc_profile=grey_profile(1.0))
    assert one_colour(read_image(tmp_path / "la.png")) == (255, 255, 255)
    Image.new("LA", (16, 16), (55, 255)).save(tmp_path / "la.png", icc_profile=grey_profile(1.0))
    assert close(one_colour(read_image(tmp_path / "la.png")), (128, 128, 128), 2)


WHOLE = rgb_profile(*SPACES["swapped"])
BROKEN = {
    "words": b"no profile" * 40,
    "zeros": bytes(500),
    "one byte": b"x",
    "cut": WHOLE[:300],
    "cut in the list": WHOLE[:140],
    "half a header": WHOLE[:60],
    "no curves": profile(b"RGB ", {b"wtpt": b"XYZ \0\0\0\0" + bytes(12)}),
    "other pixels": cmyk_profile(),
    "grey": grey_profile(1.0),
    "a device link": rgb_profile(*SPACES["swapped"], kind=b"link"),
    "named colours": rgb_profile(*SPACES["swapped"], kind=b"nmcl"),
    "endless list": WHOLE[:128] + struct.pack(">I", 2**32 - 1) + WHOLE[132:],
    "huge offsets": WHOLE[:148] + b"\xff" * 8 + WHOLE[156:],
}


@pytest.mark.parametrize("damage", BROKEN)
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_a_broken_profile_is_ignored(
    tmp_path: Path, damage: str, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    image = noise(0)
    plain, stamped = tmp_path / f"plain.{suffix}", tmp_path / f"x.{suffix}"
    image.save(plain)
    image.save(stamped, icc_profile=BROKEN[damage])
    assert read_image(stamped).tobytes() == read_image(plain).tobytes()
    assert capfd.readouterr() == ("", "")


def test_a_profile_that_is_too_long_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = encoded(SHIRT, *SPACES["swapped"])
    Image.new("RGB", (16, 16), stored).save(tmp_path / "x.tif", icc_profile=WHOLE)
    assert close(one_colour(read_image(tmp_path / "x.tif")), SHIRT, 4)
    monkeypatch.setattr(colours, "MAX_PROFILE_BYTES", len(WHOLE) - 1)
    assert one_colour(read_image(tmp_path / "x.tif")) == stored


def test_a_long_program_in_a_profile_is_not_run() -> None:
    def with_program(size: int) -> bytes:
        tags = {b"D2B1": b"mpet".ljust(size, b"\0")}
        return profile(b"RGB ", tags)

    assert not colours._is_usable(with_program(colours.MAX_PROGRAM_BYTES + 1))
    assert colours._is_usable(with_program(colours.MAX_PROGRAM_BYTES))


def test_any_flipped_bytes_in_a_profile_give_an_image_soon() -> None:
    rng = np.random.default_rng(0)
    image = {"RGB": noise(0), "CMYK": noise(0).convert("CMYK")}
    start_s = time.process_time()
    for case in range(100):
        whole, mode = ((WHOLE, "RGB"), (cmyk_profile(), "CMYK"))[case % 2]
        damaged = bytearray(whole)
        for at in rng.integers(0, len(damaged), 4):
            damaged[at] = rng.integers(0, 256)
        found = colours.to_srgb(image[mode], bytes(damaged))
        assert (found.mode, found.size) == ("RGB", image[mode].size)
    assert time.process_time() - start_s < 30


def test_a_profile_is_looked_into_once() -> None:
    stamp = rgb_profile(*SPACES["P3"])
    colours._made_conversion.cache_clear()
    for _ in range(5):
        colours.to_srgb(noise(0), stamp)
    assert colours._made_conversion.cache_info().misses == 1
