from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from captioner.data.datasets import load_caption_data
from captioner.errors import CaptionerError
from helpers.captioned import captions, splits, write


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "set"


def png(width: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, 6), (200, 30, 30)).save(stream, "PNG")
    return stream.getvalue()


def tar(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("train", "dev"),
    [
        ("train-000000.tar", "validation-000000.tar"),
        ("data/cc3m-train-0000.tar", "data/cc3m-val-0000.tar"),
        ("train/00000.tar", "val/00000.tar"),
    ],
)
def test_shards_with_their_splits(root: Path, train: str, dev: str) -> None:
    tar(
        root / train,
        {
            "./000.png": png(7),
            "./000.txt": b"A dog.\nA pet.\n",
            "./000.json": json.dumps({"caption": "not read", "url": "x"}).encode(),
            "sub/001.PNG": png(8),
            "sub/001.json": json.dumps({"caption": "A cat.", "width": 8}).encode(),
            "sub/001.cls": b"3",
        },
    )
    tar(root / dev, {"000.json": b'["A man.", "A person."]', "000.png": png(9)})
    data = load_caption_data(root)
    assert (data.format, data.warnings) == ("webdataset", ())
    assert captions(data) == {
        "000.png": ("A dog.", "A pet."),
        "sub/001.png": ("A cat.",),
        "000.png#2": ("A man.", "A person."),
    }
    assert splits(data) == {"000.png": "train", "sub/001.png": "train", "000.png#2": "dev"}
    for example, width in zip(data.examples, (7, 8, 9), strict=True):
        with Image.open(example.path) as image:
            assert image.size == (width, 6)


def test_samples_that_lack_a_part_are_counted(root: Path) -> None:
    files = {"a.png": png(7), "a.txt": b"A dog.", "b.png": png(8), "c.txt": b"A cat.", "d.png": b""}
    file = tar(root / "x.tar", files)
    data = load_caption_data(file)
    assert captions(data) == {"a.png": ("A dog.",)}
    assert data.warnings == (
        f"2 samples without a caption left out (first: {file}, b)",
        f"1 sample without an image left out (first: {file}, c)",
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.png": b"x", "a.txt": b"caf\xe9"}, r"x.tar, a.txt, line 1: byte 0xe9 is not UTF-8"),
        ({"a.png": b"x", "a.json": b"{"}, r"x.tar, a.json: not valid JSON"),
        ({"a.png": b"x", "a.json": b"3"}, r"x.tar, a.json: not an object"),
        ({"a.png": b"x", "a.json": b"{}"}, r"x.tar, a: there is no field 'text'"),
    ],
)
def test_broken_samples_are_named(root: Path, files: dict[str, bytes], message: str) -> None:
    tar(root / "x.tar", files)
    with pytest.raises(CaptionerError, match=message):
        load_caption_data(root)


@pytest.mark.parametrize("cut", [100, 600, 1100])
def test_a_broken_archive_is_named(root: Path, cut: int) -> None:
    file = tar(root / "x.tar", {"a.png": png(7), "a.txt": b"A dog." * 100})
    file.write_bytes(
        b"x" * 100 + file.read_bytes()[100:] if cut == 100 else file.read_bytes()[:cut]
    )
    with pytest.raises(CaptionerError, match=r"x.tar"):
        load_caption_data(file)


def test_an_archive_beside_other_captions_is_not_read(root: Path) -> None:
    write(root / "a.png", png(7))
    write(root / "a.txt", b"From the sidecar.")
    tar(root / "backup.tar", {"a.png": png(7), "a.txt": b"From the archive."})
    assert captions(load_caption_data(root)) == {"a.png": ("From the sidecar.",)}
