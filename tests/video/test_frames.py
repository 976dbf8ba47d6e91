"""Both readers on real files, whose frames carry their numbers: which frame came at which time."""

from __future__ import annotations

import io
import os
import weakref
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from captioner.errors import CaptionerError
from captioner.video.colours import FrameConverter
from captioner.video.frames import Picture, Video, VideoError, VideoInfo
from captioner.video.opening import READERS, find_videos, open_video
from helpers.videos import (
    HEIGHT,
    MS,
    WIDTH,
    cut_off,
    damage,
    evenly,
    flv_frames,
    number_of,
    numbered,
    numbered_video,
    real_clip,
    turn_by_matrix,
    write_header_only,
    write_photos,
    write_sound,
    write_video,
)

readers = pytest.mark.parametrize("reader", READERS)
UNEVEN_MS = [0, 40, 80, 200, 210, 500, 540, 1000, 1001, 1500]
B_FRAMES = {"preset": "veryfast", "bf": "2", "b-adapt": "0"}
TICK = Fraction(1, 25)


def shown(video: Video) -> tuple[list[int], list[float]]:
    """The numbers that the frames carry, and their times; the frames count themselves."""
    numbers, times = [], []
    for count, frame in enumerate(video):
        assert frame.index == count
        numbers.append(number_of(frame.rgb()))
        times.append(frame.time_s)
    return numbers, times


def read(path: Path, reader: str) -> tuple[list[int], list[float]]:
    with open_video(path, reader) as video:
        return shown(video)


def error_of(path: Path, reader: str) -> tuple[str, str]:
    with pytest.raises(VideoError) as caught:
        open_video(path, reader)
    assert isinstance(caught.value, CaptionerError)
    assert caught.value.path == path
    assert str(caught.value).endswith(f"{path.name}: {caught.value.reason}")
    return caught.value.code, caught.value.reason


def exactly(times: list[Any]) -> Any:
    return pytest.approx([float(each) for each in times], abs=1e-6)


# --- times ---------------------------------------------------------------------------------


@readers
@pytest.mark.parametrize(
    ("name", "pts", "time_base", "options"),
    [
        ("even.mp4", evenly(20, 25), MS, {}),
        ("uneven.mp4", UNEVEN_MS, MS, {}),
        ("uneven.mkv", UNEVEN_MS, MS, {}),
        ("uneven.ts", UNEVEN_MS, MS, {}),
        ("uneven.flv", UNEVEN_MS, MS, {}),
        ("late.mp4", [5000 + each for each in UNEVEN_MS], MS, {}),
        ("late.mkv", [5000 + each for each in UNEVEN_MS], MS, {}),
        ("late.ts", [5000 + each for each in UNEVEN_MS], MS, {}),
        ("reordered.mp4", UNEVEN_MS, MS, {"options": B_FRAMES}),
        ("reordered.mkv", UNEVEN_MS, MS, {"options": B_FRAMES}),
        ("reordered.ts", UNEVEN_MS, MS, {"options": B_FRAMES}),
        ("ntsc.mp4", range(0, 20 * 1001, 1001), Fraction(1, 30000), {"rate": 30}),
        ("film.mov", range(0, 20 * 1001, 1001), Fraction(1, 24000), {"rate": 24}),
        ("hours.mp4", [0, 40, 7_200_000, 7_200_040], MS, {}),
        ("announced-otherwise.mp4", UNEVEN_MS, MS, {"rate": 60}),
        ("vp9.webm", UNEVEN_MS, MS, {"codec": "libvpx-vp9"}),
        ("mpeg4.avi", range(12), TICK, {"codec": "mpeg4"}),
        ("reordered-mpeg4.avi", range(12), TICK, {"codec": "mpeg4", "options": {"bf": "2"}}),
        # AVI has no presentation times: packets stand in the order of decoding.
        ("reordered-h264.avi", range(12), TICK, {"options": B_FRAMES}),
        ("program.mpg", range(12), TICK, {"codec": "mpeg2video"}),
        ("no-container.h264", range(12), TICK, {}),
        ("no-container-reordered.h264", range(12), TICK, {"options": B_FRAMES}),
        ("raw.y4m", range(3), TICK, {"codec": "rawvideo"}),
        ("vp9.ivf", range(12), TICK, {"codec": "libvpx-vp9"}),
        ("old.wmv", range(12), TICK, {"codec": "wmv2"}),
        ("broadcast.mxf", range(12), TICK, {"codec": "mpeg2video"}),
        ("ten-bit.mkv", range(3), TICK, {"codec": "ffv1", "pixel_format": "yuv420p10le"}),
        ("transparent.mkv", range(3), TICK, {"codec": "ffv1", "pixel_format": "bgra"}),
        ("with-sound.mp4", UNEVEN_MS, MS, {"sound_s": 1.0}),
        ("with-sound.mkv", UNEVEN_MS, MS, {"sound_s": 1.0}),
        ("fast-start.mp4", UNEVEN_MS, MS, {"container_options": {"movflags": "+faststart"}}),
        ("fragments.mp4", UNEVEN_MS, MS, {"container_options": {"movflags": "+frag_keyframe"}}),
        ("one.mp4", [0], MS, {}),
        ("two.mp4", [0, 40], MS, {}),
        ("fast.mp4", range(0, 100, 2), MS, {}),  # 500 frames a second
        ("slow.mp4", [0, 60_000, 120_000], MS, {}),
    ],
)
def test_every_frame_comes_with_its_time(
    tmp_path: Path, reader: str, name: str, pts: Any, time_base: Fraction, options: dict
) -> None:
    path = tmp_path / name
    write_video(path, map(numbered, range(len(pts))), pts, time_base, **options)
    with open_video(path, reader) as video:
        numbers, times = shown(video)
        assert numbers == list(range(len(pts)))
        assert times == exactly([(each - pts[0]) * time_base for each in pts])
        assert (video.decode_failures, video.ended_early) == (0, None)
        assert (video.info.width, video.info.height) == (WIDTH, HEIGHT)
        assert video.info.rotation == 0


