from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captioner.data.datasets import (
    FORMATS,
    CaptionData,
    Example,
    canonical_split,
    load_caption_data,
)
from captioner.errors import CaptionerError

FLICKR8K = Path(__file__).parents[3] / "shared" / "flickr8k"


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (200, 30, 30)).save(path)


def photos(folder: Path, *names: str) -> None:
    for name in names:
        photo(folder / name)


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


def write_json(path: Path, data: object) -> Path:
    return write(path, json.dumps(data))


def captions(data: CaptionData) -> dict[str, tuple[str, ...]]:
    return {e.image_id: e.captions for e in data.examples}


def splits(data: CaptionData) -> dict[str, str | None]:
    return {e.image_id: e.split for e in data.examples}


# ---------------------------------------------------------------- Flickr


@pytest.fixture
def flickr(tmp_path: Path) -> Path:
    photos(tmp_path / "Images", "a.jpg", "b.jpg", "c.jpg")
    write(
        tmp_path / "Flickr8k.token.txt",
        "a.jpg#0\tA dog runs .\na.jpg#1\tA dog runs .\nb.jpg#0\tTwo  cats .\nc.jpg#0\tA man .\n",
    )
    write(tmp_path / "Flickr8k.lemma.token.txt", "a.jpg#0\ta dog run .\n")
    write(tmp_path / "Flickr_8k.trainImages.txt", "a.jpg\n")
    write(tmp_path / "Flickr_8k.devImages.txt", "b.jpg\n")
    write(tmp_path / "Flickr_8k.testImages.txt", "c.jpg")
    return tmp_path


def test_flickr_reads_captions_in_order_with_their_splits(flickr: Path) -> None:
    data = load_caption_data(flickr)
    assert data == CaptionData(
        "flickr",
        flickr,
        (
            # Two annotators wrote the same: both stay, as in the published reference sets.
            Example("a.jpg", flickr / "Images/a.jpg", ("A dog runs .", "A dog runs ."), "train"),
            Example("b.jpg", flickr / "Images/b.jpg", ("Two cats .",), "dev"),
            Example("c.jpg", flickr / "Images/c.jpg", ("A man .",), "test"),
        ),
        (),
    )
    assert data.splits == {"train": 1, "dev": 1, "test": 1}
    assert data.name == flickr.name


@pytest.mark.parametrize("name", ["dev", "val", "valid", "validation", "Validation", " VAL "])
def test_split_aliases(flickr: Path, name: str) -> None:
    assert [e.image_id for e in load_caption_data(flickr).split(name)] == ["b.jpg"]


def test_split_that_is_not_there_lists_those_that_are(flickr: Path) -> None:
    with pytest.raises(CaptionerError, match=r"no split 'tset'.*train \(1 images\), dev .*test"):
        load_caption_data(flickr).split("tset")


