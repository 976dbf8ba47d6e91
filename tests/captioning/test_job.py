"""`captioner caption` into a file: killed, full, torn, changed, in use, and gone on with.

Most runs are the real command in a forked process, which has torch already; one test kills a
process that was started from a shell.
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
from captioner.captioning.batches import caption_batches
from captioner.captioning.job import CaptionJob
from captioner.captioning.run import open_caption_job
from captioner.captioning.xmp import render_xmp
from captioner.cli import entry as cli
from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError
from captioner.files import journal
from captioner.files.journal import Journal
from captioner.files.resume import Fingerprint
from captioner.images import reading as images
from captioner.images.kinds import find_images
from captioner.model.caption_model import CaptionModel
from helpers.images import draw, noise
from helpers.jobs import die_at, ended, forked, hidden, names_in, tree

pytestmark = pytest.mark.usefixtures("one_thread")

OUTPUTS = ["out.jsonl", "out.csv", "out.tsv", "out.json", "texts", "xmps"]
SIDECARS = {"texts": "txt", "xmps": "xmp"}


NAMES = ["a.png", "b.jpg", "c über.png", "d.png", "sub dir/a.png", "sub dir/ä b.png", "z.png"]


def into(output: str) -> list[str]:
    format = SIDECARS.get(Path(output).name)
    return ["--output", output, *([] if format is None else ["--format", format])]


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
        # By what it has finished, the next run would die no later: it starts over.
        assert ended(forked(lambda: cli.main(arguments))) == 1
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
        assert ended(forked(lambda: cli.main(arguments))) == 1
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
    assert ended(forked(lambda: cli.main(arguments))) == 1
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
            finished = state.read_bytes().count(b"\n") - 1 if state.exists() else 0
        time.sleep(dice.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        assert ended(child) == -signal.SIGKILL, "it was over before it could be killed"
        if output.exists():
            lines = output.read_bytes().split(b"\n")[:-1]
            names = {json.loads(line)["file_name"] for line in lines}
            assert len(names) == len(lines) <= state.read_bytes().count(b"\n") - 1
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

    def interrupted(self, path):
        asked.append(path)
        if len(asked) == 6:
            raise KeyboardInterrupt
        return read(self, path)

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


# --- run again -----------------------------------------------------------------------------


@pytest.mark.parametrize("output", OUTPUTS)
def test_run_again_no_image_is_opened_and_nothing_is_written(
    photos: Path, run, output: str
) -> None:
    (photos / "b.jpg").unlink()
    assert run(str(photos), *into(output)) == (0, "captioner: 6 captioned, 0 failed\n")
    before = tree(Path(output))
    for path in photos.rglob("*.png"):
        times = path.stat()
        path.write_bytes(b"x" * times.st_size)  # it could not be captioned any more
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def written() -> dict[Path, int]:
        files = [path for path in Path().rglob("*") if path.is_file()]
        return {path: path.stat().st_mtime_ns for path in files}

    at = written()
    code, errors = run(str(photos), *into(output))
    assert (code, errors) == (0, "captioner: 0 captioned, 6 finished before, 0 failed\n")
    assert tree(Path(output)) == before
    assert written() == at


@pytest.mark.parametrize("output", OUTPUTS)
def test_what_changed_failed_or_is_new_is_captioned_and_has_its_place(
    photos: Path, run, output: str, model_file: Path
) -> None:
    assert run(str(photos), *into(output))[0] == 1
    # One is repaired, one changed, one new between the others.
    draw(photos, ["d.png"], first_seed=50)
    noise(51).save(photos / "b.jpg")
    draw(photos, ["c new.png"], first_seed=52)
    code, errors = run(str(photos), *into(output))
    assert (code, errors) == (0, "captioner: 3 captioned, 5 finished before, 0 failed\n")
    assert run(str(photos), *into(f"calm/{output}"))[0] == 0
    assert tree(Path(output)) == tree(Path("calm") / output)
    assert run(str(photos), *into(output))[1].endswith(
        " 0 captioned, 8 finished before, 0 failed\n"
    )


def test_an_image_that_cannot_be_read_is_tried_again_and_named_again(photos: Path, run) -> None:
    message = f"captioner: {photos}/b.jpg: not an image Pillow can read\n"
    assert run(str(photos), "--output", "out.csv") == (
        1,
        f"{message}captioner: 6 captioned, 1 failed\n",
    )
    before = tree(Path("out.csv"))
    assert run(str(photos), "--output", "out.csv") == (
        1,
        f"{message}captioner: 0 captioned, 6 finished before, 1 failed\n",
    )
    assert tree(Path("out.csv")) == before


def test_a_changed_image_that_fails_loses_the_text_file_it_had(photos: Path, run) -> None:
    assert run(str(photos), *into("texts"))[0] == 1
    (photos / "a.png").write_bytes(b"no image any more")
    assert run(str(photos), *into("texts"))[0] == 1
    assert not Path("texts/a.txt").exists()
    assert Path("texts/d.txt").exists()


def test_a_folder_that_was_moved_is_the_same_and_another_image_of_the_name_is_not(
    photos: Path, run
) -> None:
    assert run(str(photos), "--output", "out.jsonl")[0] == 1
    photos.rename("moved")
    assert "0 captioned, 6 finished before" in run("moved", "--output", "out.jsonl")[1]
    draw(Path("other"), ["a.png"], first_seed=9)
    for more in ([], ["--append"]):
        code, errors = run("other/a.png", "--output", "out.jsonl", *more)
        assert code == 2
        assert f"out.jsonl holds the caption of another a.png ({photos}/a.png)" in errors
    assert names_in(Path("out.jsonl")) == NAMES


@pytest.mark.arithmetic
def test_the_size_of_a_batch_and_the_threads_may_change(photos: Path, run) -> None:
    assert run(str(photos), "--output", "out.jsonl")[0] == 1
    code, errors = run(
        *(str(photos), "--output", "out.jsonl", "--batch-size", "1", "--workers", "2")
    )
    assert "0 captioned, 6 finished before" in errors


# --- another model, other options, other images --------------------------------------------


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("more", [[], ["--append"]])
def test_other_options_do_not_mix_into_an_output(
    photos: Path, run, output: str, more: list[str]
) -> None:
    assert run(str(photos), *into(output))[0] == 1
    before = tree(Path(output))
    code, errors = run(str(photos), *into(output), "--beam-size", "2", *more)
    assert (code, errors) == (
        2,
        f"captioner: error: {output} was made with another model or other options "
        "(settings.decoding.beam_size: 3 there, 2 now); use those, name another --output, or start "
        "over with --overwrite\n",
    )
    assert tree(Path(output)) == before
    assert run(str(photos), *into(output), "--beam-size", "2", "--overwrite")[0] == 1
    assert run(str(photos), *into("calm/" + output), "--beam-size", "2")[0] == 1
    assert tree(Path(output)) == tree(Path("calm") / output)


def test_images_read_in_another_way_do_not_mix_into_an_output(
    photos: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(str(photos), "--output", "out.jsonl")[0] == 1
    before = tree(Path())
    monkeypatch.setattr(caption_run, "READER_VERSION", images.READER_VERSION + 1)
    for more in ([], ["--append"]):
        code, errors = run(str(photos), "--output", "out.jsonl", *more)
        assert code == 2
        assert (
            "out.jsonl was made with another model or other options (settings.reader: "
            f"{images.READER_VERSION} there, {images.READER_VERSION + 1} now); "
        ) in errors
        assert tree(Path()) == before


def test_another_model_does_not_mix_into_an_output(
    photos: Path, run, tiny_model: CaptionModel, tmp_path: Path
) -> None:
    assert run(str(photos), "--output", "out.jsonl")[0] == 1
    tiny_model.save(tmp_path / "half.safetensors", half=True)
    code, errors = run(str(photos), "--output", "out.jsonl", "--model", "half.safetensors")
    assert code == 2
    assert "out.jsonl was made with another model or other options (model.sha256: " in errors


def test_options_that_gave_no_caption_bind_nobody(photos: Path, run) -> None:
    code, errors = run(str(photos), "--output", "out.jsonl", "--ban", "two words")
    assert code == 2
    assert "banned word 'two words'" in errors
    assert run(str(photos), "--output", "out.jsonl")[0] == 1


def test_a_removed_output_is_made_anew(photos: Path, run) -> None:
    for output in ("out.jsonl", "out.json"):
        assert run(str(photos), "--output", output)[0] == 1
        Path(output).unlink()
        code, errors = run(str(photos), "--output", output, "--beam-size", "1")
        assert errors.endswith("6 captioned, 1 failed\n")


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.json", "texts"])
def test_what_is_left_out_by_now_stays_in_an_output(photos: Path, run, output: str) -> None:
    draw(photos, ["@eaDir/thumb.png", "zz/old.png"], first_seed=80)
    os.rename(photos / "@eaDir", photos / "eaDir")
    assert run(str(photos), *into(output))[0] == 1
    before = tree(Path(output))
    os.rename(photos / "eaDir", photos / "@eaDir")
    calm = "calm/" + output
    code, errors = run(str(photos), *into(calm))
    assert errors.endswith("captioner: 7 captioned, 1 failed\n")
    assert b"thumb" not in b"".join(tree(Path(calm)).values())
    assert "thumb" not in str(list(tree(Path(calm))))
    assert not (photos / "@eaDir" / "thumb.txt").exists()
    os.rename(photos / "@eaDir", photos / "eaDir")
    # Left out by now, and nothing else is new: the very same bytes.
    code, errors = run(str(photos), *into(output), "--exclude", "eaDir/", "--exclude", "/zz")
    assert (code, errors.splitlines()[-1]) == (
        1,
        "captioner: 0 captioned, 6 finished before, 1 failed",
    )
    assert tree(Path(output)) == before
    draw(photos, ["new.png"], first_seed=90)
    code, errors = run(str(photos), *into(output), "--exclude", "eaDir/", "--exclude", "/zz")
    assert errors.endswith("captioner: 1 captioned, 6 finished before, 1 failed\n")
    is_file = Path(output).is_file()
    found = [
        Path(name).stem for name in (names_in(Path(output)) if is_file else tree(Path(output)))
    ]
    assert {"thumb", "old", "new"} <= set(found)


LONG = "x" * 247 + ".jpg"  # 251 bytes: with .xmp behind it, as many as there can be


def test_a_name_too_long_for_its_sidecar_is_an_error_of_that_image(photos: Path, run) -> None:
    draw(photos, ["aa.png", "zz.png"], first_seed=30)
    os.rename(photos / "aa.png", photos / ("猫" * 80 + "xxxxxxx.jpg"))  # 251 bytes in 91 characters
    os.rename(photos / "zz.png", photos / ("x" * 248 + ".jpg"))
    draw(photos, ["y.png"], first_seed=40)
    os.rename(photos / "y.png", photos / LONG)
    for again in range(2):
        code, errors = run(str(photos), "--format", "xmp", "--no-tags")
        too_long = [line for line in errors.splitlines() if "file name too long" in line]
        assert code == 1
        name = "x" * 248 + ".jpg"
        assert too_long == [
            f"captioner: {photos / name}: {name}.xmp cannot be written: file name too long"
        ]
        counts = "0 captioned, 8 finished before, 2 failed" if again else "8 captioned, 2 failed"
        assert errors.endswith(f"captioner: {counts}\n")
    found = {path.name for path in photos.rglob("*.xmp")}
    assert found == {
        "a.png.xmp",
        "c über.png.xmp",
        "d.png.xmp",
        "ä b.png.xmp",
        "z.png.xmp",
        f"{LONG}.xmp",
        "猫" * 80 + "xxxxxxx.jpg.xmp",
    }
    assert [name for name in hidden(photos) if not name.startswith(".captions.xmp")] == []


@pytest.mark.parametrize("letter", ["y", "猫"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_an_output_with_a_long_name(photos: Path, run, letter: str, suffix: str) -> None:
    name = letter * ((255 - len(suffix)) // len(letter.encode())) + suffix
    for again in range(2):
        code, errors = run(str(photos), "--output", name)
        done = "0 captioned, 6 finished before" if again else "6 captioned"
        assert (code, errors.splitlines()[-1]) == (1, f"captioner: {done}, 1 failed")
    assert run(str(photos), "--output", f"short{suffix}")[0] == 1
    assert Path(name).read_bytes() == Path(f"short{suffix}").read_bytes()


def test_other_images_need_append(photos: Path, run) -> None:
    draw(Path("others"), ["new 1.png", "new 2.png"], first_seed=60)
    assert run(str(photos), "--output", "out.jsonl")[0] == 1
    before = Path("out.jsonl").read_bytes()
    code, errors = run("others", "--output", "out.jsonl")
    assert (code, errors) == (
        2,
        "captioner: error: output out.jsonl holds captions of other images (as a.png): --append "
        "keeps them and adds these, --overwrite starts over; or name another --output\n",
    )
    assert Path("out.jsonl").read_bytes() == before
    code, errors = run("others", "--output", "out.jsonl", "--append")
    assert (code, errors) == (0, "captioner: 2 captioned, 0 failed\n")
    assert Path("out.jsonl").read_bytes().startswith(before)
    assert names_in(Path("out.jsonl")) == [*NAMES, "new 1.png", "new 2.png"]


@pytest.mark.parametrize("output", OUTPUTS[:4])
def test_append_adds_at_the_end_what_is_not_there_under_any_name(
    photos: Path, run, output: str
) -> None:
    (photos / "sub dir" / "a.png").rename(photos / "sub dir" / "e.png")
    assert run(str(photos / "sub dir"), "--output", output)[0] == 0
    draw(photos, ["sub dir/0 new.png"], first_seed=70)
    code, errors = run(str(photos / "sub dir"), "--output", output, "--append")
    assert (code, errors) == (0, "captioner: 1 captioned, 2 finished before, 0 failed\n")
    # Seen from the folder above, they have other names; they are the same images.
    code, errors = run(str(photos), "--output", output, "--append")
    assert errors.endswith("captioner: 4 captioned, 3 finished before, 1 failed\n")
    names = [Path(name).name for name in names_in(Path(output))]
    good = ["a.png", "b.jpg", "c über.png", "d.png", "z.png"]
    if output in ("out.json", "out.tsv"):
        good.remove("b.jpg")
    assert names == ["e.png", "ä b.png", "0 new.png", *good]
    # A changed image is in it already.
    draw(photos, ["z.png"], first_seed=71)
    before = Path(output).read_bytes()
    assert run(str(photos), "--output", output, "--append")[0] == 0
    assert Path(output).read_bytes() == before


def test_an_interrupted_append_ends_as_an_undisturbed_one(
    photos: Path, run, command: list[str]
) -> None:
    draw(Path("others"), [f"new {number}.png" for number in range(7)], first_seed=60)
    for output in ("calm.jsonl", "killed.jsonl"):
        assert run(str(photos), "--output", output)[0] == 1
    assert run("others", "--output", "calm.jsonl", "--append")[0] == 0
    arguments = [*command, "others", "--output", "killed.jsonl", "--append"]

    def work() -> int:
        die_at(4, half=True)
        return cli.main(arguments)

    assert ended(forked(work)) == -signal.SIGKILL
    assert run(*arguments[len(command) :])[0] == 0
    assert tree(Path("killed.jsonl")) == tree(Path("calm.jsonl"))


# --- changed by hand -----------------------------------------------------------------------


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.tsv"])
def test_what_was_changed_by_hand_is_kept_and_can_be_added_to(
    photos: Path, run, output: str
) -> None:
    (photos / "b.jpg").unlink()
    assert run(str(photos), "--output", output)[0] == 0
    path = Path(output)
    mine = path.read_bytes().replace(b" ", b"  ", 3).rstrip(b"\r\n")
    path.write_bytes(mine)
    draw(photos, ["0.png"], first_seed=80)
    code, errors = run(str(photos), "--output", output)
    assert (code, errors) == (
        2,
        f"captioner: error: output {output} was changed since captioner wrote it: --append keeps "
        "it as it is and adds images that are not yet in it, --overwrite replaces it; or name "
        "another --output\n",
    )
    assert path.read_bytes() == mine
    for number in (0, 1):
        draw(photos, [f"{number}.png"], first_seed=80 + number)
        code, errors = run(str(photos), "--output", output, "--append")
        assert (code, errors) == (
            0,
            f"captioner: 1 captioned, {6 + number} finished before, 0 failed\n",
        )
        assert path.read_bytes().startswith(mine + b"\n")
    good = ["a.png", "c über.png", "d.png", "sub dir/a.png", "sub dir/ä b.png", "z.png"]
    assert [name.rpartition("Fotos/")[2].replace("  ", " ") for name in names_in(path)] == [
        *good,
        "0.png",
        "1.png",
    ]
    code, errors = run(str(photos), "--output", output)
    assert (code, "continue with --append" in errors) == (2, True)


def test_a_list_that_was_changed_by_hand_is_kept(photos: Path, run) -> None:
    assert run(str(photos), "--output", "out.json")[0] == 1
    Path("out.json").write_text("[]")
    code, errors = run(str(photos), "--output", "out.json", "--append")
    assert (code, errors) == (
        2,
        "captioner: error: output out.json was changed since captioner wrote it: --overwrite "
        "replaces it; or name another --output\n",
    )
    assert Path("out.json").read_text() == "[]"


def test_a_text_file_that_was_changed_by_hand_is_kept(photos: Path, run) -> None:
    assert run(str(photos), "--format", "txt")[0] == 1
    assert hidden(photos) == [".captions.captioner"]
    mine = photos / "d.txt"
    mine.write_text("my own words\n")
    (photos / "z.txt").unlink()
    assert run(str(photos), "--format", "txt")[0] == 1
    assert mine.read_text() == "my own words\n"
    assert (photos / "z.txt").exists()  # written again, out of the journal
    draw(photos, ["d.png"], first_seed=90)
    code, errors = run(str(photos), "--format", "txt")
    assert (code, errors) == (
        2,
        f"captioner: error: {mine} exists, and this job has not made it: --missing-only keeps it "
        "and captions the images that have none, --overwrite replaces the text files of these "
        "images\n",
    )
    assert mine.read_text() == "my own words\n"
    code, errors = run(str(photos), "--format", "txt", "--overwrite")
    assert (code, errors) == (
        2,
        f"captioner: error: --overwrite would replace 1 file ({mine}) with text that captioner has "
        "not written, or that was changed since; nothing is changed: --missing-only keeps such "
        "text, --overwrite --yes replaces it\n",
    )
    assert mine.read_text() == "my own words\n"
    assert run(str(photos), "--format", "txt", "--overwrite", "--yes")[0] == 1
    assert mine.read_text() != "my own words\n"


@pytest.mark.parametrize("output", OUTPUTS[:4])
def test_an_output_of_other_origin_is_refused(photos: Path, run, output: str) -> None:
    Path(output).write_text("mine")
    code, errors = run(str(photos), "--output", output, "--append")
    assert (code, errors) == (
        2,
        f"captioner: error: output {output} exists, and no .{output}.captioner beside it says how "
        "it was made: --missing-only keeps it and adds images that are not yet in it, --overwrite "
        "replaces it; or name another --output\n",
    )
    assert Path(output).read_text() == "mine"
    assert hidden(Path()) == []


def test_an_interrupted_overwrite_goes_on_without_the_option(
    photos: Path, run, command: list[str]
) -> None:
    for output in OUTPUTS:
        assert run(str(photos), *into("calm/" + output))[0] == 1
        there = Path(output)
        if output in SIDECARS:
            there.mkdir()
            # Of XMP sidecars only captioner's own may be replaced.
            mine = render_xmp("mine") if output == "xmps" else "mine"
            (there / {"texts": "z.txt", "xmps": "z.png.xmp"}[output]).write_text(mine)
        else:
            there.write_text("mine\n")
        arguments = [*command, str(photos), *into(output)]

        def work(arguments: list[str] = arguments) -> int:
            die_at(4, half=False)
            return cli.main([*arguments, "--overwrite", "--yes"])

        assert ended(forked(work)) == -signal.SIGKILL
        assert run(str(photos), *into(output))[0] == 1
        assert tree(there) == tree(Path("calm") / output)


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
    # Its journal too: its last line is the mark that all is complete, the one before an image.
    for torn in (known[:-5], known[: known[:-1].rfind(b"\n") - 20]):
        state.write_bytes(torn)
        path.write_bytes(whole[:-1])
        assert run(str(photos), "--output", output)[0] == 1
        assert path.read_bytes() == whole
        assert Journal(state).is_complete
    # Half a line of another kind, at the end of an interrupted run.
    state.write_bytes(known[:-5])
    path.write_bytes(whole + b"half a li")
    assert run(str(photos), "--output", output)[0] == 1
    assert path.read_bytes() == whole


def test_a_damaged_journal_is_named(photos: Path, run) -> None:
    assert run(str(photos), "--output", "out.jsonl")[0] == 1
    state = Path(".out.jsonl.captioner")
    whole, before = state.read_bytes().splitlines(keepends=True), tree(Path("out.jsonl"))
    damages = {1: [], 3: [*whole[:2], b'{"record": 1}\n', *whole[2:]]}
    damages |= {2: [whole[0], b"[\n", *whole[1:]]}
    for line, damaged in damages.items():
        state.write_bytes(b"".join(damaged))
        code, errors = run(str(photos), "--output", "out.jsonl")
        assert code == 2
        assert f"{state.absolute()}: line {line} is damaged; start over with --overwrite" in errors
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
    code, errors = run(f"{photos}/*.jsonl", "--output", str(output), "--overwrite")
    assert (code, "is one of the images to caption: name another file" in errors) == (2, True)
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

    def vanishing(self, path):
        (photos / "d.png").unlink(missing_ok=True)
        return read(self, path)

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

    def vanishing(self, path):
        asked.append(path)
        if len(asked) == 7:
            photos.rename("elsewhere")
        return read(self, path)

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
        "captioner: error: out.jsonl is in use by another `captioner caption`; wait for it, or "
        "choose another --output\n",
    )
    assert not Path("out.jsonl").exists()


def test_two_real_processes_on_one_output(
    photos: Path, run, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*command, str(photos), "--output", "out.jsonl"]

    def slow() -> int:
        read = CaptionModel.read

        def waiting(self, path):
            Path("started").touch()
            while not Path("go").exists():
                time.sleep(0.01)
            return read(self, path)

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
        "captioner: error: append: standard output and devices keep nothing; name a file\n",
    )
    assert hidden(Path()) == []


# --- what it costs -------------------------------------------------------------------------


@pytest.mark.arithmetic
def test_captions_do_not_depend_on_what_is_captioned_beside_them(
    tiny_model: CaptionModel, photos: Path
) -> None:
    for options in (DecodingOptions(max_length=6), DecodingOptions(sample=True, num_captions=2)):
        files = [(n, file) for n, file in enumerate(find_images(photos)) if n != 1]
        together = caption_batches(tiny_model, files, options, batch_size=4, fixed_shape=True)
        results = {record.file_name: record.result for batch in together for record in batch}
        for numbered in files:
            ((record,),) = caption_batches(
                tiny_model, [numbered], options, batch_size=4, fixed_shape=True
            )
            assert record.result == results[record.file_name]  # to the last bit


def test_batches_are_as_even_as_can_be() -> None:
    sizes = {1: 1, 5: 5, 32: 32, 33: 17, 64: 32, 65: 22, 1000: 32, 0: 1}
    assert {images: caption_run.even_size(images, 32) for images in sizes} == sizes


def test_memory_does_not_grow_with_the_records(tmp_path: Path) -> None:
    import tracemalloc

    about = {"model": {}, "settings": {}}
    (tmp_path / "x.png").touch()
    with Journal.create(tmp_path / "journal", about) as known:
        for start in range(0, 20_000, 1000):
            known.add([entry_of(number, "x" * 500) for number in range(start, start + 1000)])
        known.mark_complete()
    tracemalloc.start()
    with Journal(tmp_path / "journal") as known:
        found = known.get("folder/number 12345.png")
        assert found is not None and found.record["text"] == "12345 " + "x" * 500
        assert known.get("folder/number 20000.png") is None
        assert len(known) == 20_000
        used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / 20_000 < 200  # bytes for an image


def entry_of(number: int, text: str) -> journal.Entry:
    name = f"folder/number {number}.png"
    record = {"file_name": name, "text": f"{number} {text}", "confidence": 0.5, "error": None}
    return journal.Entry(record, name, Fingerprint(name, number, number))


def test_a_job_is_checked_when_it_is_made() -> None:
    with pytest.raises(ValueError, match="format='doc': choose from tsv, jsonl"):
        CaptionJob(("x",), format="doc")
    with pytest.raises(ValueError, match="append and overwrite"):
        CaptionJob(("x",), Path("x.csv"), "csv", append=True, overwrite=True)
    with pytest.raises(ValueError, match="append: standard output"):
        CaptionJob(("x",), append=True)
    with pytest.raises(ValueError, match=r"output x.png would be taken for an image"):
        CaptionJob(("x",), Path("x.png"), "csv")