def test_av1_is_decoded_by_pyav_and_not_by_opencv(tmp_path: Path) -> None:
    path = numbered_video(tmp_path / "av1.mp4", 5, codec="libsvtav1")
    assert read(path, "pyav") == (list(range(5)), exactly([0, 0.04, 0.08, 0.12, 0.16]))
    assert error_of(path, "opencv") == ("no_frames", "no frame of it can be decoded")


@readers
@pytest.mark.parametrize(
    ("name", "frames", "fps", "size"),
    [
        ("bikes", 250, Fraction(25), (640, 272)),
        ("bigbuckbunny", 132, Fraction(25), (1280, 720)),
        ("carphone_pristine", 120, Fraction(30000, 1001), (193, 144)),  # stored in 176 columns
    ],
)
def test_real_clips(
    reader: str, name: str, frames: int, fps: Fraction, size: tuple[int, int]
) -> None:
    with open_video(real_clip(name), reader) as video:
        assert (video.info.width, video.info.height, video.info.rotation) == (*size, 0)
        assert video.info.announced_s == pytest.approx(frames / fps, abs=0.001)
        # The last digit: a container counts in ticks that may be no divisor of the distance.
        times = [frame.time_s for frame in video]
    assert times == pytest.approx([index / fps for index in range(frames)], abs=0.001)


@pytest.mark.parametrize("fps", [10, 24, 25, 30, 50])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.h264", {}),
        ("b-frames.h264", {"options": B_FRAMES}),
        ("a.hevc", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}),
        ("a.m4v", {"codec": "mpeg4", "container": "m4v"}),
    ],
)
def test_without_a_container_the_rate_is_the_codecs(
    tmp_path: Path, fps: int, name: str, options: dict
) -> None:
    path = tmp_path / name
    pictures = map(numbered, range(20))
    write_video(path, pictures, range(20), Fraction(1, fps), rate=fps, **options)
    numbers, times = read(path, "pyav")
    assert numbers == list(range(20))
    assert times == exactly([index / fps for index in range(20)])


@readers
def test_joined_recordings_go_on_where_the_first_ends(tmp_path: Path, reader: str) -> None:
    # Both start at 1.4 s, as the container's writer likes it: the stamps start anew.
    first = numbered_video(tmp_path / "first.ts", 20)
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() * 2)
    numbers, times = read(path, reader)
    assert numbers == [*range(20), *range(20)]
    assert times == exactly([index / 25 for index in range(40)])


