"""All metrics together: their names, their order, bad input."""

from __future__ import annotations

import pytest
from pycocoevalcap.bleu.bleu import Bleu as CocoBleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from captioner.errors import CaptionerError
from captioner.text.bleu import Bleu
from captioner.text.cider import CiderD
from captioner.text.metrics import EXTRA, STANDARD, score_captions
from captioner.text.options import ScoringOptions
from captioner.text.rouge import RougeL
from captioner.text.scores import Metric
from captioner.text.tokenizer import tokenize
from helpers.captions import CANDIDATES, REFERENCES, Texts, joined


def test_score_captions_has_all_metrics_by_name() -> None:
    scores = score_captions(CANDIDATES, REFERENCES)
    names = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D"]
    assert list(scores.values) == names
    assert list(scores.per_image) == list(CANDIDATES)
    assert all(list(image) == names for image in scores.per_image.values())
    alone = {
        name: found
        for metric in (Bleu, RougeL, CiderD)
        for name, found in metric(REFERENCES, tokenize=tokenize).evaluate(CANDIDATES).items()
    }
    assert scores.values == {name: found.corpus for name, found in alone.items()}
    for image_id, image in scores.per_image.items():
        assert image == {name: found.per_image[image_id] for name, found in alone.items()}


def test_empty_references_equal_pycocoevalcap() -> None:
    candidates = {"both": "...", "reference": "a dog", "one of two": "a dog", "fourth": "a b c"}
    references = {
        "both": [""],
        "reference": ["!"],
        "one of two": ["", "a dog runs"],
        "fourth": ["a b c d e f"],
    }
    gts, res = joined(candidates, references)
    expected = [
        *CocoBleu(4).compute_score(gts, res, verbose=0)[0],
        Rouge().compute_score(gts, res)[0],
        Cider().compute_score(gts, res)[0],
    ]
    values = score_captions(candidates, references).values.values()
    assert list(values) == pytest.approx(expected, abs=1e-9)


def test_spelling_that_the_tokenizer_levels_costs_nothing() -> None:
    candidates = {"x": "A man\u2019s T-shirt, on the dogs\u2019 bed", "y": "Two cats"}
    references = {"x": ["a man 's t-shirt on the dogs bed ."], "y": ["two cats"]}
    scores = score_captions(candidates, references)
    assert scores.per_image["x"] == pytest.approx(
        {"BLEU-1": 1, "BLEU-2": 1, "BLEU-3": 1, "BLEU-4": 1, "ROUGE-L": 1, "CIDEr-D": 10}, abs=1e-6
    )


def test_the_tokenizer_of_papers_splits_other_words() -> None:
    candidates, references = {"x": "a man doesn't ride"}, {"x": ["a man does n't ride"]}
    ours = score_captions(candidates, references).values["BLEU-1"]
    theirs = score_captions(candidates, references, ScoringOptions("ptb")).values["BLEU-1"]
    assert (round(ours, 3), round(theirs, 3)) == (0.584, 1.0)


def test_further_metrics_come_last() -> None:
    options = ScoringOptions(metrics=("METEOR-stem",))
    scores = score_captions(CANDIDATES, REFERENCES, options)
    assert list(scores.values)[-2:] == ["CIDEr-D", "METEOR-stem"]
    alone = EXTRA["METEOR-stem"](REFERENCES, tokenize=tokenize).evaluate(CANDIDATES)["METEOR-stem"]
    assert scores.values["METEOR-stem"] == alone.corpus


@pytest.mark.parametrize("metric", [*STANDARD, *EXTRA.values()])
@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        ({"x": "a", "y": "b"}, {"x": ["a"]}, "image 'y' has no references"),
        ({"x": "a"}, {"x": ["a"], "z": ["b"]}, "image 'z' has no candidate"),
        ({"x": "a"}, {"x": []}, r"image 'x' has \[\]; give a list with at least one caption"),
        ({"x": "a"}, {"x": "a dog"}, "image 'x' has 'a dog'; give a list"),
        ({"x": "a"}, {}, "references: there are none"),
        ({}, {}, "references: there are none"),
    ],
)
def test_pairs_that_do_not_match_are_refused(
    metric: type[Metric], candidates: dict[str, str], references: Texts, message: str
) -> None:
    with pytest.raises(CaptionerError, match=message):
        metric(references, tokenize=tokenize).evaluate(candidates)
