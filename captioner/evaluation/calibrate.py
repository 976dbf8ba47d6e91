"""Learn from pictures the model has not seen how far its tags can be trusted.

Every held-out picture is captioned, every lemma in its captions is looked up in what people said
about it, and a logistic regression learns how often which evidence is right. The figures beside it
are cross-validated by picture: no picture is judged by weights that were fitted on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from captioner.data.datasets import CaptionData, Example, canonical_split
from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError
from captioner.evaluation.evaluate import caption_examples, unreadable
from captioner.images.reading import ImageError, read_ahead
from captioner.model.familiarity import Familiarity
from captioner.model.tag_head import TagHead, learnable, mean_average_precision, named_lemmas
from captioner.model.tags import (
    EVIDENCE_CAPTIONS,
    FEATURES,
    TagCalibration,
    caption_confidence,
    evidence_of,
    trust,
)
from captioner.text.lexicon import Lexicon
from captioner.text.metrics import score_captions
from captioner.version import __version__

if TYPE_CHECKING:
    from captioner.model.caption_model import CaptionModel
    from captioner.model.results import CaptionResult

BINS = 10
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)  # of the captions that are kept
FOLDS = 10
# Weak enough to move no weight in its second digit where there are thousands of tags; with a
# handful, which a line may separate, it is what keeps the weights finite.
RIDGE = 1.0
LEARNT_AT_MOST = 6_000
"""Training pictures for familiarity and tag classifier: more say little more and take hours."""


class Observations(NamedTuple):
    """Tags of pictures that people described: N of them.

    ``features``: (N, F) float64, as :data:`captioner.model.tags.FEATURES` lists them. ``right``:
    (N,) bool, whether a caption of the picture has a word with the lemma. ``pictures``: (N,) int64,
    which picture a tag is of. ``trust``: (N,) float64, :func:`captioner.model.tags.trust` in it.
    """

    features: np.ndarray
    right: np.ndarray
    pictures: np.ndarray
    trust: np.ndarray


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
    """The captions that are left when the least sure ones are dropped.

    Attributes:
        share: of the pictures that keep their caption.
        least_confidence: of those.
        cider_d: mean CIDEr-D of their captions, 0 to 10, with the document frequencies of all.
        predicted: mean confidence of their captions.
        right: mean share of content words that a person used too, which the confidence predicts.
    """

    share: float
    least_confidence: float
    cider_d: float
    predicted: float
    right: float


@dataclass(frozen=True)
class SeenScores:
    """How well the tag classifier ranks held-out pictures, before any calibration.

    Attributes:
        lemmas: that it knows.
        mean_average_precision: over the lemmas that people name of these pictures.
        by_chance: what it would be for pictures in random order: the lemmas' mean frequency.
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
    """What :func:`calibrate` put into the model, and how good it is.

    Attributes:
        lexicon: of the model's words.
        calibration: fitted on all pictures.
        scores: of tags, cross-validated by picture.
        coverage: risk and coverage of captions (El-Yaniv and Wiener 2010), with the calibration
            that was fitted on the same pictures; it has nine weights.
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
            f"{each.share:13.0%}  >= {each.least_confidence:.3f}  {100 * each.cider_d:8.2f}  "
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


def calibrate(
    model: CaptionModel,
    data: CaptionData,
    split: str = "dev",
    limit: int | None = None,
    *,
    batch_size: int = 32,
    workers: int = 0,
    on_image: Callable[[], object] | None = None,
) -> CalibrationResult:
    """Give a model a tag calibration, and a lexicon if it has none; it captions as before.

    Args:
        model: the captioner; its ``lexicon`` and ``tag_calibration`` are set, and where the data
            has a training split its ``familiarity`` and ``tag_head`` too.
        data: described pictures; without a lexicon in the model, its split ``train`` makes one.
        split: pictures that the model was not trained on.
        limit: only so many of them.
        batch_size: images that the model sees at once.
        workers: threads that read images while the model works; 0 reads between the batches.
        on_image: called after each of :func:`images_to_read` images.

    Raises:
        CaptionerError: the split is the training split or not there, an image cannot be read, the
            captions hold no lemma, or the lexicon cannot be built.
    """
    if canonical_split(split) == "train":
        raise CaptionerError(
            "calibration on the split 'train' would believe what the model learnt by heart; give "
            "pictures that it was not trained on (--split dev)"
        )
    examples = data.split(split)[:limit]
    if model.lexicon is None:
        captions = (example.captions for example in data.split("train"))
        model.lexicon = Lexicon.build(model.tokenizer.words, captions)
    lexicon = model.lexicon
    seen = None
    if "train" in data.splits:
        train = _some(data.split("train"))
        learnt = _pooled(model, train, batch_size, workers, on_image)
        held_out = _pooled(model, examples, batch_size, workers, on_image)
        model.familiarity = Familiarity.fit(learnt, held_out).to(model.device)
        count = learnable(lexicon, len(train))
        head = TagHead.fit(learnt, _named(train, lexicon, count))
        seen = score_seen(head(held_out), _named(examples, lexicon, count))
        model.tag_head = head.to(model.device)  # moves it, and the features are on the CPU
    decoding = decoding_for_tags(model)
    captioned = caption_examples(
        model,
        examples,
        decoding,
        purpose="calibration",
        batch_size=batch_size,
        workers=workers,
        on_image=on_image,
    )
    results = [(result, example.captions) for example, result in captioned]
    observed = observe(results, lexicon)
    references = [len(example.captions) for example in examples]
    fitted_on = {
        "data": data.name,
        "format": data.format,
        "split": examples[0].split,
        "images": len(examples),
        "captions_per_image": round(sum(references) / len(references), 2),
        "decoding": {
            name: getattr(decoding, name)
            for name in ("beam_size", "num_captions", "max_length", "length_penalty")
        },
    }
    calibration, scores = fit_calibration(observed, fitted_on)
    model.tag_calibration = calibration
    protocol = {
        "captioner": __version__,
        "model": {"sha256": None if model.path is None else model.sha256},
        "precision": model.precision,
        "data": fitted_on,
        "lemmas": len(lexicon),
        "folds": FOLDS,
    }
    coverage = cover(results, lexicon, calibration)
    return CalibrationResult(lexicon, calibration, scores, coverage, protocol, seen)


def decoding_for_tags(model: CaptionModel) -> DecodingOptions:
    """How captions are decoded for tags: other options give other evidence."""
    beams = max(EVIDENCE_CAPTIONS, model.decoding.beam_size)
    return replace(model.decoding, beam_size=beams, num_captions=EVIDENCE_CAPTIONS)


def images_to_read(data: CaptionData, split: str, limit: int | None) -> int:
    """How many images :func:`calibrate` reads; where there is a training split, the others twice.

    Raises:
        CaptionerError: the split is not there.
    """
    asked = len(data.split(split)[:limit])
    if "train" not in data.splits:
        return asked
    return 2 * asked + len(_some(data.split("train")))


def _some(examples: Sequence[Example]) -> Sequence[Example]:
    """At most LEARNT_AT_MOST of them, from all over."""
    return examples[:: -(-len(examples) // LEARNT_AT_MOST)]


def _named(examples: Sequence[Example], lexicon: Lexicon, count: int) -> torch.Tensor:
    """Which of the first ``count`` lemmas people name: (N, L) bool."""
    return named_lemmas((each.captions for each in examples), lexicon, count)


def score_seen(probabilities: torch.Tensor, named: torch.Tensor) -> SeenScores:
    """Compare the classifier's probabilities (N, L) with what people named (N, L) bool."""
    frequencies = named.double().mean(dim=0)
    known = frequencies > 0
    return SeenScores(
        lemmas=named.shape[1],
        mean_average_precision=mean_average_precision(probabilities, named),
        by_chance=float(frequencies[known].mean()) if known.any() else 0.0,
    )