@readers
def test_a_stamp_that_stumbles_does_not_move_the_later_ones(tmp_path: Path, reader: str) -> None:
    pts = [0, 40, 80, 80, 120, 160, 200, 200, 240, 280]
    path = write_video(tmp_path / "twice.mkv", map(numbered, range(10)), pts)
    numbers, times = read(path, reader)
    assert numbers == list(range(10))
    assert times == pytest.approx([each / 1000 for each in pts], abs=0.001)
    assert all(a < b for a, b in zip(times, times[1:], strict=False))


@readers
def test_a_stamp_far_away_is_not_believed(tmp_path: Path, reader: str) -> None:
    path = numbered_video(tmp_path / "a.flv", 20)
    data = bytearray(path.read_bytes())
    places = flv_frames(data)
    assert len(places) == 20
    for frame in (5, 12):
        data[places[frame] + 7] = 0x10  # three days later
    path.write_bytes(data)
    numbers, times = read(path, reader)
    assert numbers == list(range(20))
    assert times == exactly([index / 25 for index in range(20)])


@readers
def test_an_announced_length_that_cannot_be(tmp_path: Path, reader: str) -> None:
    path = write_video(tmp_path / "a.avi", map(numbered, range(5)), range(5), TICK, codec="mpeg4")
    data = path.read_bytes()
    start = data.index(b"strh") + 8 + 32
    path.write_bytes(data[:start] + (4_000_000_000).to_bytes(4, "little") + data[start + 4 :])
    with open_video(path, reader) as video:
        assert video.info.announced_s is None
        assert shown(video)[1] == exactly([0, 0.04, 0.08, 0.12, 0.16])


