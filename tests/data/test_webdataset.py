from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from pathlib import Path

import pyarrow
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


def tar(path: Path, files: dict[str, bytes], compression: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, f"w:{compression}") as archive:  # type: ignore[call-overload]
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
        ("cc3m/train/00000.tar", "cc3m/val/00000.tar"),
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


@pytest.mark.parametrize(
    ("name", "compression"),
    [
        ("train-0000.tar.gz", "gz"),
        ("train-0000.TGZ", "gz"),
        ("train-0000.tar.bz2", "bz2"),
        ("a.b/train/0000.tar.xz", "xz"),
        ("train.tar", "gz"),  # by its content
        ("train.tgz", ""),
    ],
)
def test_compressed_archives(root: Path, name: str, compression: str) -> None:
    samples = {
        f"{n}.{kind}": png(7 + n) if kind == "png" else f"Dog {n}.".encode()
        for n in range(3)
        for kind in ("png", "txt")
    }
    file = tar(root / name, samples, compression)
    expected = {f"{n}.png": (f"Dog {n}.",) for n in range(3)}
    for path in (root, file):
        data = load_caption_data(path)
        assert (data.format, captions(data)) == ("webdataset", expected)
    assert load_caption_data(root).splits == {"train": 3}


def test_suffixes_of_several_parts(root: Path) -> None:
    files = {
        **{"a.image.png": png(7), "a.caption.txt": b"A dog."},
        **{"b.seg.png": png(8), "b.jpg": png(9), "b.txt": b"A cat."},
    }
    tar(root / "x.tar", files)
    data = load_caption_data(root)
    assert captions(data) == {"a.image.png": ("A dog.",), "b.jpg": ("A cat.",)}
    with Image.open(data.examples[1].path) as image:
        assert image.size == (9, 6)


def zst(path: Path) -> Path:
    file = tar(path.with_suffix(""), {"a.png": png(7), "a.txt": b"A dog."})
    with pyarrow.CompressedOutputStream(str(path), "zstd") as stream:
        stream.write(file.read_bytes())
    file.unlink()
    return path


def test_archives_compressed_with_zstd(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = zst(root / "x.tar.zst")
    assert captions(load_caption_data(root)) == {"a.png": ("A dog.",)}
    if "zst" in tarfile.TarFile.OPEN_METH:
        return
    monkeypatch.setattr("captioner.data.tars.find_spec", lambda name: None)
    with pytest.raises(CaptionerError, match=r"x.tar.zst: .*zstd need pyarrow.*\[parquet\]"):
        load_caption_data(file)


def test_a_small_archive_with_a_huge_file_is_refused(root: Path) -> None:
    file = root / "x.tar.gz"
    root.mkdir()
    member = tarfile.TarInfo("a.png")
    member.size = 600_000_000
    file.write_bytes(gzip.compress(member.tobuf()))
    with pytest.raises(CaptionerError, match=r"x.tar.gz, a.png: 600000000 bytes are too many"):
        load_caption_data(root)


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


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_a_broken_compressed_archive_is_named(root: Path, compression: str) -> None:
    noise = random.Random(0).randbytes(9000)
    file = tar(root / f"x.tar.{compression}", {"a.png": noise, "a.txt": b"A dog."}, compression)
    whole = file.read_bytes()
    for data in (whole[:4000], whole[:4000] + bytes(400) + whole[4400:]):
        file.write_bytes(data)
        with pytest.raises(CaptionerError, match="x.tar.*: cannot be read as a tar archive: "):
            load_caption_data(root)


def test_a_header_that_is_broken_is_not_the_end(root: Path) -> None:
    samples = {f"{n}.{kind}": b"A dog." for n in range(3) for kind in ("png", "txt")}
    file = tar(root / "x.tar", samples)
    data = bytearray(file.read_bytes())
    data[2 * 1024 + 148] ^= 1  # in the checksum of the third header
    file.write_bytes(data)
    with pytest.raises(CaptionerError, match=r"x.tar: cannot .* tar archive: a header is broken"):
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
