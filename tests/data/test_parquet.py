from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from PIL import Image
from pyarrow.parquet import write_table

from captioner.data.datasets import load_caption_data
from captioner.errors import CaptionerError
from helpers.captioned import captions, photo, photos, splits, write


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "set"


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def image_bytes(folder: Path, name: str, width: int) -> bytes:
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (width, 6), (200, 30, 30)).save(folder / name)
    return (folder / name).read_bytes()


def test_images_by_name(root: Path) -> None:
    photos(root, "a.jpg", "b.jpg")
    rows = [
        {"file_name": "a.jpg", "captions": ["A dog.", "A pet."], "split": "train"},
        {"file_name": "b.jpg", "captions": ["A cat."], "split": "val"},
    ]
    table(root / "captions.parquet", rows)
    data = load_caption_data(root)
    assert data.format == "parquet"
    assert captions(data) == {"a.jpg": ("A dog.", "A pet."), "b.jpg": ("A cat.",)}
    assert splits(data) == {"a.jpg": "train", "b.jpg": "dev"}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        ("train.parquet", "test.parquet"),
        ("train/0000.parquet", "test/0000.parquet"),
        ("data/train/0000.parquet", "data/test/0000.parquet"),
        ("default/train/0.parquet", "default/test/0.parquet"),
        ("default/partial-train/0.parquet", "default/partial-test/0.parquet"),
        ("split=train/lang=en/0.parquet", "split=test/lang=en/0.parquet"),
        (
            "snapshots/0a1b/data/train-00000-of-00002-5f.parquet",
            "snapshots/0a1b/data/eval-0.parquet",
        ),
    ],
)
def test_images_inside_as_on_the_hub(root: Path, tmp_path: Path, train: str, test: str) -> None:
    dog, cat = (image_bytes(tmp_path / "made", f"{w}.png", w) for w in (7, 9))
    rows = [
        {"image": {"bytes": dog, "path": "1.png"}, "text": "A dog."},
        {"image": {"bytes": dog, "path": "1.png"}, "text": "A pet."},
        {"image": {"bytes": cat, "path": "1.png"}, "text": "A cat."},
    ]
    table(root / train, rows)
    table(root / test, [{"image": {"bytes": cat, "path": "2.png"}, "text": "A cat."}])
    data = load_caption_data(root)
    # Two images have one name in it; rows about one image are one example.
    assert captions(data) == {
        "1.png": ("A dog.", "A pet."),
        "1.png#2": ("A cat.",),
        "2.png": ("A cat.",),
    }
    assert splits(data) == {"1.png": "train", "1.png#2": "train", "2.png": "test"}
    sizes = {}
    for example in data.examples:
        with Image.open(example.path) as image:
            sizes[example.image_id] = image.size
    assert sizes == {"1.png": (7, 6), "1.png#2": (9, 6), "2.png": (9, 6)}


def test_images_without_a_name(root: Path, tmp_path: Path, cache: Path) -> None:
    dog, cat = (image_bytes(tmp_path / "made", f"{w}.png", w) for w in (7, 9))
    rows = [{"image": data, "caption_0": "A.", "caption_1": "B."} for data in (dog, cat, dog)]
    table(root / "train.parquet", rows)
    data = load_caption_data(root)
    assert [e.captions for e in data.examples] == [("A.", "B."), ("A.", "B.")]
    assert all(e.image_id.startswith("train/") and e.split == "train" for e in data.examples)
    assert data.warnings[0].startswith("2 repeated captions dropped")
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert sorted(path.read_bytes() for path in files) == sorted((dog, cat))
    # What was cut short is written again.
    files[0].write_bytes(b"")
    assert load_caption_data(root) == data
    assert sorted(path.read_bytes() for path in files) == sorted((dog, cat))


def test_structs_with_a_path_alone(root: Path) -> None:
    photo(root / "a.jpg")
    table(root / "x.parquet", [{"image": {"bytes": None, "path": "a.jpg"}, "text": "A dog."}])
    assert load_caption_data(root).examples[0].path == root / "a.jpg"


@pytest.mark.parametrize("name", ["dataset_infos.json", "data/dataset_info.json", "README.md"])
def test_what_the_hub_writes_beside_data(root: Path, tmp_path: Path, name: str) -> None:
    table(
        root / "data/train-00000-of-00001.parquet", [{"image": bare(tmp_path / "m"), "text": "A."}]
    )
    write(root / name, json.dumps({"default": {"features": {"image": {}, "text": {}}}}))
    data = load_caption_data(root)
    assert (data.format, data.splits) == ("parquet", {"train": 1})


def bare(folder: Path) -> dict[str, Any]:
    return {"bytes": image_bytes(folder, "1.png", 7), "path": None}