def test_how_long_a_frame_is_shown(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", map(numbered, range(3)), [0, 40, 540])
    with open_video(path) as video:
        assert [frame.duration_s for frame in video][:2] == exactly([0.04, 0.5])
    with open_video(path, "opencv") as video:
        assert [frame.duration_s for frame in video] == [None, None, None]


# --- what the container says ---------------------------------------------------------------


@readers
@pytest.mark.parametrize(
    ("name", "announced_s"),
    [("a.mp4", 0.8), ("a.mkv", 0.8), ("a.avi", 0.8), ("a.ts", 0.8), ("a.h264", None)],
)
def test_the_announced_length(
    tmp_path: Path, reader: str, name: str, announced_s: float | None
) -> None:
    codec = "mpeg4" if name == "a.avi" else "libx264"
    path = write_video(tmp_path / name, map(numbered, range(20)), range(20), TICK, codec=codec)
    with open_video(path, reader) as video:
        assert video.info == VideoInfo(WIDTH, HEIGHT, 0, pytest.approx(announced_s, abs=0.001))


def test_longer_sound_does_not_announce_a_longer_video(tmp_path: Path) -> None:
    for name, by_opencv in (("a.mp4", 0.8), ("a.mkv", 3.08)):
        path = numbered_video(tmp_path / name, sound_s=3.0)
        with open_video(path) as video:
            assert video.info.announced_s == pytest.approx(0.8, abs=0.001)
        with open_video(path, "opencv") as video:
            assert video.info.announced_s == pytest.approx(by_opencv, abs=0.05)


@readers
def test_a_wrong_length_in_the_header_changes_no_frame(tmp_path: Path, reader: str) -> None:
    movie = numbered_video(tmp_path / "a.mp4")
    for box in (b"mdhd", b"mvhd"):
        data = movie.read_bytes()
        start = data.index(box) + 20  # the duration, in ticks
        movie.write_bytes(data[:start] + (10_000_000).to_bytes(4, "big") + data[start + 4 :])
    path = write_video(tmp_path / "a.avi", map(numbered, range(20)), range(20), TICK, codec="mpeg4")
    data = path.read_bytes()
    start = data.index(b"strh") + 8 + 32  # dwLength of the stream, in frames
    assert data[start : start + 4] == (20).to_bytes(4, "little")
    path.write_bytes(data[:start] + (9999).to_bytes(4, "little") + data[start + 4 :])
    for file in (movie, path):
        numbers, times = read(file, reader)
        assert numbers == list(range(20))
        assert times == exactly([index / 25 for index in range(20)])
    with open_video(path, reader) as video:
        assert video.info.announced_s == pytest.approx(9999 / 25)
    with open_video(movie, reader) as video:  # An MP4's index says how long all its frames are.
        assert video.info.announced_s == pytest.approx(0.8)


# --- turned pictures -----------------------------------------------------------------------


@readers
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_pictures_stand_upright(tmp_path: Path, reader: str, rotation: int, name: str) -> None:
    path = numbered_video(tmp_path / name, 3, rotation=rotation)
    with open_video(path, reader) as video:
        assert video.info == VideoInfo(WIDTH, HEIGHT, rotation, pytest.approx(0.12))
        for frame in video:
            assert frame.rgb().shape == (HEIGHT, WIDTH, 3)
            assert frame.rgb().flags.c_contiguous
            assert number_of(frame.rgb()) == frame.index


# Turned by so many degrees clockwise, the matrix by the standard, how the picture is stored.
MATRICES = [
    (0, (1, 0, 0, 1), lambda picture: picture),
    (90, (0, 1, -1, 0), lambda picture: np.rot90(picture, 1)),
    (180, (-1, 0, 0, -1), lambda picture: np.rot90(picture, 2)),
    (270, (0, -1, 1, 0), lambda picture: np.rot90(picture, 3)),
]
MIRRORS = [
    (0, (-1, 0, 0, 1), np.fliplr),
    (180, (1, 0, 0, -1), np.flipud),
    (270, (0, 1, 1, 0), lambda picture: picture.transpose(1, 0, 2)),
    (90, (0, -1, -1, 0), lambda picture: np.rot90(picture, 2).transpose(1, 0, 2)),
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
def test_mirrored_pictures(
    tmp_path: Path, rotation: int, matrix: tuple[int, int, int, int], store: Any
) -> None:
    path = stored(tmp_path / "selfie.mp4", matrix, store)
    with open_video(path) as video:
        assert video.info == VideoInfo(WIDTH, HEIGHT, rotation, pytest.approx(0.12))
        assert shown(video)[0] == [0, 1, 2]
    # OpenCV only turns: its picture stays mirrored, some that way that it stands on its head.
    with open_video(path, "opencv") as video:
        picture = next(iter(video)).rgb()
        assert (video.info.width, video.info.height) == (WIDTH, HEIGHT)
    with pytest.raises(AssertionError, match="not upright"):
        number_of(picture)
    assert number_of(np.flipud(picture) if matrix[1] == 0 else np.fliplr(picture)) == 0


# How EXIF's orientations are stored, and by how much they are turned to be shown.
ORIENTATIONS = {
    1: (0, lambda picture: picture),
    2: (0, np.fliplr),
    3: (180, lambda picture: np.rot90(picture, 2)),
    4: (180, np.flipud),
    6: (90, np.rot90),
    8: (270, lambda picture: np.rot90(picture, -1)),
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


def test_pictures_that_cannot_be_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Picture:
        raise av.error.FFmpegError(22, "Invalid argument")

    monkeypatch.setattr(FrameConverter, "rgb", refuse)
    with open_video(numbered_video(tmp_path / "a.mp4")) as video:
        frame = next(iter(video))
        for convert in (frame.rgb, lambda: frame.thumbnail(16, 9)):
            with pytest.raises(VideoError) as caught:
                convert()
            assert (caught.value.code, caught.value.reason) == (
                "no_decoder",
                "its pictures of the format yuv420p cannot be converted",
            )


def test_an_odd_angle_is_rounded_to_a_quarter_turn(tmp_path: Path) -> None:
    path = numbered_video(tmp_path / "tilted.mp4", 2)
    with open_video(turn_by_matrix(path, (7, 2, -2, 7))) as video:
        assert video.info.rotation == 0
        assert shown(video)[0] == [0, 1]


@readers
def test_the_size_may_change_within_a_file(tmp_path: Path, reader: str) -> None:
    wide = numbered_video(tmp_path / "wide.ts", 5)
    high = write_video(
        tmp_path / "high.ts", [numbered(i, 96, 128) for i in range(5)], evenly(5, 25)
    )
    path = tmp_path / "joined.ts"
    path.write_bytes(wide.read_bytes() + high.read_bytes())
    with open_video(path, reader) as video:
        shapes = [frame.rgb().shape[:2] for frame in video]
        if reader == "pyav":
            assert (video.info.width, video.info.height) == (WIDTH, HEIGHT)
            assert shapes == [(HEIGHT, WIDTH)] * 5 + [(128, 96)] * 5
        else:  # It brings all to one size, which need not be the first one's.
            assert shapes == [(video.info.height, video.info.width)] * 10
    if reader == "pyav":
        assert read(path, reader)[0] == [*range(5), *range(5)]


# --- frames --------------------------------------------------------------------------------


@readers
def test_frames_are_converted_only_when_asked_even_after_closing(
    tmp_path: Path, reader: str
) -> None:
    with open_video(numbered_video(tmp_path / "a.mp4"), reader) as video:
        frames = list(video)
    assert [number_of(frame.rgb()) for frame in reversed(frames)] == list(reversed(range(20)))
    assert number_of(frames[7].rgb()) == 7


@readers
def test_thumbnails_are_small_blue_first_and_not_turned(tmp_path: Path, reader: str) -> None:
    with open_video(numbered_video(tmp_path / "a.mp4", 6), reader) as video:
        for frame in video:
            small = frame.thumbnail(32, 24)
            assert small.shape == (24, 32, 3)
            assert small.dtype == np.uint8
            assert number_of(small[:, :, ::-1]) == frame.index
            assert frame.thumbnail(160, 90).shape == (90, 160, 3)  # larger than the video
    if reader == "pyav":
        with open_video(numbered_video(tmp_path / "b.mp4", 2, rotation=180), reader) as video:
            assert number_of(np.rot90(next(iter(video)).thumbnail(32, 24)[:, :, ::-1], 2)) == 0


@readers
@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 2), (33, 17), (8, 400), (400, 8)])
def test_odd_sizes(tmp_path: Path, reader: str, width: int, height: int) -> None:
    greys = [np.full((height, width, 3), grey, np.uint8) for grey in (0, 100, 200)]
    path = tmp_path / "a.mkv"
    write_video(path, greys, range(3), TICK, codec="ffv1", pixel_format="yuv444p")
    with open_video(path, reader) as video:
        assert (video.info.width, video.info.height) == (width, height)
        for frame, grey in zip(video, greys, strict=True):
            assert np.abs(frame.rgb().astype(int) - grey).max() <= 2
            assert frame.thumbnail(160, 90).shape == (90, 160, 3)


