"""What people say of captions: saved where they live, undone, and completed after a kill."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from captioner.errors import CaptionerError
from captioner.files import writing
from captioner.files.verdicts import VerdictStore
from captioner.review.run import open_session
from captioner.review.session import Conflict, Session
from helpers.jobs import ended, forked, tree
from helpers.reviews import NAMES, OUTPUTS, Caption, Place, path_of, texts_of, verdicts_in

WRITTEN = "=two “dogs”, <wet> & happy"
RESUMED = "captioner: 0 captioned, 5 finished before, 1 failed"


def review(session: Session, before: dict[str, str | None]) -> None:
    """One verdict of each kind."""
    session.accept("a.png", before["a.png"])
    session.correct("b.jpg", before["b.jpg"], "  =two  “dogs”, <wet> & happy\n")
    session.reject("sub/a.png", before["sub/a.png"])


def reviewed(before: dict[str, str | None]) -> dict[str, str | None]:
    return {**before, "b.jpg": WRITTEN, "sub/a.png": None}


def as_held(output: str, texts: dict[str, str | None]) -> dict[str, str | None]:
    """The same texts as the files hold them."""
    if output == "xmp":
        escape = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
        return {
            name: text and "".join(escape.get(letter, letter) for letter in text)
            for name, text in texts.items()
        }
    if output in ("csv", "bom"):  # which no spreadsheet runs
        return {name: text and text.replace("=two", "'=two") for name, text in texts.items()}
    return texts


@pytest.mark.parametrize("output", OUTPUTS)
def test_captions_change_where_they_live_and_the_job_resumes(
    output: str, place: Place, caption: Caption
) -> None:
    place(output)
    before = texts_of(output)
    assert None not in before.values()
    with open_session(path_of(output)) as session:
        assert [each.item.text for each in session.reviewed() if each.item.name in NAMES] == [
            before[name] for name in sorted(NAMES)
        ]
        review(session, before)
        folder = session.captions.folder
    assert texts_of(output) == as_held(output, reviewed(before))
    assert verdicts_in(folder) == [
        ("a.png", "accepted", before["a.png"], before["a.png"], "saved"),
        ("b.jpg", "corrected", before["b.jpg"], WRITTEN, "saved"),
        ("sub/a.png", "rejected", before["sub/a.png"], None, "saved"),
    ]
    assert caption(output) == (1, RESUMED)
    assert texts_of(output) == as_held(output, reviewed(before))
    code, line = caption(output, "--overwrite")
    assert code == 2 and "that people have reviewed (3); nothing is changed" in line
    assert texts_of(output) == as_held(output, reviewed(before))
    assert caption(output, "--overwrite", "--yes")[0] == 1
    assert texts_of(output) == before


@pytest.mark.parametrize("output", OUTPUTS)
def test_undo_goes_back_to_the_bytes_that_were_there(
    output: str, place: Place, caption: Caption
) -> None:
    folder = place(output)
    start, before = tree(folder), texts_of(output)
    with open_session(path_of(output)) as session:
        review(session, before)
        session.correct("b.jpg", WRITTEN, "a cat")
    with open_session(path_of(output)) as session:  # also after a restart
        undone = [session.undo() for _ in range(5)]
        assert session.counts() == {}
    assert [each and (each.item.name, each.item.text) for each in undone] == [
        ("b.jpg", WRITTEN),
        ("sub/a.png", before["sub/a.png"]),
        ("b.jpg", before["b.jpg"]),
        ("a.png", before["a.png"]),
        None,
    ]
    assert tree(folder) == start
    assert caption(output) == (1, RESUMED)


def deadly(moment: int) -> None:
    """Let this process be killed at one of the steps that reach the disk, before or after it."""
    steps = 0

    def dying(step):  # type: ignore[no-untyped-def]
        def work(*args, **options):  # type: ignore[no-untyped-def]
            nonlocal steps
            steps += 1
            if steps == moment and moment % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            result = step(*args, **options)
            steps += 1
            if steps == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return work

    os.replace, os.fsync = dying(os.replace), dying(os.fsync)
    Path.unlink = dying(Path.unlink)  # type: ignore[method-assign]
    for name in ("begin", "complete", "begin_undo", "remove"):
        setattr(VerdictStore, name, dying(getattr(VerdictStore, name)))


@pytest.mark.parametrize(
    ("output", "undo"), [("jsonl", False), ("csv", True), ("txt", False), ("xmp", True)]
)
def test_a_kill_leaves_the_caption_and_its_verdict_of_one_mind(
    output: str, undo: bool, place: Place, caption: Caption, tmp_path: Path
) -> None:
    folder = place(output)
    before = texts_of(output)
    if undo:
        with open_session(path_of(output)) as session:
            session.correct("b.jpg", before["b.jpg"], "a cat")
    start = tmp_path / "start"
    shutil.copytree(folder, start)
    seen, moment, code = set(), 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        moment += 1
        shutil.rmtree(folder)
        shutil.copytree(start, folder)
        os.chdir(folder)

        def work(moment: int = moment) -> int:
            deadly(moment)
            with open_session(path_of(output)) as session:
                if undo:
                    session.undo()
                else:
                    session.correct("b.jpg", before["b.jpg"], "a cat")
            return 0

        code = ended(forked(work))
        with open_session(path_of(output)) as session:
            now = texts_of(output)
            assert now in ({**before, "b.jpg": "a cat"}, before), moment
            shown = next(each for each in session.reviewed() if each.item.name == "b.jpg")
            assert shown.item.text == now["b.jpg"]
            said = (shown.verdict and shown.verdict.verdict) == "corrected"
            assert said == (now["b.jpg"] == "a cat"), moment
            seen.add(said)
        assert caption(output) == (1, RESUMED), moment
        assert texts_of(output) == now, moment
    assert code == 0 and moment > 8
    assert seen == {False, True}


def test_a_caption_that_was_changed_elsewhere_is_not_overwritten(place: Place) -> None:
    place("txt")
    before = texts_of("txt")
    with open_session(path_of("txt")) as session:
        session.correct("a.png", before["a.png"], "a dog")
        with pytest.raises(Conflict):
            session.reject("a.png", before["a.png"])
        Path("photos/a.txt").write_text("by hand\n")
        with pytest.raises(Conflict):
            session.accept("a.png", "a dog")
        with pytest.raises(CaptionerError, match=r"a\.png.*changed since"):
            session.undo()
    assert texts_of("txt") == {**before, "a.png": "by hand"}


def test_a_file_that_was_changed_elsewhere_is_read_again(place: Place) -> None:
    place("csv")
    before = texts_of("csv")
    with open_session(path_of("csv")) as session:
        text = Path("captions.csv").read_text("utf-8")
        Path("captions.csv").write_text(text.replace(str(before["a.png"]), "by hand", 1), "utf-8")
        session.correct("b.jpg", before["b.jpg"], "a cat")
    assert texts_of("csv") == {**before, "a.png": "by hand", "b.jpg": "a cat"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [(" \n", "empty"), ("x" * 2001, "2001 characters"), ("\u200b\x07", "empty")],
)
def test_what_is_not_a_caption_is_refused(place: Place, text: str, reason: str) -> None:
    folder = place("jsonl")
    before = texts_of("jsonl")
    with open_session(path_of("jsonl")) as session:
        with pytest.raises(CaptionerError, match=reason):
            session.correct("a.png", before["a.png"], text)
        with pytest.raises(CaptionerError, match="not an image"):
            session.correct("broken.jpg", None, "a dog")
    assert texts_of("jsonl") == before
    assert not (folder / ".captioner-review.sqlite").exists()


def test_a_caption_that_cannot_be_written_has_no_verdict(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place("txt")
    before = texts_of("txt")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with open_session(path_of("txt")) as session:
        monkeypatch.setattr(writing, "sync_file", full)
        with pytest.raises(CaptionerError, match="no space left"):
            session.correct("a.png", before["a.png"], "a dog")
        monkeypatch.undo()
        assert [each.verdict for each in session.reviewed()] == [None] * 6
    os.chdir(folder)
    assert texts_of("txt") == before
    assert verdicts_in(folder / "photos") == []


def test_no_job_and_no_other_review_runs_meanwhile(place: Place, caption: Caption) -> None:
    place("jsonl")
    with open_session(path_of("jsonl")):
        code, line = caption("jsonl")
        assert code == 2 and "captions.jsonl is in use" in line
        with (
            pytest.raises(CaptionerError, match="in use by another"),
            open_session(path_of("jsonl")),
        ):
            pass
    assert caption("jsonl") == (1, RESUMED)


def test_an_image_without_a_caption_gets_one(place: Place, caption: Caption) -> None:
    place("txt")
    before = texts_of("txt")
    shutil.copy("photos/a.png", "photos/new.png")
    with open_session(path_of("txt")) as session:
        session.correct("new.png", None, "a new dog")
    assert Path("photos/new.txt").read_text() == "a new dog\n"
    assert caption("txt") == (1, "captioner: 0 captioned, 6 finished before, 1 failed")
    assert texts_of("txt") == before


def test_the_sidecar_of_another_program_stays(place: Place) -> None:
    place("xmp")
    path = Path("photos/a.png.xmp")
    foreign = path.read_bytes().replace(b"captioner", b"darktable")
    path.write_bytes(foreign)
    with open_session(path_of("xmp")) as session:
        item = session.item("a.png")
        assert item is not None and item.text is None
        assert "never replaced" in str(item.problem)
        with pytest.raises(CaptionerError, match="never replaced"):
            session.correct("a.png", None, "a dog")
    assert path.read_bytes() == foreign
