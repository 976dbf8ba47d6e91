"""The regression finds weights that are known, and no image is judged by its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from captioner.errors import CaptionerError
from captioner.evaluation.calibration_fit import (
    Observations,
    collect_observations,
    fit_calibration,
    fit_weights,
)
from captioner.evaluation.calibration_scores import score_probabilities
from captioner.model.results import Candidate, CaptionResult
from captioner.model.tags import FEATURES, evidence_of
from captioner.text.lexicon import NO_LEMMA, Lemma, Lexicon
from helpers.observations import TRUE_WEIGHTS, generated


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


def test_no_image_is_judged_by_weights_that_saw_it() -> None:
    # Every image's tags are all right or all wrong, whatever the features say: the other
    # images know nothing about it, and scores must not be better than chance.
    random = np.random.default_rng(0)
    images = np.repeat(np.arange(20), 5)
    right = np.repeat(np.arange(20) % 2 == 0, 5)
    features = np.repeat(random.normal(size=(20, len(FEATURES))), 5, axis=0)
    scores = fit_calibration(Observations(features, right, images, np.ones(len(right))))[1]
    assert scores.brier > scores.base_brier


@pytest.mark.parametrize("images", [[], [7, 7, 7]])
def test_too_few_images_are_refused(images: list[int]) -> None:
    observed = Observations(
        np.ones((len(images), len(FEATURES))),
        np.ones(len(images), bool),
        np.array(images, np.int64),
        np.ones(len(images)),
    )
    with pytest.raises(CaptionerError, match=f"{len(set(images))} images name something"):
        fit_calibration(observed)


def test_two_images_are_enough() -> None:
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
    observed = collect_observations(
        [
            (result, ("Two DOGS!", "they sit")),
            (silent, ("a dog",)),
            (strange, ("a hound sprints", "it runs")),
        ],
        lexicon,
    )
    assert observed.right.tolist() == [True, False, False, True]
    assert observed.images.tolist() == [0, 0, 2, 2]
    assert observed.trust.tolist() == pytest.approx([1, 1, 0.5, 0.5])
    found = evidence_of(result, lexicon)
    assert observed.features.tolist() == [list(found[lemma].features()) for lemma in lemmas] * 2


def test_observing_nothing() -> None:
    observed = collect_observations([], Lexicon([], [], []))
    assert observed.features.shape == (0, len(FEATURES))