@pytest.mark.parametrize(
    "fields",
    [
        {"captions": ["A dog.", "A pet."]},
        {"caption": ["A dog.", "A pet."]},
        {"Caption": '["A dog.", "A pet."]'},
        {"text": "['A dog.', 'A pet.']"},
        {"sentences": [{"raw": "A dog.", "tokens": ["a"]}, {"raw": "A pet.", "tokens": ["a"]}]},
        {"sentences": {"raw": ["A dog.", "A pet."], "sentid": [1, 2]}},
        {"sentences": ["A dog.", "A pet."], "sentences_raw": ["Not read."]},
        {"sentences_raw": ["A dog.", "A pet."]},
        {"sentences.raw": ["A dog.", "A pet."]},
        {"caption_1": "A dog.", "caption_0": "A pet.", "raw": "Not read."},
        {"raw": '["A dog.", "A pet."]'},
    ],
)
@pytest.mark.parametrize("column", ["image", "Image", "img", "jpg"])
def test_columns_of_captions_and_images(
    root: Path, tmp_path: Path, fields: dict[str, Any], column: str
) -> None:
    row = {column: bare(tmp_path / "made"), "filename": "a.png", **fields}
    table(root / "data.parquet", [row])
    data = load_caption_data(root)
    assert (captions(data), data.warnings) == ({"a.png": ("A dog.", "A pet.")}, ())


def test_columns_of_other_storage(root: Path, tmp_path: Path) -> None:
    pictures = [image_bytes(tmp_path / "made", f"{w}.png", w) for w in (7, 9)]
    columns = {
        "image": pyarrow.array(pictures, pyarrow.large_binary()),
        "filename": pyarrow.array(["a.png", "b.png"]).dictionary_encode(),
        "text": pyarrow.array(["A dog.", "A dog."], pyarrow.large_string()).dictionary_encode(),
    }
    root.mkdir()
    write_table(pyarrow.table(columns), root / "x.parquet")
    assert captions(load_caption_data(root)) == {"a.png": ("A dog.",), "b.png": ("A dog.",)}


def test_rows_without_an_image_are_counted(root: Path, tmp_path: Path) -> None:
    image = {**bare(tmp_path / "made"), "path": "1.png"}
    empty: list[Any] = [{"bytes": None, "path": None}, {"bytes": b"", "path": "2.png"}, None]
    file = table(root / "x.parquet", [{"image": each, "text": "A."} for each in (image, *empty)])
    data = load_caption_data(root)
    assert captions(data) == {"1.png": ("A.",)}
    assert data.warnings == (
        f"2 rows without an image left out (first: {file}, row 2)",
        "1 image not found (first: 2.png)",
    )


def test_karpathys_columns_without_images(root: Path) -> None:
    photos(root, "val2014/a.jpg", "b.jpg")
    rows = [
        {
            "filepath": "val2014",
            "filename": n,
            "sentences": ["A dog."],
            "split": "restval",
            "cocoid": i,
        }
        for i, n in enumerate(("a.jpg", "b.jpg"))
    ]
    table(root / "train.parquet", rows)
    data = load_caption_data(root)
    assert [(e.image_id, e.split, e.given_id) for e in data.examples] == [
        ("val2014/a.jpg", "train", 0),
        ("b.jpg", "train", 1),
    ]


@pytest.mark.parametrize("places", [("", "train/", "val/"), ("train/", "", ""), ("val/", "", "")])
def test_metadata_beside_images(root: Path, places: tuple[str, ...]) -> None:
    where, *names = places
    photos(root / where, *(f"{name}{n}.jpg" for n, name in enumerate(names)))
    rows = [{"file_name": f"{name}{n}.jpg", "text": "A dog."} for n, name in enumerate(names)]
    table(root / where / "metadata.parquet", rows)
    found = list(splits(load_caption_data(root)).values())
    assert found == [{"": None, "train/": "train", "val/": "dev"}[where or name] for name in names]


def test_tables_without_captions_are_not_read(root: Path) -> None:
    photo(root / "a.jpg")
    write(root / "metadata.csv", "file_name,text\na.jpg,A dog.\n")
    table(root / "stats.parquet", [{"url": "http://x", "width": 3}])
    assert load_caption_data(root).format == "csv"
    (root / "metadata.csv").unlink()
    with pytest.raises(CaptionerError, match="no captions found"):
        load_caption_data(root)


def test_without_pyarrow_the_extra_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(root / "a.jpg")
    table(root / "x.parquet", [{"file_name": "a.jpg", "text": "A dog."}])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(CaptionerError, match=r"x.parquet: Parquet needs pyarrow: .*\[parquet\]"):
        load_caption_data(root)


def test_a_broken_table_is_named(root: Path) -> None:
    write(root / "train.parquet", b"PAR1 but no more")
    with pytest.raises(CaptionerError, match=r"train.parquet: cannot be read as Parquet: "):
        load_caption_data(root)


def test_a_cache_that_cannot_be_written_is_named(root: Path, tmp_path: Path, cache: Path) -> None:
    table(root / "x.parquet", [{"image": image_bytes(tmp_path / "made", "a.png", 7), "text": "A."}])
    cache.write_text("")
    with pytest.raises(CaptionerError, match=r"cache.* with XDG_CACHE_HOME"):
        load_caption_data(root)
