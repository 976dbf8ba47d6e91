"""What colours and shape images have when they leave the reader, on clips with known colours."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from captioner.video.colours import (
    BT601,
    BT709,
    BT2020,
    DISPLAY_P3,
    HLG,
    PQ,
    REFERENCE_WHITE,
    UNSPECIFIED,
    Colours,
    guessed_colours,
    to_srgb,
)
from captioner.video.frames import VideoInfo
from captioner.video.opening import open_video
from captioner.video.options import READERS
from helpers.videos import evenly, number_of, numbered, write_video

readers = pytest.mark.parametrize("reader", READERS)
# Patches of sRGB from left to right; the colours of skin, grass, sky and what stands out.
PATCHES = [
    *((255, 255, 255), (128, 128, 128), (16, 16, 16), (200, 20, 20), (20, 160, 30)),
    *((30, 40, 190), (224, 172, 140), (240, 220, 40)),
]
SIDE = 32


def patches(height: int = SIDE, width: int = SIDE * len(PATCHES)) -> np.ndarray:
    """The patches side by side: uint8 (height, width, 3)."""
    columns = np.arange(width) * len(PATCHES) // width
    return np.tile(np.uint8(PATCHES)[columns], (height, 1, 1))


def middles(image: np.ndarray) -> np.ndarray:
    """What became of each patch: (patches, 3)."""
    width = image.shape[1]
    columns = [width * (2 * each + 1) // (2 * len(PATCHES)) for each in range(len(PATCHES))]
    return image[image.shape[0] // 2, columns].astype(int)


def errors(image: np.ndarray) -> list[int]:
    """The largest error of each patch."""
    found: list[int] = np.abs(middles(image) - np.array(PATCHES)).max(axis=1).tolist()
    return found


def linear(srgb: np.ndarray) -> np.ndarray:
    values = srgb / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


TO_BT2020 = np.array(  # ITU-R BT.2087, from linear BT.709
    [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
)


def pq_signal(light: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084, the other way: cd/m2 -> [0, 1]."""
    power = (light / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg_signal(light: np.ndarray) -> np.ndarray:
    """ITU-R BT.2100, the other way, on a display of 1000 cd/m2."""
    luminance = light @ np.array([0.2627, 0.6780, 0.0593]) / 1000
    scene = light / 1000 * np.maximum(luminance, 1e-9)[..., None] ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    bright = a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)


def stored_as(
    signal: Callable[[np.ndarray], np.ndarray], matrix: int = BT2020
) -> Callable[[np.ndarray], av.VideoFrame]:
    """A function from an sRGB image to a frame of 10 bits with that transfer function."""

    def store(image: np.ndarray) -> av.VideoFrame:
        light = REFERENCE_WHITE * linear(image) @ TO_BT2020.T
        values = np.uint16(np.round(65535 * np.clip(signal(light), 0, 1)))
        frame = av.VideoFrame.from_ndarray(values, format="rgb48le")
        return frame.reformat(format="yuv444p10le", dst_colorspace=matrix)

    return store


def with_matrix(matrix: int) -> Callable[[np.ndarray], av.VideoFrame]:
    """A function from an RGB image to a frame that is stored by that matrix."""

    def store(image: np.ndarray) -> av.VideoFrame:
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=matrix)
        frame.colorspace = UNSPECIFIED
        return frame

    return store


def first_image(path: Path, reader: str = "pyav") -> np.ndarray:
    with open_video(path, reader) as video:
        return next(iter(video)).rgb()


# --- high dynamic range --------------------------------------------------------------------

HDR = [(PQ, pq_signal), (HLG, hlg_signal)]


