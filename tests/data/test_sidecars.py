from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from captioner.data.datasets import load_caption_data
from captioner.errors import CaptionerError
from helpers.captioned import captions, photo, photos, splits, write


def test_sidecars(tmp_path: Path) -> None:
    photos(tmp_path, "train/a.jpg", "valid/deep/b.PNG", "c.jpg", "none.jpg", ".hidden/x.jpg")
    write(tmp_path / "train/a.txt", "A dog.\r\n\r\nA wet dog.\r\nA dog.\r\n")
    write(tmp_path / "valid/deep/b.txt", "A cat.")
    write(tmp_path / "c.txt", "")
    write(tmp_path / ".hidden/x.txt", "Not seen.")
    write(tmp_path / "notes.txt", "about this set")
    data = load_caption_data(tmp_path)
    assert data.format == "sidecar"
    assert captions(data) == {
        "train/a.jpg": ("A dog.", "A wet dog."),
        "valid/deep/b.PNG": ("A cat.",),
    }
    assert splits(data) == {"train/a.jpg": "train", "valid/deep/b.PNG": "dev"}
    assert data.warnings == (
        f"1 empty caption dropped (first: {tmp_path / 'c.txt'}, line 1)",
        f"1 image without a .txt beside it left out (first: {tmp_path / 'none.jpg'})",
        f"1 repeated caption dropped (first: {tmp_path / 'train/a.txt'}, line 4)",
        "1 image without a caption left out (first: c.jpg)",
    )


def test_sidecar_shared_by_two_images_belongs_to_neither(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg", "a.png", "b.jpg", "b.png", "c.jpg")
    for name in ("a.txt", "b.txt", "b.png.txt", "c.txt"):
        write(tmp_path / name, f"From {name}")
    data = load_caption_data(tmp_path)
    assert captions(data) == {
        "b.jpg": ("From b.txt",),
        "b.png": ("From b.png.txt",),
        "c.jpg": ("From c.txt",),
    }
    assert data.warnings == (
        f"2 images that share one .txt with another image left out (first: {tmp_path / 'a.jpg'})",
    )


def test_sidecar_count_only_where_nothing_else_is(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", "From the sidecar.")
    write(tmp_path / "metadata.csv", "file_name,text\na.jpg,From the table.\n")
    assert captions(load_caption_data(tmp_path)) == {"a.jpg": ("From the table.",)}
    named = load_caption_data(tmp_path, format="sidecar")
    assert captions(named) == {"a.jpg": ("From the sidecar.",)}
    with pytest.raises(CaptionerError, match="sidecar.*leave images out"):
        load_caption_data(tmp_path, format="sidecar", images=tmp_path)


@pytest.mark.parametrize(("image", "text"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_sidecar_in_another_unicode_form(tmp_path: Path, image: str, text: str) -> None:
    names = [unicodedata.normalize(image, name) for name in ("café.jpg", "Müller.jpg")]
    photos(tmp_path, *names)
    write(tmp_path / unicodedata.normalize(text, "café.txt"), "A café.")
    write(tmp_path / unicodedata.normalize(text, "Müller.jpg.txt"), "A man.")
    data = load_caption_data(tmp_path)
    assert captions(data) == {names[0]: ("A café.",), names[1]: ("A man.",)}
