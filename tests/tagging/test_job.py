"""`captioner tag`, in process and as a process: output folders, resuming, errors, exit codes."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import jsonschema
import pytest
import srt
import webvtt
from filelock import FileLock
from PIL import Image

from captioner.cli import entry as cli
from captioner.errors import CaptionerError
from captioner.files.store import Store
from captioner.model.caption_model import CaptionModel
from captioner.tagging.job import TagJob, run_tag_job
from captioner.tagging.ledger import STATE, TAGS
from captioner.video.frames import READING
from helpers.batches import about_of, lines, tree
from helpers.videos import (
    cut_off,
    numbered,
    numbered_video,
    photo,
    real_clip,
    write_header_only,
    write_sound,
    write_video,
)

FORMATS = ["json", "srt", "vtt", "csv", "txt", "html"]
SCHEMA = Path(__file__).parents[2] / "docs" / "video-tags.schema.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small library: four good videos, three bad ones, names of all kinds."""
    library = tmp_path_factory.mktemp("library") / "Vidéos für alle"
    (library / "trips" / "2024").mkdir(parents=True)
    slides = [photo(name) for name in ("stairs", "coffee") for _ in range(8)]
    stamps = [100 * index for index in range(16)]
    write_video(library / "a.mp4", slides, stamps, rate=10)
    shutil.copy(library / "a.mp4", library / "trips" / "a.mp4")
    numbered_video(library / "trips" / "2024" / "über straße.mkv", 12)
    numbered_video(library / "a.avi", 12, codec="mpeg4")
    (library / "text.mp4").write_text("no video\n" * 100)
    (library / "trips" / "empty.mov").touch()
    write_sound(library / "trips" / "song.mp4")
    (library / "notes.txt").write_text("not looked at")
    return library


@pytest.fixture
def options(tagging_model: CaptionModel) -> list[str]:
    return ["--model", str(tagging_model.path), "--device", "cpu", "--batch-size", "4"]