@readers
def test_iterating_keeps_no_frame(tmp_path: Path, reader: str) -> None:
    with open_video(numbered_video(tmp_path / "a.mp4"), reader) as video:
        earlier: list[weakref.ref] = []
        for frame in video:
            assert [each for each in earlier if each() is not None and each() is not frame] == []
            earlier.append(weakref.ref(frame))
    del frame
    assert len(earlier) == 20
    assert [each for each in earlier if each() is not None] == []


@readers
def test_closing(tmp_path: Path, reader: str) -> None:
    path = numbered_video(tmp_path / "a.mp4")
    open_files = sorted(os.listdir("/proc/self/fd"))
    video = open_video(path, reader)
    assert len(os.listdir("/proc/self/fd")) > len(open_files)
    assert next(iter(video)).index == 0
    video.close()
    video.close()
    assert sorted(os.listdir("/proc/self/fd")) == open_files
    with open_video(path, reader):
        pass
    with pytest.raises(VideoError):
        open_video(cut_off(path, 0.6), reader)
    assert sorted(os.listdir("/proc/self/fd")) == open_files


# --- damaged files -------------------------------------------------------------------------


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


@readers
@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.m4v"])
def test_a_movie_without_its_index(tmp_path: Path, reader: str, name: str) -> None:
    path = cut_off(numbered_video(tmp_path / name), 0.6)
    assert error_of(path, reader) == (
        "not_a_video",
        "damaged or cut off: its index is missing",
    )


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


