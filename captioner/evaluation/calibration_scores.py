"""How good probabilities of tags and confidences of captions are, on images that were held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from captioner.model.tags import TagCalibration, caption_confidence
from captioner.text.lexicon import Lexicon
from captioner.text.metrics import score_captions

if TYPE_CHECKING:
    from captioner.model.results import CaptionResult

BINS = 10
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)  # of the captions that are kept
SMALLEST = 1e-12  # of a probability, in the logarithmic loss


@dataclass(frozen=True)
class Bin:
    """Tags of similar confidence: what was promised and what came true.

    Attributes:
        tags: how many.
        lowest: their lowest confidence.
        highest: their highest.
        predicted: their mean confidence.
        observed: share of them that was right.
    """

    tags: int
    lowest: float
    highest: float
    predicted: float
    observed: float


@dataclass(frozen=True)
class CalibrationScores:
    """How good probabilities are, on tags they were not fitted on.

    Attributes:
        tags: number of tags.
        base_rate: share of them that is right.
        brier: mean squared distance of probability and outcome (Brier 1950); 0 is best.
        base_brier: that of the base rate, given to every tag.
        log_loss: mean negative natural logarithm of the outcome's probability.
        calibration_error: expected calibration error: mean distance of ``predicted`` and
            ``observed`` over the bins (Naeini, Cooper and Hauskrecht 2015), with equal counts.
        average_precision: area under precision over recall, tags sorted by probability.
        bins: by rising confidence, with equally many tags each.
    """

    tags: int
    base_rate: float
    brier: float
    base_brier: float
    log_loss: float
    calibration_error: float
    average_precision: float
    bins: tuple[Bin, ...]

    def table(self) -> str:
        """The bins and scores for people."""
        lines = ["confidence    tags  predicted  right"]
        lines += [
            f"{each.lowest:.2f} - {each.highest:.2f}  {each.tags:5}  {each.predicted:9.3f}  "
            f"{each.observed:.3f}"
            for each in self.bins
        ]
        lines += [
            f"Brier score {self.brier:.4f} (base rate {self.base_rate:.3f}: {self.base_brier:.4f})",
            f"log loss {self.log_loss:.4f}",
            f"expected calibration error {self.calibration_error:.4f}",
            f"average precision {self.average_precision:.4f}",
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Coverage:
    """The captions that are left when the least certain ones are dropped.

    Attributes:
        share: of the images that keep their caption.
        min_confidence: of those.
        cider_d: mean CIDEr-D of their captions, 0 to 10, with the document frequencies of all.
        predicted: mean confidence of their captions.
        right: mean share of content words that a person used too, which the confidence predicts.
    """

    share: float
    min_confidence: float
    cider_d: float
    predicted: float
    right: float


@dataclass(frozen=True)
class SeenScores:
    """How well the tag classifier ranks held-out images, before any calibration.

    Attributes:
        lemmas: that it knows.
        mean_average_precision: over the lemmas that people name of these images.
        by_chance: what it would be for images in random order: the lemmas' mean frequency.
    """

    lemmas: int
    mean_average_precision: float
    by_chance: float

    def table(self) -> str:
        """One line for people."""
        return (
            f"tag classifier: {self.lemmas} lemmas, mean average precision "
            f"{self.mean_average_precision:.4f} (by chance {self.by_chance:.4f})"
        )


@dataclass(frozen=True)
class CalibrationResult:
    """What `captioner.evaluation.calibrate.calibrate` put into the model, and how good it is.

    Attributes:
        lexicon: of the model's words.
        calibration: fitted on all images.
        scores: of tags, cross-validated by image.
        coverage: risk and coverage of captions (El-Yaniv and Wiener 2010), with the calibration
            that was fitted on the same images; it has nine weights.
        protocol: everything that another person needs to repeat the numbers, JSON primitives.
        seen: how good the tag classifier is; None where there was no training split to fit one.
    """

    lexicon: Lexicon
    calibration: TagCalibration
    scores: CalibrationScores
    coverage: tuple[Coverage, ...]
    protocol: dict[str, Any]
    seen: SeenScores | None = None

    def table(self) -> str:
        """Tags and captions for people."""
        lines = [self.scores.table(), "", "captions kept  confidence  CIDEr-D  predicted  right"]
        lines += [
            f"{each.share:13.0%}  >= {each.min_confidence:.3f}  {100 * each.cider_d:8.2f}  "
            f"{each.predicted:9.3f}  {each.right:.3f}"
            for each in self.coverage
        ]
        if self.seen is not None:
            lines += ["", self.seen.table()]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives: ``scores``, ``coverage``, ``seen``, ``calibration``, ``protocol``."""
        return {
            "scores": asdict(self.scores),
            "coverage": [asdict(each) for each in self.coverage],
            "seen": None if self.seen is None else asdict(self.seen),
            "calibration": self.calibration.to_dict(),
            "protocol": self.protocol,
        }


