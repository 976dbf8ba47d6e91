"""Colours that PNG, HEIC, AVIF and profiles say by numbers, of files made by plain arithmetic."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from captioner.images.avif_properties import avif_numbers
from captioner.images.colour_spaces import profile_of_numbers, profile_of_png
from captioner.images.reading import read_image
from helpers.heic import heic, nclx
from helpers.icc import P3, SRGB, SWAPPED, rgb_profile, srgb_linear, to_d50
from helpers.images import noise

SHIRT = (200, 20, 20)
BT2020 = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))


def levels(primaries: tuple, curve) -> tuple[int, ...]:
    """The levels of the shirt in a space whose curve turns light, 1 for white, into a level."""
    light = np.linalg.solve(to_d50(primaries), to_d50(SRGB) @ srgb_linear(SHIRT))
    return tuple(np.rint(255 * curve(np.clip(light, 0, 1))).astype(int).tolist())


def srgb(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def pq(light: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084, of light whose white has 203 nits."""
    power = (light * 203 / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(light: np.ndarray) -> np.ndarray:
    """ITU-R BT.2100, of the same on a screen of 1000 nits."""
    scene = (light * 203 / 1000) ** (1 / 1.2)
    above = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), above)


def gama(value: int) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", value)


def chrm(primaries: tuple) -> tuple[bytes, bytes]:
    numbers = [0.3127, 0.3290, *(each for point in primaries for each in point)]
    return b"cHRM", struct.pack(">8I", *(round(100_000 * each) for each in numbers))


def cicp(primaries: int, transfer: int) -> tuple[bytes, bytes]:
    return b"cICP", bytes([primaries, transfer, 0, 1])


def png(path: Path, colour: tuple[int, ...], *chunks: tuple[bytes, bytes], **options) -> Path:
    info = PngInfo()
    for name, data in chunks:
        info.add(name, data)
    Image.new("RGB", (8, 8), colour).save(path, pnginfo=info, **options)
    assert all(name in path.read_bytes() for name, _ in chunks)
    return path


def shirt_in(path: Path) -> bool:
    found = np.asarray(read_image(path)).astype(int)[4, 4]
    return int(np.abs(found - SHIRT).max()) <= 4


LINEAR = levels(SRGB, lambda light: light)
SPACES = {
    "gAMA 1": (LINEAR, [gama(100_000)]),
    "gAMA of old Macs": (levels(SRGB, lambda light: light ** (1 / 1.8)), [gama(55_556)]),
    "cHRM": (levels(P3, srgb), [chrm(P3)]),
    "cHRM and gAMA": (levels(P3, srgb), [chrm(P3), gama(45_455)]),
    "cICP P3": (levels(P3, srgb), [cicp(12, 13)]),
    "cICP before the others": (levels(P3, srgb), [gama(100_000), cicp(12, 13)]),
    "cICP PQ": (levels(BT2020, pq), [cicp(9, 16)]),
    "cICP HLG": (levels(BT2020, hlg), [cicp(9, 18)]),
}


@pytest.mark.parametrize("space", SPACES)
def test_a_png_by_its_chunks(tmp_path: Path, space: str) -> None:
    stored, chunks = SPACES[space]
    assert max(abs(a - b) for a, b in zip(stored, SHIRT, strict=True)) > 8
    assert shirt_in(png(tmp_path / "x.png", stored, *chunks))


def avif(path: Path, colour: tuple[int, ...], numbers: tuple[int, int], **options) -> Path:
    """An image of one colour with these numbers in the places of those that Pillow writes."""
    options |= {"quality": 100, "subsampling": "4:4:4"}
    Image.new("RGB", (64, 64), colour).save(path, **options)
    data, says = path.read_bytes(), b"nclx" + struct.pack(">HH", *numbers)
    assert b"colrnclx" in data
    path.write_bytes(re.sub(b"nclx(?s:....)", lambda _: says, data))
    return path


NUMBERS = [((12, 13), srgb, P3), ((9, 16), pq, BT2020), ((9, 18), hlg, BT2020)]


