"""Archives and tables that are named by a pattern, and read sample by sample."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from captioner.data.samples import NO_IMAGES
from captioner.data.streams import Stream, find_shards, is_streamed, read_shard, unpack_stream
from captioner.errors import CaptionerError
from helpers.shards import jpeg
from helpers.streams import write_members

MEMBERS = [
    ("./a.jpg", b"A"),
    ("a.txt", b"A dog.\n A  dog.\nA pet.\n"),
    ("a.json", b'{"caption": "not read"}'),
    ("b.txt", b"No image."),
    ("sub/c.caption.json", b'["A cat.", null, "", 7]'),
    ("sub/c.thumb.png", b"C"),
    ("sub/c.jpg", b"CC"),
    ("d.jpg", b"D"),
    ("e.jpg", b"E"),
    ("e.json", b"{broken"),
    ("f.jpg", b"F"),
    ("f.txt", b"\xe4"),
    ("g.png", b"G"),
    ("g.json", b'{"Captions": ["A man."], "width": 3}'),
]
CAPTIONS = [("A dog.", "A pet."), ("A cat.",), ("A man.",)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [
        {"image": {"bytes": b"A", "path": "a.jpg"}, "captions": ["A dog.", "A  pet. "]},
        {"image": {"bytes": b"B", "path": "b.jpg"}, "captions": []},
        {"image": {"bytes": b"C", "path": None}, "captions": ["A cat."]},
        {"image": None, "captions": ["A man."]},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet", row_group_size=2)
    return tmp_path / "x.parquet"


@pytest.mark.parametrize(
    ("first", "images"),
    [(0, [b"A", b"CC", b"G"]), (2, [None, None, b"G"]), (NO_IMAGES, [None] * 3)],
)
def test_the_samples_of_an_archive(tmp_path: Path, first: int, images: list[bytes | None]) -> None:
    file = str(write_members(tmp_path / "x.tar", MEMBERS))
    left_out: list[tuple[str, str]] = []
    found = list(read_shard(file, "webdataset", first, lambda *each: left_out.append(each)))
    assert [sample.name for sample in found] == ["a.jpg", "sub/c.jpg", "g.png"]
    assert [sample.captions for sample in found] == CAPTIONS
    assert [sample.image for sample in found] == images
    assert [example.removeprefix(f"{file}, ").split(":")[0] for _, example in left_out] == [
        "b",
        "d",
        "e.json",
        "f.txt, line 1",
    ]


@pytest.mark.parametrize(
    ("first", "names", "images"),
    [
        (0, ["a.jpg", "row 3", "row 4"], [b"A", b"C", None]),
        (NO_IMAGES, ["row 1", "row 3", "row 4"], [None] * 3),
    ],
)
def test_the_samples_of_a_table(
    table: Path, first: int, names: list[str], images: list[bytes | None]
) -> None:
    left_out: list[tuple[str, str]] = []
    found = list(read_shard(str(table), "parquet", first, lambda *each: left_out.append(each)))
    assert [sample.name for sample in found] == names
    assert [sample.captions for sample in found] == CAPTIONS
    assert [sample.image for sample in found] == images
    assert left_out == [("sample{s} without a caption left out", f"{table}, row 2")]


def test_a_table_without_images_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{"image": "a.jpg", "text": "A dog."}]), file)
    with pytest.raises(CaptionerError, match="there is no column image or img or jpg or png with"):
        list(read_shard(str(file), "parquet", 0, lambda *_: None))


def test_a_part_of_a_shard(tmp_path: Path) -> None:
    file = str(write_members(tmp_path / "x.tar", MEMBERS))
    stream = Stream(file, "webdataset", [file], [3], [])
    assert [sample.image for sample in stream.samples(0, 1, 3)] == [b"CC", b"G"]
    assert (stream.images, stream.firsts, stream.name) == (3, [0, 3], tmp_path.name)


def test_a_shard_that_has_changed_is_named(tmp_path: Path) -> None:
    file = str(write_members(tmp_path / "x.tar", MEMBERS))
    stream = Stream(file, "webdataset", [file], [4], [])
    with pytest.raises(CaptionerError, match=r"x.tar: has fewer samples .*\(3, and not 4\)"):
        list(stream.samples(0, 2, 4))


def test_patterns_and_addresses_are_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("a.tar", "b.tgz", "[c].tar"):
        write_members(tmp_path / name, MEMBERS)
    given = ("~/*.t*", "s3://b/x.tar", "{a,b}.tar", "a.tar", str(tmp_path), "[c].tar", "none")
    assert [is_streamed(each) for each in given] == [True, True, True, False, False, False, False]
    everything = [str(tmp_path / name) for name in ("[c].tar", "a.tar", "b.tgz")]
    assert find_shards("~/*.t*") == ("webdataset", everything)
    assert find_shards("x/{00..02}.parquet", "parquet") == (
        "parquet",
        ["x/00.parquet", "x/01.parquet", "x/02.parquet"],
    )


@pytest.mark.parametrize(
    ("root", "format", "message"),
    [
        ("{a,b}.jpg", "auto", "a.jpg: patterns and addresses name tar archives or Parquet tables"),
        ("{a.tar,b.parquet}", "auto", "a.tar and b.parquet are of two formats"),
        ("{a,b}.tar", "jsonl", "data.format=jsonl: what {a,b}.tar names is webdataset"),
        ("*.tar", "auto", "*.tar matches nothing"),
    ],
)
def test_what_is_not_a_stream_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str, format: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CaptionerError) as caught:
        find_shards(root, format)
    assert message in str(caught.value)


def test_a_small_stream_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    members = [("a.jpg", jpeg(1)), ("a.txt", b"A dog."), ("b.txt", b"No image.")]
    write_members(tmp_path / "0.tar", members)
    write_members(tmp_path / "1.tar", [("a.jpg", jpeg(2)), *members[1:]])
    data = unpack_stream(f"{tmp_path}/*.tar")
    assert [(e.image_id, e.path.read_bytes(), e.captions, e.split) for e in data.examples] == [
        ("a.jpg", jpeg(1), ("A dog.",), None),
        ("a.jpg#2", jpeg(2), ("A dog.",), None),
    ]
    first = os.path.join(tmp_path, "0.tar")
    assert data.warnings == (f"2 samples without an image left out (first: {first}, b)",)