def score_probabilities(probabilities: np.ndarray, right: np.ndarray) -> CalibrationScores:
    """Compare probabilities (N,) with outcomes (N,) bool; N is at least 1."""
    from sklearn.metrics import brier_score_loss

    base_rate = float(right.mean())
    bins = tuple(
        Bin(
            tags=len(part),
            lowest=float(probabilities[part].min()),
            highest=float(probabilities[part].max()),
            predicted=float(probabilities[part].mean()),
            observed=float(right[part].mean()),
        )
        for part in np.array_split(np.argsort(probabilities, kind="stable"), BINS)
        if len(part)
    )
    of_outcome = np.where(right, probabilities, 1 - probabilities).clip(SMALLEST)
    return CalibrationScores(
        tags=len(right),
        base_rate=base_rate,
        brier=float(brier_score_loss(right, probabilities, pos_label=1)),
        base_brier=base_rate * (1 - base_rate),
        log_loss=float(-np.log(of_outcome).mean()),
        calibration_error=sum(b.tags * abs(b.predicted - b.observed) for b in bins) / len(right),
        average_precision=average_precision(probabilities, right),
        bins=bins,
    )


def average_precision(probabilities: np.ndarray, right: np.ndarray) -> float:
    """The mean of the precision at every right one, by falling probability; 0 where none is right.

    Args:
        probabilities: (N,).
        right: (N,) bool.
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(right, probabilities)) if right.any() else 0.0


def score_seen(probabilities: np.ndarray, named: np.ndarray) -> SeenScores:
    """Compare the classifier's probabilities (N, L) with what people named (N, L) bool.

    The mean of the average precision (Everingham et al. 2015, section 4.2, without interpolation)
    is over the lemmas that are named at all.
    """
    known = np.flatnonzero(named.any(axis=0))
    precision = [average_precision(probabilities[:, lemma], named[:, lemma]) for lemma in known]
    return SeenScores(
        lemmas=named.shape[1],
        mean_average_precision=float(np.mean(precision)) if precision else 0.0,
        by_chance=float(named[:, known].mean()) if precision else 0.0,
    )


def coverage_curve(
    results: Sequence[tuple[CaptionResult, Sequence[str]]],
    lexicon: Lexicon,
    calibration: TagCalibration,
) -> tuple[Coverage, ...]:
    """Keep ever more of the captions, the surest first, and score what is kept.

    Args:
        results: for every image the model's captions, and people's.
        lexicon: of the model's words.
        calibration: of the model's tags.
    """
    names = [str(place) for place in range(len(results))]
    scored = score_captions(
        {name: result.text for name, (result, _) in zip(names, results, strict=True)},
        {name: captions for name, (_, captions) in zip(names, results, strict=True)},
    )
    cider = np.array([scored.per_image[name]["CIDEr-D"] for name in names])
    sure = np.array([caption_confidence(result, lexicon, calibration) for result, _ in results])
    right = np.array([_right_share(result, captions, lexicon) for result, captions in results])
    order = np.argsort(-sure, kind="stable")
    found = []
    for share in SHARES:
        kept = order[: max(1, round(share * len(order)))]
        means = (float(values[kept].mean()) for values in (cider, sure, right))
        found.append(Coverage(share, float(sure[kept[-1]]), *means))
    return tuple(found)


def _right_share(result: CaptionResult, captions: Sequence[str], lexicon: Lexicon) -> float:
    """The share of the best caption's content lemmas that people's captions have; 0 of none."""
    named = lexicon.lemmas_of(result.candidates[0].words)
    return len(named & lexicon.lemmas_in(captions)) / len(named) if named else 0.0
