"""What OpenCV does in another way than PyAV."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from captioner.video.opening import open_video
from helpers.shown_frames import error_of, exactly, read
from helpers.videos import damage, numbered_video


def test_av1_is_decoded_by_pyav_and_not_by_opencv(tmp_path: Path) -> None:
    path = numbered_video(tmp_path / "av1.mp4", 5, codec="libsvtav1")
    assert read(path, "pyav") == (list(range(5)), exactly([0, 0.04, 0.08, 0.12, 0.16]))
    assert error_of(path, "opencv") == ("no_frames", "no frame of it can be decoded")


def test_opencv_ends_in_silence_at_damage(tmp_path: Path) -> None:
    path = damage(numbered_video(tmp_path / "a.mp4", 100), 0.4, 0.5)
    with open_video(path, "opencv") as video:
        times = [frame.time_s for frame in video]
        assert times == exactly([index / 25 for index in range(len(times))])
        assert 24 <= len(times) < 72
        assert (video.decode_failures, video.ended_early) == (0, None)
        assert video.info.announced_s == pytest.approx(4.0)


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
