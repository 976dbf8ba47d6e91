"""What containers cut off the edges of a video's images."""

from __future__ import annotations

import re
import struct
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from captioner.video.cropping import Crop, find_crop
from captioner.video.opening import open_video
from helpers.heic import clap
from helpers.videos import evenly, number_of, numbered, write_video

WIDTH, HEIGHT = 192, 160
SHOWN = (32, 16, 160, 112)  # left, top, right, bottom
APERTURE = clap(128, 96, 0, -16)


def framed(number: int) -> np.ndarray:
    """A numbered image in a white frame, which is not to be shown."""
    image = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    left, top, right, bottom = SHOWN
    image[top:bottom, left:right] = numbered(number)
    return image


def with_clap(path: Path, stated: bytes = APERTURE) -> Path:
    """Put a box into what describes the images of an MP4 file, whose index comes last."""
    outside = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1")
    path.write_bytes(_put(path.read_bytes(), outside, stated))
    return path


def _put(data: bytes, outside: tuple[bytes, ...], child: bytes) -> bytes:
    kind, *inner = outside
    place = data.index(kind) - 4
    (size,) = struct.unpack(">I", data[place : place + 4])
    content = data[place + 8 : place + size]
    content = _put(content, tuple(inner), child) if inner else content + child
    whole = struct.pack(">I", len(content) + 8) + kind + content
    return data[:place] + whole + data[place + size :]


_VIDEO = re.compile(  # of a track in Matroska as FFmpeg writes it, and the free space behind
    rb"\xe0\x8a(\xb0\x81.\xba\x81.)\x54\xb2\x81\x04\x55\xee\x81\0\xec\x01\0{6}\x02\0\0", re.DOTALL
)


def with_pixel_crop(path: Path, left: int = 32, top: int = 16, right: int = 32) -> Path:
    """Say what is cut off in a Matroska file, in pixels; at the bottom always 48."""
    edges = b"\x54\xcc\x81%c\x54\xbb\x81%c\x54\xdd\x81%c\x54\xaa\x81%c" % (left, top, right, 48)
    data, count = _VIDEO.subn(
        lambda found: b"\xe0\x96" + found[1] + edges + b"\xec\x81\0", path.read_bytes()
    )
    assert count == 1
    path.write_bytes(data)
    return path


def video(path: Path, **options) -> Path:
    return write_video(path, map(framed, range(3)), evenly(3, 25), **options)


@pytest.mark.parametrize(
    ("name", "rotation", "add"),
    [
        ("a.mkv", 0, with_pixel_crop),
        ("a.mp4", 0, with_clap),
        ("a.mp4", 90, partial(with_clap, stated=clap(96, 128, -16, 0))),
        ("a.mov", 270, partial(with_clap, stated=clap(96, 128, 16, 0))),
    ],
)
def test_only_what_is_shown_is_looked_at(tmp_path: Path, name: str, rotation: int, add) -> None:
    with open_video(add(video(tmp_path / name, rotation=rotation))) as opened:
        assert (opened.info.width, opened.info.height) == (128, 96)
        for frame in opened:
            assert frame.rgb().shape == (96, 128, 3)
            assert number_of(frame.rgb()) == frame.index


def test_the_edges_are_those_of_pixels_as_they_are_stored(tmp_path: Path) -> None:
    path = with_clap(video(tmp_path / "a.mp4", pixel_aspect=Fraction(3, 2)))
    with open_video(path) as opened:
        assert (opened.info.width, opened.info.height) == (192, 96)
        image = next(iter(opened)).rgb()
    assert image.shape == (96, 192, 3)
    assert number_of(image) == 0


@pytest.mark.parametrize(
    "stated",
    [
        clap(WIDTH, HEIGHT),
        clap(128, 96, 64),
        clap(0, 0),
        clap(128, 96, divisor=0),
        b"\0\0\0\x08clap",
        b"\0\0\0\x03clap",
        b"\xff\0\0\0clap",
    ],
)
def test_what_makes_no_sense_cuts_nothing_off(tmp_path: Path, stated: bytes) -> None:
    path = with_clap(video(tmp_path / "a.mp4"), stated)
    assert find_crop(path, WIDTH, HEIGHT) is None
    with open_video(path) as opened:
        assert (opened.info.width, opened.info.height) == (WIDTH, HEIGHT)


def test_matroska_that_cuts_everything_off_is_shown_as_a_whole(tmp_path: Path) -> None:
    assert find_crop(with_pixel_crop(video(tmp_path / "a.mkv"), 96, 16, 96), WIDTH, HEIGHT) is None


@pytest.mark.parametrize(("name", "add"), [("a.mp4", with_clap), ("a.mkv", with_pixel_crop)])
def test_a_file_may_end_anywhere(tmp_path: Path, name: str, add) -> None:
    data = add(video(tmp_path / name)).read_bytes()
    for size in range(0, len(data) + 1, 7):
        (tmp_path / "part").write_bytes(data[:size])
        find_crop(tmp_path / "part", WIDTH, HEIGHT)
    assert find_crop(tmp_path / name, WIDTH, HEIGHT) == Crop((WIDTH, HEIGHT), SHOWN)