def test_flickr_with_bom_crlf_and_blank_lines(flickr: Path) -> None:
    before = load_caption_data(flickr)
    for file in flickr.glob("*.txt"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n\r\n") + b"\r\n")
    assert load_caption_data(flickr) == before


def test_flickr_counts_what_it_leaves_out(flickr: Path) -> None:
    with (flickr / "Flickr8k.token.txt").open("a") as file:
        file.write("d.jpg.1#0\tAn odd one .\nd.jpg.1#1\tAn odd one .\n")
        file.write("c.jpg#1\t \na.jpg#0\tA dog runs .\nunlisted.jpg#0\tA fish .\ne.jpg#0\t\n")
    photos(flickr / "Images", "unlisted.jpg", "e.jpg")
    write(flickr / "Flickr_8k.testImages.txt", "c.jpg\nz.jpg\n")
    token = flickr / "Flickr8k.token.txt"
    data = load_caption_data(flickr)
    assert data.warnings == (
        f"2 empty captions dropped (first: {token}, line 7)",
        f"1 repeated caption dropped (first: {token}, line 8)",
        "1 image of the split lists without a caption "
        f"(first: {flickr / 'Flickr_8k.testImages.txt'}, line 2)",
        "1 image without a caption left out (first: e.jpg)",
        "1 image not found (first: d.jpg.1)",
        "1 image in no split, so never used (first: unlisted.jpg)",
    )
    assert captions(data)["a.jpg"] == ("A dog runs .", "A dog runs .")
    assert splits(data) == {"a.jpg": "train", "b.jpg": "dev", "c.jpg": "test", "unlisted.jpg": None}


def test_flickr_image_in_two_splits_is_an_error(flickr: Path) -> None:
    write(flickr / "Flickr_8k.devImages.txt", "b.jpg\na.jpg\n")
    # Split lists are read in the order of their names: dev, test, train.
    with pytest.raises(
        CaptionerError, match=r"trainImages.txt, line 1: the image 'a.jpg' .* 'train' and in 'dev'"
    ):
        load_caption_data(flickr)


def test_flickr_without_split_files(flickr: Path) -> None:
    for file in flickr.glob("*Images.txt"):
        file.unlink()
    data = load_caption_data(flickr)
    assert set(splits(data).values()) == {None}
    assert data.splits == {} and data.warnings == ()
    with pytest.raises(CaptionerError, match="no image here belongs to any split.*with_random"):
        data.split("train")


def test_flickr_bad_line_is_named(flickr: Path) -> None:
    write(flickr / "Flickr8k.token.txt", "a.jpg#0\tA dog .\na.jpg A cat\n")
    with pytest.raises(CaptionerError, match=r"token.txt, line 2: 'a.jpg A cat' is not name#num"):
        load_caption_data(flickr)


def test_flickr_bytes_that_are_not_utf8_are_named(flickr: Path) -> None:
    write(flickr / "Flickr8k.token.txt", b"a.jpg#0\tA dog .\nb.jpg#0\tA caf\xe9 .\n")
    with pytest.raises(CaptionerError, match=r"token.txt, line 2: byte 0xe9 is not UTF-8.*iconv"):
        load_caption_data(flickr)


@pytest.mark.parametrize("folder", ["Flicker8k_Dataset", "Flickr8k_Dataset/Flicker8k_Dataset"])
def test_flickr_as_the_archives_unpack_it(tmp_path: Path, folder: str) -> None:
    photos(tmp_path / folder, "a.jpg")
    write(tmp_path / "Flickr8k_text/Flickr8k.token.txt", "a.jpg#0\tA dog .\n")
    write(tmp_path / "Flickr8k_text/Flickr_8k.trainImages.txt", "a.jpg\n")
    data = load_caption_data(tmp_path)
    assert data.examples == (Example("a.jpg", tmp_path / folder / "a.jpg", ("A dog .",), "train"),)
    # The annotation file itself as the root finds the images of the folder above.
    from_file = load_caption_data(tmp_path / "Flickr8k_text/Flickr8k.token.txt")
    assert from_file.examples == data.examples


def test_flickr30k_token_file_with_number_only_split_lists(tmp_path: Path) -> None:
    photos(tmp_path / "flickr30k_images", "1.jpg", "2.jpg")
    write(tmp_path / "results_20130124.token", "1.jpg#0\tA dog .\n2.jpg#0\tA cat .\n")
    write(tmp_path / "flickr30k_train.txt", "1\n")
    write(tmp_path / "flickr30k_val.txt", "2\n")
    data = load_caption_data(tmp_path)
    assert data.format == "flickr"
    assert splits(data) == {"1.jpg": "train", "2.jpg": "dev"}


def test_flickr_kaggle_captions_txt(tmp_path: Path) -> None:
    photos(tmp_path / "Images", "a.jpg")
    write(
        tmp_path / "captions.txt",
        'image,caption\na.jpg,A dog .\na.jpg,"A dog , wet , runs ."\na.jpg,A dog .\n'
        'a.jpg,"""Hi"" it says ."\n',
    )
    data = load_caption_data(tmp_path)
    assert data.format == "flickr"
    assert captions(data) == {
        "a.jpg": ("A dog .", "A dog , wet , runs .", "A dog .", '"Hi" it says .')
    }
    assert data.warnings == ()


def test_flickr_kaggle_results_csv_with_its_broken_line(tmp_path: Path) -> None:
    nested = tmp_path / "flickr30k_images"  # as that archive unpacks
    photos(nested / "flickr30k_images", "a.jpg")
    results = write(
        nested / "results.csv",
        "image_name| comment_number| comment\na.jpg| 0| Two men , one old | tall .\n"
        "a.jpg| 4   A dog runs .\n",
    )
    data = load_caption_data(tmp_path)
    assert data.format == "flickr"
    assert captions(data) == {"a.jpg": ("Two men , one old | tall .", "A dog runs .")}
    assert data.warnings == (
        f"1 line without its second separator repaired (first: {results}, line 3)",
    )
    write(results, "image_name| comment_number| comment\na.jpg A dog runs\n")
    with pytest.raises(CaptionerError, match=r"results.csv, line 2: 'a.jpg A dog runs' is not im"):
        load_caption_data(tmp_path)


# ---------------------------------------------------------------- COCO


def coco(*images: tuple[int, str, str]) -> dict[str, object]:
    return {
        "images": [{"id": i, "file_name": name} for i, name, _ in images],
        "annotations": [
            {"id": 10 * i, "image_id": i, "caption": text} for i, _, text in images if text
        ],
    }


def test_coco_folder(tmp_path: Path) -> None:
    photos(tmp_path, "train2014/a.jpg", "val2014/b.jpg")
    notes = tmp_path / "annotations"
    write_json(notes / "captions_train2014.json", coco((1, "a.jpg", "A dog.\n")))
    write_json(notes / "captions_val2014.json", coco((2, "b.jpg", "A cat."), (3, "c.jpg", "")))
    write_json(notes / "instances_train2014.json", {"images": []})
    data = load_caption_data(tmp_path)
    assert data == CaptionData(
        "coco",
        tmp_path,
        (
            Example("train2014/a.jpg", tmp_path / "train2014/a.jpg", ("A dog.",), "train"),
            Example("val2014/b.jpg", tmp_path / "val2014/b.jpg", ("A cat.",), "dev"),
        ),
        ("1 image without a caption left out (first: val2014/c.jpg)",),
    )


def test_coco_keeps_equal_captions_of_different_annotations(tmp_path: Path) -> None:
    photos(tmp_path / "images", "a.jpg")
    data = coco((1, "a.jpg", "A dog."))
    data["annotations"] = [
        {"id": 1, "image_id": 1, "caption": "A dog."},
        {"id": 2, "image_id": 1, "caption": "A dog."},
        {"id": 2, "image_id": 1, "caption": "A dog."},
        {"id": 3, "image_id": 9, "caption": "Whose?"},
    ]
    file = write_json(tmp_path / "my_captions.json", data)
    loaded = load_caption_data(file)
    assert loaded.format == "coco" and captions(loaded) == {"a.jpg": ("A dog.", "A dog.")}
    assert splits(loaded) == {"a.jpg": None}
    assert loaded.warnings == (
        f"1 repeated caption dropped (first: {file}, annotations[2])",
        f"1 caption of an image that the file does not list (first: {file}, annotations[3])",
    )


def test_coco_single_file_with_the_image_folder_named(tmp_path: Path) -> None:
    photos(tmp_path / "elsewhere", "a.jpg")
    file = write_json(tmp_path / "annotations/captions_val2017.json", coco((1, "a.jpg", "A dog.")))
    with pytest.raises(CaptionerError, match=r"none of its 1 images was found.*val2017/a.jpg.*loo"):
        load_caption_data(file)
    data = load_caption_data(file, images=tmp_path / "elsewhere")
    assert data.examples == (
        Example("val2017/a.jpg", tmp_path / "elsewhere/a.jpg", ("A dog.",), "dev"),
    )


def test_coco_of_two_years_takes_the_year_whose_images_are_here(tmp_path: Path) -> None:
    for year in ("2014", "2017"):
        file = tmp_path / f"annotations/captions_train{year}.json"
        write_json(file, coco((1, "a.jpg", f"From {year}.")))
    photos(tmp_path, "train2017/a.jpg")
    assert captions(load_caption_data(tmp_path)) == {"train2017/a.jpg": ("From 2017.",)}
    photos(tmp_path, "train2014/a.jpg")
    with pytest.raises(CaptionerError, match=r"several files.*train2014.json, captions_train2017"):
        load_caption_data(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"captions.json: not valid JSON: .*line 1"),
        ("[" * 100_000, r"captions.json: not valid JSON"),
        ("[]", 'captions.json: there is no list "images"$'),
        ('{"images": [{"id": 1}]}', r'captions.json, images\[0\]: there is no "file_name"'),
        ('{"images": [3]}', r'captions.json, images\[0\]: there is no "id"'),
        ('{"images": [{"id": 1, "file_name": 7}]}', r'no list "annotations"$'),
        (
            '{"images": [{"id": 1, "file_name": 7}], "annotations": '
            '[{"image_id": 1, "caption": "A dog."}]}',
            r"annotations\[0\]: the image name is 7",
        ),
        (
            '{"images": [{"id": [1], "file_name": "a"}], "annotations": '
            '[{"image_id": [1], "caption": 5}]}',
            r"annotations\[0\]: the caption is 5",
        ),
    ],
)
def test_coco_broken_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    write(tmp_path / "captions.json", content)
    with pytest.raises(CaptionerError, match=message):
        load_caption_data(tmp_path)