def test_long_names_cost_nothing_but_themselves(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    longest, too_long = "y" * 246 + ".mp4", "y" * 251 + ".mp4"
    library, output = tmp_path / "library", tmp_path / "out"
    library.mkdir()
    for name in ("aa.mp4", longest, too_long, "zz.mp4"):
        numbered_video(library / "x.mp4", 12)
        os.rename(library / "x.mp4", library / name)
    for again in range(2):
        code = cli.main(["tag", str(library), "--output-dir", str(output), *options])
        reason = "y" * 251 + ".json cannot be written: file name too long"
        done = "0 tagged, 3 finished before, 1 failed" if again else "3 tagged, 1 failed"
        assert capsys.readouterr().err.splitlines() == [
            f"captioner: {library / too_long}: {reason}",
            f"captioner: {done}",
        ]
        assert code == 1
    assert {path.name for path in output.glob("[!.]*.json")} == {
        "aa.json",
        "y" * 246 + ".json",
        "zz.json",
    }
    found = {line["file_name"]: line for line in lines(output)}
    assert list(found) == ["aa.mp4", longest, too_long, "zz.mp4"]
    assert found[too_long]["status"] == "failed"
    assert found[too_long]["error"] == {"code": "name_too_long", "message": reason}
    assert list(output.glob(".*.part")) == []


# --- what is written -----------------------------------------------------------------------


def test_a_folder_becomes_a_folder(
    folder: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out put"
    assert cli.main(["tag", str(folder), "--output-dir", str(output), *options]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    errors = printed.err.splitlines()
    assert sorted(errors[:-1]) == [
        f"captioner: {folder}/text.mp4: not a video that can be read",
        f"captioner: {folder}/trips/empty.mov: empty file",
        f"captioner: {folder}/trips/song.mp4: it holds only sound",
    ]
    assert errors[-1] == "captioner: 4 tagged, 3 failed"
    # Of the two named a, the first by name is called by its stem.
    stems = ["a", "a.mp4", "trips/2024/über straße", "trips/a"]
    expected = {f"{stem}.{format}" for stem in stems for format in FORMATS}
    posters = {name for name in tree(output) if re.fullmatch(r"index_files/[0-9a-f]+\.thumb", name)}
    assert len(posters) == 4
    about = {".tags.captioner", "tags.jsonl", "index.html"}
    assert set(tree(output)) == expected | posters | about
    found = [(line["file_name"], line["status"]) for line in lines(output)]
    assert found == [
        ("a.avi", "ok"),
        ("a.mp4", "ok"),
        ("text.mp4", "failed"),
        ("trips/2024/über straße.mkv", "ok"),
        ("trips/a.mp4", "ok"),
        ("trips/empty.mov", "failed"),
        ("trips/song.mp4", "failed"),
    ]
    assert lines(output)[2]["error"] == {
        "code": "not_a_video",
        "message": "not a video that can be read",
    }


def test_every_format_is_what_strict_readers_take(
    folder: Path, tmp_path: Path, options: list[str]
) -> None:
    output = tmp_path / "out"
    # Short captions: one cue holds each of them.
    arguments = ["--min-confidence", "0", "--min-coverage", "0", "--max-length", "10", *options]
    assert cli.main(["tag", f"{folder}/trips/a.mp4", "--output-dir", str(output), *arguments]) == 0
    record = json.loads((output / "a.json").read_text("utf-8"))
    jsonschema.validate(record, json.loads(SCHEMA.read_text("utf-8")))
    assert record["video"]["duration_s"] == 1.6
    assert record["shots"] == [{"start": 0.0, "end": 0.8}, {"start": 0.8, "end": 1.6}]
    texts = [segment["text"] for segment in record["segments"]]
    subtitles = list(srt.parse((output / "a.srt").read_text("utf-8"), ignore_errors=False))
    assert [cue.content.replace("\n", " ") for cue in subtitles] == texts
    assert [cue.start.total_seconds() for cue in subtitles] == [0.0, 0.8]
    assert [cue.end.total_seconds() for cue in subtitles] == [0.8, 1.6]
    cues = webvtt.read(str(output / "a.vtt"))
    assert [cue.text.replace("\n", " ") for cue in cues] == texts
    assert [(cue.start, cue.end) for cue in cues] == [
        ("00:00:00.000", "00:00:00.800"),
        ("00:00:00.800", "00:00:01.600"),
    ]
    with (output / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    named = {(tag["name"], tag["type"]) for tag in record["tags"]}
    assert {(row["tag"], row["type"]) for row in rows} == named != set()
    assert record["model"]["tag_confidence"] == "raw"
    assert record["model"].pop("calibrated") is False
    assert lines(output)[0]["calibrated"] is False
    about = about_of(output)
    assert (record["model"], record["settings"]) == (about["model"], about["settings"])
    for text in texts:
        assert text in (output / "a.txt").read_text("utf-8")


def test_only_the_formats_asked_for(folder: Path, tmp_path: Path, options: list[str]) -> None:
    arguments = ["tag", f"{folder}/a.avi", "--output-dir", str(tmp_path / "out"), *options]
    assert cli.main([*arguments, "--format", "json, vtt"]) == 0
    assert set(tree(tmp_path / "out")) == {"a.json", "a.vtt", ".tags.captioner", "tags.jsonl"}
    # Another format of a finished video: it is done again, and the others stay what they are.
    before = tree(tmp_path / "out")
    assert cli.main([*arguments, "--format", "srt,json"]) == 0
    after = tree(tmp_path / "out")
    assert set(after) == {*before, "a.srt"}
    assert {name: after[name] for name in before} == before


# --- again ---------------------------------------------------------------------------------


def test_a_finished_video_is_not_done_twice(
    folder: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    library, output = tmp_path / "library", tmp_path / "out"
    shutil.copytree(folder, library)
    arguments = ["tag", str(library), "--output-dir", str(output), *options]
    assert cli.main(arguments) == 1
    before = tree(output)
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*.json")}
    capsys.readouterr()
    assert cli.main([*arguments, "--resume"]) == 1
    # The broken ones are tried again, and fail again.
    assert capsys.readouterr().err.endswith("0 tagged, 4 finished before, 3 failed\n")
    assert tree(output) == before
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.json")} == times

    # One is repaired, one changed, one removed, and one is new.
    shutil.copy(folder / "a.mp4", library / "text.mp4")
    numbered_video(library / "a.avi", 30, codec="mpeg4")
    (library / "trips" / "a.mp4").unlink()
    shutil.copy(folder / "a.mp4", library / "new.mp4")
    (output / "a.mp4.srt").unlink()
    assert cli.main(arguments) == 1
    assert capsys.readouterr().err.endswith("4 tagged, 1 finished before, 2 failed\n")
    assert [line["file_name"] for line in lines(output)] == [
        "trips/a.mp4",  # not there any more: what was found out about it is kept
        "a.avi",
        "a.mp4",
        "new.mp4",
        "text.mp4",
        "trips/2024/über straße.mkv",
        "trips/empty.mov",
        "trips/song.mp4",
    ]
    after = tree(output)
    assert json.loads(after["a.json"])["video"]["frame_count"] == 30
    assert after["a.mp4.srt"] == before["a.mp4.srt"]
    assert json.loads(after["text.json"])["status"] == "ok"


def test_other_options_do_not_mix_into_a_folder(
    folder: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    arguments = ["tag", f"{folder}/a.avi", "--output-dir", str(output), *options]
    assert cli.main(arguments) == 0
    before = tree(output)
    capsys.readouterr()
    assert cli.main([*arguments, "--fps", "5"]) == 2
    assert capsys.readouterr().err == (
        f"captioner: error: {output} was filled with another model or other options "
        "(--fps: 1.0 there, 5.0 now); use those, choose another --output-dir, or "
        "start over with --overwrite\n"
    )
    assert tree(output) == before
    assert cli.main([*arguments, "--fps", "5", "--overwrite"]) == 0
    assert len(json.loads((output / "a.json").read_text("utf-8"))["frames"]) == 3
    # What changes no result may change.
    assert cli.main([*arguments, "--fps", "5", "--time-limit-s", "9"]) == 0
    assert "1 finished before" in capsys.readouterr().err


def test_a_part_of_each_video(
    folder: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    # a.mp4 is 1.6 s long, a.avi 0.48 s.
    arguments = ["tag", f"{folder}/a.*", "--output-dir", str(output), *options]
    part = ["--start", "0:00.55", "--end", "00:00:01.25"]
    assert cli.main([*arguments, *part, "--fps", "5"]) == 1
    reason = "it ends at 0.48 s, before the start, 0.55 s"
    assert capsys.readouterr().err.splitlines() == [
        f"captioner: {folder}/a.avi: {reason}",
        "captioner: 1 tagged, 1 failed",
    ]
    short, long = lines(output)
    assert short["error"] == {"code": "out_of_range", "message": reason}
    assert (long["status"], long["duration_s"]) == ("ok", 1.25)
    found = json.loads((output / "a.mp4.json").read_text("utf-8"))
    # The cut is too close to the start to begin a shot.
    assert found["shots"] == [{"start": 0.55, "end": 1.25}]
    assert (found["segments"][0]["start"], found["segments"][-1]["end"]) == (0.55, 1.25)
    assert [frame["time"] for frame in found["frames"]] == [0.55, 0.8, 1.0, 1.2]
    assert found["settings"]["sampling"]["start_s"] == 0.55
    assert found["settings"]["sampling"]["end_s"] == 1.25
    assert cli.main([*arguments, *part[:2], "--fps", "5"]) == 2
    assert "--end: 1.25 there, None now" in capsys.readouterr().err


def test_files_of_other_origin_are_not_replaced(
    folder: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "a.srt").write_text("somebody's subtitles")
    arguments = ["tag", f"{folder}/a.avi", "--output-dir", str(output), *options]
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err == (
        f"captioner: error: {output}/a.srt exists, and no run of `captioner tag` has made it; "
        "choose another --output-dir, or replace it with --overwrite\n"
    )
    assert tree(output) == {"a.srt": b"somebody's subtitles"}
    assert cli.main([*arguments, "--overwrite"]) == 0


def test_a_video_of_the_same_name_elsewhere_is_not_mistaken(
    folder: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert cli.main(["tag", f"{folder}/a.avi", "--output-dir", str(output), *options]) == 0
    other = tmp_path / "other" / "a.avi"
    other.parent.mkdir()
    numbered_video(other, 30, codec="mpeg4")
    before = tree(output)
    capsys.readouterr()
    assert cli.main(["tag", str(other), "--output-dir", str(output), *options]) == 2
    assert f"holds the tags of another a.avi ({folder}/a.avi)" in capsys.readouterr().err
    assert tree(output) == before
    # A library that was moved is the same library.
    moved = tmp_path / "moved" / "a.avi"
    moved.parent.mkdir()
    shutil.copy2(folder / "a.avi", moved)
    assert cli.main(["tag", str(moved), "--output-dir", str(output), *options]) == 0
    assert "1 finished before" in capsys.readouterr().err


def test_the_second_of_two_processes_is_refused(
    folder: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    with FileLock(output / ".captioner.lock"):
        arguments = ["tag", f"{folder}/a.avi", "--output-dir", str(output), *options]
        assert cli.main(arguments) == 2
    assert "is in use by another `captioner tag`" in capsys.readouterr().err
    assert tree(output) == {}


def test_an_output_that_cannot_be_written(
    folder: Path,
    tmp_path: Path,
    options: list[str],
    shared_folder: Path,
    without_privileges: Callable[[], AbstractContextManager[None]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("in the way")
    arguments = ["tag", f"{folder}/a.avi", "--output-dir"]
    assert cli.main([*arguments, str(tmp_path / "file" / "out"), *options]) == 2
    assert f"{tmp_path}/file is not a folder" in capsys.readouterr().err
    closed = shared_folder / "closed"
    closed.mkdir(mode=0o555)
    model = CaptionModel.load(options[1])
    assert len(model.sha256) == 64  # while its file can be read
    with without_privileges(), pytest.raises(CaptionerError, match="closed cannot be written"):
        list(run_tag_job(TagJob(closed), model, []))


# --- killed --------------------------------------------------------------------------------


def make_batch(folder: Path) -> None:
    """Thirty files of which six are broken, each in another way."""
    folder.mkdir()
    for number in range(24):
        numbered_video(folder / f"clip {number:02d}.mp4", 8 + number % 5)
    cut_off(numbered_video(folder / "clip 02 cut off.mp4"), 0.5)  # its index was at the end
    (folder / "clip 05 text.mp4").write_text("no video\n" * 50)
    (folder / "clip 09 empty.mp4").touch()
    write_sound(folder / "clip 13 sound.mp4")
    write_header_only(folder / "clip 17 header.mp4")
    (folder / "clip 21 noise.mp4").write_bytes(random.Random(0).randbytes(5000))


@pytest.mark.arithmetic
def test_killed_at_random_moments_a_batch_ends_as_an_undisturbed_one(
    tmp_path: Path, options: list[str]
) -> None:
    make_batch(tmp_path / "in")
    command = [sys.executable, "-m", "captioner", "tag", str(tmp_path / "in"), *options]
    calm = [*command, "--output-dir", str(tmp_path / "calm")]
    run = subprocess.run(calm, capture_output=True, text=True)
    assert (run.returncode, run.stderr.splitlines()[-1]) == (1, "captioner: 24 tagged, 6 failed")
    assert len(run.stderr.splitlines()) == 7
    failed = [line for line in lines(tmp_path / "calm") if line["status"] == "failed"]
    assert [line["error"]["code"] for line in failed] == [
        "not_a_video",
        "not_a_video",
        "empty_file",
        "no_video_stream",
        "no_video_stream",
        "not_a_video",
    ]
    ledger = tmp_path / "killed" / "tags.jsonl"
    dice = random.Random(1)
    killed = 0
    for wanted in (2, 9, 17):
        process = subprocess.Popen(
            [*command, "--output-dir", str(tmp_path / "killed")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None:
            if ledger.exists() and ledger.read_bytes().count(b"\n") >= wanted:
                time.sleep(dice.uniform(0, 0.05))
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 2, "it was over before it could be killed"
    run = subprocess.run([*command, "--output-dir", str(tmp_path / "killed")])
    assert run.returncode == 1
    assert tree(tmp_path / "killed") == tree(tmp_path / "calm")


def test_ctrl_c_leaves_what_is_finished(tmp_path: Path, options: list[str]) -> None:
    make_batch(tmp_path / "in")
    output = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "captioner", "tag", str(tmp_path / "in")]
        + ["--output-dir", str(output), *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    ledger = output / "tags.jsonl"
    while process.poll() is None and not (ledger.exists() and ledger.read_bytes().count(b"\n") > 3):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-2:] == [
        "captioner: run the same command to resume: finished videos are kept, the others are done "
        "from their start",
        "captioner: interrupted",
    ]
    assert "Traceback" not in errors
    done = lines(output)
    assert 4 <= len(done) < 30
    for line in done:
        if line["status"] == "ok":
            stem = Path(line["file_name"]).stem
            assert json.loads((output / f"{stem}.json").read_text())["status"] == "ok"
    assert [path for path in output.rglob("*.part")] == []


# --- arguments -----------------------------------------------------------------------------


def test_a_real_film_from_the_command_line(tmp_path: Path) -> None:
    """With the shipped model: what the README shows is what a user gets."""
    run = subprocess.run(
        [sys.executable, "-m", "captioner", "tag", str(real_clip("carphone_pristine"))]
        + ["--output-dir", str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stderr) == (0, "captioner: 1 tagged, 0 failed\n")
    record = json.loads((tmp_path / "out" / "carphone_pristine.json").read_text("utf-8"))
    assert record["model"]["tag_confidence"] == "calibrated"
    # A man in a jacket and a tie, in a car.
    tags = {tag["name"]: tag for tag in record["tags"]}
    assert {"man", "car"} <= set(tags)
    assert tags["man"]["segments"][-1]["end"] == 4.004


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--end", "0"], "--end 0: give a time after --start 0, in seconds"),
        (["--start", "1:30", "--end", "80"], "--end 80: give a time after --start 90, in seconds"),
    ],
)
def test_wrong_options_are_named_before_any_work(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.mp4").touch()
    output = tmp_path / "out"
    command = ["tag", str(tmp_path), "--output-dir", str(output), "--model", "nowhere"]
    assert cli.main([*command, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


BAD_TIMES = ("", "soon", "1:60", "1:60:00", "1:2:3:4", "nan", "inf", "1e3", "1:.5.5", "1:-5")


def test_wrong_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--format", "json,doc"], "'doc': choose from json, srt, vtt, csv, txt, html"),
        (["--format", ""], "'': choose from json, srt, vtt, csv, txt, html"),
        (["--resume", "--overwrite"], "not allowed with argument"),
        (["--reader", "vlc"], "invalid choice: 'vlc'"),
        (["--fps", "0"], "--fps: '0': give a number above 0 and at most 1000"),
        (["--every-n-frames", "0"], "--every-n-frames: '0': give a whole number of at least 1"),
        (["--max-frames", "-1"], "--max-frames: '-1': give a whole number of at least 1"),
        (["--min-coverage", "2"], "--min-coverage: '2': give a number from 0 to 1"),
        (["--max-tags", "-1"], "--max-tags: '-1': give a whole number of at least 0"),
        (["--beam-size", "0"], "--beam-size: '0': give a whole number"),
        *((["--start", text], f"--start: {text!r}: give seconds, mm:ss or") for text in BAD_TIMES),
    ):
        with pytest.raises(SystemExit) as end:
            cli.main(["tag", str(tmp_path), "--output-dir", str(tmp_path / "out"), *arguments])
        assert end.value.code == 2
        assert message in capsys.readouterr().err
    assert cli.main(["tag", str(tmp_path), "--output-dir", str(tmp_path / "out")]) == 2
    assert f"{tmp_path} holds no video files (.mp4 .m4v" in capsys.readouterr().err


def test_a_folder_whose_videos_were_read_in_another_way_is_refused(
    folder: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["tag", f"{folder}/a.avi", "--output-dir", str(out), *options, "--quiet"]
    assert cli.main(arguments) == 0
    about = about_of(out)
    assert about["settings"].pop("reading") == READING
    Store.create(out / STATE, TAGS, about).close()
    assert cli.main(arguments) == 2
    assert f"(settings.reading: None there, {READING} now)" in capsys.readouterr().err


def test_images_that_move_are_found_and_what_is_excluded_is_not(
    tmp_path: Path, options: list[str]
) -> None:
    (tmp_path / "in" / "drafts").mkdir(parents=True)
    first, second = (Image.fromarray(numbered(index)) for index in range(2))
    for name in ("a.gif", "drafts/b.gif"):
        first.save(tmp_path / "in" / name, save_all=True, append_images=[second], duration=500)
    first.save(tmp_path / "in" / "still.gif")
    out = tmp_path / "out"
    arguments = ["tag", str(tmp_path / "in"), "--output-dir", str(out), *options, "--quiet"]
    assert cli.main([*arguments, "--exclude", "drafts/"]) == 0
    assert [path.name for path in out.rglob("*.gif.json")] == ["a.gif.json"]


def test_a_beam_of_one(folder: Path, tmp_path: Path, options: list[str]) -> None:
    arguments = ["tag", f"{folder}/a.avi", "--output-dir", str(tmp_path / "out"), *options]
    assert cli.main([*arguments, "--beam-size", "1", "--quiet"]) == 0
    assert about_of(tmp_path / "out")["settings"]["decoding"]["beam_size"] == 1


def test_a_job_is_checked_when_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="formats='doc': choose from json, srt"):
        TagJob(tmp_path, formats=("json", "doc"))
    with pytest.raises(ValueError, match="formats='none': choose from"):
        TagJob(tmp_path, formats=())
    with pytest.raises(ValueError, match="batch_size=0"):
        TagJob(tmp_path, batch_size=0)
    assert os.listdir(tmp_path) == []
