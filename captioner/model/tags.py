"""Tags: what an image's captions and the tag classifier name, each with a confidence.

The captions say the words, the lexicon knows their lemmas, the classifier has its own opinion, and
the calibration turns it all into a probability. Nothing here needs a tagger or a dictionary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError, damaged
from captioner.text.lexicon import Lemma, Lexicon

if TYPE_CHECKING:
    from captioner.model.results import Candidate, CaptionResult

FEATURES = ("bias", "said", "mass", "word", "caption", "early", "word_early", "seen", "said_seen")
"""What :meth:`Evidence.features` returns, in this order."""
EVIDENCE_CAPTIONS = 3
"""Captions of an image that are decoded for its tags, as for the calibration."""

FAMILIAR = 0.02
"""Of images less familiar than this share of held-out ones, confidence falls in proportion."""

UNSURE = 0.25
"""Calibrated captions with less confidence are unsure; see :func:`unsure_below`."""

SEEN_AT_LEAST = 0.1
"""What the tag classifier finds less probable is not a tag, unless a caption says it."""

CLIP = 0.01  # Probabilities are kept this far from 0 and 1, where their logit has no end.


def with_evidence(options: DecodingOptions) -> DecodingOptions:
    """Options for as many captions as tags and confidence need; the best caption stays the same."""
    if options.sample:
        return options
    count = max(options.num_captions, min(EVIDENCE_CAPTIONS, options.beam_size))
    return replace(options, num_captions=count)


@dataclass(frozen=True)
class Tag:
    """Something that an image shows.

    Attributes:
        name: a lemma: "dog", "run", "red".
        type: ``noun``, ``verb`` or ``adjective``. Two tags can share a name, not name and type.
        confidence: in [0, 1]; what it means says :func:`tags_of`.
    """

    name: str
    type: str
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives, the confidence to four places."""
        return {"name": self.name, "type": self.type, "confidence": round(self.confidence, 4)}


@dataclass(frozen=True)
class Evidence:
    """The evidence for one lemma in one image.

    Attributes:
        mass: share in [0, 1] of the captions' probability that belongs to those that say it; 0
            where none does.
        word_prob: highest probability of a word with this lemma where it was said, in [0, 1].
        confidence: the model's own of the best caption (`captioner.model.results.Candidate`),
            in [0, 1], whether that one says it or not.
        position: the earliest place of such a word in its caption; 0 is the first word.
        seen: the tag classifier's probability in [0, 1]; None where the model has no classifier.
    """

    mass: float
    word_prob: float
    confidence: float
    position: int
    seen: float | None = None

    def features(self) -> tuple[float, ...]:
        """Numbers for the logistic regression, in the order of :data:`FEATURES`."""
        seen = 0.0 if self.seen is None else _logit(self.seen)
        if not self.mass:
            return 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, seen, 0.0
        word, early = _logit(self.word_prob), 1 / (1 + self.position)
        said = (self.mass, word, _logit(self.confidence), early, word * early)
        return 1.0, 1.0, *said, seen, seen