# ---------------------------------------------------------------- Karpathy


def karpathy(*images: tuple[str, str, str, list[str]]) -> dict[str, object]:
    return {
        "images": [
            {"filename": f, "filepath": p, "split": s, "sentences": [{"raw": r} for r in raw]}
            for p, f, s, raw in images
        ]
    }


def test_karpathy_coco(tmp_path: Path) -> None:
    photos(tmp_path, "train2014/a.jpg", "val2014/b.jpg", "val2014/c.jpg", "val2014/d.jpg")
    write_json(
        tmp_path / "dataset_coco.json",
        karpathy(
            ("train2014", "a.jpg", "train", ["A dog.", "A dog."]),
            ("val2014", "b.jpg", "restval", ["A cat."]),
            ("val2014", "c.jpg", "val", ["A man."]),
            ("val2014", "d.jpg", "test", ["A cup.", ""]),
        ),
    )
    data = load_caption_data(tmp_path)
    assert data.format == "karpathy"
    assert splits(data) == {
        "train2014/a.jpg": "train",
        "val2014/b.jpg": "train",
        "val2014/c.jpg": "dev",
        "val2014/d.jpg": "test",
    }
    assert captions(data)["train2014/a.jpg"] == ("A dog.", "A dog.")
    assert data.warnings == (
        f"1 empty caption dropped (first: {tmp_path / 'dataset_coco.json'}, images[3])",
    )