def test_opencv_ends_in_silence_at_damage(tmp_path: Path) -> None:
    path = damage(numbered_video(tmp_path / "a.mp4", 100), 0.4, 0.5)
    with open_video(path, "opencv") as video:
        times = [frame.time_s for frame in video]
        assert times == exactly([index / 25 for index in range(len(times))])
        assert 24 <= len(times) < 72
        assert (video.decode_failures, video.ended_early) == (0, None)
        assert video.info.announced_s == pytest.approx(4.0)


def test_too_many_failures_end_a_video(tmp_path: Path) -> None:
    pictures = [numbered(number % 256) for number in range(400)]
    path = write_video(tmp_path / "a.mp4", pictures, evenly(400, 25))
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


# --- what is refused -----------------------------------------------------------------------


def jpeg() -> bytes:
    data = io.BytesIO()
    Image.fromarray(numbered(3)).save(data, "jpeg")
    return data.getvalue()


@readers
def test_files_that_are_no_videos(tmp_path: Path, reader: str) -> None:
    for name, data in {
        "photo.mp4": jpeg(),
        "photo.jpg": jpeg(),
        "text.mp4": b"just words\n" * 100,
        "zeros.mkv": bytes(5000),
        "page.webm": b"<!DOCTYPE html><html><body>404</body></html>",
        "short.mp4": b"\0",
        "subtitles.mkv": b"1\n00:00:00,000 --> 00:00:01,000\nhello\n",
    }.items():
        (tmp_path / name).write_bytes(data)
        found = error_of(tmp_path / name, reader)
        assert found == ("not_a_video", "not a video that can be read"), name


CENC = {
    "encryption_scheme": "cenc-aes-ctr",
    "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
    "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
}
IS_ENCRYPTED = ("no_decoder", "it is encrypted (DRM): only a copy without protection can be read")


@readers
@pytest.mark.parametrize("sound_s", [0.0, 1.0])
@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_an_encrypted_video_is_named(
    tmp_path: Path, reader: str, name: str, sound_s: float
) -> None:
    path = numbered_video(tmp_path / name, container_options=CENC, sound_s=sound_s)
    assert error_of(path, reader) == IS_ENCRYPTED


@readers
def test_other_encryption_is_named(tmp_path: Path, reader: str) -> None:
    # Not one frame can be decoded, and the head says why.
    path = write_header_only(tmp_path / "a.avi", "mpeg4")
    assert error_of(path, reader) == ("no_frames", "no frame of it can be decoded")
    path.write_bytes(path.read_bytes() + b"\x50\x35\x8a\x47\xe1\x01\x05")
    assert error_of(path, reader) == IS_ENCRYPTED


@readers
def test_playlists_are_refused_whatever_they_are_called(tmp_path: Path, reader: str) -> None:
    numbered_video(tmp_path / "a.ts")
    numbered_video(tmp_path / "a.mp4")
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.8,\n{}\n#EXT-X-ENDLIST\n"
    texts = {
        "hls": hls.format("a.ts"),
        "hls of a full path": hls.format(tmp_path / "a.ts"),
        "hls of the web": hls.format("http://127.0.0.1:9/a.ts"),
        "concat": "ffconcat version 1.0\nfile a.mp4\n",
        "concat of a full path": f"ffconcat version 1.0\nfile '{tmp_path / 'a.mp4'}'\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    }
    for kind, text in texts.items():
        for suffix in ("mp4", "m3u8", "txt"):
            path = tmp_path / f"{kind}.{suffix}"
            path.write_text(text)
            found = error_of(path, reader)
            assert found == ("not_a_video", "not a video that can be read"), path.name


@pytest.mark.parametrize("before", [None, "protocol_whitelist;file,http"])
def test_opencv_leaves_the_environment_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    name = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
    monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv(name, before)
    open_video(numbered_video(tmp_path / "a.mp4"), "opencv").close()
    assert os.environ.get(name) == before


@readers
def test_files_without_a_frame(tmp_path: Path, reader: str) -> None:
    path = write_header_only(tmp_path / "none.avi", "mpeg4")
    assert error_of(path, reader) == ("no_frames", "no frame of it can be decoded")
    # Matroska up to its first cluster: everything is announced, nothing is there.
    path = numbered_video(tmp_path / "none.mkv")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"\x1f\x43\xb6\x75")])
    assert error_of(path, reader)[0] == "not_a_video"
    path = write_header_only(tmp_path / "none.mp4")
    assert error_of(path, "pyav") == ("no_video_stream", "it holds no pictures")
    assert error_of(path, "opencv")[0] == "not_a_video"


