"""Captioning shards by the real command line, interrupted or not."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from captioner.cli import entry as cli
from captioner.version import __version__
from helpers.jobs import ended, forked, tree
from helpers.shards import images, jpeg, make_parquet, make_shards, make_tar, records, report

pytestmark = pytest.mark.usefixtures("one_thread")


def write_inputs(folder: Path) -> None:
    """The same four images in all forms."""
    members = images(4)
    for name, data in members.items():
        (folder / "photos").mkdir(exist_ok=True)
        (folder / "photos" / name).write_bytes(data)
    make_tar(folder / "t/a.tar", members)
    make_tar(folder / "t/b.tar.gz", members, "w:gz")
    make_parquet(folder / "t/c.parquet", members)
    with (folder / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "path"), *((1, f"photos/{name}") for name in members)])
    lines = [json.dumps({"url": f"file://{folder}/photos/{name}"}) for name in members]
    (folder / "list.jsonl").write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("paths", "shard"),
    [
        (["t/a.tar"], "a"),
        (["t/b.tar.gz"], "b"),
        (["t/c.parquet"], "c"),
        (["t/[a]*.tar"], "a"),
        (["list.csv", "--column", "PATH"], "000000-"),
        (["list.jsonl"], "000000-"),
        (["photos", "--format", "jsonl"], "000000-"),
    ],
)
def test_every_input_has_the_captions_of_the_folder(caption, tmp_path, paths, shard) -> None:
    write_inputs(tmp_path)
    assert caption("photos", "--output", "plain.jsonl")[0] == 0
    code, errors = caption(*paths, "--output", "out/")
    assert code == 0
    assert "1 shard captioned, 0 failed; images: 4 captioned, 0 failed" in errors
    [file] = Path("out").glob("*.jsonl")
    assert file.name.startswith(shard)
    found = [{**each, "file_name": Path(each["file_name"]).name} for each in records(file)]
    assert found == records(Path("plain.jsonl"))


def test_a_list_of_shards_is_captioned_shard_by_shard(caption, tmp_path) -> None:
    make_shards(tmp_path / "t", 3, 2)
    Path("shards.csv").write_text("path\n" + "".join(f"t/{n:05d}.tar\n" for n in range(3)))
    assert caption("shards.csv", "--output", "out/")[0] == 0
    found = [
        each["file_name"] for file in sorted(Path("out").glob("*.jsonl")) for each in records(file)
    ]
    assert found == list(images(6))


def test_images_are_grouped_into_shards_of_the_size_that_is_given(caption, tmp_path) -> None:
    write_inputs(tmp_path)
    assert caption("photos", "--output", "out/", "--format", "jsonl", "--shard-size", "3")[0] == 0
    files = sorted(Path("out").glob("*.jsonl"))
    assert [len(records(file)) for file in files] == [3, 1]
    assert [file.name[:7] for file in files] == ["000000-", "000001-"]


def test_names_of_outputs_are_paths_below_the_common_folder(caption, tmp_path) -> None:
    for name in ("x/0.tar", "y/0.tar"):
        make_tar(tmp_path / "in" / name, images(1))
    assert caption("in/{x,y}/0.tar", "--output", "out/")[0] == 0
    assert sorted(Path("out").rglob("*.jsonl")) == [Path("out/x/0.jsonl"), Path("out/y/0.jsonl")]


def test_formats_hold_the_same_records(caption, tmp_path) -> None:
    from pyarrow import parquet

    pattern = make_shards(tmp_path / "t", 2, 3)
    options = ("--candidates", "--num-captions", "2")
    for format in ("jsonl", "parquet", "tar"):
        assert caption(pattern, "--output", f"{format}/", "--format", format, *options)[0] == 0
    expected = records(Path("jsonl/00001.jsonl"))
    rows = parquet.read_table("parquet/00001.parquet").to_pylist()
    for row in rows:
        for candidate in row["candidates"]:
            candidate["words"] = [[each["word"], each["prob"]] for each in candidate["words"]]
    assert rows == expected
    with tarfile.open("tar/00001.tar") as archive:
        held = {member.name: archive.extractfile(member).read() for member in archive}
    assert list(held)[:3] == ["00003.jpg", "00003.txt", "00003.json"]
    for record in expected:
        stem = Path(record["file_name"]).stem
        assert held[f"{stem}.jpg"] == jpeg(int(stem))
        assert held[f"{stem}.txt"].decode() == record["text"]
        assert json.loads(held[f"{stem}.json"]) == record


def test_a_bad_image_is_a_record_with_its_error(caption, tmp_path) -> None:
    members = {**images(2), "bad.jpg": b"nothing", "z.png": b""}
    make_tar(tmp_path / "t/0.tar", members)
    code, errors = caption("t/0.tar", "--output", "out/")
    assert (code, "2 captioned, 2 failed" in errors) == (1, True)
    assert [(each["file_name"], each["error"]) for each in records(Path("out/0.jsonl"))] == [
        ("00000.jpg", None),
        ("00001.jpg", None),
        ("bad.jpg", "not an image Pillow can read"),
        ("z.png", "empty file"),
    ]
    assert report(Path("out"))["images"] == {"ok": 2, "failed": 2}
    # As archives for training have no place for it.
    assert caption("t/0.tar", "--output", "tars/", "--format", "tar")[0] == 1
    with tarfile.open("tars/0.tar") as archive:
        assert [name for name in archive.getnames() if name.endswith(".txt")] == [
            "00000.txt",
            "00001.txt",
        ]


def test_a_broken_shard_is_given_up_after_three_tries_and_the_rest_is_done(
    caption, tmp_path
) -> None:
    pattern = make_shards(tmp_path / "t", 3, 2)
    whole = Path("t/00001.tar").read_bytes()
    Path("t/00001.tar").write_bytes(whole[:1500])
    code, errors = caption(pattern, "--output", "out/")
    assert code == 1
    assert "2 shards captioned, 1 failed; images: 4 captioned, 0 failed" in errors
    assert sorted(Path("out").glob("*.jsonl")) == [Path("out/00000.jsonl"), Path("out/00002.jsonl")]
    [failed] = report(Path("out"))["failed"]
    assert (failed["shard"], failed["tries"]) == ("00001", 3)
    assert "cannot be read as a tar archive" in failed["error"]
    assert f"captioner: shard 00001: {failed['error']}" in errors

    Path("t/00001.tar").write_bytes(whole)
    code, errors = caption(pattern, "--output", "out/")
    assert (code, "1 shard captioned, 2 finished before, 0 failed" in errors) == (0, True)
    found = report(Path("out"))
    assert found["shards"] == {"total": 3, "finished": 3, "failed": 0}
    assert found["images"] == {"ok": 6}
    assert found["images_counted_in_shards"] == 3


def test_finished_shards_are_not_opened(caption, tmp_path) -> None:
    pattern = make_shards(tmp_path / "t", 2, 2)
    assert caption(pattern, "--output", "out/")[0] == 0
    before = {path: path.stat().st_mtime_ns for path in Path("out").glob("*.jsonl")}
    for path in Path("t").glob("*.tar"):
        path.write_bytes(b"nothing")
    code, errors = caption(pattern, "--output", "out/")
    assert (code, "0 shards captioned, 2 finished before" in errors) == (0, True)
    assert {path: path.stat().st_mtime_ns for path in Path("out").glob("*.jsonl")} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--caption-prefix", "sks"], "--caption-prefix: None there, sks now"),
        (["--beam-size", "2"], "--beam-size: 3 there, 2 now"),
        (["--model", "other.safetensors"], "model.sha256"),
        (["--format", "parquet"], "settings.format: jsonl there, parquet now"),
    ],
)
def test_another_model_and_other_options_are_refused(
    caption, tmp_path, model_file, arguments, message
) -> None:
    pattern = make_shards(tmp_path / "t", 1, 1)
    assert caption(pattern, "--output", "out/")[0] == 0
    Path("other.safetensors").write_bytes(model_file.read_bytes())
    if "other.safetensors" in arguments:
        from captioner.model.caption_model import CaptionModel

        model = CaptionModel.load(model_file, device="cpu")
        model.provenance["other"] = True
        model.save(Path("other.safetensors"))
    before = tree(Path("out"))
    code, errors = caption(pattern, "--output", "out/", *arguments)
    assert code == 2
    assert "was made with another model, other options or other inputs" in errors
    assert message in errors
    assert tree(Path("out")) == before


def test_a_list_that_has_changed_is_refused(caption, tmp_path) -> None:
    write_inputs(tmp_path)
    options = ("--output", "out/", "--format", "jsonl", "--shard-size", "3")
    assert caption("photos", *options)[0] == 0
    Path("photos/00000a.jpg").write_bytes(jpeg(9))
    code, errors = caption("photos", *options)
    assert code == 2
    assert "holds a finished shard 000000 of other images" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["t/0.tar"], "add --output captions/"),
        (["t/0.tar", "photos", "--output", "out/"], "inputs of several kinds (files, tar)"),
        (["t/{0..2}.tar", "--output", "out/", "--append"], "--append: is not for shards"),
        (["t/0.tar", "--output", "out/", "--format", "csv"], "--format csv: shards are written as"),
        (["t/{3..1}.tar", "--output", "out/"], "{3..1} is an empty range"),
        (["t/7.tar", "--output", "out/"], "t/7.tar does not exist"),
        (["t/7*.tar", "--output", "out/"], "t/7*.tar matches nothing"),
        (
            ["list.csv", "--output", "out/", "--column", "x"],
            "there is no column 'x' among id, path",
        ),
        (["empty.csv", "--output", "out/"], "empty.csv: there are no images in it"),
        (["nothing://x/0.tar", "--output", "out/"], "nothing://x/0.tar"),
        (["t/{0,0}.tar", "--output", "out/"], "two shards are called 0"),
    ],
)
def test_mistakes_are_named(caption, tmp_path, arguments, message) -> None:
    write_inputs(tmp_path)
    make_tar(tmp_path / "t/0.tar", images(1))
    (tmp_path / "empty.csv").write_text("path\n")
    code, errors = caption(*arguments)
    assert code == 2
    assert message in errors


def killed_at(moment: int, arguments: list[str]) -> int:
    """Run the command, killed before (even: after) a shard is published; its end."""
    rename, moments = os.replace, 0

    def deadly_rename(here, there):
        nonlocal moments
        moments += 1
        if moments == moment // 2 and moment % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(here, there)
        if moments == moment // 2:
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> int:
        os.replace = deadly_rename
        return cli.main(arguments)

    return ended(forked(work))


def shards_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.jsonl"))}


def test_killed_at_each_write_and_run_again_the_bytes_are_those_of_one_run(
    caption, tmp_path, model_file
) -> None:
    pattern = make_shards(tmp_path / "t", 3, 3)
    assert caption(pattern, "--output", "whole/")[0] == 0
    arguments = ["caption", pattern, "--output", "out/", "--model", str(model_file)]
    arguments += ["--device", "cpu", "--workers", "0", "--batch-size", "4"]
    code, moment = -signal.SIGKILL, 1
    while code == -signal.SIGKILL:
        moment += 1
        shutil.rmtree("out", ignore_errors=True)
        code = killed_at(moment, arguments)
        for name, data in shards_in(Path("out")).items():
            assert data == Path("whole", name).read_bytes()  # absent or complete
        if code == -signal.SIGKILL:
            assert cli.main(arguments) == 0
        assert shards_in(Path("out")) == shards_in(Path("whole"))
        assert list(Path("out/.captioner/parts").glob("*")) == []
    assert code == 0
    assert moment > 8


def test_ctrl_c_leaves_whole_shards_and_says_how_to_resume(caption, tmp_path, model_file) -> None:
    pattern = make_shards(tmp_path / "t", 60, 4)
    command = [sys.executable, "-m", "captioner", "caption", pattern, "--output", "out/"]
    command += ["--model", str(model_file), "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list(Path("out").glob("*.jsonl")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "finished shards are saved: run the same command again to resume" in errors
    found = shards_in(Path("out"))
    assert 0 < len(found) < 60
    assert {data.count(b"\n") for data in found.values()} == {4}
    assert list(Path("out/.captioner/parts").glob("*")) == []
    assert report(Path("out"))["shards"]["finished"] == len(found)


def test_settings_say_how_the_shards_were_made(caption, tmp_path, model_file) -> None:
    pattern = make_shards(tmp_path / "t", 1, 1)
    assert caption(pattern, "--output", "out/", "--caption-prefix", "sks")[0] == 0
    settings = json.loads(Path("out/.captioner/settings.json").read_text("utf-8"))
    assert settings["schema"] == "captioner-shards-1"
    assert settings["settings"]["caption_prefix"] == "sks"
    assert settings["settings"]["captioner"] == __version__
    assert settings["input"] == {"kind": "tar", "base": str(tmp_path / "t")}
    assert records(Path("out/00000.jsonl"))[0]["text"].startswith("sks ")
