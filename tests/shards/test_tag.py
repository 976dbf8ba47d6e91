"""Tagging videos in shards by the real command line."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from helpers.batches import tree
from helpers.shards import records, report
from helpers.videos import cut_off, numbered_video, photo, write_video

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ["a.mp4", "b.mp4", "c.mkv", "d.mp4", "e.avi"]
STATUSES = ["ok", "failed", "ok", "partial", "ok"]
SCHEMA = json.loads((Path(__file__).parents[2] / "docs/video-tags.schema.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five videos, of which the second cannot be read and the fourth is cut off."""
    folder = tmp_path_factory.mktemp("library")
    slides = [photo(name) for name in ("stairs", "coffee") for _ in range(8)]
    write_video(folder / "a.mp4", slides, [100 * index for index in range(16)], rate=10)
    (folder / "b.mp4").write_text("no video\n" * 100)
    numbered_video(folder / "c.mkv", 12)
    cut_off(numbered_video(folder / "d.mp4", 75, container_options={"movflags": "faststart"}), 0.6)
    numbered_video(folder / "e.avi", 12, codec="mpeg4")
    return folder


@pytest.fixture
def videos(library: Path, tmp_path: Path) -> Path:
    """A copy of them, in the current folder."""
    shutil.copytree(library, tmp_path / "videos")
    with (tmp_path / "list.csv").open("w") as file:
        file.write("id,path\n" + "".join(f"1,videos/{name}\n" for name in NAMES))
    lines = [json.dumps({"video": f"file://{tmp_path}/videos/{name}"}) for name in NAMES]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    return tmp_path / "videos"


def shards(folder: str) -> list[Path]:
    return sorted(Path(folder).glob("*.jsonl"))


def in_shards(folder: str) -> list[dict]:
    return [record for file in shards(folder) for record in records(file)]


def named_by_file(record: dict) -> dict:
    name = Path(record["video"]["file_name"]).name
    return {**record, "video": {**record["video"], "file_name": name}}


@pytest.fixture
def expected(tag, videos) -> list[dict]:
    """What `captioner tag` writes of the videos of the folder, in their order."""
    assert tag("videos", "--output-dir", "plain", "--format", "json")[0] == 1
    files = [Path("plain", f"{Path(name).stem}.json") for name in NAMES]
    return [json.loads(file.read_text("utf-8")) for file in files if file.exists()]


@pytest.mark.parametrize(
    "arguments",
    [
        ["list.csv"],
        ["list.jsonl", "--column", "VIDEO"],
        ["videos", "--format", "jsonl"],
        ["videos/*", "--format", "jsonl", "--shard-size", "2"],
    ],
)
def test_every_input_has_the_records_of_the_folder(tag, expected, arguments) -> None:
    code, errors = tag(*arguments, "--output", "out/")
    size = 2 if "--shard-size" in arguments else 20
    count = -(-len(NAMES) // size)
    text = f"{count} shard{'s' * (count > 1)} tagged, 0 failed; "
    assert (code, f"{text}videos: 4 tagged (1 in part), 1 failed" in errors) == (1, True)
    assert [len(records(file)) for file in shards("out")] == ([2, 2, 1] if size == 2 else [5])
    found = in_shards("out")
    assert [Path(each["video"]["file_name"]).name for each in found] == NAMES
    assert [each["status"] for each in found] == STATUSES
    good = [named_by_file(each) for each in found if each["status"] != "failed"]
    assert [list(each) for each in good] == [list(each) for each in expected]  # the keys' order
    assert good == expected
    [bad] = (each for each in found if each["status"] == "failed")
    assert bad["error"]["code"] == "not_a_video"
    for each in found:
        jsonschema.validate(each, SCHEMA)
    counts = report(Path("out"))
    assert counts["videos"] == {"ok": 3, "partial": 1, "failed": 1}
    assert counts["shards"] == {"total": counts["shards"]["total"], "finished": count, "failed": 0}


def test_parquet_holds_the_same_records(tag, videos) -> None:
    from pyarrow import parquet

    for format in ("jsonl", "parquet"):
        assert tag("list.csv", "--output", f"{format}/", "--format", format)[0] == 1
    [file] = Path("parquet").glob("*.parquet")
    rows = parquet.read_table(file).to_pylist()
    for row in rows:
        row |= {name: json.loads(row[name]) for name in ("model", "settings")}
    assert rows == in_shards("jsonl")


def test_finished_shards_are_not_done_again(tag, videos) -> None:
    options = ("list.csv", "--output", "out/", "--shard-size", "2")
    assert tag(*options)[0] == 1
    before = tree(Path("out"))
    shards("out")[1].unlink()
    for name in ("a.mp4", "b.mp4", "e.avi"):  # of the first and the last shard
        (videos / name).write_bytes(b"")
    code, errors = tag(*options)
    assert code == 0
    assert "1 shard tagged, 2 finished before, 0 failed; videos: 2 tagged (1 in part)" in errors
    assert {name: data for name, data in tree(Path("out")).items() if name.endswith("l")} == {
        name: data for name, data in before.items() if name.endswith("l")
    }
    assert report(Path("out"))["videos_counted_in_shards"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fps", "2"], "--fps: 1.0 there, 2.0 now"),
        (["--max-tags", "3"], "--max-tags: 20 there, 3 now"),
        (["--beam-size", "2"], "--beam-size: 3 there, 2 now"),
        (["--shard-size", "3"], "shard_size: 20 there, 3 now"),
    ],
)
def test_other_settings_are_refused(tag, videos, arguments, message) -> None:
    assert tag("list.csv", "--output", "out/")[0] == 1
    before = tree(Path("out"))
    code, errors = tag("list.csv", "--output", "out/", *arguments)
    assert code == 2
    assert "was made with another model, other options or other inputs" in errors
    assert message in errors
    assert tree(Path("out")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list.csv"], "list.csv: tags of shards"),
        (["s3://bucket/videos"], "add --output tags/"),
        (["list.csv", "--output", "out/", "--overwrite"], "--overwrite: is not for shards"),
        (
            ["list.csv", "--output", "out/", "--min-caption-confidence", "0"],
            "--min-caption-confidence: is not for shards",
        ),
        (["list.csv", "--output", "out/", "--format", "srt"], "--format srt: a shard is one file"),
        (["videos", "--output", "out/", "--format", "vtt,jsonl"], "--format vtt,jsonl: a shard"),
        (["list.csv", "--output", "out/", "--column", "x"], "no column 'x' among id, path"),
        (["list.csv", "videos", "--output", "out/"], "inputs of several kinds (files, list)"),
        (["gone.csv", "--output", "out/"], "gone.csv does not exist"),
        (["memory://nothing", "--output", "out/"], "memory://nothing: there are no videos in it"),
        (["nothing://x/a.mp4", "--output", "out/"], "nothing://x/a.mp4"),
    ],
)
def test_mistakes_are_named(tag, videos, arguments, message) -> None:
    code, errors = tag(*arguments)
    assert code == 2
    assert message in errors