@pytest.mark.parametrize(("numbers", "curve", "primaries"), NUMBERS)
def test_heic_avif_and_profiles_by_their_numbers(
    tmp_path: Path, numbers: tuple[int, int], curve, primaries: tuple
) -> None:
    stored = levels(primaries, curve)
    pixels = np.full((16, 16, 3), stored, np.uint8)
    assert shirt_in(heic(tmp_path / "x.heic", pixels, [nclx(*numbers)]))
    assert shirt_in(avif(tmp_path / "x.avif", stored, numbers))
    several = {"save_all": True, "append_images": [noise(0, 64, 64)]}
    assert shirt_in(avif(tmp_path / "moving.avif", stored, numbers, **several))
    if curve is not srgb:  # of others the profile itself says more
        tag = {b"cicp": b"cicp" + bytes(4) + bytes([*numbers, 0, 1])}
        stamp = rgb_profile(SWAPPED, 2.2, others=tag)
        assert shirt_in(png(tmp_path / "x.png", stored, icc_profile=stamp))


def test_the_profile_of_avif_counts_more_than_its_numbers(tmp_path: Path) -> None:
    options = {"icc_profile": rgb_profile(P3, None)}
    assert shirt_in(avif(tmp_path / "x.avif", levels(P3, srgb), (9, 16), **options))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"nclx", b"free"),
        (b"pitm", b"free"),
        (b"iprp", b"free"),
        (b"ipma", b"free"),
        (b"ipma\0\0\0\0\0\0\0\1", b"ipma\0\0\0\0\0\0\0\0"),  # of no image
        (b"ipma\0\0\0\0\0\0\0\1\0\1", b"ipma\0\0\0\0\0\0\0\1\0\2"),  # of another one
        (b"ipma\0\0\0\0\0\0\0\1\0\1\4", b"ipma\0\0\0\0\0\0\0\1\0\1\xff"),  # without end
        (b"\0\0\0\x13colr", b"\0\0\0\7colr"),
        (b"\0\0\0\x13colr", b"\xff\0\0\0colr"),
    ],
)
def test_an_avif_without_its_numbers(tmp_path: Path, before: bytes, after: bytes) -> None:
    data = avif(tmp_path / "x.avif", SHIRT, (12, 13)).read_bytes()
    assert avif_numbers(io.BytesIO(data)) == (12, 13)
    assert before in data
    assert avif_numbers(io.BytesIO(data.replace(before, after))) is None


def test_an_avif_that_ends_early_has_no_numbers_or_those_it_has(tmp_path: Path) -> None:
    data = avif(tmp_path / "x.avif", SHIRT, (12, 13)).read_bytes()
    found = [avif_numbers(io.BytesIO(data[:size])) for size in range(len(data))]
    assert found == sorted(found, key=bool)
    assert set(found) == {None, (12, 13)}


@pytest.mark.parametrize(
    "chunks",
    [
        [gama(45_455)],
        [gama(45_455), chrm(SRGB)],
        [gama(100_000), (b"sRGB", b"\0")],
        [cicp(1, 13)],
        [cicp(1, 1)],
        [cicp(2, 2)],
        [cicp(200, 99)],
        [gama(0)],
        [gama(2**31)],
        [(b"cHRM", bytes(32))],
        [chrm(((0.3, 0.3), (0.3, 0.3), (0.3, 0.3)))],
    ],
)
def test_what_says_srgb_or_nonsense_changes_no_pixel(tmp_path: Path, chunks: list) -> None:
    plain = noise(0)
    info = PngInfo()
    for name, data in chunks:
        info.add(name, data)
    plain.save(tmp_path / "x.png", pnginfo=info)
    assert read_image(tmp_path / "x.png").tobytes() == plain.tobytes()


def test_a_profile_counts_more_than_gama_and_less_than_cicp(tmp_path: Path) -> None:
    stored, stamp = levels(P3, srgb), rgb_profile(P3, None)
    assert shirt_in(png(tmp_path / "x.png", stored, gama(100_000), icc_profile=stamp))
    swapped = rgb_profile(SWAPPED, None)
    assert shirt_in(png(tmp_path / "y.png", stored, cicp(12, 13), icc_profile=swapped))


def test_grey_of_8_and_16_bits(tmp_path: Path) -> None:
    info = PngInfo()
    info.add(*gama(100_000))
    Image.new("L", (8, 8), 55).save(tmp_path / "x.png", pnginfo=info)
    deep = Image.fromarray(np.full((8, 8), 55 * 257, np.uint16))
    deep.save(tmp_path / "deep.png", pnginfo=info)
    for name in ("x.png", "deep.png"):
        assert np.abs(np.asarray(read_image(tmp_path / name)).astype(int) - 128).max() <= 1


def test_numbers_that_are_not_known_give_no_profile() -> None:
    assert profile_of_numbers(2, 2) is None
    assert profile_of_png(None, None, is_grey=False) is None
    assert profile_of_png(None, (0.3,) * 7, is_grey=False) is None
