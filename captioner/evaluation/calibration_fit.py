"""Learn how often which evidence for a tag is right, by logistic regression."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from captioner.errors import CaptionerError
from captioner.evaluation.calibration_scores import CalibrationScores, score_probabilities
from captioner.model.tags import FEATURES, TagCalibration, evidence_of, trust
from captioner.text.lexicon import Lexicon

if TYPE_CHECKING:
    from captioner.model.results import CaptionResult

FOLDS = 10
# Weak enough to move no weight in its second digit where there are thousands of tags; with a
# handful, which a line may separate, it is what keeps the weights finite.
RIDGE = 1.0
TOLERANCE = 1e-10  # of the gradient's largest entry, for each tag


class Observations(NamedTuple):
    """Tags of images that people described: N of them.

    ``features``: (N, F) float64, as :data:`captioner.model.tags.FEATURES` lists them. ``right``:
    (N,) bool, whether a caption of the image has a word with the lemma. ``images``: (N,) int64,
    which image a tag is of. ``trust``: (N,) float64, :func:`captioner.model.tags.trust` in it.
    """

    features: np.ndarray
    right: np.ndarray
    images: np.ndarray
    trust: np.ndarray


def collect_observations(
    results: Iterable[tuple[CaptionResult, Sequence[str]]], lexicon: Lexicon
) -> Observations:
    """Look up every lemma that captions say in what people said about the same image.

    Args:
        results: for every image the model's captions, and people's.
        lexicon: of the model's words. What people say with words it does not know counts for
            nothing, so that a tag can be called wrong which is not.
    """
    features: list[tuple[float, ...]] = []
    right: list[bool] = []
    images: list[int] = []
    trusted: list[float] = []
    for image, (result, captions) in enumerate(results):
        said = lexicon.lemmas_in(captions)
        for lemma, evidence in evidence_of(result, lexicon).items():
            features.append(evidence.features())
            right.append(lemma in said)
            images.append(image)
            trusted.append(trust(result))
    return Observations(
        np.array(features, np.float64).reshape(len(features), len(FEATURES)),
        np.array(right, bool),
        np.array(images, np.int64),
        np.array(trusted, np.float64),
    )


def fit_calibration(
    observed: Observations, fitted_on: Mapping[str, Any] | None = None, folds: int = FOLDS
) -> tuple[TagCalibration, CalibrationScores]:
    """Fit the weights on all tags, and score weights that were fitted without the scored images.

    Args:
        observed: tags of at least two images.
        fitted_on: what the calibration records about them, JSON primitives.
        folds: parts of the cross-validation; an image's tags are all in one.

    Raises:
        CaptionerError: there are tags of fewer than two images.
    """
    names = np.unique(observed.images)
    if len(names) < 2:
        raise CaptionerError(
            f"calibration: the captions of {len(names)} images name something, and at least two "
            "are needed; give more images, or a model that says more"
        )
    fold_of = np.searchsorted(names, observed.images) % min(folds, len(names))
    probabilities = np.empty(len(observed.right))
    for fold in range(fold_of.max() + 1):
        held_out = fold_of == fold
        weights = fit_weights(observed.features[~held_out], observed.right[~held_out])
        probability = _sigmoid(observed.features[held_out] @ weights)
        probabilities[held_out] = observed.trust[held_out] * probability
    weights = fit_weights(observed.features, observed.right)
    scores = score_probabilities(probabilities, observed.right)
    described = {
        **(fitted_on or {}),
        "tags": scores.tags,
        "brier": round(scores.brier, 4),
        "base_brier": round(scores.base_brier, 4),
        "calibration_error": round(scores.calibration_error, 4),
    }
    calibration = TagCalibration(tuple(round(float(w), 6) for w in weights), described)
    return calibration, scores


def fit_weights(features: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Logistic regression with a weak pull to 0 (:data:`RIDGE`).

    Args:
        features: (N, F); a constant is one of them where a bias is wanted.
        right: (N,) bool.

    Returns:
        The weights, (F,) float64.
    """
    from sklearn.linear_model import LogisticRegression

    # Both outcomes must occur. A row of zeros has no gradient where there is no intercept.
    nothing = np.zeros((2, features.shape[1]))
    regression = LogisticRegression(
        C=1 / RIDGE, fit_intercept=False, solver="newton-cholesky", tol=TOLERANCE
    )
    regression.fit(np.concatenate([features, nothing]), np.concatenate([right, [False, True]]))
    weights: np.ndarray = regression.coef_[0]
    return weights


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits, without overflow."""
    probabilities: np.ndarray = 0.5 * (1 + np.tanh(logits / 2))
    return probabilities
