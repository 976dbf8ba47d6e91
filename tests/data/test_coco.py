from __future__ import annotations

from pathlib import Path

import pytest

from captioner.data.datasets import CaptionData, Example, load_caption_data
from captioner.errors import CaptionerError
from helpers.captioned import captions, karpathy, photo, photos, splits, write, write_json


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
            Example("train2014/a.jpg", tmp_path / "train2014/a.jpg", ("A dog.",), "train", 1),
            Example("val2014/b.jpg", tmp_path / "val2014/b.jpg", ("A cat.",), "dev", 2),
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
        Example("val2017/a.jpg", tmp_path / "elsewhere/a.jpg", ("A dog.",), "dev", 1),
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


def test_coco_names_that_have_the_folder_in_them(tmp_path: Path) -> None:
    photos(tmp_path, "val2014/a.jpg", "val2014/val2014/b.jpg", "images/c.jpg", "c/d.jpg", "d.jpg")
    names = ("val2014/a.jpg", "val2014/b.jpg", "val2014/c.jpg", "c/d.jpg")
    notes = coco(*((n, name, "A dog.") for n, name in enumerate(names)))
    write_json(tmp_path / "annotations/captions_val2014.json", notes)
    data = load_caption_data(tmp_path)
    assert [(e.image_id, e.path.relative_to(tmp_path).as_posix()) for e in data.examples] == [
        ("val2014/a.jpg", "val2014/a.jpg"),
        ("val2014/val2014/b.jpg", "val2014/val2014/b.jpg"),
        ("val2014/val2014/c.jpg", "images/c.jpg"),
        ("c/d.jpg", "c/d.jpg"),
    ]
    assert load_caption_data(tmp_path / "annotations").examples == data.examples


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (("train.json", "val.json"), ("images", "images")),
        (("my-train.json", "my_validation.json"), ("train", "validation")),
        (("annotations/train.json", "annotations/val.json"), ("train", "val")),
        (("captions_train.json", "captions_val.json"), ("train", "val")),
    ],
)
def test_coco_files_named_as_splits(
    tmp_path: Path, names: tuple[str, str], folders: tuple[str, str]
) -> None:
    for number, (name, folder) in enumerate(zip(names, folders, strict=True)):
        photo(tmp_path / folder / f"{number}.jpg")
        write_json(tmp_path / name, coco((number, f"{number}.jpg", f"From {name}.")))
    data = load_caption_data(tmp_path)
    assert (data.format, data.splits) == ("coco", {"train": 1, "dev": 1})
    assert [example.captions for example in data.examples] == [(f"From {n}.",) for n in names]


def test_coco_ids_of_two_images(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg", "b.jpg")
    file = write_json(tmp_path / "captions.json", coco((7, "a.jpg", "A dog."), (7, "a.jpg", "")))
    assert captions(load_caption_data(tmp_path)) == {"a.jpg": ("A dog.",)}
    write_json(file, coco((7, "a.jpg", "A dog."), ("7", "b.jpg", "A cat.")))  # type: ignore[arg-type]
    with pytest.raises(CaptionerError, match=r"images\[1\]: the id '7' is 'a.jpg' and 'b.jpg'"):
        load_caption_data(tmp_path)


@pytest.mark.parametrize("name", ["captions.json", "dataset.json"])
def test_results_and_lists_are_not_coco(tmp_path: Path, name: str) -> None:
    photo(tmp_path / "a.jpg")
    file = write_json(tmp_path / name, [{"image_id": "a.jpg", "caption": "By a model."}])
    with pytest.raises(CaptionerError, match="no captions found"):
        load_caption_data(tmp_path)
    write_json(file, [{"image_id": 1, "caption": "By a model.", "file_name": "a.jpg"}])
    with pytest.raises(CaptionerError, match="no captions found"):
        load_caption_data(tmp_path)
    write_json(file, [{"image": "a.jpg", "caption": "A dog."}])
    assert load_caption_data(tmp_path).format == "lavis"