def test_sound_is_no_video(tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "sound.mp4")
    covered = write_sound(tmp_path / "covered.mp4", cover=jpeg())
    for path in (sound, covered):
        assert error_of(path, "pyav") == ("no_video_stream", "it holds only sound")
    assert error_of(sound, "opencv")[0] == "not_a_video"
    # OpenCV cannot tell a cover from a video of one frame.
    assert read(covered, "opencv") == ([3], [0.0])


def test_a_codec_that_nothing_decodes(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", map(numbered, range(5)), range(5), TICK, codec="mpeg4")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"FMP4", b"QZX9"))
    assert error_of(path, "pyav") == ("no_decoder", "no decoder for its pictures")
    assert error_of(path, "opencv")[0] in ("not_a_video", "no_frames")


@readers
def test_paths_that_cannot_be_opened(
    tmp_path: Path, reader: str, special_files: dict[str, Path]
) -> None:
    assert error_of(tmp_path / "missing.mp4", reader) == ("not_found", "file not found")
    (tmp_path / "empty.mp4").touch()
    assert error_of(tmp_path / "empty.mp4", reader) == ("empty_file", "empty file")
    for kind, path in special_files.items():
        assert error_of(path, reader) == ("unreadable", f"{kind}, not a regular file")
    assert error_of(tmp_path / "loop.jpg", reader)[0] == "unreadable"
    assert error_of(tmp_path / ("x" * 300), reader) == ("unreadable", "file name too long")


@readers
def test_a_file_that_may_not_be_read(shared_folder: Path, reader: str, without_privileges) -> None:
    path = numbered_video(shared_folder / "secret.mp4", 2)
    path.chmod(0)
    with without_privileges():
        assert error_of(path, reader) == ("unreadable", "permission denied")


def test_an_unknown_reader(tmp_path: Path) -> None:
    path = numbered_video(tmp_path / "a.mp4", 2)
    with pytest.raises(ValueError, match="^reader='ffmpeg': choose one of pyav, opencv$"):
        open_video(path, "ffmpeg")


# --- names ---------------------------------------------------------------------------------


@readers
@pytest.mark.parametrize(
    "name",
    [
        "movie.avi",
        "movie.txt",
        "movie.jpg",
        "movie",
        "with space äöü 日本.mp4",
        "http:movie.mp4",
        "concat:a.mp4|b.mp4",
        "file:movie.mp4",
        "-i.mp4",
        "%03d.mp4",
        "a?b#c&d=e.mp4",
        "a'b\"c\\d.mp4",
        "new\nline.mp4",
    ],
)
def test_a_name_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    numbered_video(tmp_path / "a.mp4", 3).rename(name)
    for path in (Path(name), tmp_path / name):
        assert read(path, reader)[0] == [0, 1, 2]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(bytes(tmp_path) + b"/gr\xfcn\xff.mp4"))
    numbered_video(tmp_path / "a.mp4", 3).rename(path)
    assert read(path, "pyav")[0] == [0, 1, 2]
    with pytest.raises(VideoError) as caught:
        open_video(path, "opencv")
    assert caught.value.code == "unreadable"
    assert str(caught.value).endswith("/gr\\xfcn\\xff.mp4: OpenCV needs a name in UTF-8")


def test_what_a_folder_is_searched_for(tmp_path: Path) -> None:
    for name in ("b.MP4", "a.mkv", "c.jpg", "d.txt", "sub/e.webm", "f.m3u8", "g.ts", "h.mp3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [file.name for file in find_videos(tmp_path)] == ["a.mkv", "b.MP4", "g.ts", "sub/e.webm"]
    with pytest.raises(CaptionerError, match="^no videos given: name files, folders or patterns"):
        find_videos([])
    with pytest.raises(CaptionerError, match=r"holds no video files \(\.mp4 \.m4v"):
        (tmp_path / "none").mkdir()
        find_videos(tmp_path / "none")
