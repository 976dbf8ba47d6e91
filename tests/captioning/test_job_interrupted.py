"""`captioner caption` into a file: killed, torn, full, in use; the next run resumes.

What is killed is most often the real command in a forked process, which has torch already; one test
kills a process that was started from a shell.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from filelock import FileLock

import captioner
from captioner.captioning import run as caption_run
from captioner.captioning.job import CaptionJob
from captioner.captioning.run import open_caption_job
from captioner.cli import entry as cli
from captioner.errors import CaptionerError
from captioner.files.journal import CAPTIONS, Journal
from captioner.files.store import Store
from captioner.model.caption_model import CaptionModel
from helpers.images import draw, noise
from helpers.jobs import (
    NAMES,
    OUTPUTS,
    die_at,
    ended,
    forked,
    hidden,
    into,
    known_in,
    names_in,
    tree,
)

pytestmark = pytest.mark.usefixtures("one_thread")

# --- killed --------------------------------------------------------------------------------


@pytest.mark.arithmetic
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("output", OUTPUTS)
def test_killed_at_every_single_write_a_run_ends_as_an_undisturbed_one(
    photos: Path, run, command: list[str], output: str, half: bool
) -> None:
    """Each run dies one write later than the one before, and the last one dies of nothing."""
    there, options = Path("killed") / output, [str(photos), "--quiet"]
    assert run(*options, *into(f"calm/{output}"))[0] == 1
    calm = tree(Path("calm") / output)
    arguments = [*command, *options, *into(str(there))]

    def work() -> int:
        die_at(moment, half)
        return cli.main(arguments)

    moment = 0
    while True:
        moment += 1
        code = ended(forked(work))
        if code != -signal.SIGKILL:
            break
        if there.exists() and there.is_file():
            assert_valid(there)
        # A resumed run has fewer writes left, so the next moment might never come: start over.
        assert run(*options, *into(str(there)))[0] == 1
        assert tree(there) == calm
        shutil.rmtree("killed")
    assert code == 1
    assert tree(there) == calm
    # The journal, four batches of two and what is at the end; of the outputs, as much again.
    assert moment > 6
    assert hidden(Path("killed")) == [caption_output_state(output)]


@pytest.mark.arithmetic
@pytest.mark.parametrize("output", OUTPUTS)
def test_killed_while_some_images_are_done_again_a_run_ends_as_an_undisturbed_one(
    photos: Path, run, command: list[str], output: str
) -> None:
    """One image was repaired, one has changed, one is damaged now, and one is new."""
    there, options = Path("killed") / output, [str(photos), "--quiet"]
    assert run(*options, *into(f"before/{output}"))[0] == 1
    noise(51).save(photos / "b.jpg")
    noise(52).save(photos / "d.png")
    (photos / "z.png").write_bytes(b"damaged")
    noise(53).save(photos / "c new.png")
    assert run(*options, *into(f"calm/{output}"))[0] == 1
    calm = tree(Path("calm") / output)
    arguments = [*command, *options, *into(str(there))]

    def work() -> int:
        die_at(moment, half=moment % 2 == 0)
        return cli.main(arguments)

    code, moment = -signal.SIGKILL, 0
    while code == -signal.SIGKILL:
        moment += 1
        shutil.copytree("before", "killed")
        code = ended(forked(work))
        assert run(*options, *into(str(there)))[0] == 1
        assert tree(there) == calm
        shutil.rmtree("killed")
    assert code == 1
    assert moment > 5


def caption_output_state(output: str) -> str:
    states = {"texts": ".captions.captioner", "xmps": ".captions.xmp.captioner"}
    return states.get(output, f".{output}.captioner")


def assert_valid(output: Path) -> None:
    """What a killed run has left can be read, but for a line that was cut short."""
    text = output.read_text("utf-8")
    assert output.suffix != ".json" or json.loads(text)
    whole = text[: text.rfind("\n") + 1]
    if output.suffix == ".jsonl":
        assert [json.loads(line)["file_name"] for line in whole.splitlines()] == (
            NAMES[: whole.count("\n")]
        )


@pytest.mark.arithmetic
@pytest.mark.parametrize("output", OUTPUTS)
def test_killed_again_and_again_a_run_still_arrives(
    photos: Path, run, command: list[str], output: str
) -> None:
    draw(photos, [f"x{number:02}.png" for number in range(30)], first_seed=100)
    options = [str(photos), "--quiet"]
    assert run(*options, *into(f"calm/{output}"))[0] == 1
    arguments = [*command, *options, *into(f"killed/{output}")]
    dice = random.Random(OUTPUTS.index(output))

    def work(moment: int) -> int:
        die_at(moment, half=dice.random() < 0.5)
        return cli.main(arguments)

    codes = [ended(forked(lambda: work(dice.randint(3, 7)))) for _ in range(4)]
    assert codes == [-signal.SIGKILL] * 4
    assert run(*options, *into(f"killed/{output}"))[0] == 1
    assert tree(Path("killed") / output) == tree(Path("calm") / output)


@pytest.mark.arithmetic
def test_killed_at_20_random_moments_500_images_end_with_the_bytes_of_an_undisturbed_run(
    photos: Path, run, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(photos, [f"{number % 7}/ü {number:03}.png" for number in range(493)], first_seed=100)
    monkeypatch.setattr(caption_run, "SYNC_S", 0.0)  # every batch: there is more to be killed at
    options = [str(photos), "--quiet", "--batch-size", "8", "--workers", "2"]
    assert run(*options, "--output", "calm.jsonl")[0] == 1
    arguments = [*command, *options, "--output", "killed.jsonl"]
    state, output = Path(".killed.jsonl.captioner"), Path("killed.jsonl")
    dice = random.Random(2)
    finished = 0
    for _ in range(20):
        child = forked(lambda: cli.main(arguments))
        wanted = finished + dice.randint(0, 12)
        while finished < wanted and os.waitpid(child, os.WNOHANG) == (0, 0):
            finished = max(finished, known_in(state))
        time.sleep(dice.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        assert ended(child) == -signal.SIGKILL, "it was over before it could be killed"
        if output.exists():
            lines = output.read_bytes().split(b"\n")[:-1]
            names = {json.loads(line)["file_name"] for line in lines}
            assert len(names) == len(lines) <= known_in(state)
    assert 100 < finished < 500
    assert run(*options, "--output", "killed.jsonl")[0] == 1
    assert output.read_bytes() == Path("calm.jsonl").read_bytes()
    assert len(names_in(output)) == 500
    assert hidden(Path()) == [".calm.jsonl.captioner", ".killed.jsonl.captioner"]


@pytest.mark.slow
def test_a_process_that_was_killed_is_gone_on_with(tmp_path: Path, model_file: Path) -> None:
    draw(tmp_path / "photos", [f"ü {number:03}.png" for number in range(500)])
    command = [sys.executable, "-m", "captioner", "caption", str(tmp_path / "photos")]
    command += ["--model", str(model_file), "--device", "cpu", "--output", str(tmp_path / "x.csv")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(captioner.__file__).parents[1])
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    output = tmp_path / "x.csv"
    while not (output.exists() and output.stat().st_size > 100):
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    there = output.read_bytes()
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0
    done = int(again.stderr.split(" finished before")[0].split()[-1])
    assert 32 <= done < 500
    assert again.stderr == f"captioner: {500 - done} captioned, {done} finished before, 0 failed\n"
    assert output.read_bytes().startswith(there)
    assert names_in(output) == [f"ü {number:03}.png" for number in range(500)]


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(
    photos: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(str(photos), "--output", "calm.jsonl")[0] == 1
    read, asked = CaptionModel.read, []

    def interrupted(self, path, data=None):
        asked.append(path)
        if len(asked) == 6:
            raise KeyboardInterrupt
        return read(self, path, data)

    monkeypatch.setattr(CaptionModel, "read", interrupted)
    code, errors = run(str(photos), "--output", "out.jsonl", "--quiet")
    assert code == 130
    assert errors.splitlines()[-2:] == [
        "captioner: finished work is saved: run the same command again to resume",
        "captioner: interrupted",
    ]
    # One batch of two; the CNN was at the second one.
    assert names_in(Path("out.jsonl")) == NAMES[:2]
    assert hidden(Path()) == [".calm.jsonl.captioner", ".out.jsonl.captioner"]
    code, errors = run(str(photos), "--output", "out.jsonl", "--overwrite", "--quiet")
    asked.clear()
    code, errors = run(str(photos), "--output", "out.jsonl", "--overwrite", "--quiet")
    assert code == 130
    assert "run the same command again, without --overwrite to resume" in errors
    monkeypatch.setattr(CaptionModel, "read", read)
    code, errors = run(str(photos), "--output", "out.jsonl")
    assert errors.endswith("captioner: 5 captioned, 1 finished before, 1 failed\n")
    assert tree(Path("out.jsonl")) == tree(Path("calm.jsonl"))


# --- torn and damaged ----------------------------------------------------------------------


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.tsv"])
def test_a_torn_end_is_repaired(photos: Path, run, output: str) -> None:
    assert run(str(photos), "--output", output)[0] == 1
    path, state = Path(output), Path(f".{output}.captioner")
    whole, known = path.read_bytes(), state.read_bytes()
    for torn in (whole[:-5], whole[:-5] + bytes(300), whole + bytes(4096), whole[:3], b""):
        path.write_bytes(torn)
        assert "6 finished before" in run(str(photos), "--output", output)[1]
        assert path.read_bytes() == whole
    # Its journal too: without the mark that all is complete, and without the last image.
    for count in (7, 6):
        state.write_bytes(known)
        with Store(state, CAPTIONS) as store:
            store.arrange(range(1, count + 1))
        path.write_bytes(whole[:-1])
        assert run(str(photos), "--output", output)[0] == 1
        assert path.read_bytes() == whole
        with Journal(state) as journal:
            assert journal.is_complete
    # Half a line of another kind, at the end of an interrupted run.
    with Store(state, CAPTIONS) as store:
        store.mark(complete=None)
    path.write_bytes(whole + b"half a li")
    assert run(str(photos), "--output", output)[0] == 1
    assert path.read_bytes() == whole


def test_a_damaged_journal_is_named(photos: Path, run) -> None:
    assert run(str(photos), "--output", "out.jsonl")[0] == 1
    state = Path(".out.jsonl.captioner")
    whole, before = state.read_bytes(), tree(Path("out.jsonl"))
    with Store(state, CAPTIONS) as store:
        store.add([("a.png", {"record": 1})])
    for damaged in (state.read_bytes(), b"", whole[:-5000], b"not what SQLite writes\n"):
        state.write_bytes(damaged)
        code, errors = run(str(photos), "--output", "out.jsonl")
        assert code == 2
        assert f"{state.absolute()} is damaged; start over with --overwrite" in errors
        assert tree(Path("out.jsonl")) == before
    # Nobody knows any more what captioner has written.
    code, errors = run(str(photos), "--output", "out.jsonl", "--overwrite")
    assert (code, "--overwrite would replace 1 file (out.jsonl)" in errors) == (2, True)
    assert run(str(photos), "--output", "out.jsonl", "--overwrite", "--yes")[0] == 1
    assert tree(Path("out.jsonl")) == before


# --- disks, folders, processes -------------------------------------------------------------


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_full_disk_is_named_and_the_run_can_go_on(
    photos: Path, run, command: list[str], output: str
) -> None:
    draw(photos, [f"x{number:02}.png" for number in range(20)], first_seed=100)
    assert run(str(photos), "--quiet", *into("calm/" + output))[0] == 1
    known = max(path.stat().st_size for path in Path("calm").rglob(".*.captioner"))
    arguments = [*command, str(photos), "--quiet", *into(output)]

    def work() -> int:
        sys.stderr = open("errors", "w", buffering=1)  # noqa: SIM115
        caption_run.SYNC_S = 0.0
        # No file can become longer; Python lets the signal pass and gets an error.
        resource.setrlimit(resource.RLIMIT_FSIZE, (known * 2 // 3, known * 2 // 3))
        return cli.main(arguments)

    assert ended(forked(work)) == 2
    told = Path("errors").read_text()
    assert "cannot be written: file too large; finished work is saved: run the same" in told
    assert "Traceback" not in told
    code, told = run(str(photos), *into(output))
    done = int(told.split(" finished before")[0].split()[-1])
    assert 5 < done < 26
    assert tree(Path(output)) == tree(Path("calm") / output)


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(
    photos: Path,
    command: list[str],
    model_file: Path,
    shared_folder: Path,
    without_privileges: Callable[[], AbstractContextManager[None]],
) -> None:
    model = CaptionModel.load(model_file, device="cpu")
    assert len(model.sha256) == 64  # while its file can be read
    draw(shared_folder, ["a.png"])
    shared_folder.chmod(0o555)
    for output, format in ((shared_folder / "x.csv", "csv"), (None, "txt")):
        job = CaptionJob((str(shared_folder),), output, format)
        run = open_caption_job(job, model)
        with without_privileges(), pytest.raises(CaptionerError) as caught:
            run.__enter__()
        assert str(caught.value) == f"folder {shared_folder} cannot be written: permission denied"
    assert [path.name for path in shared_folder.iterdir()] == ["a.png"]


def test_an_output_that_cannot_be_is_refused(photos: Path, run) -> None:
    Path("file").touch()
    for output, message in (
        ("file/x.csv", "file is not a folder: files cannot be written below it"),
        ("Meine Fotos/x.png", "output Meine Fotos/x.png would be taken for an image to caption"),
        ("x" * 252 + ".csv", "cannot be written: file name too long"),
    ):
        code, errors = run(str(photos), "--output", output, "--format", "csv")
        assert code == 2
        assert message in errors
    Path("folder.csv").mkdir()
    code, errors = run(str(photos), "--output", "folder.csv", "--format", "csv")
    assert (code, "folder.csv is a folder: name a file in it" in errors) == (2, True)
    assert hidden(Path()) == []


def test_an_output_in_the_folder_of_the_images_is_none_of_them(photos: Path, run) -> None:
    output = photos / "out.jsonl"
    assert run(str(photos), "--output", str(output))[0] == 1
    assert run(f"{photos}/*", "--output", "other.jsonl")[0] == 1
    assert names_in(output) == NAMES
    assert names_in(Path("other.jsonl")) == [name for name in NAMES if "/" not in name]
    before = tree(photos)
    # A .jsonl file among the inputs is a list of images, whose captions go into a folder.
    code, errors = run(f"{photos}/*.jsonl", "--output", str(output))
    assert (code, "out.jsonl is not a folder" in errors) == (2, True)
    code, errors = run(f"{photos}/a.png", "--output", f"{photos}/sub dir/../a.png")
    assert (code, "does not say the format" in errors) == (2, True)
    os.link(photos / "a.png", "a.csv")
    code, errors = run(f"{photos}/a.png", "--output", "a.csv", "--overwrite")
    assert (code, "a.csv is one of the images to caption" in errors) == (2, True)
    (photos / "d.png").rename(photos / "d.txt")
    code, errors = run(f"{photos}/d.txt", "--format", "txt", "--overwrite")
    assert (code, "has the suffix of the text files: rename it" in errors) == (2, True)
    (photos / "d.txt").rename(photos / "d.png")
    assert tree(photos) == before


def test_an_image_that_vanishes_is_an_error_of_its_own(
    photos: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = CaptionModel.read

    def vanishing(self, path, data=None):
        (photos / "d.png").unlink(missing_ok=True)
        return read(self, path, data)

    monkeypatch.setattr(CaptionModel, "read", vanishing)
    code, errors = run(str(photos), "--output", "out.jsonl")
    assert code == 1
    assert f"captioner: {photos}/d.png: file not found\n" in errors
    assert names_in(Path("out.jsonl")) == NAMES
    # It is not there any more: what was said about it is no caption, and goes.
    assert run(str(photos), "--output", "out.jsonl")[0] == 1
    assert names_in(Path("out.jsonl")) == [name for name in NAMES if name != "d.png"]


def test_a_folder_that_vanishes_ends_the_run_and_what_is_finished_is_kept(
    photos: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, asked = CaptionModel.read, []

    def vanishing(self, path, data=None):
        asked.append(path)
        if len(asked) == 7:
            photos.rename("elsewhere")
        return read(self, path, data)

    monkeypatch.setattr(CaptionModel, "read", vanishing)
    code, errors = run(str(photos), "--output", "out.jsonl")
    assert (code, errors.splitlines()[-1]) == (
        2,
        f"captioner: error: {photos} is gone; finished work is saved: run the same command again "
        "when it is back",
    )
    assert names_in(Path("out.jsonl")) == NAMES[:6]
    Path("elsewhere").rename(photos)
    assert run(str(photos), "--output", "out.jsonl")[1].endswith(
        "captioner: 1 captioned, 5 finished before, 1 failed\n"
    )


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_the_work_goes_on_and_a_line_says_so(
    photos: Path, run, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    for counts in ("6 captioned", "0 captioned, 6 finished before"):
        code, errors = run(str(photos), "--output", "out.jsonl")
        assert code == 1
        assert errors.splitlines() == [
            f"captioner: {Path().resolve()} has no file locks ({os.strerror(number).lower()}); "
            "continuing without: "
            "let no other captioner write there at the same time",
            f"captioner: {photos / 'b.jpg'}: not an image Pillow can read",
            f"captioner: {counts}, 1 failed",
        ]
        assert names_in(Path("out.jsonl")) == NAMES
        assert hidden(Path()) == [".out.jsonl.captioner"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_place_where_nothing_can_be_made_is_not_in_use(photos: Path, run) -> None:
    code, errors = run(str(photos), "--output", "/proc/x.jsonl")
    assert code == 2
    assert "cannot be written: " in errors
    assert "in use" not in errors


def test_the_second_of_two_processes_is_refused(photos: Path, run) -> None:
    with FileLock(".out.jsonl.captioner.lock"):
        code, errors = run(str(photos), "--output", "out.jsonl")
    assert (code, errors) == (
        2,
        "captioner: error: out.jsonl is in use by another `captioner caption` or `captioner "
        "review`; wait for it, or choose another --output\n",
    )
    assert not Path("out.jsonl").exists()


def test_two_real_processes_on_one_output(
    photos: Path, run, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*command, str(photos), "--output", "out.jsonl"]

    def slow() -> int:
        read = CaptionModel.read

        def waiting(self, path, data=None):
            Path("started").touch()
            while not Path("go").exists():
                time.sleep(0.01)
            return read(self, path, data)

        CaptionModel.read = waiting  # type: ignore[method-assign]
        return cli.main(arguments)

    first = forked(slow)
    while not Path("started").exists():
        time.sleep(0.01)
    code, errors = run(str(photos), "--output", "out.jsonl")
    Path("go").touch()
    assert (code, "is in use by another" in errors) == (2, True)
    assert ended(first) == 1
    assert names_in(Path("out.jsonl")) == NAMES


def test_a_link_to_an_output_stays_one_and_is_the_same_output(photos: Path, run) -> None:
    Path("real").mkdir()
    Path("out.json").symlink_to("real/out.json")
    assert run(str(photos), "--output", "out.json")[0] == 1
    assert Path("out.json").is_symlink()
    assert hidden(Path()) == [".out.json.captioner"]
    assert "6 finished before" in run(str(photos), "--output", "real/out.json")[1]


def test_standard_output_and_devices_keep_nothing(photos: Path, run) -> None:
    assert run(str(photos))[0] == 1
    assert run(str(photos), "--output", os.devnull, "--format", "csv")[0] == 1
    code, errors = run(str(photos), "--append")
    assert (code, errors) == (
        2,
        "captioner: error: --append: standard output and devices keep nothing; name a file\n",
    )
    assert hidden(Path()) == []
