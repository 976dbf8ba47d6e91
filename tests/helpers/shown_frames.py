"""What a reader gives of a file whose every frame says which one it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from captioner.errors import CaptionerError
from captioner.video.frames import Video, VideoError
from captioner.video.opening import open_video
from helpers.videos import number_of


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
