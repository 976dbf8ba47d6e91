"""Pages of videos as files: what is written when, found again, and never written over."""

from __future__ import annotations

import json
import os
import re
import shutil
from base64 import b64decode
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from captioner.cli import entry as cli
from captioner.model.caption_model import CaptionModel
from captioner.pages.video_index import TagPages
from captioner.pages.video_page import href, read_data
from helpers.videos import numbered_video, photo, write_video


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films") / "library"
    (folder / "ä b" / "50% #1?").mkdir(parents=True)
    slides = [photo(name) for name in ("stairs", "coffee") for _ in range(8)]
    write_video(folder / "ä b" / "50% #1?" / "x.mp4", slides, [100 * i for i in range(16)], rate=10)
    numbered_video(folder / "a.mp4", 12)
    numbered_video(folder / "Index.mp4", 12)
    (folder / "text.mp4").write_text("no video\n" * 100)
    return folder


@pytest.fixture
def options(tagging_model: CaptionModel) -> list[str]:
    options = ["--model", str(tagging_model.path), "--device", "cpu", "--batch-size", "4"]
    return [*options, "--min-confidence", "0", "--min-coverage", "0"]


def data_of(path: Path) -> Any:
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', path.read_text("utf-8"), re.S
    )
    assert found is not None
    return json.loads(found[1])


def videos(output: Path) -> dict[str, dict[str, Any]]:
    return {video["file_name"]: video for video in data_of(output / "index.html")["videos"]}


def is_in(page: Path, src: str) -> Path:
    """The file that a page refers to."""
    return Path(os.path.normpath(page.parent / unquote(src)))


def test_pages_lie_where_the_videos_do(library: Path, tmp_path: Path, options: list[str]) -> None:
    output = tmp_path / "aus gabe"
    arguments = ["tag", str(library), "--output-dir", str(output), "--format", "html", *options]
    assert cli.main(arguments) == 1
    # The page of all videos is called so already.
    pages = {"Index.mp4.html", "a.html", "ä b/50% #1?/x.html"}
    assert {p.relative_to(output).as_posix() for p in output.rglob("*.html")} == pages | {
        "index.html"
    }
    page = output / "ä b" / "50% #1?" / "x.html"
    data = data_of(page)
    assert re.fullmatch(r"[\w./%-]+", data["src"], re.ASCII)
    assert is_in(page, data["src"]).samefile(library / "ä b" / "50% #1?" / "x.mp4")
    assert is_in(page, data["index"]) == output / "index.html"
    assert [(each["start"], each["end"]) for each in data["segments"]] == [(0, 0.8), (0.8, 1.6)]
    assert len(data["thumbnails"]) == 2
    assert all(b64decode(each).startswith(b"\xff\xd8") for each in data["thumbnails"])
    found = videos(output)
    assert list(found) == ["Index.mp4", "a.mp4", "text.mp4", "ä b/50% #1?/x.mp4"]
    assert {output / unquote(v["page"]) for v in found.values() if "page" in v} == {
        output / name for name in pages
    }
    assert found["text.mp4"] == {
        "file_name": "text.mp4",
        "status": "failed",
        "error": "not a video that can be read",
    }
    film = found["ä b/50% #1?/x.mp4"]
    assert (film["status"], film["duration_s"], film["segments"]) == ("ok", 1.6, 2)
    assert [tag["name"] for tag in film["tags"]] == [tag["name"] for tag in data["tags"]] != []
    assert (output / film["poster"]).read_bytes().startswith(b"\xff\xd8")


def test_without_the_format_there_are_no_pages(
    library: Path, tmp_path: Path, options: list[str]
) -> None:
    output = tmp_path / "out"
    arguments = ["tag", f"{library}/a.mp4", "--output-dir", str(output), *options]
    assert cli.main([*arguments, "--format", "json"]) == 0
    assert sorted(os.listdir(output))[2:] == ["a.json", "tags.jsonl"]


