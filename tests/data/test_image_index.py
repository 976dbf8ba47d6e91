from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from captioner.data.datasets import Example, load_caption_data
from captioner.errors import CaptionerError
from helpers.captioned import captions, photo, photos, splits, write, write_json


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs links")
def test_broken_links_and_folders_are_not_images(tmp_path: Path) -> None:
    photos(tmp_path, "real.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "real.jpg")
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "folder.jpg").mkdir()
    names = ("real.jpg", "link.jpg", "broken.jpg", "folder.jpg", "real.jpg/below.jpg", "x" * 300)
    lines = [json.dumps({"file_name": n, "text": "A dog."}) for n in names]
    write(tmp_path / "metadata.jsonl", "\n".join(lines))
    data = load_caption_data(tmp_path)
    assert [e.image_id for e in data.examples] == ["real.jpg", "link.jpg"]
    assert data.warnings == ("4 images not found (first: broken.jpg)",)


def test_absolute_names(tmp_path: Path) -> None:
    photo(tmp_path / "elsewhere/a.jpg")
    name = str(tmp_path / "elsewhere/a.jpg")
    file = write_json(tmp_path / "set/metadata.jsonl", {"file_name": name, "text": "A dog."})
    data = load_caption_data(file)
    assert data.examples[0].path == tmp_path / "elsewhere/a.jpg"


def test_many_images_are_found_from_one_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "Images"
    folder.mkdir()
    for index in range(3000):
        (folder / f"{index}.jpg").touch()
    lines = [f"{i}.jpg#{k}\tA dog number {i} .\n" for i in range(3000) for k in range(2)]
    write(tmp_path / "all.token.txt", "".join(lines))
    calls: Counter[str] = Counter()

    def count_calls(name: str) -> None:
        real = getattr(os, name)

        def counting(*args: Any, **options: Any) -> Any:
            calls[name] += 1
            return real(*args, **options)

        monkeypatch.setattr(os, name, counting)

    count_calls("stat")
    count_calls("scandir")
    data = load_caption_data(tmp_path)
    assert len(data.examples) == 3000
    assert 1 <= calls["scandir"] < 100
    assert 1 <= calls["stat"] < 200


def test_all_images_missing_names_the_folders_looked_in(flickr: Path) -> None:
    (flickr / "Images").rename(flickr / "pictures")
    with pytest.raises(
        CaptionerError,
        match=rf"none of its 3 images was found .the first: a.jpg.; looked in {flickr};",
    ):
        load_caption_data(flickr)
    assert len(load_caption_data(flickr, images=flickr / "pictures").examples) == 3


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Müller/café.jpg") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("disk", "named"), [(DECOMPOSED, COMPOSED), (COMPOSED, DECOMPOSED)])
def test_names_in_another_unicode_form(tmp_path: Path, disk: str, named: str) -> None:
    photo(tmp_path / disk)
    write(tmp_path / "all.token.txt", f"{named}#0\tA dog .\n{disk}#1\tA cat .\n")
    write(tmp_path / "train.txt", disk)
    data = load_caption_data(tmp_path)
    # One image, called as the captions call it first.
    assert data.examples == (Example(named, tmp_path / disk, ("A dog .", "A cat ."), "train"),)
    assert data.warnings == ()


def test_the_exact_name_comes_first(tmp_path: Path) -> None:
    names = (Path(COMPOSED).name, Path(DECOMPOSED).name)
    photos(tmp_path, *names)
    lines = [json.dumps({"file_name": name, "text": f"A {len(name)}."}) for name in names]
    write(tmp_path / "metadata.jsonl", "\n".join(lines))
    data = load_caption_data(tmp_path)
    assert [(e.path.name, e.captions) for e in data.examples] == [
        (names[0], ("A 8.",)),
        (names[1], ("A 9.",)),
    ]


def test_other_capitals_are_named(tmp_path: Path) -> None:
    photos(tmp_path, "Sub/a.JPG", "c.jpg")
    write(tmp_path / "metadata.csv", "file_name,text\nb.jpg,A cat.\nsub/a.jpg,A dog.\n")
    found = tmp_path / "Sub/a.JPG"
    hint = f"sub/a.jpg; there is {found}, in other capitals"
    with pytest.raises(CaptionerError) as info:
        load_caption_data(tmp_path)
    assert f"none of its 2 images was found (the first: {hint})" in str(info.value)
    with (tmp_path / "metadata.csv").open("a") as file:
        file.write("c.jpg,A man.\n")
    assert load_caption_data(tmp_path).warnings == (f"2 images not found (first: {hint})",)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("sub/a.jpg", "sub/a.jpg; there is {folder}/Sub/A.jpeg, with another suffix); looked in"),
        ("Sub/A", "Sub/A; there is {folder}/Sub/A.jpeg, with another suffix"),
        (
            "Sub/B.jpg",
            "(the first: Sub/B.jpg); looked in {folder}; name the image folder, for exam",
        ),
        ("/home/me/Sub/A.jpeg", "; these are full paths of another place: leave out what stands"),
        ("C:\\data\\A.jpeg", "; these are full paths of another place"),
    ],
)
def test_what_may_be_meant_by_names_that_are_not_there(
    tmp_path: Path, written: str, message: str
) -> None:
    photos(tmp_path, "Sub/A.jpeg")
    write(tmp_path / "Sub/B.txt", "A cat.")  # is no image
    write(tmp_path / "metadata.jsonl", json.dumps({"image_file_name": written, "text": "A dog."}))
    with pytest.raises(CaptionerError, match=re.escape(message.format(folder=tmp_path))):
        load_caption_data(tmp_path)


def test_other_capitals_without_the_folder(tmp_path: Path) -> None:
    photo(tmp_path / "images/a.JPG")
    write_json(tmp_path / "train.json", [{"image": "train2014/a.jpg", "caption": "A dog."}])
    with pytest.raises(CaptionerError, match=r"train2014/a.jpg; there is .*images/a.JPG, in oth"):
        load_caption_data(tmp_path)


@pytest.mark.skipif(os.sep != "/", reason="names that Windows does not allow")
def test_names_as_written_come_before_names_that_may_be_meant(tmp_path: Path) -> None:
    photos(tmp_path, " a.jpg", "a.jpg", "x\\b.jpg", "y/b.jpg", "c#0.jpg", "d.jpg")
    names = (" a.jpg", "a.jpg", "x\\b.jpg", "y\\b.jpg", "c#0.jpg", " d.jpg ")
    lines = [f"{name}#{key}\tA dog {name} #{key}\tx .\n" for key, name in enumerate(names)]
    write(tmp_path / "all.token.txt", "".join(lines))
    write(tmp_path / "train.txt", " a.jpg\nd.jpg\n")
    write(tmp_path / "test.txt", "a.jpg\ny/b.jpg\nc#0.jpg\n")
    data = load_caption_data(tmp_path)
    assert splits(data) == {
        " a.jpg": "train",
        "a.jpg": "test",
        "x\\b.jpg": None,
        "y/b.jpg": "test",
        "c#0.jpg": "test",
        "d.jpg": "train",
    }
    assert captions(data)["c#0.jpg"] == ("A dog c#0.jpg #4 x .",)


def test_two_ways_to_one_file_are_one_image(tmp_path: Path) -> None:
    photo(tmp_path / "Images/a.jpg")
    rows = "file_name,text\na.jpg,A dog.\nImages/a.jpg,A cat.\n"
    write(tmp_path / "metadata.csv", rows)
    assert captions(load_caption_data(tmp_path)) == {"a.jpg": ("A dog.", "A cat.")}
