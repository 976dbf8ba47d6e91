"""Evaluation on small real data with a tiny untrained model: exact scores, complete protocol."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import captioner
from captioner.captioning.coco_ids import CocoIds
from captioner.data.datasets import Example
from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError
from captioner.evaluation.evaluate import (
    EvaluationResult,
    Variety,
    evaluate,
    measure_variety,
    save_json,
)
from captioner.images.reading import READER_VERSION
from captioner.model.caption_model import CaptionModel
from captioner.text.lexicon import NO_LEMMA, Lemma, Lexicon
from captioner.text.metrics import score_captions
from captioner.text.options import ScoringOptions
from captioner.text.ptb_tokenizer import PTB_RULE
from captioner.text.tokenizer import TOKENIZER_RULE
from helpers.models import TALK_WORDS, make_talker

OPTIONS = DecodingOptions(beam_size=2, max_length=6)


@pytest.fixture(scope="module")
def model() -> CaptionModel:
    return make_talker()


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    made = []
    for index in range(5):
        pixels = np.random.default_rng(index).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        path = tmp_path / f"{index}.png"
        Image.fromarray(pixels).resize((80, 60)).save(path)
        references = (
            "A dog runs in the snow.",
            f"The {TALK_WORDS[index]} jumps on grass",
            "Red ball!",
        )
        made.append(Example(path.name, path, references[: 2 + index % 2], "dev"))
    return made


def test_scores_are_those_of_the_metrics_on_the_models_own_captions(
    model: CaptionModel, examples: list[Example]
) -> None:
    result = evaluate(model, examples, OPTIONS, batch_size=2)
    alone = [model.caption([example.path], OPTIONS)[0] for example in examples]
    assert len({caption.text for caption in alone}) > 1
    assert [image.image_id for image in result.images] == [f"{i}.png" for i in range(5)]
    assert [image.caption for image in result.images] == [caption.text for caption in alone]
    confidences = [image.confidence for image in result.images]
    assert confidences == pytest.approx([caption.confidence for caption in alone], abs=1e-5)
    expected = score_captions(
        {e.image_id: c.text for e, c in zip(examples, alone, strict=True)},
        {e.image_id: e.captions for e in examples},
    )
    assert result.scores == expected.values
    assert list(result.scores) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D"]
    assert {i.image_id: i.scores for i in result.images} == expected.per_image


def test_a_reference_as_caption_scores_one(model: CaptionModel, examples: list[Example]) -> None:
    captions = [result.text for result in model.caption([e.path for e in examples], OPTIONS)]
    perfect = [
        dataclasses.replace(example, captions=("nothing like it", caption.upper() + "."))
        for example, caption in zip(examples, captions, strict=True)
    ]
    scores = evaluate(model, perfect, OPTIONS).scores
    assert scores["BLEU-1"] == pytest.approx(1.0, abs=1e-9)
    assert scores["ROUGE-L"] == pytest.approx(1.0, abs=1e-9)


def test_the_protocol_says_how_the_numbers_were_made(
    model: CaptionModel, examples: list[Example], tmp_path: Path
) -> None:
    result = evaluate(model, examples, OPTIONS, data={"format": "jsonl", "split": "dev"})
    protocol = result.protocol
    assert protocol["captioner"] == captioner.__version__
    assert protocol["reader"] == READER_VERSION
    assert protocol["data"] == {
        "format": "jsonl",
        "split": "dev",
        "images": 5,
        "references": {"min": 2, "max": 3, "mean": 2.4},
    }
    assert protocol["decoding"] == dataclasses.asdict(OPTIONS)
    assert protocol["metrics"]["tokenizer"] == TOKENIZER_RULE
    assert protocol["libraries"]["torch"] == torch.__version__.partition("+")[0]
    assert protocol["model"] == {
        "sha256": None,
        "encoder": "timm/test_efficientnet",
        "language": "en",
        "device": "cpu",
        "precision": "fp32",
        "provenance": {},
    }
    save_json(tmp_path / "new" / "scores.json", result.to_dict())
    saved = json.loads((tmp_path / "new" / "scores.json").read_text("utf-8"))
    assert saved["scores"] == result.scores
    assert saved["protocol"]["data"] == protocol["data"]
    assert saved["images"][0] == dataclasses.asdict(result.images[0])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["scores.json"]


def test_the_protocol_holds_the_hash_of_the_model_file(
    model: CaptionModel, examples: list[Example], tmp_path: Path
) -> None:
    model.save(tmp_path / "model.safetensors")
    loaded = CaptionModel.load(tmp_path / "model.safetensors", device="cpu")
    protocol = evaluate(loaded, examples[:1], OPTIONS).protocol
    assert protocol["model"]["sha256"] == loaded.sha256
    assert len(loaded.sha256) == 64


def test_coco_results_and_table() -> None:
    result = EvaluationResult(
        {"BLEU-4": 0.2064, "CIDEr-D": 0.529},
        {"data": {"split": "test", "images": 1000}, "decoding": {"sample": False, "beam_size": 5}},
        (),
        Variety(742, 200, 0.3845),
    )
    assert result.table() == (
        "BLEU-4    20.64\nCIDEr-D   52.90\n"
        "742 different captions of 200 words; 38.5% of the content words are in no reference\n"
        "(times 100; 1000 images of the split test, beam 5)"
    )
    assert result.coco_results(CocoIds({})) == []


def test_variety_counts_what_no_person_said() -> None:
    lexicon = Lexicon(
        ["a", "dog", "dogs", "runs", "red"],
        [Lemma("dog", "noun", 0.5), Lemma("run", "verb", 0.2), Lemma("red", "adjective", 0.1)],
        [NO_LEMMA, 0, 0, 1, 2],
    )
    captions = [("a", "dog", "runs"), ("a", "red", "dog"), ("a", "dog", "runs"), ("a",)]
    references = [["Two dogs"], ["a red dog", "it runs"], ["nothing"], ["a dog"]]
    # Said are dog, run; red, dog; dog, run; nothing. Missing: run; nothing; dog, run.
    assert measure_variety(captions, references, lexicon) == Variety(3, 4, 3 / 6)
    assert measure_variety(captions, references, None) == Variety(3, 4, None)
    assert str(Variety(3, 4, None)) == "3 different captions of 4 words"


def test_coco_results_hold_every_caption(model: CaptionModel, examples: list[Example]) -> None:
    result = evaluate(model, examples[:2], OPTIONS)
    first, second = (image.caption for image in result.images)
    assert result.coco_results(CocoIds({"0.png": 0, "1.png": 1})) == [
        {"image_id": 0, "caption": first},
        {"image_id": 1, "caption": second},
    ]
    assert result.coco_results(CocoIds({"0.png": 1, "1.png": 2}, True)) == [
        {"image_id": 1, "caption": first, "file_name": "0.png"},
        {"image_id": 2, "caption": second, "file_name": "1.png"},
    ]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CaptionerError, match=r"/file cannot be created: a file has its name"):
        save_json(tmp_path / "file" / "scores.json", {})


def test_every_image_is_reported_to_the_caller(
    model: CaptionModel, examples: list[Example]
) -> None:
    calls: list[int] = []
    evaluate(model, examples, OPTIONS, batch_size=2, on_image=lambda: calls.append(1))
    assert len(calls) == 5


def test_a_bad_image_ends_the_evaluation_and_is_named(
    model: CaptionModel, examples: list[Example]
) -> None:
    examples[3].path.write_bytes(b"no image")
    with pytest.raises(CaptionerError, match=r"3\.png: not an image Pillow can read; repair"):
        evaluate(model, examples, OPTIONS, batch_size=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda examples: [], "there are no images"),
        (lambda examples: [*examples, examples[1]], r"1\.png is listed twice"),
        (
            lambda examples: [dataclasses.replace(examples[0], captions=())],
            r"0\.png has no reference caption",
        ),
    ],
)
def test_data_that_cannot_be_scored_is_refused(
    model: CaptionModel, examples: list[Example], change, message: str
) -> None:
    with pytest.raises(CaptionerError, match=message):
        evaluate(model, change(examples), OPTIONS)


def test_a_metric_that_cannot_run_is_reported_before_any_image_is_captioned(
    model: CaptionModel, examples: list[Example], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no Java
    calls: list[int] = []
    scoring = ScoringOptions(metrics=("METEOR",))
    with pytest.raises(CaptionerError, match="METEOR needs Java"):
        evaluate(model, examples, OPTIONS, scoring=scoring, on_image=lambda: calls.append(1))
    assert calls == []


def test_the_protocol_names_the_tokenizer_of_papers(
    model: CaptionModel, examples: list[Example]
) -> None:
    scoring = ScoringOptions("ptb", ("METEOR-stem",))
    result = evaluate(model, examples, OPTIONS, scoring=scoring)
    assert result.protocol["metrics"]["tokenizer"] == PTB_RULE
    references = {example.image_id: example.captions for example in examples}
    captions = {image.image_id: image.caption for image in result.images}
    assert result.scores == score_captions(captions, references, scoring).values
    assert list(result.scores)[-1] == "METEOR-stem"
    assert result.table().splitlines()[0].startswith("BLEU-1       ")


def test_scores_are_finite_when_nothing_matches(
    model: CaptionModel, examples: list[Example]
) -> None:
    strangers = [dataclasses.replace(e, captions=("zebra",)) for e in examples]
    scores = evaluate(model, strangers, OPTIONS).scores
    assert all(math.isfinite(score) and score < 1e-6 for score in scores.values())