@pytest.mark.parametrize(("transfer", "signal"), HDR, ids=["pq", "hlg"])
@pytest.mark.parametrize("codec", ["libx265", "ffv1"])
def test_hdr_looks_like_its_sdr_twin(
    tmp_path: Path, transfer: int, signal: Any, codec: str
) -> None:
    path = write_video(
        tmp_path / "a.mkv",
        [patches()] * 3,
        evenly(3, 25),
        codec=codec,
        pixel_format="yuv444p10le",
        colours=BT2020,
        transfer=transfer,
        primaries=BT2020,
        store=stored_as(signal),
        options={"x265-params": "log-level=none", "crf": "8"} if codec == "libx265" else {},
    )
    with open_video(path) as video:
        for frame in video:
            white, *others = errors(frame.rgb())
            # Above it lie the highlights of other images.
            assert white <= 12
            assert max(others) <= 8, others  # 8 bits of PQ are coarse
            assert middles(frame.rgb())[0].min() >= 243
            small = frame.thumbnail(160, 90)[:, :, ::-1]
            assert max(errors(small)[1:]) <= 8


@pytest.mark.parametrize(("transfer", "signal"), HDR, ids=["pq", "hlg"])
def test_hdr_whose_primaries_and_matrix_are_not_named(
    tmp_path: Path, transfer: int, signal: Any
) -> None:
    path = write_video(
        tmp_path / "a.mkv",
        [patches()],
        [0],
        codec="ffv1",
        pixel_format="yuv444p10le",
        transfer=transfer,
        store=stored_as(signal),
    )
    assert max(errors(first_image(path))[1:]) <= 8


def test_the_functions_at_known_points() -> None:
    def grey(value: float, transfer: int) -> float:
        red, green, blue = 255 * to_srgb(np.full(3, value), transfer, BT2020)
        assert red == pytest.approx(green, abs=1e-6) == pytest.approx(blue, abs=1e-6)
        return float(red)

    # ITU-R BT.2408, table 1: 58 % of PQ and 75 % of HLG are reference white.
    assert grey(0.5807, PQ) == pytest.approx(grey(0.75, HLG), abs=0.5) == pytest.approx(246, abs=1)
    # The same, 18 % grey, which is 26 cd/m2: 38 % of both.
    assert grey(0.38, PQ) == pytest.approx(grey(0.38, HLG), abs=3)
    assert grey(0.38, PQ) == pytest.approx(255 * to_srgb(np.full(3, 0.38), PQ, BT709)[0])
    for transfer in (PQ, HLG):
        assert grey(0.0, transfer) == 0
        assert grey(1.0, transfer) == pytest.approx(255)
        rising = [grey(step / 100, transfer) for step in range(101)]
        assert rising == sorted(rising)


def test_highlights_stay_apart() -> None:
    light = REFERENCE_WHITE * np.array([[0.85], [1], [2], [4], [4.92], [20]]) * np.ones(3)
    shown = 255 * to_srgb(pq_signal(light), PQ, BT709)[:, 0]
    assert shown == pytest.approx([237, 246.4, 253.2, 254.5, 255, 255], abs=0.5)


# --- wide gamuts ---------------------------------------------------------------------------


def test_a_wide_gamut_without_hdr(tmp_path: Path) -> None:
    def store(image: np.ndarray) -> av.VideoFrame:
        light = np.clip(linear(image) @ TO_BT2020.T, 0, 1)
        values = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        frame = av.VideoFrame.from_ndarray(np.uint16(65535 * values), format="rgb48le")
        return frame.reformat(format="yuv444p10le", dst_colorspace=BT2020)

    path = write_video(
        tmp_path / "a.mkv",
        [patches()],
        [0],
        codec="ffv1",
        pixel_format="yuv444p10le",
        colours=BT2020,
        primaries=BT2020,
        store=store,
    )
    assert max(errors(first_image(path))) <= 4


def test_display_p3_at_known_points() -> None:
    def of(*rgb: float) -> list[int]:
        found: list[int] = np.round(255 * to_srgb(np.array(rgb), UNSPECIFIED, DISPLAY_P3)).tolist()
        return found

    # By the matrix of CSS Color 4: (0.604, 0.073, 0.033) of light becomes (0.723, 0.051, 0.019).
    assert of(0.8, 0.3, 0.2) == [221, 64, 37]
    assert of(0.5, 0.5, 0.5) == [128, 128, 128]
    assert of(1.0, 0.0, 0.0) == [255, 0, 0]


