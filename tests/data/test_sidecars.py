from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from captioner.data.datasets import load_caption_data
from captioner.errors import CaptionerError
from captioner.images.kinds import READ_SUFFIXES
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


def test_sidecars_of_every_kind_of_image_that_is_read_without_an_extra(tmp_path: Path) -> None:
    expected = {}
    for suffix in sorted(READ_SUFFIXES):
        name = f"{suffix[1:]}{suffix}"
        photo(tmp_path / "made.jpg")
        (tmp_path / "made.jpg").rename(tmp_path / name)
        write(tmp_path / f"{suffix[1:]}.txt", f"Of {suffix}.")
        expected[name] = (f"Of {suffix}.",)
    assert captions(load_caption_data(tmp_path)) == expected


@pytest.mark.parametrize(("image", "text"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_sidecar_in_another_unicode_form(tmp_path: Path, image: str, text: str) -> None:
    names = [unicodedata.normalize(image, name) for name in ("café.jpg", "Müller.jpg")]
    photos(tmp_path, *names)
    write(tmp_path / unicodedata.normalize(text, "café.txt"), "A café.")
    write(tmp_path / unicodedata.normalize(text, "Müller.jpg.txt"), "A man.")
    data = load_caption_data(tmp_path)
    assert captions(data) == {names[0]: ("A café.",), names[1]: ("A man.",)}


def test_sidecars_in_folders_of_splits(tmp_path: Path) -> None:
    places = ("data/train/a", "images/validation/sub/b", "train/c", "other/train/d")
    for place in places:
        photo(tmp_path / f"{place}.jpg")
        write(tmp_path / f"{place}.txt", "A dog.")
    data = load_caption_data(tmp_path)
    assert {name[:-4]: split for name, split in splits(data).items()} == dict(
        zip(places, ("train", "dev", "train", None), strict=True)
    )


def test_sidecars_in_other_capitals_are_named(tmp_path: Path) -> None:
    photos(tmp_path, "IMG_1.JPG", "a.jpg", "b.jpg")
    for name in ("img_1.txt", "a.txt"):
        write(tmp_path / name, "A dog.")
    assert load_caption_data(tmp_path).warnings == (
        "1 image whose .txt has its name in other capitals left out "
        f"(first: {tmp_path / 'IMG_1.JPG'})",
        f"1 image without a .txt beside it left out (first: {tmp_path / 'b.jpg'})",
    )


def test_sidecars_with_a_suffix_in_capitals(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg", "b.jpg", "c.JPG")
    for name in ("a.TXT", "b.TXT", "b.txt", "c.JPG.Txt"):
        write(tmp_path / name, f"From {name}.")
    expected = {"a.jpg": ("From a.TXT.",), "b.jpg": ("From b.txt.",), "c.JPG": ("From c.JPG.Txt.",)}
    assert captions(load_caption_data(tmp_path)) == expected


@pytest.mark.parametrize(
    ("names", "suffix", "expected"),
    [
        (
            ["a.caption", "b.jpg.caption"],
            None,
            {"a.jpg": ("a.caption",), "b.jpg": ("b.jpg.caption",)},
        ),
        (["a.caption", "b.txt"], None, {"b.jpg": ("b.txt",)}),
        (["a.caption", "b.txt"], ".caption", {"a.jpg": ("a.caption",)}),
        (["a.words", ".captions.words.captioner"], None, {"a.jpg": ("a.words",)}),
        (["a.words"], ".words", {"a.jpg": ("a.words",)}),
    ],
)
def test_sidecars_of_another_suffix(
    tmp_path: Path, names: list[str], suffix: str | None, expected: dict[str, tuple[str, ...]]
) -> None:
    photos(tmp_path, "a.jpg", "b.jpg")
    for name in names:
        write(tmp_path / name, name)
    data = load_caption_data(tmp_path, sidecar_suffix=suffix)
    assert (data.format, captions(data)) == ("sidecar", expected)
    without = sum(name not in expected for name in ("a.jpg", "b.jpg"))
    assert len(data.warnings) == without
    found = suffix or (".txt" if "b.txt" in names else Path(names[0]).suffix)
    assert all(f"without a {found} beside it left out" in each for each in data.warnings)


@pytest.mark.parametrize(
    ("format", "suffix", "message"),
    [
        ("auto", ".words", "nothing to read as sidecar: no images with a .words of the same name"),
        ("auto", "words", "sidecar_suffix='words': give a dot and a name"),
        ("jsonl", ".words", "sidecar_suffix='.words': is for the format sidecar, not for jsonl"),
    ],
)
def test_a_suffix_that_leads_to_nothing(
    tmp_path: Path, format: str, suffix: str, message: str
) -> None:
    photos(tmp_path, "a.jpg")
    write(tmp_path / "a.txt", "A dog.")
    with pytest.raises(CaptionerError, match=message):
        load_caption_data(tmp_path, format, sidecar_suffix=suffix)
