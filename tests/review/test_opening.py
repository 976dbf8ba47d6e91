"""Which captions a path means, and what is said of those that cannot be reviewed."""

from __future__ import annotations

from pathlib import Path

import pytest

from captioner.cli import entry as cli
from captioner.review.opening import open_captions
from helpers.captioned import photos, write

ROW = '{"file_name": "a.jpg", "text": "a dog"}\n'

KINDS = {
    "metadata.jsonl": (ROW, "metadata.jsonl"),
    "mine.csv": ("image,caption\na.jpg,a dog\n", "mine.csv"),
    "tabs.csv": ("\ufeffFile_Name\ttext\na.jpg\ta dog\n", "tabs.csv"),
    "a.txt": ("a dog\n", "*.txt"),
    "a.jpg.txt": ("a dog", "*.txt"),
    "a.caption": ("\ufeffa dog", "*.caption"),
}


@pytest.mark.parametrize("name", KINDS)
def test_captions_that_people_wrote_are_found_in_their_folder(tmp_path: Path, name: str) -> None:
    photos(tmp_path, "a.jpg")
    text, key = KINDS[name]
    write(tmp_path / name, text)
    captions = open_captions(tmp_path)
    assert captions.key == key
    assert [(each.name, each.text, each.path) for each in captions.items.values()] == [
        ("a.jpg", "a dog", tmp_path / "a.jpg")
    ]
    captions.write("a.jpg", "a cat, wet")
    captions.close()
    after = (tmp_path / name).read_text("utf-8")
    changed = text.replace("a dog", "a cat, wet")
    expected = {
        "mine.csv": 'image,caption\na.jpg,"a cat, wet"\n',
        "a.jpg.txt": "a cat, wet\n",
        "a.caption": "a cat, wet\n",
    }
    assert after == expected.get(name, changed)


def test_other_rows_keep_their_bytes(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    first, last = '{"text":"one", "file_name" :"a.jpg"}\r\n\r\n', '{"image":"c.jpg","text":"c"}'
    write(tmp_path / "all.jsonl", f"{first}{ROW.replace('a.jpg', 'b.jpg')}{last}")
    captions = open_captions(tmp_path / "all.jsonl")
    captions.write("b.jpg", "zwei Füße")
    captions.write("c.jpg", None)
    captions.close()
    assert (tmp_path / "all.jsonl").read_bytes() == (
        f'{first}{{"file_name": "b.jpg", "text": "zwei Füße"}}\n{{"image": "c.jpg", "text": null}}'
    ).encode()


REFUSED = {
    "nothing there": ({}, "nowhere", "nowhere does not exist"),
    "no captions": ({"a.jpg": b""}, ".", "holds no captions: `captioner caption"),
    "two kinds": ({"a.jsonl": ROW, "b.csv": ""}, ".", "several kinds of captions (a.jsonl, b.csv)"),
    "another format": ({"a.tsv": "a.jpg\ta dog\n"}, "a.tsv", "review takes .jsonl"),
    "empty": ({"a.jsonl": "\n"}, "a.jsonl", "holds no captions"),
    "not JSON": ({"a.jsonl": f"{ROW}oops\n"}, "a.jsonl", "line 2 is not valid JSON"),
    "a list": ({"a.jsonl": "[1]\n"}, "a.jsonl", "line 1 is not a JSON object"),
    "no name": ({"a.jsonl": '{"text": "a"}\n'}, "a.jsonl", "line 1 has no image name"),
    "no text": ({"a.jsonl": '{"image": "a"}\n'}, "a.jsonl", "line 1 has no caption in"),
    "several texts": (
        {"a.jsonl": '{"image": "a", "captions": ["a", "b"]}\n'},
        "a.jsonl",
        "line 1 has a captions that is not one text",
    ),
    "twice": (
        {"a.jsonl": ROW * 2},
        "a.jsonl",
        "line 2 has a second caption of a.jpg, after line 1",
    ),
    "Latin-1": ({"a.csv": b"image,text\na,\xe4\n"}, "a.csv", "line 2 is not UTF-8 text"),
    "many cells": ({"a.csv": "image,text\na,b,c\n"}, "a.csv", "line 2 has 3 cells under 2"),
    "open quote": ({"a.csv": 'image,text\na,"b\n'}, "a.csv", "line 2 is not valid CSV"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_reviewed_is_named(
    case: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files, path, reason = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    for name, content in files.items():
        write(tmp_path / name, content)
    assert cli.main(["review", path, "--no-browser"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("captioner: error: ") and reason in said
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(files)


def test_files_that_hold_no_caption_are_shown_with_the_reason(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    write(tmp_path / "a.txt", "one\ntwo\n")
    write(tmp_path / "b.txt", b"\xff\xfe\xff")
    write(tmp_path / "c.txt", "x" * 70_000)
    captions = open_captions(tmp_path)
    problems = [each.problem for each in captions.items.values()]
    captions.close()
    assert problems == [
        "a.txt has several lines: review takes one caption",
        "b.txt is not UTF-8 text",
        "c.txt is too long for a caption",
        None,
    ]