def test_karpathy_flickr8k_file_as_root(tmp_path: Path) -> None:
    photos(tmp_path / "Images", "a.jpg")
    images = karpathy(("", "a.jpg", "val", ["A dog."]))
    file = write_json(tmp_path / "splits.json", images)
    data = load_caption_data(file)
    assert (data.format, splits(data)) == ("karpathy", {"a.jpg": "dev"})


def test_karpathy_images_without_their_folder(tmp_path: Path) -> None:
    photos(tmp_path / "images", "a.jpg")
    write_json(tmp_path / "dataset_coco.json", karpathy(("val2014", "a.jpg", "val", ["A dog."])))
    data = load_caption_data(tmp_path)
    assert data.examples[0].path == tmp_path / "images/a.jpg"
    assert data.examples[0].image_id == "val2014/a.jpg"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"filename": "a.jpg", "sentences": 3}, r'images\[0\]: there is no list "sentences"$'),
        (
            {"filename": "a.jpg", "sentences": [{}]},
            r'images\[0\], sentences\[0\]: there is no "raw"$',
        ),
        ({"sentences": []}, r'images\[0\]: there is no "filename"$'),
        ({"filename": None, "sentences": []}, r"images\[0\]: the image name is None"),
        ({"filename": "a.jpg", "sentences": []}, r"dataset.json: there is no caption in it$"),
    ],
)
def test_karpathy_broken_records_are_named(
    tmp_path: Path, image: dict[str, object], message: str
) -> None:
    photo(tmp_path / "a.jpg")
    write_json(tmp_path / "dataset.json", {"images": [image]})
    with pytest.raises(CaptionerError, match=message):
        load_caption_data(tmp_path)


