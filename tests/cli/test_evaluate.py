"""`captioner evaluate`, in process, with a tiny untrained model."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from pathlib import Path

import pytest
from pycocotools.coco import COCO

from captioner.data.datasets import load_caption_data
from captioner.decoding.options import DecodingOptions
from captioner.model.caption_model import CaptionModel


@pytest.fixture
def data(photos: Path) -> Path:
    lines = [
        {"file_name": "a.png", "captions": ["A dog runs.", "Red ball"], "split": "dev"},
        {"file_name": "b.jpg", "captions": ["The man jumps"], "split": "dev"},
        {"file_name": "sub/a.png", "captions": ["Snow on grass"], "split": "test"},
    ]
    path = photos / "metadata.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return photos


def test_evaluate_writes_scores_protocol_and_captions(
    run, data: Path, model_file: Path, model: CaptionModel
) -> None:
    code, out, errors = run(
        *("evaluate", "--data", "photos", "--split", "val", "--beam-size", "2"),
        *("--output", "scores.json", "--coco-results", "results.json"),
    )
    assert code == 0
    assert "results.json: the images are numbered from 1" in errors
    assert "the name a.png is not a number" in errors
    scores = json.loads(Path("scores.json").read_text("utf-8"))
    results = model.caption([data / "a.png", data / "b.jpg"], DecodingOptions(beam_size=2))
    texts = [result.text for result in results]
    assert [image["caption"] for image in scores["images"]] == texts
    assert scores["protocol"]["data"] == {
        "format": "jsonl",
        "split": "dev",
        "limit": None,
        "warnings": [],
        "images": 2,
        "references": {"min": 1, "max": 2, "mean": 1.5},
    }
    digest = hashlib.sha256(model_file.read_bytes()).hexdigest()
    assert scores["protocol"]["model"]["sha256"] == digest
    assert scores["protocol"]["decoding"]["beam_size"] == 2
    assert json.loads(Path("results.json").read_text("utf-8")) == [
        {"image_id": 1, "caption": texts[0], "file_name": "a.png"},
        {"image_id": 2, "caption": texts[1], "file_name": "b.jpg"},
    ]
    table = dict(re.findall(r"^(\S+) +(\d+\.\d\d)$", out, re.MULTILINE))
    assert table == {name: f"{100 * score:.2f}" for name, score in scores["scores"].items()}
    assert out.endswith("(times 100; 2 images of the split dev, beam 2)\n")


def test_evaluate_writes_what_coco_reads(run, photos: Path) -> None:
    ids = {391898: "a.png", 391895: "b.jpg", 7: "sub/a.png"}
    notes = {
        "images": [{"id": number, "file_name": name} for number, name in ids.items()],
        "annotations": [
            {"id": 10 * k, "image_id": number, "caption": "A dog runs."}
            for k, number in enumerate(ids)
        ],
    }
    for name in ids.values():
        (photos / "val2014" / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).rename(photos / "val2014" / name)
    truth = photos / "annotations" / "captions_val2014.json"
    truth.parent.mkdir()
    truth.write_text(json.dumps(notes))
    code, _, errors = run("evaluate", "--data", "photos", "--coco-results", "r.json")
    assert (code, errors) == (0, "")
    results = COCO(str(truth)).loadRes("r.json")
    assert results.getImgIds() == [391898, 391895, 7]
    assert all(len(results.imgToAnns[number]) == 1 for number in ids)


def test_evaluate_reads_images_in_an_archive(
    run, photos: Path, model: CaptionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(photos / "cache"))
    (photos / "a.txt").write_text("A dog runs.")
    with tarfile.open("val-0000.tar", "w") as archive:
        archive.add(photos / "a.png", "7.png")
        archive.add(photos / "a.txt", "7.txt")
    code, _, errors = run("evaluate", "--data", "val-0000.tar", "--coco-results", "r.json")
    assert (code, errors) == (0, "")
    (text,) = (result.text for result in model.caption([photos / "a.png"]))
    results = json.loads(Path("r.json").read_text("utf-8"))
    assert results == [{"image_id": 7, "caption": text}]


def test_evaluate_limit(run, data: Path) -> None:
    code, out, _ = run("evaluate", "--data", "photos", "--limit", "1")
    assert code == 0
    assert out.endswith("(times 100; 1 images of the split dev, beam 3)\n")


def test_evaluate_with_the_tokenizer_of_papers(run, data: Path) -> None:
    code, out, _ = run(
        *("evaluate", "--data", "photos", "--tokenizer", "ptb", "--metrics", "METEOR-stem"),
        *("--output", "scores.json"),
    )
    assert code == 0
    scores = json.loads(Path("scores.json").read_text("utf-8"))
    assert scores["protocol"]["metrics"]["tokenizer"] == "nltk-ptb-1"
    assert f"METEOR-stem {100 * scores['scores']['METEOR-stem']:6.2f}\n" in out


@pytest.mark.parametrize(("option", "value"), [("--tokenizer", "java"), ("--metrics", "meteor")])
def test_evaluate_refuses_unknown_names(run, data: Path, option: str, value: str) -> None:
    code, _, err = run("evaluate", "--data", "photos", option, value)
    assert code == 2
    assert f"{option}: invalid choice: '{value}'" in err


def test_evaluate_refuses_a_bad_image_and_writes_nothing(run, data: Path) -> None:
    (data / "b.jpg").write_bytes(b"no image")
    code, out, err = run("evaluate", "--data", "photos", "--output", "scores.json")
    assert (code, out) == (2, "")
    assert "b.jpg: not an image Pillow can read" in err
    assert not Path("scores.json").exists()


def test_mistakes_about_the_data_name_options_of_the_command_line(run, data: Path) -> None:
    write_json = (data / "dataset_flickr8k.json").write_text
    write_json(json.dumps({"images": [{"filename": "a.png", "sentences": [{"raw": "A dog."}]}]}))
    code, _, err = run("evaluate", "--data", str(data))
    assert (code, "which, for example --format 'karpathy'" in err) == (2, True)
    more = ["--format", "jsonl", "--sidecar-suffix", ".x"]
    code, _, err = run("evaluate", "--data", str(data), *more)
    message = "--sidecar-suffix '.x': is for the format sidecar, not for jsonl"
    assert (code, message in err) == (2, True)


def test_evaluate_refuses_an_unknown_split_and_a_taken_output(run, data: Path) -> None:
    code, _, err = run("evaluate", "--data", "photos", "--split", "train")
    assert code == 2
    assert "dev (2 images)" in err
    Path("scores.json").write_text("mine")
    code, _, err = run("evaluate", "--data", "photos", "--output", "scores.json")
    assert code == 2
    assert "output scores.json already exists; pass --overwrite" in err
    assert Path("scores.json").read_text() == "mine"


@pytest.fixture
def own(photos: Path) -> Path:
    """Thirty images that no split divides."""
    image = (photos / "a.png").read_bytes()
    lines = []
    for number in range(30):
        (photos / f"{number}.png").write_bytes(image)
        lines.append(json.dumps({"file_name": f"{number}.png", "text": "A dog runs."}) + "\n")
    (photos / "metadata.jsonl").write_text("".join(lines))
    return photos


@pytest.mark.parametrize(
    ("options", "split", "fraction"),
    [
        ([], "dev", 0.1),
        (["--split", "train"], "train", 0.1),
        (["--dev-fraction", "0.4"], "dev", 0.4),
        (["--split", "all"], "all", None),
    ],
)
def test_evaluate_holds_out_what_training_holds_out(
    run, own: Path, options: list[str], split: str, fraction: float | None
) -> None:
    data = load_caption_data(own).with_random_split(fraction or 0.1)
    expected = [example.image_id for example in data.split(split)]
    code, out, errors = run("evaluate", "--data", "photos", *options, "--output", "scores.json")
    assert code == 0
    assert out.endswith(f"(times 100; {len(expected)} images of the split {split}, beam 3)\n")
    scores = json.loads(Path("scores.json").read_text("utf-8"))
    assert [each["image_id"] for each in scores["images"]] == expected
    assert scores["protocol"]["data"]["split"] == split
    assert scores["protocol"]["data"].get("dev_fraction") == fraction
    held_out = len(data.split("dev"))
    line = f"captioner: photos: there is no dev split; {held_out} of 30 images are held out, the"
    assert errors.count(line) == (fraction is not None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "test"], r"no split 'test'; no image here belongs to any split; 'all' takes"),
        (["--dev-fraction", "1"], r"--dev-fraction: '1': give a number between 0 and 1"),
        (["--dev-fraction", "x"], r"--dev-fraction: 'x': give a number between 0 and 1"),
        (["--dev-fraction", "0.0001"], r"sizes: {'train': 30}\).*--dev-fraction.*--split all"),
    ],
)
def test_evaluate_says_what_cannot_be_held_out(
    run, own: Path, options: list[str], message: str
) -> None:
    code, out, errors = run("evaluate", "--data", "photos", *options)
    assert (code, out) == (2, "")
    assert re.search(message, errors)
