"""Which frames are looked at and where the cuts are, on clips made of photos and on real films."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from captioner.video.frames import Frame, VideoError
from captioner.video.opening import open_video
from captioner.video.options import READERS, SamplingOptions
from captioner.video.sampling import SETTLE_S, Cut, sample
from captioner.video.shots import find_cuts
from helpers.videos import (
    CAT,
    COFFEE,
    ROCKET,
    STAIRS,
    WHITE,
    clip_of,
    cuts_of,
    evenly,
    numbered_video,
    write_header_only,
    write_video,
)

readers = pytest.mark.parametrize("reader", READERS)


def sampled(path: Path, **options: Any) -> list[Any]:
    """Times of the frames that are chosen, in seconds; a cut is a tuple with its time."""
    chosen = SamplingOptions(**options)
    with open_video(path, chosen.reader) as video:
        return [
            (round(found.time_s, 6),) if isinstance(found, Cut) else round(found.time_s, 6)
            for found in sample(video, video, chosen)
        ]


def indices(path: Path, **options: Any) -> list[int]:
    chosen = SamplingOptions(**options)
    with open_video(path, chosen.reader) as video:
        found = list(sample(video, video, chosen))
    return [frame.index for frame in found if isinstance(frame, Frame)]


# --- options -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 0}, "fps=0: give a number above 0 and at most 1000"),
        ({"fps": -1.0}, "fps=-1.0: give a number above 0 and at most 1000"),
        ({"fps": 1001}, "fps=1001: give a number above 0 and at most 1000"),
        ({"fps": float("nan")}, "fps=nan: give a number above 0 and at most 1000"),
        ({"fps": float("inf")}, "fps=inf: give a number above 0 and at most 1000"),
        ({"fps": True}, "fps=True: give a number above 0 and at most 1000"),
        ({"fps": "1"}, "fps='1': give a number above 0 and at most 1000"),
        ({"fps": None}, "fps=None: give a number above 0 and at most 1000"),
        ({"time_limit_s": 0}, "time_limit_s=0: give a number above 0 and at most 1e+06"),
        ({"time_limit_s": 2e6}, "time_limit_s=2000000.0: give a number above 0 and at most 1e+06"),
        ({"every_n_frames": 0}, "every_n_frames=0: give a whole number of at least 1"),
        ({"every_n_frames": 1.5}, "every_n_frames=1.5: give a whole number of at least 1"),
        ({"every_n_frames": True}, "every_n_frames=True: give a whole number of at least 1"),
        ({"max_frames": 0}, "max_frames=0: give a whole number of at least 1"),
        ({"max_frames": "9"}, "max_frames='9': give a whole number of at least 1"),
        ({"start_s": -1}, "start_s=-1: give a number from 0 to 1e+06"),
        ({"start_s": None}, "start_s=None: give a number from 0 to 1e+06"),
        ({"end_s": float("nan")}, "end_s=nan: give a number from 0 to 1e+06"),
        ({"end_s": 0}, "end_s=0: give a time after start_s=0, in seconds"),
        ({"start_s": 5, "end_s": 5}, "end_s=5: give a time after start_s=5, in seconds"),
        ({"reader": "ffmpeg"}, "reader='ffmpeg': choose from pyav, opencv"),
    ],
)
def test_options_are_checked_when_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        SamplingOptions(**options)
    assert str(caught.value) == message


def test_the_edges_of_the_options_are_allowed() -> None:
    SamplingOptions(fps=1000, time_limit_s=1e6, every_n_frames=1, max_frames=1)
    SamplingOptions(fps=0.001, time_limit_s=0.1, reader="opencv")


# --- which frames --------------------------------------------------------------------------


@readers
@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (1, [0.0, 1.0, 2.0, 3.0]),
        (2, [0.0, 0.5 + 0.02, 1.0, 1.5 + 0.02, 2.0, 2.5 + 0.02, 3.0, 3.5 + 0.02]),
        (0.4, [0.0, 2.52]),
        (0.01, [0.0]),
        (5, [index * 0.2 for index in range(20)]),
        (25, [index * 0.04 for index in range(100)]),
        (1000, [index * 0.04 for index in range(100)]),
    ],
)
def test_frames_per_second(tmp_path: Path, reader: str, fps: float, expected: list[float]) -> None:
    path = clip_of(tmp_path / "a.mp4", (CAT, 100))
    times = sampled(path, fps=fps, reader=reader)
    assert times == pytest.approx(expected)


def test_the_frame_chosen_is_the_first_one_due_where_the_rate_varies(tmp_path: Path) -> None:
    pts = [0, 900, 1300, 1400, 2600, 2999, 3000, 6500, 6600]
    path = write_video(tmp_path / "a.mp4", [CAT] * 9, pts)
    # What was missed is not made up for: after 2.6 s comes 3 s, after 6.5 s comes 7 s.
    assert sampled(path) == [0.0, 1.3, 2.6, 3.0, 6.5]


def test_a_broadcast_rate(tmp_path: Path) -> None:
    pts = [index * 1001 for index in range(100)]
    path = write_video(tmp_path / "a.mp4", [CAT] * 100, pts, Fraction(1, 30000))
    assert indices(path) == [0, 30, 60, 90]
    assert indices(path, fps=30000 / 1001) == list(range(100))
    assert indices(path, fps=30000 / 1001 / 10) == list(range(0, 100, 10))


@pytest.mark.parametrize(("every", "expected"), [(1, 10), (3, 4), (9, 2), (10, 1), (999, 1)])
def test_every_so_manieth_frame(tmp_path: Path, every: int, expected: int) -> None:
    path = write_video(
        tmp_path / "a.mp4", [CAT] * 10, [0, 1, 2, 3, 500, 600, 9000, 9001, 9002, 9003]
    )
    assert indices(path, every_n_frames=every) == list(range(0, 10, every))
    assert len(indices(path, every_n_frames=every, fps=0.001)) == expected


@readers
def test_max_frames_spreads_over_the_announced_length(tmp_path: Path, reader: str) -> None:
    path = clip_of(tmp_path / "a.mp4", (CAT, 200))
    assert sampled(path, max_frames=4, reader=reader) == [0.0, 2.0, 4.0, 6.0]
    assert sampled(path, max_frames=1, reader=reader) == [0.0]
    assert sampled(path, max_frames=100, reader=reader) == [float(each) for each in range(8)]
    assert sampled(path, max_frames=4, every_n_frames=10, reader=reader) == [0.0, 2.0, 4.0, 6.0]
    assert sampled(path, max_frames=8, every_n_frames=100, reader=reader) == [0.0, 4.0]


LIVE = {"live": "1"}  # Matroska as browsers and pipes write it: no length anywhere


@readers
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.h264", {}),
        ("a.mkv", {"container_options": LIVE}),
        ("sound.mkv", {"container_options": LIVE, "sound_s": 9.0}),
        ("b-frames.mkv", {"container_options": LIVE, "options": {"bf": "2", "b-adapt": "0"}}),
        ("a.webm", {"container_options": LIVE, "codec": "libvpx-vp9"}),
        ("sound.flv", {"sound_s": 8.0}),
        ("no-length.flv", {"container_options": {"flvflags": "no_duration_filesize"}}),
        ("sound.mp4", {"container_options": {"movflags": "+frag_keyframe+empty_moov"}}),
        ("a.m4v", {"codec": "mpeg4", "container": "m4v"}),
        # A length is announced that is not the video's: of the sound, or guessed from a bit rate.
        ("long-sound.mkv", {"sound_s": 60.0}),
        ("long-sound.flv", {"sound_s": 60.0}),
        ("a.m1v", {"codec": "mpeg1video", "container": "mpeg1video"}),
    ],
)
def test_max_frames_spreads_over_all_whatever_is_announced(
    tmp_path: Path, reader: str, name: str, options: dict[str, Any]
) -> None:
    path = write_video(tmp_path / name, [CAT] * 200, range(200), Fraction(1, 25), **options)
    assert sampled(path, max_frames=4, reader=reader) == pytest.approx([0, 2, 4, 6], abs=0.17)
    found = indices(path, max_frames=3, every_n_frames=7, reader=reader)
    assert found == pytest.approx([0, 70, 140], abs=7)
    assert sampled(path, reader=reader)[:8] == pytest.approx(range(8), abs=0.05)


@pytest.mark.parametrize("name", ["a.h264", "a.mkv", "joined.ts", "short.mkv"])
def test_the_measured_length(tmp_path: Path, name: str) -> None:
    options = {"container_options": LIVE} if name.endswith("mkv") else {}
    path = write_video(tmp_path / name, [CAT] * 50, range(50), Fraction(1, 25), **options)
    if name == "joined.ts":
        path.write_bytes(path.read_bytes() * 2)
    if name == "short.mkv":
        path.write_bytes(path.read_bytes()[: -path.stat().st_size // 4])
    with open_video(path) as video:
        ticks: list[int] = []
        length_s = video.lengths(lambda: ticks.append(1)).video_s
        *_, last = video
    assert length_s == pytest.approx(last.time_s + 0.04, abs=0.09)
    assert len(ticks) >= last.index


def test_many_shots_at_the_beginning_leave_frames_for_the_end(tmp_path: Path) -> None:
    shots = [(image, 15) for image in (CAT, COFFEE, ROCKET, STAIRS) * 4]
    path = clip_of(tmp_path / "a.mp4", *shots, (CAT, 360))
    for most in (5, 8, 12):
        times = [each for each in sampled(path, max_frames=most) if isinstance(each, float)]
        assert most - 1 <= len(times) <= most
        gaps = np.diff([*times, 24.0])
        assert max(gaps) <= 2.1 * 24 / most


def test_max_frames_holds_whatever_the_header_says_and_however_many_shots(tmp_path: Path) -> None:
    parts = [(image, 20) for image in (CAT, COFFEE, ROCKET, STAIRS) * 2]
    path = clip_of(tmp_path / "a.mp4", *parts)
    for most in range(1, 12):
        found = sampled(path, max_frames=most)
        # Eight shots in 6.4 s: one frame each, and at most one a second besides.
        assert min(most, 8) <= sum(isinstance(each, float) for each in found) <= most
        # The cuts are found whether or not there are frames left to look at.
        assert [each for each in found if isinstance(each, tuple)] == [
            (round(0.8 * shot, 6),) for shot in range(1, 8)
        ]


def test_a_single_frame_and_two(tmp_path: Path) -> None:
    assert sampled(write_video(tmp_path / "a.mp4", [CAT], [0])) == [0.0]
    two = write_video(tmp_path / "b.mp4", [CAT, COFFEE], [0, 40])
    assert sampled(two) == [0.0]
    assert sampled(two, fps=25) == [0.0, 0.04]
    assert sampled(two, shots=False) == [0.0]
    far = write_video(tmp_path / "c.mp4", [CAT, COFFEE], [0, 10_000])
    assert sampled(far) == [0.0, (10.0,), 10.0]


@readers
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"start_s": 2}, [2.0, 3.0, (4.0,), 4.0, 5.0]),
        ({"start_s": 2.5}, [2.5, 3.52, (4.0,), 4.52, 5.52]),
        ({"start_s": 2.99, "end_s": 4.3}, [2.99, (4.0,), 4.0]),
        ({"end_s": 1.5}, [0.0, 1.0]),
        ({"start_s": 5.9}, [5.9]),
        ({"start_s": 3, "end_s": 1000}, [3.0, (4.0,), 4.0, 5.0]),
        ({"start_s": 1.2, "max_frames": 2, "shots": False}, [1.2, 3.6]),
        ({"start_s": 1, "end_s": 3, "max_frames": 2, "fps": 5}, [1.0, 2.0]),
        ({"start_s": 2.2, "end_s": 2.3, "every_n_frames": 1000}, [2.28]),
        ({"start_s": 6}, []),
        ({"start_s": 100, "max_frames": 3}, []),
    ],
)
def test_a_part_of_a_video(
    tmp_path: Path, reader: str, options: dict[str, Any], expected: list[Any]
) -> None:
    path = clip_of(tmp_path / "a.mp4", (CAT, 100), (COFFEE, 50))
    assert sampled(path, reader=reader, **options) == expected


def test_nothing_is_read_behind_the_end_of_a_part(tmp_path: Path) -> None:
    with open_video(clip_of(tmp_path / "a.mp4", (CAT, 100))) as video:
        list(sample(video, video, SamplingOptions(end_s=1)))
        assert next(iter(video._frames)).pts > 0  # type: ignore[attr-defined]


def test_a_slide_is_shown_from_the_start_of_the_part(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [CAT, COFFEE, ROCKET], [0, 10_000, 20_000])
    assert sampled(path, start_s=15) == [15.0, (20.0,), 20.0]
    assert sampled(path, start_s=15, end_s=16) == [15.0]


# --- shots ---------------------------------------------------------------------------------


@readers
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_cuts_between_photos_are_exact(tmp_path: Path, reader: str, name: str) -> None:
    options = {"codec": "mpeg4", "rate": 25} if name == "a.avi" else {}
    path = clip_of(tmp_path / name, (CAT, 50), (COFFEE, 25), (ROCKET, 75), (STAIRS, 30), **options)
    assert cuts_of(path, reader) == pytest.approx([2.0, 3.0, 6.0])
    times = sampled(path, reader=reader)
    assert times == [0.0, 1.0, (2.0,), 2.0, (3.0,), 3.0, 4.0, 5.0, (6.0,), 6.0, 7.0]
    assert sampled(path, reader=reader, shots=False) == [float(each) for each in range(8)]


def test_every_shot_has_a_frame(tmp_path: Path) -> None:
    path = clip_of(
        tmp_path / "a.mp4", (CAT, 30), (COFFEE, 15), (ROCKET, 15), (STAIRS, 15), (CAT, 45)
    )
    # Cuts at 1.2, 1.8, 2.4 and 3 s; of those that begin between the samples, one SETTLE_S later.
    assert SETTLE_S == 0.25
    assert sampled(path) == [
        *(0.0, 1.0, (1.2,), 1.44, (1.8,), 2.0, (2.4,), 2.64, (3.0,), 3.0, 4.0),
    ]
    assert sampled(path, fps=0.1) == [
        *(0.0, (1.2,), 1.44, (1.8,), 2.04, (2.4,), 2.64, (3.0,), 3.24),
    ]


def test_a_shot_shorter_than_that_is_shown_by_its_last_frame(tmp_path: Path) -> None:
    path = clip_of(tmp_path / "a.mp4", (CAT, 55), (COFFEE, 5))
    assert sampled(path) == [0.0, 1.0, 2.0, (2.2,), 2.36]
    path = write_video(
        tmp_path / "b.mp4",
        [CAT] * 30 + [COFFEE] * 4 + [ROCKET] * 30,
        [*evenly(30, 25), 1200, 1500, 1600, 1700, *evenly(30, 25, start=1800)],
    )
    # The second shot has no frame within SETTLE_S but its first.
    assert sampled(path) == [0.0, 1.0, (1.2,), 1.2, (1.8,), 2.0]


def test_a_slide_show_of_slow_frames(tmp_path: Path) -> None:
    slides = [image for image in (CAT, COFFEE, ROCKET) for _ in range(4)]
    path = write_video(tmp_path / "a.mp4", slides, range(0, 12_000, 1000))
    assert cuts_of(path) == [4.0, 8.0]
    assert sampled(path, fps=0.25) == [0.0, (4.0,), 4.0, (8.0,), 8.0]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.flv", "a.webm"])
@pytest.mark.parametrize("times_s", [[0, 2, 4, 6], [0, 10, 20, 30], [0, 0.5, 1.2, 60]])
def test_slides_of_one_frame_each(tmp_path: Path, name: str, times_s: list[float]) -> None:
    pts = [round(1000 * each) for each in times_s]
    options = {"codec": "libvpx-vp9"} if name == "a.webm" else {}
    path = write_video(tmp_path / name, [CAT, COFFEE, ROCKET, STAIRS], pts, **options)
    assert cuts_of(path) == times_s[1:]
    found = sampled(path)
    assert [each for each in found if isinstance(each, float)] == times_s
    with open_video(path) as video:
        frames = [
            each for each in sample(video, video, SamplingOptions()) if isinstance(each, Frame)
        ]
    assert [frame.until_s for frame in frames[:-1]] == times_s[1:]


def test_a_frame_that_stays_is_looked_at(tmp_path: Path) -> None:
    pts = [0, 400, 10_000, 10_040, 12_500, 12_540]
    path = write_video(tmp_path / "a.mp4", [CAT, COFFEE, *[ROCKET] * 4], pts)
    # At 0.4 s comes what is shown for almost ten seconds, at 10.04 s for more than two.
    assert sampled(path, shots=False) == [0.0, 0.4, 10.0, 10.04]
    assert sampled(path, shots=False, fps=0.5) == [0.0, 0.4, 10.0, 12.5]
    assert indices(path, shots=False, every_n_frames=2) == [0, 2, 4]


def test_every_frame_comes_once_in_order_and_few_are_kept(tmp_path: Path) -> None:
    path = clip_of(tmp_path / "a.mp4", (CAT, 50), (COFFEE, 50), (WHITE, 2), (COFFEE, 50))
    seen: list[weakref.ref[Frame]] = []
    alive = []

    def watched(frames: Iterator[Frame]) -> Iterator[Frame]:
        for frame in frames:
            seen.append(weakref.ref(frame))
            yield frame
            alive.append(sum(each() is not None for each in seen))

    with open_video(path) as video:
        order = [frame.index for frame, _ in find_cuts(watched(iter(video)))]
    assert order == list(range(152))
    # Those that the detector waits for; after what may be a flash those of FLASH_S.
    assert max(alive) <= 8
    assert sorted(alive)[len(alive) // 2] <= 4
    seen.clear()
    alive.clear()
    with open_video(path) as video:
        for found in sample(video, watched(iter(video)), SamplingOptions(fps=0.1)):
            del found
    assert max(alive) <= 9


def test_a_video_without_frames_never_gets_here(tmp_path: Path) -> None:
    with pytest.raises(VideoError):
        sampled(write_header_only(tmp_path / "a.avi", "mpeg4"))
    with open_video(numbered_video(tmp_path / "b.mp4")) as video:
        assert list(find_cuts([])) == []
        assert list(sample(video, [], SamplingOptions())) == []
