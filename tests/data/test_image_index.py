from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from captioner.data.datasets import load_caption_data
from captioner.errors import CaptionerError
from helpers.captioned import photo, photos, write, write_json


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
