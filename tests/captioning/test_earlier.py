"""What earlier versions left beside an output, a file of JSON lines, is converted.

`earlier/` holds such files as the last version that wrote them left them: complete, killed in the
middle of a line, after an edit by hand, killed while the output was replaced.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from captioner.files.finding import SourceFile
from captioner.files.journal import CAPTIONS, Journal, sources_of
from captioner.files.resume import Fingerprint
from captioner.files.store import Store
from helpers.images import draw
from helpers.jobs import NAMES, hidden, names_in, tree

EARLIER = Path(__file__).parent / "earlier"
STATE = Path(".out.jsonl.captioner")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def about(photos: Path, run) -> dict[str, Any]:
    """What a journal of this model says of it and of the options."""
    assert run(str(photos), "--output", "now.jsonl")[0] == 1
    with Store(Path(".now.jsonl.captioner"), CAPTIONS) as store:
        made = store.about
    Path(".now.jsonl.captioner").unlink()
    return made


def captions_in(output: Path) -> list[str]:
    """The lines of an output, but that of the image that fails: it is tried again each time."""
    lines = output.read_text("utf-8").splitlines(keepends=True)
    return [line for line in lines if '"b.jpg"' not in line]


def put(name: str, state: Path, about: dict[str, Any], photos: Path) -> None:
    """Put a journal of `earlier/` somewhere, as if it had been made of these images."""
    lines = []
    for text in (EARLIER / name).read_text().splitlines(keepends=True):
        if text.endswith("\n"):
            line = json.loads(text)
            if "about" in line:
                settings = {**about["settings"], "format": line["about"]["settings"]["format"]}
                line["about"] = {**about, "settings": settings}
            elif "record" in line:
                path = photos / line["record"]["file_name"]
                line["path"] = str(path)
                line["source"] = Fingerprint.of(SourceFile(path, path.name)).to_dict()
            text = json.dumps(line) + "\n"
        lines.append(text)
    state.write_text("".join(lines))


@pytest.mark.parametrize(
    ("journal", "output", "more", "counts", "after"),
    [
        ("complete", "complete", [], "0 captioned, 6 finished before, 1 failed", "complete"),
        ("interrupted", "interrupted", [], "2 captioned, 4 finished before, 1 failed", None),
        ("kept", "kept", ["--append"], "0 captioned, 8 finished before, 0 failed", "kept"),
        # Killed before the output was replaced, and after that.
        ("rewritten", "complete", [], "0 captioned, 6 finished before, 1 failed", "rewritten"),
        ("rewritten", "rewritten", [], "0 captioned, 6 finished before, 1 failed", "rewritten"),
    ],
)
def test_a_job_of_an_earlier_version_is_resumed(
    photos: Path,
    run,
    about: dict[str, Any],
    journal: str,
    output: str,
    more: list[str],
    counts: str,
    after: str | None,
) -> None:
    if journal == "kept":
        draw(photos, ["0.png"], first_seed=80)
    put(f"{journal}.journal", STATE, about, photos)
    if journal == "rewritten":
        put("rewritten.journal.new", Path(f"{STATE}.new"), about, photos)
    shutil.copy(EARLIER / f"{output}.jsonl", "out.jsonl")
    whole = [line for line in captions_in(Path("out.jsonl")) if line.endswith("\n")]
    for _ in range(2):
        code, errors = run(str(photos), "--output", "out.jsonl", *more)
        assert (code, errors.splitlines()[-1]) == (
            int("1 failed" in counts),
            f"captioner: {counts}",
        )
        if after is not None:
            assert captions_in(Path("out.jsonl")) == captions_in(EARLIER / f"{after}.jsonl")
        else:
            assert captions_in(Path("out.jsonl"))[: len(whole)] == whole
            counts = "0 captioned, 6 finished before, 1 failed"
        assert names_in(Path("out.jsonl")) == (NAMES if journal != "kept" else [*NAMES, "0.png"])
        assert hidden(Path()) == [STATE.name]
        with Journal(STATE) as known:
            assert known.is_complete


def test_text_files_of_an_earlier_version_are_known(
    photos: Path, run, about: dict[str, Any]
) -> None:
    put("texts.journal", photos / ".captions.captioner", about, photos)
    code, errors = run(str(photos), "--format", "txt")
    assert (code, errors.splitlines()[-1]) == (
        1,
        "captioner: 0 captioned, 6 finished before, 1 failed",
    )
    records = map(json.loads, (EARLIER / "rewritten.jsonl").read_text("utf-8").splitlines())
    texts = {each["file_name"]: each["text"] for each in records if each["text"] is not None}
    # None of them was there: they are written again.
    written = {name: data for name, data in tree(photos).items() if name.endswith(".txt")}
    assert written == {
        f"{os.path.splitext(name)[0]}.txt": f"{text}\n".encode() for name, text in texts.items()
    }


def test_a_page_finds_the_images_of_an_earlier_version(photos: Path, about: dict[str, Any]) -> None:
    put("interrupted.journal", STATE, about, photos)
    before = STATE.read_bytes()
    found, sources = sources_of(STATE)
    assert (found, list(sources)) == (about, NAMES[:5])
    assert sources["d.png"] == (str(photos / "d.png"), str(photos / "d.png"))
    assert STATE.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "damaged"),
    [(1, '{"schema": "captioner-captions-1"}\n'), (3, '{"record": 1}\n'), (5, "[\n"), (8, "1\n")],
)
def test_a_damaged_journal_of_an_earlier_version_is_named(
    photos: Path, run, about: dict[str, Any], line: int, damaged: str
) -> None:
    put("complete.journal", STATE, about, photos)
    shutil.copy(EARLIER / "complete.jsonl", "out.jsonl")
    lines = STATE.read_text().splitlines(keepends=True)
    lines[line - 1] = damaged
    STATE.write_text("".join(lines))
    before = STATE.read_bytes()
    code, errors = run(str(photos), "--output", "out.jsonl")
    assert code == 2
    assert f"{STATE.absolute()}: line {line} is damaged; start over with --overwrite" in errors
    assert (STATE.read_bytes(), hidden(Path())) == (before, [STATE.name])
    assert run(str(photos), "--output", "out.jsonl", "--overwrite", "--yes")[0] == 1
    assert names_in(Path("out.jsonl")) == NAMES
