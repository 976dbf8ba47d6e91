"""The command `captioner calibrate` on real models and real files."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import captioner
from captioner.cli.entry import main
from captioner.data.datasets import load_caption_data
from captioner.errors import CaptionerError
from captioner.evaluation.calibrate import (
    calibrate,
    decoding_for_tags,
    images_to_read,
    save_calibrated,
)
from captioner.evaluation.calibration_scores import BINS
from captioner.model.caption_model import CaptionModel
from captioner.model.tags import FEATURES, TagCalibration, caption_confidence, tags_of
from captioner.text.lexicon import NO_LEMMA, Lemma, Lexicon
from captioner.text.lexicon_builder import build_lexicon
from helpers.images import noise


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 images with captions that the tiny model can say, half of them held out."""
    folder = tmp_path_factory.mktemp("data")
    texts = ["a dog runs in the snow", "the man jumps on grass", "a child in the red water"]
    with (folder / "metadata.jsonl").open("w") as lines:
        for index in range(12):
            name = f"{index:02d}.png"
            noise(index).save(folder / name)
            record = {
                "file_name": name,
                "captions": [texts[index % 3], texts[(index + 1) % 3]],
                "split": "train" if index < 6 else "dev",
            }
            lines.write(json.dumps(record) + "\n")
    return folder