@torch.inference_mode()
def _pooled(
    model: CaptionModel,
    examples: Sequence[Example],
    batch_size: int,
    workers: int,
    on_image: Callable[[], object] | None,
) -> torch.Tensor:
    """Pooled features (N, D) of N images, on the CPU."""

    def read(example: Example) -> torch.Tensor:
        try:
            return model.read(example.path)
        except ImageError as error:
            raise unreadable("calibration", example, error.reason) from error

    found = []
    with closing(read_ahead(read, examples, workers, ahead=batch_size + workers)) as images:
        while batch := list(islice(images, batch_size)):
            found.append(model.encode(torch.stack(batch)).pooled.cpu())
            if on_image is not None:
                for _ in batch:
                    on_image()
    return torch.cat(found)


def cover(
    results: Sequence[tuple[CaptionResult, Sequence[str]]],
    lexicon: Lexicon,
    calibration: TagCalibration,
) -> tuple[Coverage, ...]:
    """Keep ever more of the captions, the surest first, and score what is kept.

    Args:
        results: for every picture the model's captions, and people's.
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


def observe(
    results: Iterable[tuple[CaptionResult, Sequence[str]]], lexicon: Lexicon
) -> Observations:
    """Look up every lemma that captions say in what people said about the same picture.

    Args:
        results: for every picture the model's captions, and people's.
        lexicon: of the model's words. What people say with words it does not know counts for
            nothing, so that a tag can be called wrong which is not.
    """
    features: list[tuple[float, ...]] = []
    right: list[bool] = []
    pictures: list[int] = []
    trusted: list[float] = []
    for picture, (result, captions) in enumerate(results):
        said = lexicon.lemmas_in(captions)
        for lemma, evidence in evidence_of(result, lexicon).items():
            features.append(evidence.features())
            right.append(lemma in said)
            pictures.append(picture)
            trusted.append(trust(result))
    return Observations(
        np.array(features, np.float64).reshape(len(features), len(FEATURES)),
        np.array(right, bool),
        np.array(pictures, np.int64),
        np.array(trusted, np.float64),
    )


def fit_calibration(
    observed: Observations, fitted_on: Mapping[str, Any] | None = None, folds: int = FOLDS
) -> tuple[TagCalibration, CalibrationScores]:
    """Fit the weights on all tags, and score weights that were fitted without the scored pictures.

    Args:
        observed: tags of at least two pictures.
        fitted_on: what the calibration shall say about them, JSON primitives.
        folds: parts of the cross-validation; a picture's tags are all in one.

    Raises:
        CaptionerError: there are tags of fewer than two pictures.
    """
    names = np.unique(observed.pictures)
    if len(names) < 2:
        raise CaptionerError(
            f"calibration: the captions of {len(names)} pictures name something, and at least two "
            "are needed; give more pictures, or a model that says more"
        )
    fold_of = np.searchsorted(names, observed.pictures) % min(folds, len(names))
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
    """Logistic regression by Newton's method, with a weak pull to 0 (:data:`RIDGE`).

    Args:
        features: (N, F); a constant is one of them where there shall be a bias.
        right: (N,) bool.

    Returns:
        The weights, (F,) float64.
    """

    def loss(weights: np.ndarray) -> float:
        logits = features @ weights
        terms = np.logaddexp(0, logits) - right * logits
        return float(terms.sum() + RIDGE / 2 * weights @ weights)

    weights = np.zeros(features.shape[1])
    for _ in range(100):
        probabilities = _sigmoid(features @ weights)
        gradient = features.T @ (probabilities - right) + RIDGE * weights
        spread = probabilities * (1 - probabilities)
        curvature = (features.T * spread) @ features + RIDGE * np.eye(len(weights))
        step = np.linalg.solve(curvature, gradient)
        # Far from the optimum a whole step can lead past it.
        while np.abs(step).max() > 1e-9 and loss(weights - step) > loss(weights):
            step = step / 2
        weights = weights - step
        if np.abs(step).max() <= 1e-9:
            break
    return weights


def score_probabilities(probabilities: np.ndarray, right: np.ndarray) -> CalibrationScores:
    """Compare probabilities (N,) with outcomes (N,) bool; N is at least 1."""
    base_rate = float(right.mean())
    order = np.argsort(-probabilities, kind="stable")
    hits = right[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    bins = tuple(
        Bin(
            tags=len(part),
            lowest=float(probabilities[part].min()),
            highest=float(probabilities[part].max()),
            predicted=float(probabilities[part].mean()),
            observed=float(right[part].mean()),
        )
        for part in np.array_split(order[::-1], BINS)
        if len(part)
    )
    of_outcome = np.clip(np.where(right, probabilities, 1 - probabilities), 1e-12, None)
    return CalibrationScores(
        tags=len(right),
        base_rate=base_rate,
        brier=float(((probabilities - right) ** 2).mean()),
        base_brier=base_rate * (1 - base_rate),
        log_loss=float(-np.log(of_outcome).mean()),
        calibration_error=sum(b.tags * abs(b.predicted - b.observed) for b in bins) / len(right),
        average_precision=float(precision[hits].mean()) if hits.any() else 0.0,
        bins=bins,
    )


def save_calibrated(model: CaptionModel, path: Path) -> None:
    """Write the model with the very weights it was read with.

    Raises:
        CaptionerError: when the file cannot be written.
    """
    # A file in half precision becomes one again, and one in single precision loses nothing.
    half = all(
        torch.equal(tensor, tensor.half().to(tensor.dtype))
        for tensor in model.state_dict().values()
        if tensor.ndim > 1 and tensor.is_floating_point()
    )
    model.save(path, half=half)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits, without overflow."""
    probabilities: np.ndarray = 0.5 * (1 + np.tanh(logits / 2))
    return probabilities
