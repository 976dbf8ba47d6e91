"""Scores of probabilities, of the tag classifier and of kept captions, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from captioner.evaluation.calibration_scores import (
    BINS,
    SHARES,
    Bin,
    SeenScores,
    coverage_curve,
    score_probabilities,
    score_seen,
)
from captioner.model.results import Candidate, CaptionResult
from captioner.model.tags import FEATURES, TagCalibration
from captioner.text.lexicon import Lemma, Lexicon
from captioner.text.metrics import score_captions
from helpers.observations import generated


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


def test_seen_lemmas_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1, 0.5], [0.8, 0.2, 0.5], [0.7, 0.3, 0.5]])
    named = np.array([[True, True, False], [False, False, False], [True, False, False]])
    # First lemma: right at places 1 and 3; second: at place 3; the third is never right.
    seen = score_seen(probabilities, named)
    assert seen == SeenScores(
        lemmas=3,
        mean_average_precision=pytest.approx(((1 + 2 / 3) / 2 + 1 / 3) / 2),
        by_chance=pytest.approx((2 / 3 + 1 / 3) / 2),
    )
    assert score_seen(probabilities, np.zeros((3, 3), bool)) == SeenScores(3, 0.0, 0.0)


def test_coverage_by_hand() -> None:
    """Four images: what is kept, how sure it was, and how much of it people said too."""
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
    covered = {each.share: each for each in coverage_curve(results, lexicon, calibration)}
    assert list(covered) == list(SHARES)
    half, whole = covered[0.5], covered[1.0]
    assert (half.min_confidence, half.predicted) == (pytest.approx(0.8), pytest.approx(0.85))
    assert half.right == 1.0
    assert whole.min_confidence == pytest.approx(0.3)
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
