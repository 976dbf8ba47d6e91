"""Verdicts of a review as captions to learn from."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from captioner.data.datasets import load_caption_data
from captioner.errors import CaptionerError
from captioner.files.verdicts import (
    ACCEPTED,
    CORRECTED,
    FILE_NAME,
    REJECTED,
    Verdict,
    VerdictStore,
)
from helpers.captioned import captions, photos, write


def give(folder: Path, key: str, *given: tuple[str, str, str | None]) -> None:
    """Write down verdicts: path, verdict, text after it."""
    store = VerdictStore(folder, key)
    for path, verdict, after in given:
        said = Verdict(key, path, path, verdict, "before", after, "2026-03-01T12:30:00+00:00")
        store.complete(store.begin(said))
    store.close()


def test_accepted_and_corrected_captions_are_read(tmp_path: Path) -> None:
    photos(tmp_path, "photos/a.jpg", "photos/b.jpg", "photos/c.jpg", "out/d.jpg")
    give(
        tmp_path / "out",
        "captions.jsonl",
        ("../photos/a.jpg", ACCEPTED, "a dog"),
        ("../photos/b.jpg", CORRECTED, "a wet dog"),
        ("../photos/c.jpg", REJECTED, None),
        ("d.jpg", ACCEPTED, "a cat"),
        ("gone.jpg", ACCEPTED, "a bird"),
    )
    give(tmp_path / "out", "*.txt", ("../photos/a.jpg", CORRECTED, "two dogs"))
    data = load_caption_data(tmp_path / "out")
    assert data.format == "verdicts"
    assert captions(data) == {
        "../photos/b.jpg": ("a wet dog",),
        "d.jpg": ("a cat",),
        "../photos/a.jpg": ("two dogs",),
    }
    assert [example.path.resolve() for example in data.examples] == [
        tmp_path / "photos/b.jpg",
        tmp_path / "out/d.jpg",
        tmp_path / "photos/a.jpg",
    ]
    assert data.warnings == (
        "1 rejected caption left out (first: ../photos/c.jpg)",
        "1 image not found (first: gone.jpg)",
    )
    assert load_caption_data(tmp_path / "out" / FILE_NAME).examples == data.examples


def test_what_is_not_completed_does_not_count(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg", "b.jpg")
    store = VerdictStore(tmp_path, "*.txt")
    said = Verdict("*.txt", "a.jpg", "a.jpg", CORRECTED, None, "a dog", "")
    store.begin(said)
    last = store.begin(Verdict("*.txt", "b.jpg", "b.jpg", CORRECTED, None, "a cat", ""))
    store.complete(last)
    store.close()
    assert captions(load_caption_data(tmp_path)) == {"b.jpg": ("a cat",)}


def test_other_captions_come_first_unless_verdicts_are_named(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg")
    write(tmp_path / "a.txt", "a bird")
    give(tmp_path, "*.txt", ("a.jpg", CORRECTED, "a dog"))
    assert captions(load_caption_data(tmp_path)) == {"a.jpg": ("a bird",)}
    assert captions(load_caption_data(tmp_path, "verdicts")) == {"a.jpg": ("a dog",)}


@pytest.mark.parametrize("content", [b"no database", b"", None])
def test_what_is_not_a_file_of_verdicts_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / FILE_NAME
    if content is None:
        with sqlite3.connect(path) as database:
            database.execute("PRAGMA user_version = 2")
            database.execute("CREATE TABLE other (id)")
    else:
        path.write_bytes(content)
    with pytest.raises(CaptionerError, match=r"\.captioner-review\.sqlite"):
        load_caption_data(tmp_path)
