"""Calibration: it finds weights that are known, its scores are exact, and its command is real."""

from __future__ import annotations

import json
import math
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import captioner
from captioner.cli.entry import main
from captioner.data.datasets import load_caption_data
from captioner.errors import CaptionerError
from captioner.evaluation.calibrate import (
    BINS,
    SHARES,
    Bin,
    Observations,
    calibrate,
    cover,
    decoding_for_tags,
    fit_calibration,
    fit_weights,
    images_to_read,
    observe,
    save_calibrated,
    score_probabilities,
)
from captioner.model.caption_model import CaptionModel
from captioner.model.results import Candidate, CaptionResult
from captioner.model.tags import FEATURES, TagCalibration, caption_confidence, evidence_of, tags_of
from captioner.text.lexicon import NO_LEMMA, Lemma, Lexicon
from captioner.text.metrics import score_captions
from helpers.images import noise

TRUE_WEIGHTS = np.array([-0.5, -0.7, 1.5, 0.8, 0.6, 1.0, -0.4, 0.9, -0.3])


def generated(pictures: int, seed: int = 0) -> tuple[Observations, np.ndarray]:
    """Tags whose probability is known: five for each picture."""
    random = np.random.default_rng(seed)
    size = 5 * pictures
    said = random.uniform(0, 1, size) < 0.7
    mass, early = said * random.uniform(0, 1, (2, size))
    word, caption = said * random.normal(0, 1.5, (2, size))
    seen = random.normal(0, 1.5, size)
    parts = [np.ones(size), said, mass, word, caption, early, word * early, seen, said * seen]
    features = np.stack(parts, 1)
    probabilities = 1 / (1 + np.exp(-features @ TRUE_WEIGHTS))
    right = random.uniform(0, 1, size) < probabilities
    return Observations(features, right, np.arange(size) // 5, np.ones(size)), probabilities


# --- the regression ------------------------------------------------------------------------


def test_known_weights_are_found_again() -> None:
    observed, _ = generated(16000)
    weights = fit_weights(observed.features, observed.right)
    assert weights == pytest.approx(TRUE_WEIGHTS, abs=0.1)


def test_the_weights_are_where_the_gradient_is_0() -> None:
    observed, _ = generated(50)
    weights = fit_weights(observed.features, observed.right)
    probabilities = 1 / (1 + np.exp(-observed.features @ weights))
    gradient = observed.features.T @ (probabilities - observed.right) + weights
    assert np.abs(gradient).max() < 1e-6


@pytest.mark.parametrize("right", [[True] * 4, [False] * 4, [True, True, False, False]])
def test_tags_that_a_line_separates_have_finite_weights(right: list[bool]) -> None:
    features = np.array([[1, 4.0], [1, 3.0], [1, -3.0], [1, -4.0]])
    weights = fit_weights(features, np.array(right))
    assert np.abs(weights).max() < 5
    probabilities = 1 / (1 + np.exp(-features @ weights))
    assert ((probabilities > 0.5) == right).all()


def test_features_of_any_size_are_fitted() -> None:
    observed, _ = generated(200)
    mass = FEATURES.index("mass")
    scale = np.where(np.arange(len(FEATURES)) == mass, 1e4, 1)
    weights = fit_weights(observed.features * scale, observed.right)
    assert np.isfinite(weights).all()
    assert weights[mass] * 1e4 == pytest.approx(1.5, abs=0.8)


# --- the scores ----------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    probabilities = np.array([0.9, 0.2, 0.6, 0.3])
    right = np.array([True, False, False, True])
    scores = score_probabilities(probabilities, right)
    assert scores.tags == 4
    assert scores.base_rate == 0.5
    assert scores.brier == pytest.approx((0.01 + 0.04 + 0.36 + 0.49) / 4, abs=1e-12)
    assert scores.base_brier == 0.25
    expected = -(math.log(0.9) + math.log(0.8) + math.log(0.4) + math.log(0.3)) / 4
    assert scores.log_loss == pytest.approx(expected, abs=1e-12)
    # Sorted: right, wrong, right, wrong.
    assert scores.average_precision == pytest.approx((1 / 1 + 2 / 3) / 2, abs=1e-12)
    # Fewer tags than bins: one in each.
    assert scores.bins == (
        Bin(1, 0.2, 0.2, 0.2, 0.0),
        Bin(1, 0.3, 0.3, 0.3, 1.0),
        Bin(1, 0.6, 0.6, 0.6, 0.0),
        Bin(1, 0.9, 0.9, 0.9, 1.0),
    )
    assert scores.calibration_error == pytest.approx((0.2 + 0.7 + 0.6 + 0.1) / 4, abs=1e-12)
    assert scores.table().splitlines() == [
        "confidence    tags  predicted  right",
        "0.20 - 0.20      1      0.200  0.000",
        "0.30 - 0.30      1      0.300  1.000",
        "0.60 - 0.60      1      0.600  0.000",
        "0.90 - 0.90      1      0.900  1.000",
        "Brier score 0.2250 (base rate 0.500: 0.2500)",
        "log loss 0.6122",
        "expected calibration error 0.4000",
        "average precision 0.8333",
    ]


def test_bins_have_equal_counts_and_cover_all_tags() -> None:
    observed, probabilities = generated(101)
    bins = score_probabilities(probabilities, observed.right).bins
    assert len(bins) == BINS
    assert sorted({each.tags for each in bins}) == [50, 51]
    assert sum(each.tags for each in bins) == 505
    for low, high in zip(bins, bins[1:], strict=False):
        assert low.lowest <= low.predicted <= low.highest <= high.lowest


@pytest.mark.parametrize("right", [True, False])
def test_outcomes_that_are_all_the_same_have_scores(right: bool) -> None:
    scores = score_probabilities(np.array([0.0, 1.0, 0.5]), np.full(3, right))
    assert scores.base_brier == 0
    assert scores.average_precision == (1.0 if right else 0.0)
    assert math.isfinite(scores.log_loss)


# --- fitting -------------------------------------------------------------------------------


def test_calibrated_tags_come_true_as_often_as_they_say() -> None:
    observed, probabilities = generated(4000)
    calibration, scores = fit_calibration(observed, {"data": "generated"})
    assert scores.calibration_error < 0.015
    # No probabilities are better than the true ones; these are nearly as good.
    best = score_probabilities(probabilities, observed.right)
    assert scores.brier == pytest.approx(best.brier, abs=0.001)
    assert scores.brier < 0.8 * scores.base_brier
    assert calibration.weights == pytest.approx(TRUE_WEIGHTS, abs=0.15)
    assert calibration.fitted_on == {
        "data": "generated",
        "tags": 20000,
        "brier": round(scores.brier, 4),
        "base_brier": round(scores.base_brier, 4),
        "calibration_error": round(scores.calibration_error, 4),
    }
    fresh, _ = generated(4000, seed=1)
    said = 1 / (1 + np.exp(-fresh.features @ np.array(calibration.weights)))
    assert score_probabilities(said, fresh.right).calibration_error < 0.015


def test_no_picture_is_judged_by_weights_that_saw_it() -> None:
    # Every picture's tags are all right or all wrong, whatever the features say: the other
    # pictures know nothing about it, and scores must not be better than chance.
    random = np.random.default_rng(0)
    pictures = np.repeat(np.arange(20), 5)
    right = np.repeat(np.arange(20) % 2 == 0, 5)
    features = np.repeat(random.normal(size=(20, len(FEATURES))), 5, axis=0)
    scores = fit_calibration(Observations(features, right, pictures, np.ones(len(right))))[1]
    assert scores.brier > scores.base_brier


@pytest.mark.parametrize("pictures", [[], [7, 7, 7]])
def test_too_few_pictures_are_refused(pictures: list[int]) -> None:
    observed = Observations(
        np.ones((len(pictures), len(FEATURES))),
        np.ones(len(pictures), bool),
        np.array(pictures, np.int64),
        np.ones(len(pictures)),
    )
    with pytest.raises(CaptionerError, match="and at least two are needed; give more pictures"):
        fit_calibration(observed)


def test_two_pictures_are_enough() -> None:
    same = np.ones((2, len(FEATURES)))
    observed = Observations(same, np.array([True, False]), np.array([3, 9]), np.ones(2))
    calibration, scores = fit_calibration(observed)
    assert calibration.weights == (0.0,) * len(FEATURES)
    # Each is judged by the other, which says the opposite.
    assert scores.brier > 0.25


def test_scores_are_of_probabilities_that_strangeness_has_lowered() -> None:
    observed, _ = generated(200)
    weights, plain = fit_calibration(observed)
    lowered = observed._replace(trust=np.full(len(observed.right), 0.5))
    same_weights, halved = fit_calibration(lowered)
    assert same_weights.weights == weights.weights
    assert [each.predicted for each in halved.bins] == (
        pytest.approx([each.predicted / 2 for each in plain.bins])
    )


def test_observing_compares_lemmas_with_what_people_said() -> None:
    words = ["a", "dog", "dogs", "run", "runs"]
    lemmas = [Lemma("dog", "noun", 0.5), Lemma("run", "verb", 0.5)]
    lexicon = Lexicon(words, lemmas, [NO_LEMMA, 0, 0, 1, 1])
    result = CaptionResult(
        (Candidate("a dog runs", -1.0, 0.5, ("a", "dog", "runs"), (0.9, 0.8, 0.7, 0.6)),)
    )
    silent = CaptionResult((Candidate("a", -1.0, 0.5, ("a",), (0.9, 0.6)),), familiarity=0.7)
    strange = replace(result, familiarity=0.01)
    observed = observe(
        [
            (result, ("Two DOGS!", "they sit")),
            (silent, ("a dog",)),
            (strange, ("a hound sprints", "it runs")),
        ],
        lexicon,
    )
    assert observed.right.tolist() == [True, False, False, True]
    assert observed.pictures.tolist() == [0, 0, 2, 2]
    assert observed.trust.tolist() == pytest.approx([1, 1, 0.5, 0.5])
    found = evidence_of(result, lexicon)
    assert observed.features.tolist() == [list(found[lemma].features()) for lemma in lemmas] * 2


def test_observing_nothing() -> None:
    observed = observe([], Lexicon([], [], []))
    assert observed.features.shape == (0, len(FEATURES))


# --- real models and the command -----------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 pictures with captions that the tiny model can say, half of them held out."""
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
    added = {name for name in after if name.startswith(("familiarity.", "tag_head."))}
    assert after.keys() - added == before.keys()
    assert {"tag_head.linear.weight", "familiarity.mean"} < added
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
    assert new.lexicon == Lexicon.build(new.tokenizer.words, [e.captions for e in train])


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


def test_pictures_that_the_model_learnt_are_refused(
    model_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", model_file, "--data", folder, "--split", "train"]
    assert run(*arguments, "--output", tmp_path / "m.safetensors") == 2
    assert "calibration on the split 'train' would believe" in capsys.readouterr().err


def test_a_bad_picture_ends_it_and_is_named(
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
    # Six to learn from, and the six others twice.
    assert len(seen) == images_to_read(load_caption_data(folder), "dev", None) == 18
    assert model.lexicon is result.lexicon
    assert model.tag_calibration is result.calibration
    assert result.to_dict()["scores"] == asdict(result.scores)
    save_calibrated(model, tmp_path / "out.safetensors")
    before = load_file(tmp_path / "full.safetensors")
    after = load_file(tmp_path / "out.safetensors")
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


# --- captions that are kept ----------------------------------------------------------------


def test_coverage_by_hand() -> None:
    """Four pictures: what is kept, how sure it was, and how much of it people said too."""
    lemmas = [Lemma("dog", "noun", 0.5), Lemma("man", "noun", 0.4), Lemma("red", "adjective", 0.2)]
    lexicon = Lexicon(["a", "dog", "man", "red"], lemmas, [-1, 0, 1, 2])
    # The probability of a word is that of its tag: only the feature "word" has a weight.
    calibration = TagCalibration(tuple(float(name == "word") for name in FEATURES))

    def captioned(text: str, prob: float) -> CaptionResult:
        words = tuple(text.split())
        probs = (*(prob for _ in words), 1.0)
        return CaptionResult((Candidate(text, -1.0, 0.5, words, probs),))

    results = [
        (captioned("a red dog", 0.9), ["a dog runs on the grass", "the red dog"]),
        (captioned("a red man", 0.3), ["a dog sits", "the dog is here"]),
        (captioned("a man", 0.8), ["a man is here", "the old man"]),
        (captioned("a red man", 0.6), ["a man is here", "an old man"]),
    ]
    covered = {each.share: each for each in cover(results, lexicon, calibration)}
    assert list(covered) == list(SHARES)
    half, whole = covered[0.5], covered[1.0]
    assert (half.least_confidence, half.predicted) == (pytest.approx(0.8), pytest.approx(0.85))
    assert half.right == 1.0
    assert whole.least_confidence == pytest.approx(0.3)
    assert whole.predicted == pytest.approx((0.9 + 0.8 + 0.6 + 0.3) / 4)
    assert whole.right == pytest.approx((1 + 1 + 0.5 + 0) / 4)
    texts = {str(place): result.text for place, (result, _) in enumerate(results)}
    people = {str(place): captions for place, (_, captions) in enumerate(results)}
    scored = score_captions(texts, people)
    assert whole.cider_d == pytest.approx(scored.values["CIDEr-D"])
    assert half.cider_d == pytest.approx(
        (scored.per_image["0"]["CIDEr-D"] + scored.per_image["2"]["CIDEr-D"]) / 2
    )
    assert covered[0.1].cider_d == pytest.approx(scored.per_image["0"]["CIDEr-D"])