# ---------------------------------------------------------------- JSONL and CSV


def test_jsonl_merges_rows_and_lists(tmp_path: Path) -> None:
    photos(tmp_path, "sub/a.jpg", "b.jpg")
    file = write(
        tmp_path / "metadata.jsonl",
        '{"file_name": "sub/a.jpg", "text": "A dog.", "split": "training"}\n'
        '{"file_name": "./sub//a.jpg", "text": ["A wet dog.", "A dog."]}\n'
        '{"file_name": "b.jpg", "captions": ["A cat.", ""], "split": "Validation"}\n'
        '{"file_name": "sub\\\\a.jpg", "text": null, "error": "unreadable"}\n',
    )
    data = load_caption_data(tmp_path)
    assert data.format == "jsonl"
    assert captions(data) == {"sub/a.jpg": ("A dog.", "A wet dog."), "b.jpg": ("A cat.",)}
    assert splits(data) == {"sub/a.jpg": "train", "b.jpg": "dev"}
    assert data.examples[0].path == tmp_path / "sub/a.jpg"
    assert data.warnings == (
        f"1 repeated caption dropped (first: {file}, line 2)",
        f"2 empty captions dropped (first: {file}, line 3)",
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", r"metadata.jsonl, line 3: not valid JSON"),
        ("3", r"metadata.jsonl, line 3: not an object"),
        ('{"text": "A dog."}', r"line 3: there is no field 'file_name' or 'filename' or 'image'"),
        ('{"file_name": "a.jpg"}', r"line 3: there is no field 'text' or 'captions'"),
        ('{"file_name": "a.jpg", "text": 7}', r"line 3: the caption is 7"),
        ('{"file_name": "a.jpg", "text": ["x", {}]}', r"line 3: the caption is {}"),
        ('{"file_name": null, "text": "x"}', r"line 3: the image name is None"),
        ('{"file_name": " ", "text": "x"}', r"line 3: the image name is ' '"),
        ('{"file_name": "a\\u0000", "text": "x"}', r"line 3: the image name is 'a\\x00'"),
        ('{"file_name": "a.jpg", "text": "x", "split": 1}', r"line 3: the split is 1"),
        (
            '{"file_name": "a.jpg", "text": "x", "split": "val"}',
            r"line 3: the image 'a.jpg' is in the split 'dev' and in 'train'",
        ),
    ],
)
def test_jsonl_broken_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    photo(tmp_path / "a.jpg")
    good = '{"file_name": "a.jpg", "text": "A dog.", "split": "train"}'
    write(tmp_path / "metadata.jsonl", f"{good}\n\n{line}\n")
    with pytest.raises(CaptionerError, match=message):
        load_caption_data(tmp_path)


