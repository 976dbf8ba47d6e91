"""What a format leaves open: the suffix of text files, the byte order mark of CSV."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from captioner.captioning.job import CaptionJob
from captioner.cli import entry as cli
from captioner.data.datasets import load_caption_data
from helpers.jobs import hidden, tree

pytestmark = pytest.mark.usefixtures("one_thread")


def test_csv_with_a_byte_order_mark_is_read_back(photos: Path, run) -> None:
    (photos / "b.jpg").unlink()
    assert run(str(photos), "--output", "out.csv")[0] == 0
    assert run(str(photos), "--output", str(photos / "metadata.csv"), "--csv-bom")[0] == 0
    data = (photos / "metadata.csv").read_bytes()
    assert data == b"\xef\xbb\xbf" + Path("out.csv").read_bytes()
    with (photos / "metadata.csv").open(encoding="utf-8-sig", newline="") as file:
        expected = {row["file_name"]: (row["text"],) for row in csv.DictReader(file)}
    read = load_caption_data(photos)
    assert read.format == "csv"
    assert {each.image_id: each.captions for each in read.examples} == expected
    assert len(expected) == 6


def test_a_byte_order_mark_on_standard_output(
    photos: Path, command: list[str], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert cli.main([*command, f"{photos}/a.png", "--format", "csv", "--csv-bom"]) == 0
    assert capfdbinary.readouterr().out.startswith(b"\xef\xbb\xbffile_name,text,")


@pytest.mark.parametrize("suffix", [".caption", ".txt.bak", ".TXT", ".猫"])
def test_text_files_of_any_suffix(photos: Path, run, suffix: str) -> None:
    assert run(str(photos), "--format", "txt", "--output", "texts")[0] == 1
    more = ["--format", "txt", "--sidecar-suffix", suffix]
    code, errors = run(str(photos), *more)
    assert errors.endswith("captioner: 6 captioned, 1 failed\n")
    found = {path: data for path, data in tree(photos).items() if path.endswith(suffix)}
    expected = {path[:-4] + suffix: data for path, data in tree(Path("texts")).items()}
    assert found == expected
    assert hidden(photos) == [f".captions{suffix}.captioner"]
    read = {each.image_id: each.captions[0] for each in load_caption_data(photos).examples}
    assert {f"{text}\n".encode() for text in read.values()} == set(expected.values())
    assert len(read) == 6
    (photos / f"a{suffix}").unlink()
    assert "0 captioned, 6 finished before" in run(str(photos), *more)[1]
    assert (photos / f"a{suffix}").read_bytes() == expected[f"a{suffix}"]


def test_two_suffixes_are_two_jobs(photos: Path, run) -> None:
    for suffix in (".txt", ".caption"):
        more = ["--format", "txt", "--sidecar-suffix", suffix]
        assert "6 captioned" in run(str(photos), *more)[1]
        assert "6 finished before" in run(str(photos), *more)[1]
    code, errors = run(str(photos), *more, "--caption-prefix", "sks ")
    assert (code, "(--caption-prefix: None there, sks  now" in errors) == (2, True)
    assert hidden(photos) == [".captions.caption.captioner", ".captions.captioner"]


@pytest.mark.parametrize(
    ("suffix", "why"),
    [
        ("caption", "give a dot and a name, such as .caption"),
        ("", "give a dot and a name"),
        (".", "give a dot and a name"),
        (".a/b", "give a dot and a name"),
        (".a.", "give a dot and a name"),
        (".a\n", "printable characters"),
        ("." + "x" * 32, "at most 32"),
        (".png", "taken for images"),
        (".MP4", "taken for videos"),
        (".XMP", "the format xmp writes such files"),
    ],
)
def test_a_suffix_that_text_files_cannot_have(suffix: str, why: str) -> None:
    message = re.escape(f"sidecar_suffix={suffix!r}: ") + f".*{re.escape(why)}"
    with pytest.raises(ValueError, match=message):
        CaptionJob(("x",), format="txt", sidecar_suffix=suffix)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sidecar-suffix", ".x"], "--sidecar-suffix '.x': is for the format txt, not for tsv"),
        (["--csv-bom", "--output", "x.jsonl"], "--csv-bom: is for the format csv, not for jsonl"),
    ],
)
def test_an_option_of_another_format_is_refused(
    photos: Path, run, options: list[str], message: str
) -> None:
    code, errors = run(str(photos), *options)
    assert (code, errors) == (2, f"captioner: error: {message}\n")


def test_an_image_with_the_suffix_of_the_text_files_is_refused(photos: Path, run) -> None:
    (photos / "d.png").rename(photos / "d.caption")
    code, errors = run(f"{photos}/d.caption", "--format", "txt", "--sidecar-suffix", ".caption")
    assert (code, "has the suffix of the text files: rename it" in errors) == (2, True)


# --- images that are cut short -------------------------------------------------------------


@pytest.fixture
def cut(photos: Path) -> Path:
    """One of six images is cut short."""
    (photos / "b.jpg").unlink()
    path = photos / "d.png"
    path.write_bytes(path.read_bytes()[:-400])
    return path


def test_partial_images_are_marked_in_json_and_jsonl(photos: Path, run, cut: Path) -> None:
    error = f"captioner: {cut}: truncated file\n"
    assert run(str(photos), "--output", "out.jsonl") == (
        1,
        f"{error}captioner: 5 captioned, 1 failed\n",
    )
    line = f"captioner: {cut}: truncated file, captioned as it is\n"
    for output, more in (("p.jsonl", []), ("p.json", []), ("p.csv", []), ("p.tsv", [])):
        options = [str(photos), "--output", output, "--partial-images", *more]
        assert run(*options) == (0, f"{line}captioner: 6 captioned, 0 failed\n")
        before = Path(output).read_bytes()
        assert "0 captioned, 6 finished before" in run(*options)[1]
        assert Path(output).read_bytes() == before
    records = [json.loads(text) for text in Path("p.jsonl").read_text("utf-8").splitlines()]
    assert [each["file_name"] for each in records if "partial" in each] == ["d.png"]
    assert list(records[2]) == [
        *("file_name", "text", "confidence", "calibrated", "partial", "error")
    ]
    assert records[2]["partial"] is True
    assert [each.get("partial") for each in json.loads(Path("p.json").read_bytes())] == [
        *(None, None, True, None, None, None),
    ]
    header = Path("p.csv").read_bytes().split(b"\r\n")[0]
    assert header == b"file_name,text,confidence,error"
    # The others are what they are without the option, and the two are not mixed.
    plain = [json.loads(text) for text in Path("out.jsonl").read_text("utf-8").splitlines()]
    assert [a for a in plain if a["error"] is None] == [a for a in records if "partial" not in a]
    code, errors = run(str(photos), "--output", "out.jsonl", "--partial-images")
    assert (code, "--partial-images: False there, True now" in errors) == (2, True)


def test_partial_images_with_text_files_and_on_standard_output(
    photos: Path, run, cut: Path
) -> None:
    assert run(str(photos), "--format", "txt", "--partial-images", "--quiet") == (0, "")
    assert cut.with_suffix(".txt").read_text("utf-8").strip()
    assert run(str(cut), "--partial-images", "--quiet") == (0, "")