# --- which matrix --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "matrix"),
    [
        ((1280, 720), BT709),
        ((720, 1280), BT709),
        ((1440, 578), BT709),
        ((720, 576), BT601),
        ((640, 480), BT601),
        ((320, 240), BT601),
    ],
)
def test_a_matrix_that_is_not_named_goes_by_the_size(
    tmp_path: Path, size: tuple[int, int], matrix: int
) -> None:
    width, height = size
    path = tmp_path / "a.mp4"
    write_video(path, [patches(height, width)] * 2, [0, 40], store=with_matrix(matrix))
    with open_video(path) as video:
        for frame in video:
            assert max(errors(frame.rgb())) <= 6
            assert max(errors(frame.thumbnail(160, 90)[:, :, ::-1])) <= 6


@pytest.mark.parametrize("matrix", [BT709, BT601, BT2020])
@pytest.mark.parametrize("size", [(1280, 720), (320, 240)])
def test_a_matrix_that_is_named_counts(tmp_path: Path, size: tuple[int, int], matrix: int) -> None:
    width, height = size
    path = tmp_path / "a.mp4"
    store = with_matrix(matrix)
    write_video(path, [patches(height, width)], [0], colours=matrix, store=store)
    assert max(errors(first_image(path))) <= 6


def test_rgb_needs_no_matrix(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.mkv", [patches(720, 1280)], [0], codec="ffv1", pixel_format="bgr0"
    )
    assert max(errors(first_image(path))) == 0


def test_what_is_guessed() -> None:
    none = Colours()
    assert guessed_colours(none, 720, 576) == none
    assert guessed_colours(none, 1280, 544) == Colours(matrix=BT709)
    assert guessed_colours(none, 480, 640) == Colours(matrix=BT709)
    assert guessed_colours(Colours(BT601), 1920, 1080) == Colours(BT601)
    assert guessed_colours(Colours(transfer=PQ), 320, 240) == Colours(BT2020, PQ, BT2020)
    assert guessed_colours(Colours(transfer=HLG, primaries=12), 320, 240).primaries == 12


# --- pixels that are not square ------------------------------------------------------------


@readers
@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts", "a.avi"])
@pytest.mark.parametrize(
    ("pixel_aspect", "width"),
    [(Fraction(16, 9), 228), (Fraction(8, 9), 114), (Fraction(64, 45), 182), (Fraction(2), 256)],
)
def test_images_have_the_shape_in_which_they_are_shown(
    tmp_path: Path, reader: str, name: str, pixel_aspect: Fraction, width: int
) -> None:
    path = write_video(
        tmp_path / name,
        map(numbered, range(3)),
        range(3),
        Fraction(1, 25),
        codec="mpeg4" if name == "a.avi" else "libx264",
        pixel_aspect=pixel_aspect,
    )
    with open_video(path, reader) as video:
        assert video.info == VideoInfo(width, 96, 0, pytest.approx(0.12, abs=0.001))
        for frame in video:
            assert frame.rgb().shape == (96, width, 3)
            assert number_of(frame.rgb()) == frame.index
            assert frame.thumbnail(32, 24).shape == (24, 32, 3)


@readers
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_they_are_stretched_before_they_are_turned(
    tmp_path: Path, reader: str, rotation: int
) -> None:
    path = write_video(
        tmp_path / "a.mp4",
        map(numbered, range(3)),
        evenly(3, 25),
        rotation=rotation,
        pixel_aspect=Fraction(4, 3),
    )
    size = (128, 128) if rotation % 180 else (171, 96)
    with open_video(path, reader) as video:
        assert video.info == VideoInfo(*size, rotation, pytest.approx(0.12))
        for frame in video:
            assert frame.rgb().shape == (size[1], size[0], 3)
            assert number_of(frame.rgb()) == frame.index