def test_jsonl_text_that_could_not_be_saved_later(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    write(
        tmp_path / "metadata.jsonl", '{"file_name": "a.jpg", "text": "A \\ud800 dog\\n\\u2028 ."}'
    )
    assert captions(load_caption_data(tmp_path)) == {"a.jpg": ("A ? dog .",)}


def test_jsonl_unicode_names_and_line_separators_inside_a_caption(tmp_path: Path) -> None:
    photo(tmp_path / "café 猫.jpg")
    line = json.dumps({"file_name": "café 猫.jpg", "text": "一只\u0085猫"}, ensure_ascii=False)
    write(tmp_path / "x.jsonl", line)
    assert captions(load_caption_data(tmp_path)) == {"café 猫.jpg": ("一只 猫",)}


def test_jsonl_with_custom_split_is_kept_and_counted(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    rows = [("a.jpg", "train"), ("b.jpg", "Fold7"), ("c.jpg", None)]
    lines = [json.dumps({"file_name": n, "text": "A dog.", "split": s}) for n, s in rows]
    write(tmp_path / "metadata.jsonl", "\n".join(lines))
    data = load_caption_data(tmp_path)
    assert data.splits == {"train": 1, "fold7": 1}
    assert [e.image_id for e in data.split("fold7")] == ["b.jpg"]
    assert data.warnings == (
        "1 image in a split that is none of train, dev and test (first: b.jpg in 'fold7')",
        "1 image in no split, so never used (first: c.jpg)",
    )


def test_one_file_for_each_split(tmp_path: Path) -> None:
    photos(tmp_path / "images", "a.jpg", "b.jpg")
    write(tmp_path / "train.jsonl", '{"file_name": "a.jpg", "text": "A dog."}')
    write(tmp_path / "validation.jsonl", '{"file_name": "b.jpg", "text": "A cat."}')
    assert splits(load_caption_data(tmp_path)) == {"a.jpg": "train", "b.jpg": "dev"}


def test_one_folder_for_each_split(tmp_path: Path) -> None:
    photos(tmp_path, "train/1.jpg", "test/1.jpg")
    write(tmp_path / "train/metadata.csv", "file_name,text\n1.jpg,A dog.\n")
    write(tmp_path / "test/metadata.csv", "file_name,text\n1.jpg,A cat.\n")
    data = load_caption_data(tmp_path)
    assert data.format == "csv"
    assert captions(data) == {"test/1.jpg": ("A cat.",), "train/1.jpg": ("A dog.",)}
    assert splits(data) == {"test/1.jpg": "test", "train/1.jpg": "train"}
    # The file alone is a set of its own: its folder's name says nothing then.
    assert splits(load_caption_data(tmp_path / "test/metadata.csv")) == {"1.jpg": None}


@pytest.mark.parametrize("place", ["annotations/a.jpg", "images/a.jpg", "a.jpg"])
def test_table_in_an_annotations_folder(tmp_path: Path, place: str) -> None:
    photo(tmp_path / place)
    file = write(tmp_path / "annotations/mine.csv", "file_name,text\na.jpg,A dog.\n")
    assert load_caption_data(file).examples == (
        Example("a.jpg", tmp_path / place, ("A dog.",), None),
    )


def test_several_tables_ask_which(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    for name in ("mine.jsonl", "yours.jsonl"):
        write(tmp_path / name, '{"file_name": "a.jpg", "text": "A dog."}')
    with pytest.raises(CaptionerError, match=r"several files could be the jsonl .*mine.*yours"):
        load_caption_data(tmp_path)
    assert load_caption_data(tmp_path / "yours.jsonl").examples[0].captions == ("A dog.",)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv(tmp_path: Path, delimiter: str) -> None:
    photos(tmp_path, "a.jpg", "b.jpg")
    rows = [
        ["File_Name", "text", "split"],
        ["a.jpg", f'"A ""big""{delimiter} wet dog."', "train"],
        ["a.jpg", "A dog.", ""],
        ["b.jpg", '"A\r\ncat."', "val"],
    ]
    text = "\ufeff" + "\r\n".join(delimiter.join(row) for row in rows) + "\r\n\r\n"
    write(tmp_path / "metadata.csv", text)
    data = load_caption_data(tmp_path)
    assert data.format == "csv"
    wet = " ".join(f'A "big"{delimiter} wet dog.'.split())
    assert captions(data) == {"a.jpg": (wet, "A dog."), "b.jpg": ("A cat.",)}
    assert splits(data) == {"a.jpg": "train", "b.jpg": "dev"}


def test_csv_with_a_json_list_in_its_captions_column(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    write(tmp_path / "c.csv", 'image,captions\na.jpg,"[""A dog."", ""A pet.""]"\n')
    assert captions(load_caption_data(tmp_path)) == {"a.jpg": ("A dog.", "A pet.")}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.jpg,A dog, wet.", r"line 2: 3 cells under 2 headings; put a caption with ','"),
        ('a.jpg,"A dog.', r"line 2: not valid CSV: unexpected end"),
        ('a.jpg,"A" dog.', r"line 2: not valid CSV: ',' expected after '\"'"),
        ("a.jpg," + "x" * 200_000, r"line 2: not valid CSV: field larger"),
        ('b.jpg,"A\ndog."\na.jpg,"A cat.\nb.jpg,A man.', r"line 4: not valid CSV: unexpected end"),
        (",A dog.", r"line 2: the image name is ''"),
    ],
)
def test_csv_broken_rows_are_named(tmp_path: Path, row: str, message: str) -> None:
    photo(tmp_path / "a.jpg")
    write(tmp_path / "metadata.csv", f"file_name,text\n{row}\n")
    with pytest.raises(CaptionerError, match=message):
        load_caption_data(tmp_path)


def test_csv_with_foreign_headings(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    write(tmp_path / "metadata.csv", "picture,text\na.jpg,A dog.\n")
    with pytest.raises(CaptionerError, match=r"line 2: there is no field 'file_name' or"):
        load_caption_data(tmp_path)


# ---------------------------------------------------------------- sidecars


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


# ---------------------------------------------------------------- finding the format


def test_formats_are_registered() -> None:
    assert list(FORMATS) == ["flickr", "coco", "karpathy", "jsonl", "csv", "sidecar"]


def test_nothing_recognised_says_what_was_looked_for(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    with pytest.raises(CaptionerError) as info:
        load_caption_data(tmp_path)
    message = str(info.value)
    assert message.startswith(f"{tmp_path}: no captions found. Looked for:")
    for name, layout in FORMATS.items():
        assert f"\n  {name}: {layout.looks_for}" in message
    assert "format=" in message


def test_two_formats_ask_which(flickr: Path) -> None:
    write_json(flickr / "dataset_flickr8k.json", karpathy(("", "a.jpg", "test", ["A pup."])))
    with pytest.raises(
        CaptionerError,
        match=r"flickr \(Flickr8k.token.txt\); karpathy \(dataset_flickr8k.json\).*format='flickr'",
    ):
        load_caption_data(flickr)
    assert captions(load_caption_data(flickr, format="karpathy")) == {"a.jpg": ("A pup.",)}
    assert len(load_caption_data(flickr, format="flickr").examples) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "coco2"}, r"format is 'coco2'; give one of: auto, flickr, coco, karpathy"),
        ({"format": "coco"}, r"nothing to read as coco: no captions\*.json"),
        ({"images": "nowhere"}, r"images is 'nowhere'; there is no such folder"),
    ],
)
def test_options_that_cannot_be_used(flickr: Path, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(CaptionerError, match=message):
        load_caption_data(flickr, **arguments)


def test_root_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CaptionerError, match="no such file or folder"):
        load_caption_data(tmp_path / "gone")