@pytest.fixture(scope="module")
def model_file(tiny_model: CaptionModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    tiny_model.save(path)
    return path


def run(*arguments: str | Path) -> int:
    return main(["calibrate", "--device", "cpu", "--quiet", *map(str, arguments)])


@pytest.fixture(scope="module")
def calibrated(model_file: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("out") / "calibrated.safetensors"
    assert run("--model", model_file, "--data", folder, "--output", output) == 0
    return output


def test_the_command_keeps_weights_and_captions_and_adds_tags(
    model_file: Path, calibrated: Path, folder: Path
) -> None:
    before, after = load_file(model_file), load_file(calibrated)
    added = {name for name in after if name.startswith(("familiarity.", "tag_head.", "int8."))}
    assert after.keys() - added == before.keys()
    assert {"tag_head.linear.weight", "familiarity.mean", "int8.corrections"} < added
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype, name
        assert torch.equal(tensor, after[name]), name
    old = CaptionModel.load(model_file, device="cpu")
    new = CaptionModel.load(calibrated, device="cpu")
    assert old.lexicon is None
    assert old.tag_calibration is None
    assert new.lexicon is not None
    assert new.tag_calibration is not None
    result = new.caption([folder / "07.png"], decoding_for_tags(new))[0]
    plain = old.caption([folder / "07.png"], decoding_for_tags(old))[0]
    assert result.candidates == plain.candidates
    assert (plain.calibrated, plain.confidence) == (None, plain.candidates[0].confidence)
    assert result.confidence == caption_confidence(result, new.lexicon, new.tag_calibration)
    tags = tags_of(result, new.lexicon, new.tag_calibration)
    assert len(tags) > 0
    assert all(0 < tag.confidence < 1 for tag in tags)
    assert new.tag_calibration.fitted_on["images"] == 6
    train = load_caption_data(folder).split("train")
    assert new.lexicon == build_lexicon(new.tokenizer.words, [e.captions for e in train])


def test_several_data_sets_calibrate_together(
    model_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    output = tmp_path / "both.safetensors"
    sets = ["--data", folder, "--data", other]
    assert run("--model", model_file, *sets, "--output", output) == 0
    calibration = CaptionModel.load(output, device="cpu").tag_calibration
    assert calibration is not None
    assert calibration.fitted_on["images"] == 12
    assert calibration.fitted_on["data"] == f"{folder.name} + other"
    images = ["--images", folder, "--overwrite"]
    assert run("--model", model_file, *sets, *images, "--output", output) == 2
    assert "--images: is for one --data" in capsys.readouterr().err
    assert run("--model", model_file, "--data", folder, *sets, "--output", tmp_path / "x") == 2
    assert f"two data sets are called '{folder.name}'" in capsys.readouterr().err


def test_table_and_report(
    model_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, report = tmp_path / "m.safetensors", tmp_path / "reports" / "report.json"
    assert run("--model", model_file, "--data", folder, "--output", output, "--report", report) == 0
    printed = capsys.readouterr().out.splitlines()
    saved = json.loads(report.read_text(encoding="utf-8"))
    model = CaptionModel.load(output, device="cpu")
    assert model.tag_calibration is not None
    assert saved["calibration"] == model.tag_calibration.to_dict()
    assert len(saved["scores"]["bins"]) == BINS
    assert printed[0] == "confidence    tags  predicted  right"
    assert f"average precision {saved['scores']['average_precision']:.4f}" in printed
    assert printed[-1] == f"{output}: sha256 {model.sha256}"
    assert "captions kept  confidence  CIDEr-D  predicted  right" in printed
    last = saved["coverage"][-1]
    assert last["share"] == 1.0
    assert f"{100 * last['cider_d']:8.2f}" in printed[-4]
    known = len(model.tag_head or ())
    assert saved["seen"]["lemmas"] == known > 0
    precision, chance = (saved["seen"][name] for name in ("mean_average_precision", "by_chance"))
    assert printed[-2] == (
        f"tag classifier: {known} lemmas, mean average precision {precision:.4f} (by chance "
        f"{chance:.4f})"
    )
    data = {
        "data": folder.name,
        "format": "jsonl",
        "split": "dev",
        "images": 6,
        "captions_per_image": 2.0,
        "decoding": {
            "beam_size": 3,
            "num_captions": 3,
            "max_length": 20,
            "length_penalty": 0.7,
        },
    }
    assert saved["protocol"] == {
        "captioner": captioner.__version__,
        "model": {"sha256": CaptionModel.load(model_file, device="cpu").sha256},
        "precision": "fp32",
        "data": data,
        "lemmas": len(model.lexicon or ()),
        "folds": 10,
    }
    assert {**data, **saved["calibration"]["fitted_on"]} == saved["calibration"]["fitted_on"]


def test_a_model_with_a_lexicon_keeps_it_and_needs_no_training_split(
    calibrated: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()[6:]
    annotations = tmp_path / "held_out.jsonl"
    annotations.write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "HanTa", None)
    output = tmp_path / "again.safetensors"
    arguments = ["--data", annotations, "--images", folder, "--split", "dev", "--limit", "4"]
    assert run("--model", calibrated, *arguments, "--output", output) == 0
    first, again = (CaptionModel.load(path, device="cpu") for path in (calibrated, output))
    assert again.lexicon == first.lexicon
    assert first.tag_head is not None
    assert again.tag_head is not None
    assert torch.equal(again.tag_head.linear.weight, first.tag_head.linear.weight)
    assert again.tag_calibration is not None
    assert again.tag_calibration.fitted_on["images"] == 4


def test_a_model_without_lexicon_needs_the_training_split(
    model_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()[6:]
    annotations = tmp_path / "held_out.jsonl"
    annotations.write_text("\n".join(lines) + "\n", encoding="utf-8")
    output = tmp_path / "m.safetensors"
    arguments = ["--model", model_file, "--data", annotations, "--images", folder]
    assert run(*arguments, "--output", output) == 2
    assert "there is no split 'train'" in capsys.readouterr().err
    assert not output.exists()


def test_images_that_the_model_learnt_are_refused(
    model_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", model_file, "--data", folder, "--split", "train"]
    assert run(*arguments, "--output", tmp_path / "m.safetensors") == 2
    assert "calibration on the split 'train'" in capsys.readouterr().err


def test_a_bad_image_ends_it_and_is_named(
    model_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "data"
    broken.mkdir()
    for path in folder.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    (broken / "08.png").write_bytes(b"no image")
    output = tmp_path / "m.safetensors"
    assert run("--model", model_file, "--data", broken, "--output", output) == 2
    assert "08.png: not an image Pillow can read; repair the image" in capsys.readouterr().err
    assert not output.exists()


def test_nothing_is_replaced_unless_asked(
    model_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, report = tmp_path / "m.safetensors", tmp_path / "report.json"
    report.write_text("mine", encoding="utf-8")
    arguments = ["--model", model_file, "--data", folder, "--output", output, "--report", report]
    assert run(*arguments) == 2
    assert "report.json already exists; pass --overwrite" in capsys.readouterr().err
    assert report.read_text(encoding="utf-8") == "mine"
    assert run(*arguments, "--overwrite") == 0
    assert "scores" in json.loads(report.read_text(encoding="utf-8"))


def test_full_precision_is_kept(tiny_model: CaptionModel, folder: Path, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "full.safetensors", half=False)
    model = CaptionModel.load(tmp_path / "full.safetensors", device="cpu")
    seen: list[int] = []
    result = calibrate(
        model, load_caption_data(folder), batch_size=4, on_image=lambda: seen.append(1)
    )
    assert len(seen) == images_to_read(load_caption_data(folder), "dev", None) == 12
    assert model.lexicon is result.lexicon
    assert model.tag_calibration is result.calibration
    assert result.to_dict()["scores"] == asdict(result.scores)
    save_calibrated(model, tmp_path / "out.safetensors")
    before = load_file(tmp_path / "full.safetensors")
    after = load_file(tmp_path / "out.safetensors")
    assert torch.equal(after["int8.corrections"], model.int8.corrections)
    assert CaptionModel.load(tmp_path / "out.safetensors", precision="int8").precision == "int8"
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert {t.dtype for t in after.values() if t.is_floating_point()} == {torch.float32}


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["calibrate", "--help"])
    assert end.value.code == 0
    assert "captioner calibrate --model mine.safetensors --data" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("lexicon", {"language": "en", "lemmas": [], "words": []}, "lexicon: 0 entries for"),
        ("lexicon", "en", "lexicon: a table was expected"),
        ("tag_calibration", {"weights": {}, "fitted_on": {}}, "tag calibration: it has weights"),
        ("tag_calibration", 5, "tag calibration: a table was expected"),
    ],
)
def test_damaged_parts_of_a_model_are_refused(
    tiny_model: CaptionModel, part: str, value: Any, message: str
) -> None:
    description = {**tiny_model.description(), part: value}
    with pytest.raises(CaptionerError, match=message):
        CaptionModel.from_description(description, tiny_model.state_dict())


def test_a_description_without_these_parts_is_that_of_older_versions(
    tiny_model: CaptionModel,
) -> None:
    description = tiny_model.description()
    assert description.pop("encoder_graph") is not None
    assert set(description) == {"encoder", "decoder", "tokenizer", "transform", "provenance"}
    nothing = {**description, "lexicon": None, "tag_calibration": None, "encoder_graph": None}
    for each in (description, nothing):
        model = CaptionModel.from_description(each, tiny_model.state_dict())
        assert model.lexicon is None
        assert model.tag_calibration is None


def test_a_model_is_described_with_both(tiny_model: CaptionModel) -> None:
    words = tiny_model.tokenizer.words
    lexicon = Lexicon(words, [Lemma("dog", "noun", 0.25)], [0] + [NO_LEMMA] * (len(words) - 1))
    calibration = TagCalibration(tuple(map(float, range(len(FEATURES)))), {"images": 2})
    parts = tiny_model.encoder, tiny_model.decoder, tiny_model.tokenizer
    model = CaptionModel(*parts, lexicon=lexicon, tag_calibration=calibration)
    description = json.loads(json.dumps(model.description()))
    read = CaptionModel.from_description(description, tiny_model.state_dict())
    assert read.lexicon == lexicon
    assert read.tag_calibration == calibration


def test_a_base_install_is_refused_before_any_work(
    model_file: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    output = tmp_path / "m.safetensors"
    assert run("--model", model_file, "--data", folder, "--output", output) == 2
    assert 'scikit-learn, which is not installed; pip install "captioner[train]"' in (
        capsys.readouterr().err
    )
    assert not output.exists()


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """The same images, and no split."""
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    lines = [json.loads(line) for line in (own / "metadata.jsonl").read_text().splitlines()]
    texts = (json.dumps({**line, "split": None}) + "\n" for line in lines)
    (own / "metadata.jsonl").write_text("".join(texts))
    return own


def test_data_without_splits_is_divided_as_in_training(
    model_file: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "m.safetensors"
    options = ["--data", own, "--output", output, "--dev-fraction", "0.5"]
    assert run("--model", model_file, *options) == 0
    data = load_caption_data(own).with_random_split(0.5)
    dev = len(data.split("dev"))
    line = f"{own}: there is no dev split; {dev} of 12 images are held out, the same as in capti"
    assert line in capsys.readouterr().err
    model = CaptionModel.load(output, device="cpu")
    assert model.tag_calibration is not None
    assert model.tag_calibration.fitted_on["images"] == dev
    texts = [example.captions for example in data.split("train")]
    assert model.lexicon == build_lexicon(model.tokenizer.words, texts)
    assert model.tag_head is not None


@pytest.mark.parametrize(
    ("more", "images"), [(["--split", "all"], 12), (["--dev-fraction", "0.5"], 5)]
)
def test_own_images_replace_no_tag_classifier(
    calibrated: Path,
    own: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    images: int,
) -> None:
    output = tmp_path / "m.safetensors"
    assert run("--model", calibrated, "--data", own, "--output", output, *more) == 0
    kept = "tag classifier and familiarity stay as they are"
    assert (kept in capsys.readouterr().err) == (images != 12)
    old, new = (CaptionModel.load(path, device="cpu") for path in (calibrated, output))
    before, after = old.state_dict(), new.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert new.tag_calibration is not None
    assert new.tag_calibration.fitted_on["images"] == images


def test_all_images_are_refused_where_some_are_for_training(
    model_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", model_file, "--data", folder, "--output", tmp_path / "m.safetensors"]
    assert run(*options, "--split", "all") == 2
    assert "'train', which is part of 'all', would trust" in capsys.readouterr().err
