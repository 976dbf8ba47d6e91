"""What the decoding process sends of a video, and what is known at its end."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captioner.images.transform import RESIZE_MODES, ImageTransform
from captioner.video.child import MAX_REASON, Out, serve
from captioner.video.events import ChosenFrame, Ended, Opened, receive
from captioner.video.frames import VideoInfo
from captioner.video.opening import open_video
from captioner.video.options import READERS, SamplingOptions
from captioner.video.pyav import PyAvFrame
from captioner.video.sampling import Cut
from helpers.video_events import SMALL, end_of, events, kinds
from helpers.videos import (
    MS,
    cut_off,
    damage,
    evenly,
    numbered,
    numbered_video,
    photo,
    real_clip,
    write_video,
)

readers = pytest.mark.parametrize("reader", READERS)


EVERY_FRAME = SamplingOptions(every_n_frames=1, shots=False)


@readers
def test_the_order_of_events(tmp_path: Path, reader: str) -> None:
    images = [photo("cat")] * 30 + [photo("coffee")] * 45
    path = write_video(tmp_path / "a.mp4", images, evenly(75, 25))
    found = [event for _, event in events(path, options=SamplingOptions(reader=reader))]
    assert found[0] == Opened(VideoInfo(160, 120, 0, 3.0))
    assert found[-1] == Ended(3.0, 75, 25.0, False, 0, None)
    assert found[3] == Cut(1.2)
    times = [(each.time_s, each.frame_index) for each in found if isinstance(each, ChosenFrame)]
    assert times == [(0.0, 0), (1.0, 25), (2.0, 50)]
    assert kinds(enumerate(found)) == [
        (0, "Opened"),
        (1, "ChosenFrame"),
        (2, "ChosenFrame"),
        (3, "Cut"),
        (4, "ChosenFrame"),
        (5, "Ended"),
    ]


@readers
@pytest.mark.parametrize("resize", RESIZE_MODES)
def test_pixels_are_those_of_the_transform(tmp_path: Path, reader: str, resize: str) -> None:
    path = numbered_video(tmp_path / "a.mp4", 20, rotation=90)
    transform = ImageTransform(size=(40, 56), resize=resize)
    options = SamplingOptions(fps=5, shots=False, reader=reader)
    sent = [
        event.pixels
        for _, event in events(path, options=options, transform=transform)
        if isinstance(event, ChosenFrame)
    ]
    with open_video(path, reader) as video:
        frames = [frame for frame in video if frame.index % 5 == 0]
        fitted = [frame.fitted(transform).tobytes() for frame in frames]
        whole = [transform.fit(Image.fromarray(frame.rgb())).tobytes() for frame in frames]
    assert sent == fitted
    assert fitted == whole or (reader, resize) == ("pyav", "squash")  # which rounds once, not twice
    assert len(sent) == 4


def test_an_image_that_stays_is_sent_once(tmp_path: Path) -> None:
    images = [photo("cat")] * 75 + [photo("coffee")] * 50 + [photo("cat")] * 50
    path = write_video(tmp_path / "a.mp4", images, evenly(175, 25))
    sent = [event.pixels for _, event in events(path) if isinstance(event, ChosenFrame)]
    assert [None if pixels is None else len(pixels) for pixels in sent] == [
        *(3 * 64 * 48, None, None),
        *(3 * 64 * 48, None),
        *(3 * 64 * 48, None),
    ]


def test_a_slow_change_is_sent_again_and_again(tmp_path: Path) -> None:
    # Each frame looks like the one before, but not like the one that was sent last.
    greys = [np.full((48, 64, 3), 20 + 5 * index, np.uint8) for index in range(40)]
    path = tmp_path / "a.mkv"
    write_video(path, greys, evenly(40, 25), codec="ffv1", pixel_format="yuv444p")
    sent = [each for _, each in events(path, options=EVERY_FRAME) if isinstance(each, ChosenFrame)]
    fresh = [each.frame_index for each in sent if each.pixels is not None]
    assert len(sent) == 40
    assert fresh == list(range(0, 40, 2))


# Suffix, timestamps, their unit, frames per second, whether the rate varies.
RATES: list[tuple[str, Sequence[int], Fraction, float, bool]] = [
    ("mp4", evenly(50, 25), MS, 25.0, False),
    ("mkv", evenly(50, 25), MS, 25.0, False),
    ("mp4", range(0, 60 * 1001, 1001), Fraction(1, 30000), 30000 / 1001, False),
    # In whole milliseconds the distances are 33 and 34.
    ("mkv", evenly(60, Fraction(30000, 1001)), MS, 59 / 1.969, False),
    ("mp4", [*evenly(50, 25), *evenly(50, 50, start=2000)], MS, 99 / 2.98, True),
    # One gap in a hundred distances is no rate that varies.
    ("mp4", [*evenly(60, 25), *evenly(60, 25, start=3000)], MS, 119 / 5.36, False),
    ("mp4", [0], MS, 25.0, False),
    ("mp4", [0, 500], MS, 2.0, False),
]


@readers
def test_rates(tmp_path: Path, reader: str) -> None:
    paths = []
    for number, (suffix, pts, time_base, _, _) in enumerate(RATES):
        path = tmp_path / f"{number}.{suffix}"
        paths.append(write_video(path, map(numbered, range(len(pts))), pts, time_base))
    found = events(*paths, options=SamplingOptions(reader=reader))
    ends = [event for _, event in found if isinstance(event, Ended)]
    assert [end.frame_count for end in ends] == [len(pts) for _, pts, _, _, _ in RATES]
    assert [end.average_fps for end in ends] == pytest.approx([fps for *_, fps, _ in RATES])
    assert [end.is_vfr for end in ends] == [is_vfr for *_, is_vfr in RATES]
    assert {(end.decode_failures, end.partial) for end in ends} == {(0, None)}


def test_the_length_ends_with_the_last_frame(tmp_path: Path) -> None:
    path = numbered_video(tmp_path / "a.mp4", 50)
    assert end_of(path).duration_s == pytest.approx(2.0)
    assert end_of(path, reader="opencv").duration_s == pytest.approx(2.0)
    path = write_video(tmp_path / "b.mp4", map(numbered, range(3)), [0, 40, 1000])
    assert end_of(path).duration_s >= 1.04
    for name, frames, duration_s in (("bikes", 250, 10.0), ("carphone_pristine", 120, 4.004)):
        end = end_of(real_clip(name))
        assert (end.frame_count, end.is_vfr) == (frames, False)
        assert end.duration_s == pytest.approx(duration_s, abs=0.001)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.flv"])
def test_the_last_slide_stays_to_the_end(tmp_path: Path, name: str) -> None:
    pts = [0, 10_000, 20_000, 30_000]
    path = write_video(tmp_path / name, map(numbered, range(4)), pts, rate=Fraction(1, 10))
    end = end_of(path)
    assert (end.duration_s, end.partial) == (pytest.approx(40.0, abs=0.01), None)


@pytest.mark.parametrize("name", ["a.mkv", "a.flv", "a.ts", "a.mp4"])
@pytest.mark.parametrize("start_ms", [0, 7000])
def test_the_last_slide_stays_while_there_is_sound(
    tmp_path: Path, name: str, start_ms: int
) -> None:
    pts = [start_ms + each for each in (0, 2000, 4000, 6000)]
    sound_s = 30 + start_ms / 1000
    path = write_video(tmp_path / name, map(numbered, range(4)), pts, sound_s=sound_s)
    end = end_of(path)
    assert (end.duration_s, end.partial) == (pytest.approx(30.0, abs=0.15), None)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_the_only_image_stays_while_there_is_sound(tmp_path: Path, name: str) -> None:
    end = end_of(write_video(tmp_path / name, [numbered(0)], [0], sound_s=8))
    assert (end.duration_s, end.partial) == (pytest.approx(8.0, abs=0.15), None)


@readers
def test_a_file_that_is_cut_off_is_partial(tmp_path: Path, reader: str) -> None:
    options = {"container_options": {"movflags": "+faststart"}}
    path = cut_off(numbered_video(tmp_path / "a.mp4", 100, **options), 0.6)
    end = end_of(path, reader=reader)
    assert 1.0 < end.duration_s < 3.0
    assert end.duration_s == pytest.approx(end.frame_count / 25)
    assert end.partial == f"it ends after {end.duration_s:.2f} s, and 4.00 s were announced"


def test_damage_is_counted_and_does_not_make_the_rate_vary(tmp_path: Path) -> None:
    path = damage(numbered_video(tmp_path / "a.mp4", 100), 0.4, 0.5)
    end = end_of(path)
    assert end.decode_failures > 0
    assert end.frame_count < 100
    assert (end.average_fps, end.is_vfr, end.partial) == (pytest.approx(25), False, None)
    assert end.duration_s == pytest.approx(4.0)
    # OpenCV gives up there without a word; what is missing gives it away.
    end = end_of(path, reader="opencv")
    assert (end.decode_failures, end.is_vfr) == (0, False)
    assert end.partial == f"it ends after {end.duration_s:.2f} s, and 4.00 s were announced"


@readers
@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.flv", "a.mp4"])
def test_longer_sound_is_no_missing_image(tmp_path: Path, reader: str, name: str) -> None:
    path = numbered_video(tmp_path / name, sound_s=3.0)
    end = end_of(path, reader=reader)
    assert (end.duration_s, end.partial) == (pytest.approx(0.8, abs=0.001), None)


@pytest.mark.parametrize(("name", "announced"), [("a.flv", "4.10"), ("a.mp4", "4.00")])
def test_images_and_sound_that_are_cut_off_are_missing(
    tmp_path: Path, name: str, announced: str
) -> None:
    options = {"container_options": {"movflags": "+faststart"}} if name == "a.mp4" else {}
    path = numbered_video(tmp_path / name, 100, sound_s=4.0, **options)
    end = end_of(cut_off(path, 0.6))
    reason = f"it ends after {end.duration_s:.2f} s, and {announced} s were announced"
    assert end.partial == reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("29 is not a valid Type"), "ValueError: 29 is not a valid Type"),
        (IndexError("list index\nout of range"), "IndexError: list index out of range"),
        (MemoryError(), "MemoryError:"),
        (KeyError("x" * 500), "KeyError: '" + "x" * 500),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_an_error_that_nobody_has_foreseen_costs_one_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str, late: bool
) -> None:
    def fail(*_: object) -> Any:
        raise error

    path = numbered_video(tmp_path / "a.mp4", 50)
    if late:
        monkeypatch.setattr(PyAvFrame, "fitted", fail)
    else:
        monkeypatch.setattr("captioner.video.child.open_video", fail)
    sent = io.BytesIO()
    serve(path, SMALL, SamplingOptions(), Out(sent))
    sent.seek(0)
    messages = []
    while (message := receive(sent)) is not None:
        if message[0]["event"] != "alive":
            messages.append(message[0])
    assert [each["event"] for each in messages] == (["opened"] if late else []) + ["failed"]
    assert messages[-1]["values"] == {
        "code": "decoder_died",
        "reason": f"its decoder failed: {reason}"[:MAX_REASON],
    }
