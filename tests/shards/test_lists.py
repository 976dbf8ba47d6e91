"""Lists of images."""

from __future__ import annotations

from pathlib import Path

import pytest

from captioner.errors import CaptionerError
from captioner.shards.caption import CaptionWork
from captioner.shards.lists import read_list
from captioner.shards.tag import TagWork

COLUMNS = CaptionWork.columns


@pytest.mark.parametrize(
    ("name", "text", "columns", "cells"),
    [
        ("a.csv", 'id,path\n1,"x, y.jpg"\n\n2,z.jpg\n', COLUMNS, ["x, y.jpg", "z.jpg"]),
        ("a.csv", "\ufeffURL;n\r\ns3://b/1.jpg;2\r\n", COLUMNS, ["s3://b/1.jpg"]),
        ("a.tsv", "n\tfile_name\n1\tü.jpg\n", COLUMNS, ["ü.jpg"]),
        ("a.csv", "path,Mine\nx,y\n", ("mine",), ["y"]),
        ("a.jsonl", '{"image": "x.jpg"}\n\n{"image": "y.jpg"}', COLUMNS, ["x.jpg", "y.jpg"]),
        ("a.csv", "video,image\nx.mp4,y.jpg\n", COLUMNS, ["y.jpg"]),
        ("a.csv", "image,video\ny.jpg,x.mp4\n", TagWork.columns, ["x.mp4"]),
    ],
)
def test_the_column_is_found(tmp_path: Path, name, text, columns, cells) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8", newline="")
    found = list(read_list(str(file), columns))
    assert [cell for _, cell in found] == cells
    expected = [cell if "://" in cell else str(tmp_path / cell) for cell in cells]
    assert [path for path, _ in found] == expected


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"id\n1\n", ": there is no column 'url' or "),
        ("a.csv", b"id,path\n1,a\n2,\n", ", line 3: '' is not a path or an address"),
        ("a.csv", b'path\n"a\n', ", line 2: not valid CSV"),
        ("a.csv", b"path\n\xff\n", ": is not UTF-8 text"),
        ("a.jsonl", b"{\n", ", line 1: is not valid JSON"),
        ("a.jsonl", b"[1]\n", ", line 1: is not a JSON object"),
        ("a.jsonl", b'{"path": "a"}\n{"path": 1}\n', ", line 2: 1 is not a path or an address"),
        ("a.parquet", b"nothing", ": cannot be read as Parquet"),
    ],
)
def test_what_is_broken_is_named(tmp_path: Path, name, data, message) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CaptionerError) as caught:
        list(read_list(str(tmp_path / name), COLUMNS))
    assert str(caught.value).startswith(f"{tmp_path / name}{message}")
