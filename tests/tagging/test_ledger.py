"""What a batch remembers: torn, changed by hand, of an earlier version, without locks."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from captioner.cli import entry as cli
from captioner.errors import CaptionerError
from captioner.files.finding import SourceFile
from captioner.files.resume import Fingerprint
from captioner.model.caption_model import CaptionModel
from captioner.tagging.ledger import EARLIER, LINES, STATE, Ledger
from helpers.batches import about_of, tree
from helpers.videos import numbered_video

FILES = Path(__file__).parent / "earlier"
"""What the last version that had other files left in the folder of a batch."""


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def batch(
    tagging_model: CaptionModel,
    output: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> list[str]:
    """The command by which the output was made: of two videos, and one that cannot be read."""
    library = tmp_path / "in"
    library.mkdir()
    numbered_video(library / "a.mp4", 8)
    numbered_video(library / "b ü.mp4", 9)
    (library / "c.mp4").write_text("no video\n" * 50)
    command = ["tag", str(library), "--output-dir", str(output), "--format", "txt"]
    command += ["--model", str(tagging_model.path), "--device", "cpu", "--batch-size", "4"]
    assert cli.main(command) == 1
    capsys.readouterr()
    return command


def put(output: Path, order: str) -> list[bytes]:
    """Make a batch one of the earlier version; returns its lines, of which `order` says which."""
    (output / EARLIER).write_text(json.dumps(about_of(output), indent=2))
    (output / STATE).unlink()
    lines = []
    for text in (FILES / LINES).read_text("utf-8").splitlines():
        line = json.loads(text)
        path = output.with_name("in") / line["file_name"]
        line["source"] = Fingerprint.of(SourceFile(path, path.name)).to_dict()
        lines.append(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    (output / LINES).write_bytes(b"".join(lines[int(number)] for number in order))
    return lines


@pytest.mark.parametrize(
    ("order", "torn", "counts"),
    [
        ("012", b"", "0 tagged, 2 finished before, 1 failed"),
        ("2010", b"", "0 tagged, 2 finished before, 1 failed"),
        ("01", b'{"file_name": "c.mp', "0 tagged, 2 finished before, 1 failed"),
        ("1", b"", "1 tagged, 1 finished before, 1 failed"),
    ],
)
def test_a_batch_of_an_earlier_version_is_resumed(
    batch: list[str],
    output: Path,
    order: str,
    torn: bytes,
    counts: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = put(output, order)
    with (output / LINES).open("ab") as file:
        file.write(torn)
    for _ in range(2):
        assert cli.main(batch) == 1
        assert capsys.readouterr().err.splitlines()[-1] == f"captioner: {counts}"
        there = (output / LINES).read_bytes().splitlines(keepends=True)
        assert [there[1], len(there)] == [lines[1], 3]
        assert there[0] == lines[0] or "0" not in order
        hidden = sorted(path.name for path in output.glob(".*"))
        assert hidden == [".captioner.lock", STATE]
        counts = "0 tagged, 2 finished before, 1 failed"


def test_a_batch_of_an_earlier_version_that_cannot_be_resumed_is_as_it_was(
    batch: list[str], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(output, "012")
    whole = (output / LINES).read_bytes()
    for name, text, more, message in (
        (LINES, whole, ["--fps", "5"], "--fps: 1.0 there, 5.0 now"),
        (LINES, whole + b'{"file_name": "x"}\n', [], f"{output / LINES}: line 4 is damaged; "),
        (EARLIER, b"{", [], f"{output / EARLIER} is damaged; choose another --output-dir"),
    ):
        (output / name).write_bytes(text)
        before = {path.name: path.read_bytes() for path in output.iterdir()}
        assert cli.main([*batch, *more]) == 2
        assert message in capsys.readouterr().err
        assert {path.name: path.read_bytes() for path in output.iterdir()} == before
        (output / LINES).write_bytes(whole)
    assert cli.main([*batch, "--overwrite"]) == 1
    assert not (output / EARLIER).exists()


def test_lines_in_another_order_than_the_store_are_its_own(batch: list[str], output: Path) -> None:
    """A run that puts them into order may be killed between the file and the store."""
    lines = (output / LINES).read_bytes().splitlines(keepends=True)
    (output / LINES).write_bytes(b"".join(reversed(lines)))
    with Ledger.find(output, about_of(output)) as ledger:  # type: ignore[union-attr]
        assert (output / LINES).read_bytes() == b"".join(lines)
        ledger.sort(["c.mp4", "a.mp4"])
        assert list(ledger.lines) == ["b ü.mp4", "c.mp4", "a.mp4"]
    (output / LINES).write_bytes(lines[0].replace(b"null", b"true"))
    with pytest.raises(CaptionerError, match="tags.jsonl: line 1 was changed since"):
        Ledger.find(output, about_of(output))


def test_a_torn_line_is_repaired_and_a_wrong_one_is_named(
    batch: list[str], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, ledger = tree(output), output / LINES
    whole = before[LINES]
    for torn in (whole[:-40], whole + whole[:40], whole + bytes(4096), b""):
        ledger.write_bytes(torn)
        assert cli.main(batch) == 1
        assert tree(output) == before
    ledger.unlink()
    assert cli.main(batch) == 1
    assert tree(output) == before
    # What somebody has written into it is not lost.
    changed = b'{"file_name": "x"}\n' + whole
    ledger.write_bytes(changed)
    capsys.readouterr()
    assert cli.main(batch) == 2
    assert f"{ledger}: line 1 was changed since captioner wrote it; " in capsys.readouterr().err
    assert ledger.read_bytes() == changed
    ledger.write_bytes(whole)
    state = (output / STATE).read_bytes()
    (output / STATE).write_bytes(state[:5000])
    assert cli.main(batch) == 2
    assert f"{output / STATE} is damaged; choose another --output-dir" in capsys.readouterr().err
    (output / STATE).unlink()
    assert cli.main(batch) == 2
    assert "but no .tags.captioner that says how it was made" in capsys.readouterr().err
    assert cli.main([*batch, "--overwrite"]) == 1
    assert tree(output) == before


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_without_locks_the_batch_is_done_and_a_line_says_so(
    batch: list[str],
    output: Path,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", flock)
    (output / "a.txt").unlink()
    for counts in ("1 tagged, 1 finished before", "0 tagged, 2 finished before"):
        assert cli.main(batch) == 1
        first, *_, last = capsys.readouterr().err.splitlines()
        assert f"has no file locks ({os.strerror(number).lower()}); continuing without" in first
        assert last == f"captioner: {counts}, 1 failed"