@dataclass(frozen=True)
class TagCalibration:
    """How evidence becomes a probability: logistic regression (Cox 1958; Platt 1999).

    Attributes:
        weights: one for each of :data:`FEATURES`.
        fitted_on: which images and captions the weights were fitted on, JSON primitives.

    Raises:
        CaptionerError: the weights are not as many finite numbers as there are features.
    """

    weights: tuple[float, ...]
    fitted_on: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.weights) != len(FEATURES):
            raise _damaged(f"{len(self.weights)} weights, and there are {len(FEATURES)} features")
        for weight in self.weights:
            # A bool is a number to Python, and an integer can be too long for a float.
            if type(weight) not in (int, float) or not abs(weight) < 1e6:
                raise _damaged(f"{weight!r:.40} is not a weight")

    def probability(self, evidence: Evidence) -> float:
        """Probability in (0, 1) that the lemma is right; see :func:`tags_of`."""
        logit = math.fsum(w * x for w, x in zip(self.weights, evidence.features(), strict=True))
        return sigmoid(logit)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON primitives from which ``from_dict`` makes an equal calibration."""
        return {
            "weights": dict(zip(FEATURES, self.weights, strict=True)),
            "fitted_on": dict(self.fitted_on),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TagCalibration:
        """Make the calibration that ``to_dict`` described.

        Features that it does not name count for nothing: older calibrations have fewer.

        Raises:
            CaptionerError: the description is damaged, or has weights for other features.
        """
        if not isinstance(data, Mapping):
            raise _damaged(f"a table was expected, not {type(data).__name__}")
        weights, fitted_on = data.get("weights"), data.get("fitted_on")
        if not isinstance(weights, Mapping) or not isinstance(fitted_on, Mapping):
            raise _damaged("'weights' and 'fitted_on' must be tables")
        if "bias" not in weights or not set(weights) <= set(FEATURES):
            raise CaptionerError(
                f"tag calibration: it has weights for {', '.join(map(str, weights))!r:.80}, and "
                f"this version for {', '.join(FEATURES)}; use the version that made the file, or "
                "`captioner calibrate` the model again"
            )
        return cls(tuple(weights.get(name, 0.0) for name in FEATURES), dict(fitted_on))


def tags_of(
    result: CaptionResult, lexicon: Lexicon, calibration: TagCalibration | None = None
) -> tuple[Tag, ...]:
    """The tags of an image, by falling confidence, then by name.

    Args:
        result: the image's captions, decoded as for the calibration (beam 3): every caption that
            was considered counts as evidence.
        lexicon: of the model that said them.
        calibration: of that model. With it the confidence is the probability that at least one of
            the people who describe such an image uses a word with this lemma: of the tags with
            confidence 0.8, four in five are right. That holds for images like those it was fitted
            on; of others it is lowered, see :func:`trust`. Without it the confidence is a raw
            score, the captions' share times the word's own probability or, if higher, the tag
            classifier's, which orders tags and means no more.
    """
    found = evidence_of(result, lexicon)
    known = trust(result)
    tags = (
        Tag(lemma.name, lemma.type, _confidence(evidence, calibration, known))
        for lemma, evidence in found.items()
    )
    return tuple(sorted(tags, key=lambda tag: (-tag.confidence, tag.name, tag.type)))


def caption_confidence(
    result: CaptionResult, lexicon: Lexicon, calibration: TagCalibration
) -> float:
    """The share of the best caption's content words that are right, as far as can be expected.

    The mean over its lemmas of the probability that at least one of the people who describe such
    an image uses a word with that lemma, times :func:`trust`; in [0, 1], 0 for a caption without
    content.
    """
    evidence = evidence_of(result, lexicon)
    found = lexicon.lemmas_of(result.candidates[0].words)
    sure = [calibration.probability(evidence[lemma]) for lemma in found]
    return trust(result) * math.fsum(sure) / len(sure) if sure else 0.0


def unsure_below(calibration: TagCalibration | None) -> float:
    """The confidence below which a caption is unsure, in [0, 1].

    A calibrated confidence is the share of the caption's content words that are right, as far as
    can be expected (:func:`caption_confidence`): below :data:`UNSURE` that is less than one word
    in four. Confidences that nobody has calibrated promise nothing: then none is unsure, and this
    is 0.
    """
    return 0.0 if calibration is None else UNSURE


def trust(result: CaptionResult) -> float:
    """How far a calibration holds for an image, in [0, 1]: 1 for one like those it was fitted on.

    The calibration does not hold for unfamiliar images. Where only a share below
    :data:`FAMILIAR` of the held-out images is as far from the training images, it is that share
    by FAMILIAR; 1 for a model that cannot measure it.
    """
    return 1.0 if result.familiarity is None else min(1.0, result.familiarity / FAMILIAR)


def evidence_of(result: CaptionResult, lexicon: Lexicon) -> dict[Lemma, Evidence]:
    """Every lemma that the captions say or the classifier sees, with the evidence for it.

    A lemma that is said and too rare for the classifier counts as seen with its frequency.
    """
    shares = _shares(result.considered)
    own_opinion = result.candidates[0].confidence
    seen = result.seen
    found: dict[Lemma, Evidence] = {}
    for candidate, share in zip(result.considered, shares, strict=True):
        said: set[Lemma] = set()
        # The end of the sentence has a probability too, but is not a word.
        probs = candidate.word_probs[: len(candidate.words)]
        for position, (word, prob) in enumerate(zip(candidate.words, probs, strict=True)):
            lemma = lexicon.lemma_of(word)
            if lemma is None:
                continue
            old = found.get(lemma) or Evidence(0.0, prob, own_opinion, position)
            probability = None if seen is None else seen.get(lemma, lemma.frequency)
            # Twice in one caption is still one caption.
            mass = old.mass if lemma in said else min(1.0, old.mass + share)
            said.add(lemma)
            found[lemma] = Evidence(
                mass,
                max(old.word_prob, prob),
                own_opinion,
                min(old.position, position),
                probability,
            )
    for lemma, probability in (seen or {}).items():
        if probability >= SEEN_AT_LEAST:
            found.setdefault(lemma, Evidence(0.0, 0.0, own_opinion, 0, probability))
    return found


def sigmoid(logit: float) -> float:
    """The probability that belongs to a logit, without overflow."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    return math.exp(logit) / (1 + math.exp(logit))


def _confidence(evidence: Evidence, calibration: TagCalibration | None, known: float) -> float:
    if calibration is None:
        return max(evidence.mass * evidence.word_prob, evidence.seen or 0.0)
    return known * calibration.probability(evidence)


def _shares(candidates: Sequence[Candidate]) -> list[float]:
    """The candidates' probabilities, as if there were no other captions: they sum to 1."""
    best = max((candidate.log_prob for candidate in candidates), default=0.0)
    relative = [math.exp(candidate.log_prob - best) for candidate in candidates]
    return [value / sum(relative) for value in relative]


def _logit(probability: float) -> float:
    clipped = min(max(probability, CLIP), 1 - CLIP)
    return math.log(clipped / (1 - clipped))


_damaged = partial(damaged, "tag calibration")