@readers
@pytest.mark.parametrize(
    "pixel_aspect", [Fraction(9), Fraction(1, 9), Fraction(60000), Fraction(1)]
)
def test_a_shape_that_nothing_has_is_not_believed(
    tmp_path: Path, reader: str, pixel_aspect: Fraction
) -> None:
    path = write_video(tmp_path / "a.mp4", [numbered(5)], [0], pixel_aspect=pixel_aspect)
    with open_video(path, reader) as video:
        assert (video.info.width, video.info.height) == (128, 96)
        assert number_of(next(iter(video)).rgb()) == 5


@pytest.mark.parametrize("name", ["a.ts", "a.h264", "a.m2ts"])
def test_the_shape_can_change_in_a_broadcast(tmp_path: Path, name: str) -> None:
    parts = []
    for aspect in (Fraction(4, 3), Fraction(1), Fraction(16, 9)):
        images = map(numbered, range(20))
        write_video(tmp_path / name, images, evenly(20, 25), pixel_aspect=aspect)
        parts.append((tmp_path / name).read_bytes())
    (tmp_path / name).write_bytes(b"".join(parts))
    with open_video(tmp_path / name) as video:
        assert (video.info.width, video.info.height) == (171, 96)
        widths = [frame.rgb().shape[1] for frame in video]
    assert sorted(set(widths)) == [128, 171, 228]
    assert [widths.count(width) for width in (171, 128, 228)] == [20, 20, 20]


# --- transparent pixels --------------------------------------------------------------------


def half_clear(image: np.ndarray) -> av.VideoFrame:
    """The image with its left half transparent over green, its last quarter half transparent."""
    height, width = image.shape[:2]
    clear = np.dstack([image, np.full((height, width), 255, np.uint8)])
    clear[:, : width // 2] = (0, 255, 0, 0)
    clear[:, 3 * width // 4 :, 3] = 128
    return av.VideoFrame.from_ndarray(clear, format="rgba")


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.mkv", "ffv1", "bgra"),
        ("a.mov", "qtrle", "argb"),
        ("a.mov", "prores_ks", "yuva444p10le"),
        ("a.webm", "libvpx-vp9", "yuva420p"),
        ("a.mov", "png", "rgba"),
    ],
)
def test_white_lies_behind_transparent_pixels(
    tmp_path: Path, name: str, codec: str, pixel_format: str
) -> None:
    red = np.full((64, 128, 3), (200, 20, 20), np.uint8)
    path = write_video(
        tmp_path / name,
        [red] * 3,
        evenly(3, 25),
        codec=codec,
        pixel_format=pixel_format,
        store=half_clear,
        options={"profile": "4444"} if codec == "prores_ks" else None,
    )
    with open_video(path) as video:
        assert len(list(video)) == 3
    with open_video(path) as video:
        for frame in video:
            for image in (frame.rgb(), frame.thumbnail(128, 64)[:, :, ::-1]):
                found = image[32, [16, 80, 112]].astype(int)
                expected = [(255, 255, 255), (200, 20, 20), (227, 137, 137)]
                assert np.abs(found - expected).max() <= 6, found


def test_alpha_that_was_never_written_is_none(tmp_path: Path) -> None:
    def unset(image: np.ndarray) -> av.VideoFrame:
        zeros = np.zeros((*image.shape[:2], 1), np.uint8)
        return av.VideoFrame.from_ndarray(
            np.concatenate([image[:, :, ::-1], zeros], axis=2), format="bgra"
        )

    path = write_video(
        tmp_path / "a.avi",
        map(numbered, range(3)),
        range(3),
        Fraction(1, 25),
        codec="rawvideo",
        pixel_format="bgra",
        store=unset,
    )
    with open_video(path) as video:
        assert [number_of(frame.rgb()) for frame in video] == [0, 1, 2]