@pytest.mark.parametrize("fmt", list(FORMATS))
def test_a_photo_as_the_annotation_file(tmp_path: Path, fmt: str) -> None:
    photo(tmp_path / "a.jpg")
    with pytest.raises(CaptionerError, match="a.jpg"):
        load_caption_data(tmp_path / "a.jpg")
    with pytest.raises(CaptionerError, match="a.jpg"):
        load_caption_data(tmp_path / "a.jpg", format=fmt)


def test_empty_annotation_file(tmp_path: Path) -> None:
    write(tmp_path / "metadata.jsonl", "\n")
    with pytest.raises(CaptionerError, match="metadata.jsonl: there is no caption in it"):
        load_caption_data(tmp_path)


def test_all_captions_empty(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    write(tmp_path / "metadata.jsonl", '{"file_name": "a.jpg", "text": ""}')
    with pytest.raises(CaptionerError, match="metadata.jsonl: there is no caption in it"):
        load_caption_data(tmp_path)


def test_all_images_missing_names_the_folders_looked_in(flickr: Path) -> None:
    (flickr / "Images").rename(flickr / "pictures")
    with pytest.raises(
        CaptionerError,
        match=rf"none of its 3 images was found .the first: a.jpg.; looked in {flickr};",
    ):
        load_caption_data(flickr)
    assert len(load_caption_data(flickr, images=flickr / "pictures").examples) == 3


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


# ---------------------------------------------------------------- random splits


def numbered(count: int, split: str | None = None) -> CaptionData:
    examples = tuple(
        Example(f"{i}.jpg", Path(f"{i}.jpg"), ("A dog.",), split) for i in range(count)
    )
    return CaptionData("jsonl", Path("set"), examples)


def test_random_split_is_stable_when_images_are_added() -> None:
    small = {e.image_id: e.split for e in numbered(500).with_random_split(0.1, 3).examples}
    large = {e.image_id: e.split for e in numbered(2000).with_random_split(0.1, 3).examples}
    assert all(large[name] == split for name, split in small.items())
    assert {e.split for e in numbered(2000).with_random_split(0.1, 3).examples} == {"train", "dev"}
    # Fixed for good: a change of the hash would let training see what was held out before.
    dev = [e.image_id for e in numbered(40).with_random_split(0.1, 3).split("dev")]
    assert dev == [f"{i}.jpg" for i in (3, 8, 13, 15, 21, 30, 31)]
    assert 160 <= len(numbered(2000).with_random_split(0.1, 3).split("dev")) <= 240


def test_random_split_depends_on_the_seed() -> None:
    one, two = (numbered(200).with_random_split(0.5, seed).split("dev") for seed in (0, 1))
    assert one != two


def test_random_split_keeps_a_dev_split_that_is_there(flickr: Path) -> None:
    data = load_caption_data(flickr)
    assert data.with_random_split(0.5) is data


def test_random_split_takes_dev_from_train_and_leaves_the_rest() -> None:
    train, test = numbered(100, "train").examples, numbered(3, "test").examples
    outside = Example("x.jpg", Path("x.jpg"), ("A dog.",), None)
    data = CaptionData("jsonl", Path("set"), (*train, *test, outside)).with_random_split(0.3)
    assert data.splits["test"] == 3
    assert data.splits["train"] + data.splits["dev"] == 100
    assert data.splits["dev"] > 10
    assert data.examples[-1] == outside


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 5, float("nan")])
def test_random_split_needs_a_fraction(fraction: float) -> None:
    with pytest.raises(CaptionerError, match="dev_fraction is .*between 0 and 1"):
        numbered(10).with_random_split(fraction)


