"""Both readers on real files, whose frames carry their numbers: which frame came at which time."""

from __future__ import annotations

import os
import weakref
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from captioner.video.frames import VideoError
from captioner.video.opening import open_video
from captioner.video.options import READERS
from helpers.shown_frames import exactly, read, shown
from helpers.videos import (
    HEIGHT,
    MS,
    WIDTH,
    cut_off,
    evenly,
    flv_frames,
    number_of,
    numbered,
    numbered_video,
    real_clip,
    turn_by_matrix,
    write_video,
)

readers = pytest.mark.parametrize("reader", READERS)


UNEVEN_MS = [0, 40, 80, 200, 210, 500, 540, 1000, 1001, 1500]


B_FRAMES = {"preset": "veryfast", "bf": "2", "b-adapt": "0"}


TICK = Fraction(1, 25)


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


@readers
def test_joined_recordings_go_on_where_the_first_ends(tmp_path: Path, reader: str) -> None:
    # Both start at 1.4 s, as the container's writer likes it: the stamps start over.
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


def test_how_long_a_frame_is_shown(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", map(numbered, range(3)), [0, 40, 540])
    with open_video(path) as video:
        assert [frame.duration_s for frame in video][:2] == exactly([0.04, 0.5])
    with open_video(path, "opencv") as video:
        assert [frame.duration_s for frame in video] == [None, None, None]


def stored(path: Path, matrix: tuple[int, int, int, int], store: Any) -> Path:
    write_video(path, [np.ascontiguousarray(store(numbered(i))) for i in range(3)], [0, 40, 80])
    return turn_by_matrix(path, matrix)


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
