"""Turned images and damage, on files whose frames carry their numbers."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from captioner.images.transform import INTERPOLATIONS, ImageTransform
from captioner.video.colours import BT2020, PQ, FrameConverter
from captioner.video.frames import Pixels, VideoError, VideoInfo
from captioner.video.opening import open_video
from captioner.video.options import READERS
from helpers.shown_frames import exactly, read, shown
from helpers.videos import (
    HEIGHT,
    WIDTH,
    cut_off,
    damage,
    evenly,
    flv_frames,
    number_of,
    numbered,
    numbered_video,
    photo,
    turn_by_matrix,
    write_photos,
    write_video,
)

readers = pytest.mark.parametrize("reader", READERS)


TICK = Fraction(1, 25)


@readers
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_images_stand_upright(tmp_path: Path, reader: str, rotation: int, name: str) -> None:
    path = numbered_video(tmp_path / name, 3, rotation=rotation)
    with open_video(path, reader) as video:
        assert video.info == VideoInfo(WIDTH, HEIGHT, rotation, pytest.approx(0.12))
        for frame in video:
            assert frame.rgb().shape == (HEIGHT, WIDTH, 3)
            assert frame.rgb().flags.c_contiguous
            assert number_of(frame.rgb()) == frame.index


# Turned by so many degrees clockwise, the matrix by the standard, how the image is stored.
MATRICES = [
    (0, (1, 0, 0, 1), lambda image: image),
    (90, (0, 1, -1, 0), lambda image: np.rot90(image, 1)),
    (180, (-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    (270, (0, -1, 1, 0), lambda image: np.rot90(image, 3)),
]


MIRRORS = [
    (0, (-1, 0, 0, 1), np.fliplr),
    (180, (1, 0, 0, -1), np.flipud),
    (270, (0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
    (90, (0, -1, -1, 0), lambda image: np.rot90(image, 2).transpose(1, 0, 2)),
]


def stored(path: Path, matrix: tuple[int, int, int, int], store: Any) -> Path:
    write_video(path, [np.ascontiguousarray(store(numbered(i))) for i in range(3)], [0, 40, 80])
    return turn_by_matrix(path, matrix)


@readers
@pytest.mark.parametrize(("rotation", "matrix", "store"), MATRICES)
def test_the_matrix_of_the_standard(
    tmp_path: Path, reader: str, rotation: int, matrix: tuple[int, int, int, int], store: Any
) -> None:
    path = stored(tmp_path / "a.mp4", matrix, store)
    with open_video(path, reader) as video:
        assert video.info == VideoInfo(WIDTH, HEIGHT, rotation, pytest.approx(0.12))
        assert shown(video)[0] == [0, 1, 2]


@pytest.mark.parametrize(("rotation", "matrix", "store"), MIRRORS)
def test_mirrored_images(
    tmp_path: Path, rotation: int, matrix: tuple[int, int, int, int], store: Any
) -> None:
    path = stored(tmp_path / "selfie.mp4", matrix, store)
    with open_video(path) as video:
        assert video.info == VideoInfo(WIDTH, HEIGHT, rotation, pytest.approx(0.12))
        assert shown(video)[0] == [0, 1, 2]
    # OpenCV only turns: its image stays mirrored, some that way that it stands on its head.
    with open_video(path, "opencv") as video:
        image = next(iter(video)).rgb()
        assert (video.info.width, video.info.height) == (WIDTH, HEIGHT)
    with pytest.raises(AssertionError, match="not upright"):
        number_of(image)
    assert number_of(np.flipud(image) if matrix[1] == 0 else np.fliplr(image)) == 0


# How EXIF's orientations are stored, and by how much they are turned to be shown.
ORIENTATIONS = {
    1: (0, lambda image: image),
    2: (0, np.fliplr),
    3: (180, lambda image: np.rot90(image, 2)),
    4: (180, np.flipud),
    6: (90, np.rot90),
    8: (270, lambda image: np.rot90(image, -1)),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.mov"])
def test_side_data_that_pyav_does_not_know(tmp_path: Path, orientation: int, name: str) -> None:
    rotation, store = ORIENTATIONS[orientation]
    stored = [np.ascontiguousarray(store(numbered(index))) for index in range(3)]
    path = write_photos(tmp_path / name, stored, orientation)
    with av.open(str(path)) as file, pytest.raises(ValueError, match="is not a valid Type"):
        _ = next(file.decode(video=0)).side_data
    with open_video(path) as video:
        assert video.info.rotation == rotation
        assert shown(video)[0] == [0, 1, 2]


def test_images_that_cannot_be_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Pixels:
        raise av.error.FFmpegError(22, "Invalid argument")

    monkeypatch.setattr(FrameConverter, "rgb", refuse)
    with open_video(numbered_video(tmp_path / "a.mp4")) as video:
        frame = next(iter(video))
        for convert in (frame.rgb, lambda: frame.thumbnail(16, 9)):
            with pytest.raises(VideoError) as caught:
                convert()
            assert (caught.value.code, caught.value.reason) == (
                "no_decoder",
                "its frames of the pixel format yuv420p cannot be converted",
            )


def test_an_odd_angle_is_rounded_to_a_quarter_turn(tmp_path: Path) -> None:
    path = numbered_video(tmp_path / "tilted.mp4", 2)
    with open_video(turn_by_matrix(path, (7, 2, -2, 7))) as video:
        assert video.info.rotation == 0
        assert shown(video)[0] == [0, 1]


@readers
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_file_that_is_cut_off_gives_its_first_part(
    tmp_path: Path, reader: str, name: str
) -> None:
    options = {"container_options": {"movflags": "+faststart"}} if name == "a.mp4" else {}
    path = cut_off(numbered_video(tmp_path / name, 100, **options), 0.6)
    with open_video(path, reader) as video:
        numbers, times = shown(video)
        assert 30 <= len(numbers) <= 70
        assert numbers == list(range(len(numbers)))
        assert times == exactly([number / 25 for number in numbers])
        assert video.ended_early is None
        # A transport stream says nothing of its length: what is missing is not missed.
        announced_s = times[-1] + 0.04 if name == "a.ts" else 4.0
        assert video.info.announced_s == pytest.approx(announced_s, abs=0.05)


@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])
def test_damage_in_the_middle_costs_what_is_damaged(tmp_path: Path, name: str) -> None:
    path = damage(numbered_video(tmp_path / name, 100), 0.4, 0.5)
    with open_video(path) as video:
        found = {}
        for frame in video:
            found[round(25 * frame.time_s)] = frame
            assert 25 * frame.time_s == pytest.approx(round(25 * frame.time_s), abs=1e-4)
        # A transport stream's damaged packets are thrown away before anyone counts them.
        assert (video.decode_failures > 0) == (name == "a.mp4")
        assert video.ended_early is None
    assert 80 <= len(found) < 100
    # Key frames are 12 apart: before the damage, and from the next key frame on, all is right.
    assert [number_of(found[index].rgb()) for index in range(24)] == list(range(24))
    assert [number_of(found[index].rgb()) for index in range(72, 100)] == list(range(72, 100))


@readers
def test_a_stream_that_comes_up_late_is_passed_over(tmp_path: Path, reader: str) -> None:
    # Sound that begins after what is read to find the streams, or damage that looks like it.
    path = tmp_path / "a.flv"
    write_video(path, (numbered(index % 256) for index in range(400)), evenly(400, 25))
    data = bytearray(path.read_bytes())
    data[flv_frames(data)[390]] = 8
    path.write_bytes(data)
    numbers, times = read(path, reader)
    assert numbers[:390] == [index % 256 for index in range(390)]
    assert numbers[395:] == [index % 256 for index in range(396, 400)]  # from the next key frame
    assert times == exactly([index / 25 for index in range(400) if index != 390])


def test_colours_whose_description_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "a.mpg"
    write_video(path, map(numbered, range(5)), range(5), TICK, codec="mpeg2video", colours=65)
    with open_video(path) as video:
        for frame in video:
            assert number_of(frame.thumbnail(64, 48)[:, :, ::-1]) == frame.index
            assert number_of(frame.rgb()) == frame.index


def test_too_many_failures_end_a_video(tmp_path: Path) -> None:
    images = [numbered(number % 256) for number in range(400)]
    path = write_video(tmp_path / "a.mp4", images, evenly(400, 25))
    data = path.read_bytes()
    start = data.index(b"mdat") + 4
    media = start + (data.index(b"moov") - start) // 20
    index = data.index(b"moov") - 4
    path.write_bytes(data[:media] + b"\xff" * (index - media) + data[index:])
    with open_video(path) as video:
        numbers, _ = shown(video)
        assert 5 <= len(numbers) <= 60
        assert numbers == list(range(len(numbers)))
        assert video.decode_failures == 250
        assert video.ended_early == "250 damaged packets in a row"


SHRUNK = (48, 40)  # (width, height)


@pytest.mark.parametrize("interpolation", sorted(INTERPOLATIONS))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rotation": 90},
        {"rotation": 180},
        {"pixel_aspect": Fraction(4, 3)},
        {"pixel_format": "yuv444p10le"},
        {"codec": "libx264rgb", "pixel_format": "rgb24"},
    ],
    ids=str,
)
def test_images_that_shrink_at_once_are_what_the_transform_makes(
    tmp_path: Path, options: dict[str, Any], interpolation: str
) -> None:
    path = write_video(tmp_path / "a.mp4", [photo("coffee", 320, 240)], [0], **options)
    transform = ImageTransform(SHRUNK, interpolation=interpolation)
    with open_video(path) as video:
        frame = next(iter(video))
        found = np.asarray(frame.fitted(transform), dtype=int)
        expected = np.asarray(transform.fit(Image.fromarray(frame.rgb())), dtype=int)
    assert found.shape == expected.shape == (*SHRUNK[::-1], 3)
    assert np.abs(found - expected).mean() < 2
    assert np.abs(found - expected).max() <= 25


@pytest.mark.parametrize(
    ("size", "resize", "options"),
    [
        (SHRUNK, "crop", {}),
        (SHRUNK, "pad", {}),
        ((640, 40), "squash", {}),  # wider than the image
        ((1, 1), "squash", {}),
        (SHRUNK, "squash", {"codec": "ffv1", "pixel_format": "bgra"}),
        (SHRUNK, "squash", {"transfer": PQ, "primaries": BT2020}),
    ],
    ids=str,
)
def test_images_that_the_transform_shrinks(
    tmp_path: Path, size: tuple[int, int], resize: str, options: dict[str, Any]
) -> None:
    path = write_video(tmp_path / "a.mkv", [photo("coffee", 320, 240)], [0], **options)
    transform = ImageTransform(size, resize)
    with open_video(path) as video:
        frame = next(iter(video))
        assert frame.fitted(transform) == transform.fit(Image.fromarray(frame.rgb()))