def test_random_split_that_would_leave_a_side_empty() -> None:
    with pytest.raises(CaptionerError, match=r"dev_fraction 0.001 leaves .*'train': 3"):
        numbered(3).with_random_split(0.001)


def test_canonical_split() -> None:
    names = ["train", "training", "restval", "dev", "val", "valid", "test", "testing", " Mine "]
    assert [canonical_split(n) for n in names] == [
        *("train", "train", "train", "dev", "dev", "dev", "test", "test", "mine")
    ]


# ---------------------------------------------------------------- the real thing


@pytest.mark.parametrize(
    ("fmt", "name", "images", "count"),
    [
        ("flickr", "Flickr8k.token.txt", ["Images/1000268201_693b08cb0e.jpg"], 2),
        ("coco", "captions.json", ["a.jpg"], 1),
        ("karpathy", "dataset.json", ["a.jpg"], 2),
        ("jsonl", "metadata.jsonl", ["images/a.jpg", "images/b.jpg"], 3),
        ("csv", "metadata.csv", ["images/a.jpg", "images/b.jpg"], 3),
    ],
)
def test_examples_in_the_readme_load(
    tmp_path: Path, fmt: str, name: str, images: list[str], count: int
) -> None:
    readme = (Path(__file__).parents[2] / "data" / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(rf"^```{fmt}\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    write(tmp_path / name, example)
    photos(tmp_path, *images)
    data = load_caption_data(tmp_path)
    assert (data.format, len(data.examples), data.warnings) == (fmt, len(images), ())
    assert sum(len(e.captions) for e in data.examples) == count


@pytest.mark.skipif(not FLICKR8K.is_dir(), reason="Flickr8k is not here")
def test_flickr8k() -> None:
    data = load_caption_data(FLICKR8K)
    assert (data.format, data.splits, data.warnings) == ("flickr", {"train": 6000, "dev": 1000}, ())
    assert {len(e.captions) for e in data.examples} == {5}
    assert data.examples[0].captions[1] == "A girl going into a wooden building ."
    with Image.open(data.split("dev")[0].path) as image:
        assert image.size == (224, 224)


def test_import_needs_no_torch() -> None:
    code = "import sys, captioner.data.datasets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
