"""What comes of videos that a child process reads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from captioner.files.finding import SourceFile
from captioner.images.transform import ImageTransform
from captioner.video.events import Ended, Event
from captioner.video.options import SamplingOptions
from captioner.video.process import VideoProcess

SMALL = ImageTransform(size=(64, 48))


def files(*paths: Path) -> list[SourceFile]:
    return [SourceFile(path, path.name) for path in paths]


def events(
    *paths: Path, options: SamplingOptions | None = None, transform: ImageTransform = SMALL
) -> list[tuple[str, Event]]:
    with VideoProcess(transform, options or SamplingOptions()) as process:
        return [(file.name, event) for file, event in process.read(files(*paths))]


def end_of(path: Path, **options: Any) -> Ended:
    end = events(path, options=SamplingOptions(**options))[-1][1]
    assert isinstance(end, Ended), end
    return end


def kinds(found: Iterable[tuple[str, Event]]) -> list[tuple[str, str]]:
    return [(name, type(event).__name__) for name, event in found]