# --- stores --------------------------------------------------------------------------------


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_videos_of_a_store_are_fetched_and_the_copies_removed(
    tag, expected, videos, temporary
) -> None:
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for path in videos.iterdir():
        store.pipe_file(f"/in/{path.name}", path.read_bytes())
    store.pipe_file("/in/note.txt", b"not looked at")
    rows = ["a.mp4", "gone.mp4", "memory://in/c.mkv", "empty.mp4"]
    store.pipe_file("/in/list.csv", "\n".join(["url", *rows]).encode())
    store.pipe_file("/in/empty.mp4", b"")
    try:
        assert tag("memory://in/", "--output", "memory://out", "--quiet")[0] == 1
        [name] = store.glob("/out/*.jsonl")
        found = [json.loads(line) for line in store.cat_file(name).splitlines()]
        assert [each["video"]["file_name"] for each in found] == [*NAMES, "empty.mp4"]
        assert [each for each in found if each["status"] != "failed"] == expected
        assert list(temporary.iterdir()) == []

        assert tag("memory://in/list.csv", "--output", "out/")[0] == 1
        found = in_shards("out")
        assert [each["error"] and each["error"]["message"] for each in found] == [
            None,
            "file not found",
            None,
            "empty file",
        ]
        good = [named_by_file(each) for each in found if each["error"] is None]
        assert good == [expected[0], expected[1]]
        assert list(temporary.iterdir()) == []
    finally:
        store.store.clear()


@pytest.fixture
def web(library: Path) -> Iterator[str]:
    """The library on the web."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(library))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_videos_of_the_web_that_cannot_be_fetched_are_their_own_errors(
    tag, expected, web, temporary
) -> None:
    pytest.importorskip("aiohttp")
    rows = [f"{web}/c.mkv?v=1", f"{web}/gone.mp4", "http://127.0.0.1:9/x.mp4", f"{web}/a.mp4"]
    Path("web.csv").write_text("\n".join(["url", *rows, "videos/e.avi"]))
    assert tag("web.csv", "--output", "out/")[0] == 1
    found = in_shards("out")
    assert [each["video"]["file_name"] for each in found] == [*rows, "videos/e.avi"]
    assert [each["status"] for each in found] == ["ok", "failed", "failed", "ok", "ok"]
    assert found[1]["error"] == {"code": "not_found", "message": "file not found"}
    assert found[2]["error"]["code"] == "unreadable"
    assert found[2]["error"]["message"].startswith("cannot be fetched (")
    assert found[3]["tags"] == expected[0]["tags"]
    for each in found:
        jsonschema.validate(each, SCHEMA)
    assert list(temporary.iterdir()) == []
