"""`captioner caption` into a file: run again, other options, changed by hand, and its cost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from captioner.captioning import run as caption_run
from captioner.captioning.batches import caption_batches
from captioner.captioning.job import CaptionJob
from captioner.captioning.xmp import render_xmp
from captioner.cli import entry as cli
from captioner.decoding.options import DecodingOptions
from captioner.files import journal
from captioner.files.journal import Journal
from captioner.files.resume import Fingerprint
from captioner.images import reading as images
from captioner.images.kinds import find_images
from captioner.model.caption_model import CaptionModel
from helpers.images import draw, noise
from helpers.jobs import (
    NAMES,
    OUTPUTS,
    SIDECARS,
    die_at,
    ended,
    forked,
    hidden,
    into,
    names_in,
    tree,
)

pytestmark = pytest.mark.usefixtures("one_thread")

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
    code, errors = run("other/a.png", "--output", "out.jsonl")
    assert code == 2
    assert f"out.jsonl holds the caption of another a.png ({photos}/a.png)" in errors
    assert names_in(Path("out.jsonl")) == NAMES
    assert run("other/a.png", "--output", "out.jsonl", "--append")[0] == 0
    assert names_in(Path("out.jsonl")) == [*NAMES, "other/a.png"]


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
        f"captioner: error: another model or other options made {output} "
        "(--beam-size: 3 there, 2 now); use those, name another --output, or start "
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
            "another model or other options made out.jsonl (settings.reader: "
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
    assert "another model or other options made out.jsonl (model.sha256: " in errors


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


def test_append_names_by_its_path_what_has_the_name_of_another(photos: Path, run) -> None:
    draw(Path("new"), ["a.png", "n.png"], first_seed=75)
    for output in ("out.jsonl", "lists/out.jsonl"):
        assert run(str(photos), "--output", output)[0] == 1
        before = Path(output).read_bytes()
        code, errors = run("new", "--output", output, "--append")
        assert (code, errors) == (0, "captioner: 2 captioned, 0 failed\n")
        assert Path(output).read_bytes().startswith(before)
        folder = "new" if output == "out.jsonl" else "../new"
        assert names_in(Path(output)) == [*NAMES, f"{folder}/a.png", "n.png"]
        both = Path(output).read_bytes()
        code, errors = run("new", "--output", output, "--append")
        assert errors == "captioner: 0 captioned, 2 finished before, 0 failed\n"
        assert run(str(photos), "--output", output, "--append")[0] == 0
        assert Path(output).read_bytes() == both


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
    with pytest.raises(ValueError, match="append=True and overwrite=True"):
        CaptionJob(("x",), Path("x.csv"), "csv", append=True, overwrite=True)
    with pytest.raises(ValueError, match="append=True: standard output"):
        CaptionJob(("x",), append=True)
    with pytest.raises(ValueError, match=r"output x.png would be taken for an image"):
        CaptionJob(("x",), Path("x.png"), "csv")
