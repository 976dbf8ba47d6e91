"""Which files are found, and which paths and names can be opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from captioner.errors import CaptionerError
from captioner.video.frames import VideoError
from captioner.video.opening import find_videos, open_video
from captioner.video.options import READERS
from helpers.shown_frames import error_of, read
from helpers.videos import numbered_video

readers = pytest.mark.parametrize("reader", READERS)


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
