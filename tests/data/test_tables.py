from __future__ import annotations

import json
from pathlib import Path

import pytest

from captioner.captioning.writers import CsvWriter
from captioner.data.datasets import CaptionData, Example, load_caption_data
from captioner.errors import CaptionerError
from helpers.captioned import captions, photo, photos, splits, write, write_json


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


@pytest.mark.parametrize("heading", ["captions", "caption", "text", "sentences", "raw"])
@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ('"[""A dog."", ""A, pet.""]"', ("A dog.", "A, pet.")),
        ('"[\'A dog.\', ""It\'s a, pet.""]"', ("A dog.", "It's a, pet.")),
        ("[sic] a dog", ("[sic] a dog",)),
        ('"[\'tis] a, dog"', ("['tis] a, dog",)),
        ("['a dog' it says]", ("['a dog' it says]",)),
    ],
)
def test_csv_with_a_list_in_its_captions(
    tmp_path: Path, heading: str, cell: str, expected: tuple[str, ...]
) -> None:
    photo(tmp_path / "a.jpg")
    write(tmp_path / "c.csv", f"image_name,{heading}\na.jpg,{cell}\n")
    assert captions(load_caption_data(tmp_path)) == {"a.jpg": expected}


def test_csv_whose_first_line_names_the_separator(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    write(tmp_path / "c.csv", "\ufeffsep=;\r\nfile_name;text\r\na.jpg;A dog, wet.\r\n")
    assert captions(load_caption_data(tmp_path)) == {"a.jpg": ("A dog, wet.",)}


def test_csv_with_tabs_under_its_own_suffix(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    file = write(tmp_path / "c.tsv", "file_name\ttext\na.jpg\tA dog.\n")
    assert captions(load_caption_data(file)) == {"a.jpg": ("A dog.",)}


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


ODD = ("'=a.jpg", "'plain.jpg", "+b.jpg", "-c.jpg", "=a.jpg", "@d.jpg", "plain.jpg")


def test_csv_that_captioner_wrote(tmp_path: Path) -> None:
    photos(tmp_path, *ODD)
    with CsvWriter(tmp_path / "metadata.csv") as writer:
        for number, name in enumerate(ODD):
            texts = ("@style a dog", "'tis a dog", "'-1", "- a dog", "= 2", "+ 2", "a dog")
            record = {"file_name": name, "text": texts[number], "confidence": 0.5, "error": None}
            writer.write(record, tmp_path / name)
    cells = (tmp_path / "metadata.csv").read_text("utf-8").split()
    assert {"''=a.jpg,'@style", "'+b.jpg,''-1,0.5,", "'=a.jpg,'=", "plain.jpg,a"} <= set(cells)
    data = load_caption_data(tmp_path)
    assert captions(data) == {
        "'=a.jpg": ("@style a dog",),
        "'plain.jpg": ("'tis a dog",),
        "+b.jpg": ("'-1",),
        "-c.jpg": ("- a dog",),
        "=a.jpg": ("= 2",),
        "@d.jpg": ("+ 2",),
        "plain.jpg": ("a dog",),
    }
    assert data.warnings == ()


def test_csv_of_others_keeps_its_quotes(tmp_path: Path) -> None:
    photos(tmp_path, "'=a.jpg", "-c.jpg")
    rows = "file_name,text\n'=a.jpg,'@home' says a sign\n'-c.jpg,'- a dog\n"
    write(tmp_path / "metadata.csv", rows)
    # Only where a file is called so, or what begins as a formula would is no quotation.
    assert captions(load_caption_data(tmp_path)) == {
        "'=a.jpg": ("'@home' says a sign",),
        "-c.jpg": ("- a dog",),
    }


@pytest.mark.parametrize(
    "places",
    [
        ("train", "validation"),
        ("data/train", "data/validation"),
        ("default/train", "default/validation"),
        ("images/train", "images/val"),
    ],
)
def test_tables_in_folders_of_splits_as_on_the_hub(tmp_path: Path, places: tuple[str, ...]) -> None:
    for place in places:
        photo(tmp_path / place / "1.jpg")
        write(tmp_path / place / "metadata.jsonl", f'{{"file_name": "1.jpg", "text": "{place}"}}')
    data = load_caption_data(tmp_path)
    assert splits(data) == {f"{places[0]}/1.jpg": "train", f"{places[1]}/1.jpg": "dev"}
    assert captions(data) == {f"{place}/1.jpg": (place,) for place in places}


def test_tables_in_the_folder_data(tmp_path: Path) -> None:
    photos(tmp_path / "data", "a.jpg", "b.jpg")
    write(tmp_path / "data/train.csv", "file_name,text\na.jpg,A dog.\n")
    write(tmp_path / "data/test.csv", "file_name,text\nb.jpg,A cat.\n")
    assert splits(load_caption_data(tmp_path)) == {"data/b.jpg": "test", "data/a.jpg": "train"}


def test_one_table_in_each_folder_of_a_split(tmp_path: Path) -> None:
    for place in ("train", "eval"):
        photo(tmp_path / place / "1.jpg")
        write(tmp_path / place / "mine.csv", "file_name,text\n1.jpg,A dog.\n")
    found = {"train/1.jpg": "train", "eval/1.jpg": "test"}
    assert splits(load_caption_data(tmp_path)) == found
    write(tmp_path / "eval/other.csv", "file_name,text\n1.jpg,A cat.\n")
    with pytest.raises(CaptionerError, match="no captions found"):
        load_caption_data(tmp_path)


@pytest.mark.parametrize("mark", ["/", "\\"])
def test_splits_in_the_paths_of_one_table(tmp_path: Path, mark: str) -> None:
    names = (
        *("train/a.jpg", "data/validation/b.jpg", "test/sub/c.jpg", "images/Valid/f.jpg"),
        *("other/train/d.jpg", "images/e.jpg", "e.jpg"),
    )
    photos(tmp_path, *names)
    rows = "".join(f"{n},A dog.\r\n" for n in names).replace("/", mark)
    write(tmp_path / "metadata.csv", "file_name,text\r\n" + rows)
    data = load_caption_data(tmp_path)
    assert list(splits(data).values()) == ["train", "dev", "test", "dev", None, None, None]
    # A column for it says all.
    rows = "".join(f"{n},A dog.,\n" for n in names)
    write(tmp_path / "metadata.csv", "file_name,text,split\n" + rows)
    assert set(splits(load_caption_data(tmp_path)).values()) == {None}


def test_numbered_caption_columns(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    write(tmp_path / "metadata.csv", "image,caption_0,caption_1\na.jpg,A dog.,A pet.\n")
    assert captions(load_caption_data(tmp_path)) == {"a.jpg": ("A dog.", "A pet.")}


def test_ids_that_are_numbers_are_kept(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg", "b.jpg")
    rows = "file_name,text,image_id\na.jpg,A dog.,391895\nb.jpg,A cat.,id_b\n"
    write(tmp_path / "metadata.csv", rows)
    assert [e.given_id for e in load_caption_data(tmp_path).examples] == [391895, None]


def test_lavis_lists(tmp_path: Path) -> None:
    photos(tmp_path / "images", "a.jpg", "b.jpg")
    train = [
        {"image": "train2014/a.jpg", "caption": "A dog.", "image_id": "coco_1"},
        {"image": "train2014/a.jpg", "caption": "A dog.", "image_id": "coco_1"},
    ]
    val = [{"image": "val2014/b.jpg", "caption": ["A cat.", "A pet."], "image_id": 7}]
    write_json(tmp_path / "annotations/coco_karpathy_train.json", train)
    write_json(tmp_path / "annotations/coco_karpathy_val.json", val)
    write_json(tmp_path / "annotations/results.json", [{"image_id": 7, "caption": "A cat."}])
    data = load_caption_data(tmp_path)
    paths = tmp_path / "images/a.jpg", tmp_path / "images/b.jpg"
    assert data == CaptionData(
        "lavis",
        tmp_path,
        (
            # Two annotators wrote the same: both stay.
            Example("train2014/a.jpg", paths[0], ("A dog.", "A dog."), "train"),
            Example("val2014/b.jpg", paths[1], ("A cat.", "A pet."), "dev", 7),
        ),
    )


@pytest.mark.parametrize(
    "record",
    [
        {"image": "a.jpg", "caption": ["A dog.", "A pet."]},
        {"file_name": "a.jpg", "captions": ["A dog.", "A pet."]},
        {"image_id": 3, "image_path": "a.jpg", "text": ["A dog.", "A pet."]},
        {"filename": "a.jpg", "sentences": [{"raw": "A dog."}, {"raw": "A pet."}]},
        {"note": "x" * 100_000, "image": "a.jpg", "caption": ["A dog.", "A pet."]},
    ],
)
def test_lavis_lists_with_other_fields(tmp_path: Path, record: dict[str, object]) -> None:
    photo(tmp_path / "a.jpg")
    write_json(tmp_path / "list.json", [record])
    data = load_caption_data(tmp_path)
    assert (data.format, captions(data)) == ("lavis", {"a.jpg": ("A dog.", "A pet.")})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lavis_list_in_another_encoding(tmp_path: Path, encoding: str) -> None:
    photo(tmp_path / "a.jpg")
    text = '[\n {"image": "a.jpg", "caption": "Ein Käse."}]'
    write(tmp_path / "list.json", text.encode(encoding))
    assert captions(load_caption_data(tmp_path)) == {"a.jpg": ("Ein Käse.",)}


def test_lavis_lists_that_share_images(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg", "b.jpg")
    for split in ("train", "val"):
        lines = [
            {"image": name, "caption": [f"{split} {name}", "x"]} for name in ("a.jpg", "b.jpg")
        ]
        write_json(tmp_path / f"{split}.json", lines)
    data = load_caption_data(tmp_path)
    assert data.splits == {"train": 2, "dev": 2}
    assert captions(data) == {
        "a.jpg": ("train a.jpg", "x"),
        "b.jpg": ("train b.jpg", "x"),
        "a.jpg#dev": ("val a.jpg", "x"),
        "b.jpg#dev": ("val b.jpg", "x"),
    }
    assert data.examples[2].path == tmp_path / "a.jpg"
    (warning,) = data.warnings
    assert warning == (
        "2 images of one split also in another: scores there are too good "
        f"(first: {tmp_path / 'val.json'}, [0])"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"image": "a.jpg", "caption": "x"}', "not a list like"),
        ('[{"image": "a.jpg", "caption": "x"}, 3]', r"\[1\]: not an object like"),
        ('[{"image": "a.jpg", "caption": "x"}, {"image": "a.jpg"}]', r"\[1\]: there is no field"),
        ('[{"image": 3, "caption": "x"}]', r"\[0\]: the image name is 3"),
        ('[{"image": "a.jpg", "caption": "x"}', "not valid JSON"),
    ],
)
def test_lavis_lists_that_are_broken_are_named(tmp_path: Path, content: str, message: str) -> None:
    photo(tmp_path / "a.jpg")
    file = write(tmp_path / "train.json", content)
    with pytest.raises(CaptionerError, match=rf"train.json(, )?(: )?{message}"):
        load_caption_data(file, format="lavis")
