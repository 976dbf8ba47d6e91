"""With no cuts to be found, fewer frames are decoded, and the same come out."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from captioner.images.transform import ImageTransform
from captioner.video import skipping
from captioner.video.child import Out, serve
from captioner.video.events import ChosenFrame, Ended, Event, event_of, receive
from captioner.video.options import SamplingOptions
from helpers.videos import (
    MS,
    cut_off,
    damage,
    numbered,
    numbered_video,
    real_clip,
    write_video,
)

COUNT = 130
B_FRAMES = {"bf": "3", "g": "50", "preset": "medium"}
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"fps": 4.0},
    {"fps": 0.3},
    {"every_n_frames": 7},
    {"max_frames": 3},
    {"start_s": 1.3},
    {"start_s": 2.04, "end_s": 2.9},
    {"end_s": 0.5},
)


def sent(path: Path, **settings: Any) -> list[Event]:
    """All that comes of a video."""
    stream = io.BytesIO()
    options = SamplingOptions(shots=False, **settings)
    serve(path, ImageTransform((32, 32)), options, Out(stream))
    stream.seek(0)
    messages = iter(lambda: receive(stream), None)
    return [event for header, data in messages if (event := event_of(header, data)) is not None]


def with_all_decoded(path: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> list[Event]:
    """The same of a video whose packets are not believed."""
    with monkeypatch.context() as patch:
        patch.setattr(skipping, "list_frames", lambda *_: None)
        return sent(path, **settings)


def check_all_settings(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare what is sent with what full decoding sends."""
    for settings in SETTINGS:
        assert sent(path, **settings) == with_all_decoded(path, monkeypatch, **settings)


def decoded(path: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> int:
    """How many packets are decoded for the frames that are looked at; -1 for all."""
    counts: list[int] = []
    needed = skipping._needed

    def counting(*args: Any) -> Any:
        for packet in needed(*args):
            counts.append(packet is not None)
            yield packet

    with monkeypatch.context() as patch:
        patch.setattr(skipping, "_needed", counting)
        sent(path, **settings)
    return sum(counts) if counts else -1


def test_packets_that_nothing_is_made_from_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"bf": "3", "b-adapt": "0", "b-pyramid": "none", "g": "40", "sc_threshold": "0"}
    path = numbered_video(tmp_path / "a.mp4", 120, options=options)
    # Of 40 frames one is a beginning and each fourth is made from the fourth before it.
    assert decoded(path, monkeypatch, fps=0.5) < 0.4 * 120
    assert decoded(path, monkeypatch, start_s=4.7) == 12
    assert decoded(path, monkeypatch, every_n_frames=1) == -1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("b.mp4", B_FRAMES),
        ("b.mkv", B_FRAMES),
        ("b.ts", B_FRAMES),
        ("pyramid.mp4", {"bf": "8", "b-adapt": "2", "b-pyramid": "normal", "g": "250"}),
        ("short.mp4", {"bf": "2", "g": "12"}),
        ("beginnings.mp4", {"g": "1"}),
        ("open.mp4", {"bf": "3", "g": "25", "x264-params": "open-gop=1"}),
        ("intra_refresh.ts", {"g": "25", "x264-params": "intra-refresh=1"}),
        ("slices.mkv", {"bf": "3", "g": "30", "slices": "3"}),
        ("none.mp4", {"bf": "0", "g": "50"}),
    ],
)
def test_the_same_frames_come_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    options: dict[str, str],
) -> None:
    path = numbered_video(tmp_path / name, COUNT, options=options)
    assert decoded(path, monkeypatch) > 0
    check_all_settings(path, monkeypatch)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_the_same_times_of_a_varying_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    stamps, stamp = [], 400
    for index in range(COUNT):
        stamps.append(stamp)
        stamp += (10, 40, 33, 400, 21)[index * index % 5]
    images = map(numbered, range(COUNT))
    path = write_video(tmp_path / name, images, stamps, MS, options=B_FRAMES, rotation=90)
    for settings in SETTINGS:
        found = sent(path, **settings)
        assert found == with_all_decoded(path, monkeypatch, **settings)
        assert isinstance(found[-1], Ended) and found[-1].is_vfr


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.avi", {}),
        ("a.flv", {}),
        ("a.mp4", {"codec": "mpeg4"}),
        ("a.mp4", {"codec": "libx265"}),
        ("interlaced.mp4", {"options": {"x264-params": "interlaced=1"}}),
        ("a.h264", {}),
    ],
)
def test_other_streams_are_decoded_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any]
) -> None:
    path = numbered_video(tmp_path / name, 40, **options)
    assert decoded(path, monkeypatch, fps=2) == -1
    frames = [event for event in sent(path, fps=2) if isinstance(event, ChosenFrame)]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.52, 1, 1.52], abs=2e-3)


@pytest.mark.parametrize("name", ["bikes", "bigbuckbunny", "carphone_pristine"])
def test_real_clips(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = real_clip(name)
    check_all_settings(path, monkeypatch)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_a_file_that_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, share: float
) -> None:
    options = {"movflags": "faststart"} if name == "a.mp4" else {}
    path = numbered_video(tmp_path / name, COUNT, options=B_FRAMES, container_options=options)
    cut_off(path, share)
    check_all_settings(path, monkeypatch)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize("place", [0.4, 0.6, 0.8])
def test_damage_changes_no_image_and_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: float
) -> None:
    path = numbered_video(tmp_path / name, COUNT, options=B_FRAMES)
    damage(path, place, place + 0.02)

    def looked_at(events: list[Event]) -> list[tuple[float, float | None, bytes | None]]:
        frames = [event for event in events if isinstance(event, ChosenFrame)]
        return [(frame.time_s, frame.until_s, frame.pixels) for frame in frames]

    for settings in ({}, {"fps": 0.4}, {"start_s": 2.5}):
        found, wanted = sent(path, **settings), with_all_decoded(path, monkeypatch, **settings)
        assert looked_at(found) == looked_at(wanted)
        if isinstance(found[-1], Ended) and isinstance(wanted[-1], Ended):
            assert found[-1].duration_s == wanted[-1].duration_s
        else:
            assert found[-1] == wanted[-1]