def test_again_nothing_is_done_twice(
    library: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    command = ["tag", "--output-dir", str(output), "--format", "html,json", *options]
    assert cli.main([*command, f"{library}/a.mp4"]) == 0
    before = (output / "a.html").stat().st_mtime_ns
    capsys.readouterr()
    assert cli.main([*command, f"{library}/Index.mp4", f"{library}/a.mp4"]) == 0
    assert capsys.readouterr().err.endswith("1 tagged, 1 finished before, 0 failed\n")
    assert (output / "a.html").stat().st_mtime_ns == before
    assert list(videos(output)) == ["Index.mp4", "a.mp4"]
    # The index also has what is not asked for this time, and what gets no page.
    command[4] = "json"
    assert cli.main([*command, str(library / "ä b")]) == 0
    found = videos(output)
    assert list(found) == ["Index.mp4", "a.mp4", "50% #1?/x.mp4"]
    assert "page" in found["a.mp4"] and "page" not in found["50% #1?/x.mp4"]
    # A page that is gone or damaged is made again.
    command[4] = "html"
    for spoil in (Path.unlink, lambda path: path.write_text("<p>")):
        spoil(output / "a.html")
        capsys.readouterr()
        assert cli.main([*command, f"{library}/a.mp4"]) == 0
        assert "1 tagged" in capsys.readouterr().err
        assert data_of(output / "a.html")["segments"]
    # Done again without its page, it keeps the page that is there.
    (output / "a.json").unlink()
    command[4] = "json"
    assert cli.main([*command, f"{library}/a.mp4"]) == 0
    assert videos(output)["a.mp4"]["page"] == "a.html"


def test_a_page_finds_its_video_that_was_moved(
    library: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one").mkdir()
    film = Path(shutil.copy2(library / "a.mp4", tmp_path / "one" / "a.mp4"))
    output = tmp_path / "out"
    command = ["--output-dir", str(output), "--format", "html", *options]
    assert cli.main(["tag", str(film), *command]) == 0
    before = data_of(output / "a.html")
    film = film.rename(tmp_path / "a.mp4")
    (poster,) = (output / "index_files").iterdir()
    poster.unlink()
    assert cli.main(["tag", str(film), *command]) == 0
    assert "1 finished before" in capsys.readouterr().err
    after = data_of(output / "a.html")
    assert is_in(output / "a.html", after["src"]) == film
    assert {**after, "src": None} == {**before, "src": None}
    assert poster.is_file()
    assert read_data(output / "a.html") == after


def test_the_index_of_others_is_not_replaced(
    library: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "site"
    output.mkdir()
    (output / "index.html").write_text("<h1>my site</h1>")
    arguments = ["tag", f"{library}/a.mp4", "--output-dir", str(output), *options]
    assert cli.main([*arguments, "--format", "html"]) == 2
    assert capsys.readouterr().err == (
        f"captioner: error: {output}/index.html exists, and no run of `captioner tag` has made it; "
        "choose another --output-dir, replace it with --overwrite, or leave out --format html\n"
    )
    assert [name for name in os.listdir(output) if name != ".captioner.lock"] == ["index.html"]
    assert cli.main([*arguments, "--format", "json"]) == 0
    assert (output / "index.html").read_text() == "<h1>my site</h1>"
    assert cli.main([*arguments, "--format", "html", "--overwrite"]) == 0
    assert list(videos(output)) == ["a.mp4"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index_files").write_text("in the way")
    arguments[3] = str(tmp_path / "other")
    assert cli.main([*arguments, "--format", "html"]) == 2
    assert "other/index_files is a file" in capsys.readouterr().err


def test_the_index_is_written_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = {"file_name": "a.mp4", "status": "failed", "error": {"code": "x", "message": "bad"}}
    pages = TagPages(tmp_path)
    now = 100.0
    monkeypatch.setattr("captioner.pages.video_index.time.monotonic", lambda: now)
    for now, names in (
        (100.0, ["a"]),
        (105.0, ["a"]),  # too soon
        (110.5, ["a", "b", "c"]),
    ):
        lines = [{**line, "file_name": name} for name in ("a", "b", "c")[: int(now - 99)]]
        pages.write_index(lines, is_last=False)
        assert list(videos(tmp_path)) == names
    stale = tmp_path / "index_files" / f"{0:032x}.thumb"
    stale.parent.mkdir()
    for path in (stale, stale.with_name("mine.thumb")):
        path.touch()
    pages.write_index([line], is_last=True)
    assert list(videos(tmp_path)) == ["a.mp4"]
    assert os.listdir(stale.parent) == ["mine.thumb"]


@pytest.mark.parametrize(
    ("path", "folder", "expected"),
    [
        ("/v/a.mp4", "/v", "a.mp4"),
        ("/v/a.mp4", "/v/out/sub", "../../a.mp4"),
        ("/v/ü/a b#?%&.mp4", "/v", "%C3%BC/a%20b%23%3F%25%26.mp4"),
        ("/v/javascript:alert(1).mp4", "/v", "javascript%3Aalert%281%29.mp4"),
        ("/v/\udcfc.mp4", "/v", "%FC.mp4"),
        ('/v/"><img src=x>.mp4', "/v", "%22%3E%3Cimg%20src%3Dx%3E.mp4"),
    ],
)
def test_hrefs(path: str, folder: str, expected: str) -> None:
    assert href(Path(path), Path(folder)) == expected
