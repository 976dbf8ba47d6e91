"""`--caption-prefix` and `--caption-suffix`, in every format."""

from __future__ import annotations

import csv
import json
import re
import signal
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from captioner.captioning.affixes import Affixes
from captioner.captioning.job import CaptionJob
from captioner.cli import entry as cli
from captioner.model.caption_model import CaptionModel
from helpers.jobs import die_at, ended, forked, tree

pytestmark = pytest.mark.usefixtures("one_thread")

AROUND = ["--caption-prefix", "=sks, ", "--caption-suffix", " & <b>"]


@pytest.mark.parametrize(
    ("prefix", "suffix", "expected"),
    [
        ("", "", "a dog"),
        ("sks, ", "", "sks, a dog"),
        ("sks", "film", "sks a dog film"),
        ("sks ", " film", "sks a dog film"),
        ("sks,", ", film", "sks,a dog, film"),
        ("<x>", ".", "<x>a dog."),
        ("写", "真", "写 a dog 真"),
    ],
)
def test_a_space_is_added_only_between_two_words(prefix: str, suffix: str, expected: str) -> None:
    assert Affixes(prefix, suffix).around("a dog") == expected


def test_a_prefix_without_a_caption_stays_as_it_is() -> None:
    assert Affixes("sks", "film").around("") == "sks film"


@pytest.mark.parametrize("text", ["two\nlines", "a\ttab", "\x1b[31m", "\x00"])
@pytest.mark.parametrize("name", ["caption_prefix", "caption_suffix"])
def test_what_would_not_stay_on_one_line_is_refused(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{name}={text!r}")):
        CaptionJob(("x",), **{name: text})


@pytest.fixture
def texts(photos: Path, run) -> list[str]:
    """The captions of the six images without anything around them, best first."""
    assert run(str(photos), "--num-captions", "2", "--output", "plain.jsonl")[0] == 1
    lines = [json.loads(line) for line in Path("plain.jsonl").read_text("utf-8").splitlines()]
    return [each["text"] for line in lines for each in line["candidates"]]


def around(text: str) -> str:
    return f"=sks, {text} & <b>"


def test_every_caption_of_tsv_and_jsonl_has_them(photos: Path, run, texts: list[str]) -> None:
    more = ["--num-captions", "2", *AROUND]
    for output in ("out.tsv", "out.jsonl"):
        assert run(str(photos), "--output", output, *more)[0] == 1
    lines = Path("out.tsv").read_text("utf-8").splitlines()
    assert [text for line in lines for text in line.split("\t")[1:]] == list(map(around, texts))
    plain, records = (
        [json.loads(line) for line in Path(name).read_text("utf-8").splitlines()]
        for name in ("plain.jsonl", "out.jsonl")
    )
    for record in records:
        if record["error"] is None:
            assert record["text"] == record["candidates"][0]["text"]
            record["text"] = record["text"][6:-6]
            for each in record["candidates"]:
                each["text"] = each["text"][6:-6]
    assert records == plain  # their words and numbers are the model's own


def test_csv_json_text_files_and_xmp_have_them(photos: Path, run, texts: list[str]) -> None:
    expected = [around(text) for text in texts[::2]]
    assert run(str(photos), "--output", "out.csv", *AROUND)[0] == 1
    with Path("out.csv").open(encoding="utf-8", newline="") as file:
        rows = [row["text"] for row in csv.DictReader(file)]
    assert [row for row in rows if row] == [f"'{text}" for text in expected]  # not a formula
    assert run(str(photos), "--output", "out.json", *AROUND)[0] == 1
    assert [each["caption"] for each in json.loads(Path("out.json").read_bytes())] == expected
    assert run(str(photos), "--output", "texts", "--format", "txt", *AROUND)[0] == 1
    assert sorted(tree(Path("texts")).values()) == sorted(f"{text}\n".encode() for text in expected)
    assert run(str(photos), "--output", "xmps", "--format", "xmp", "--no-tags", *AROUND)[0] == 1
    found = re.findall(
        r"<dc:description>.*?x-default\">(.*?)<",
        "".join(path.read_text("utf-8") for path in sorted(Path("xmps").rglob("*.xmp"))),
        re.S,
    )
    assert sorted(found) == sorted(map(escape, expected))


def test_tags_are_those_of_the_caption(photos: Path, run, tagging_model: CaptionModel) -> None:
    tags = {}
    for prefix in ("", "dog "):
        options = ["--tags", "0", "--caption-prefix", prefix, "--model", str(tagging_model.path)]
        assert run(str(photos), "--output", f"out{prefix}.jsonl", *options)[0] == 1
        lines = Path(f"out{prefix}.jsonl").read_text("utf-8").splitlines()
        tags[prefix] = [json.loads(line).get("tags") for line in lines]
    assert tags["dog "] == tags[""]
    assert any(tags[""])


@pytest.mark.parametrize(
    "more", [["--caption-prefix", "sks "], ["--caption-suffix", " sks"], ["--csv-bom"]]
)
def test_killed_and_resumed_and_not_mixed_with_others(
    photos: Path, run, command: list[str], more: list[str]
) -> None:
    assert run(str(photos), "--output", "calm.csv", *more)[0] == 1
    arguments = [*command, str(photos), "--output", "out.csv", *more]

    def work() -> int:
        die_at(4, half=True)
        return cli.main(arguments)

    assert ended(forked(work)) == -signal.SIGKILL
    before = tree(Path("out.csv"))
    code, errors = run(str(photos), "--output", "out.csv")
    assert (code, "another model or other options made" in errors) == (2, True)
    assert tree(Path("out.csv")) == before
    for _ in range(2):
        code, errors = run(str(photos), "--output", "out.csv", *more)
        assert code == 1
        assert tree(Path("out.csv")) == tree(Path("calm.csv"))
    assert errors.endswith("captioner: 0 captioned, 6 finished before, 1 failed\n")
