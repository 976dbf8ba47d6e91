from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from captioner.data.datasets import FORMATS, CaptionData, Example, load_caption_data
from captioner.errors import CaptionerError
from helpers.captioned import captions, karpathy, photo, photos, write, write_json

FLICKR8K = Path(__file__).parents[3] / "shared" / "flickr8k"


@pytest.mark.parametrize("name", ["dev", "val", "valid", "validation", "Validation", " VAL "])
def test_split_aliases(flickr: Path, name: str) -> None:
    assert [e.image_id for e in load_caption_data(flickr).split(name)] == ["b.jpg"]


def test_split_that_is_not_there_lists_those_that_are(flickr: Path) -> None:
    with pytest.raises(CaptionerError, match=r"no split 'tset'.*train \(1 images\), dev .*test"):
        load_caption_data(flickr).split("tset")


def test_formats_are_registered() -> None:
    assert list(FORMATS) == [
        *("flickr", "coco", "karpathy", "jsonl", "csv", "lavis", "parquet", "sidecar"),
        *("webdataset", "verdicts"),
    ]


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


@pytest.mark.parametrize(
    ("fmt", "name", "images", "count"),
    [
        ("flickr", "Flickr8k.token.txt", ["Images/1000268201_693b08cb0e.jpg"], 2),
        ("coco", "captions.json", ["a.jpg"], 1),
        ("karpathy", "dataset.json", ["a.jpg"], 2),
        ("lavis", "train.json", ["a.jpg"], 2),
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
