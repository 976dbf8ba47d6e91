"""What a captioner says of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from captioner.decoding.hypotheses import Hypothesis
from captioner.text.lexicon import Lemma
from captioner.text.tokenizer import Tokenizer, detokenize


@dataclass(frozen=True)
class Candidate:
    """One caption of a image.

    Attributes:
        text: the caption as people write it.
        log_prob: natural logarithm of its probability under the model, end of sentence included.
        confidence: geometric mean of its word probabilities, end of sentence included, in [0, 1].
        words: its words, as the model said them.
        word_probs: probability of every word, and of the end of the sentence where it was reached.
    """

    text: str
    log_prob: float
    confidence: float
    words: tuple[str, ...]
    word_probs: tuple[float, ...]

    @classmethod
    def of(cls, hypothesis: Hypothesis, tokenizer: Tokenizer) -> Candidate:
        """What the search found, in words."""
        words = tokenizer.decode(hypothesis.ids)
        log_probs = torch.tensor(hypothesis.log_probs, dtype=torch.float64)
        return cls(
            text=detokenize(words),
            log_prob=hypothesis.log_prob,
            confidence=float(log_probs.mean().exp()),
            words=tuple(words),
            word_probs=tuple(log_probs.exp().tolist()),
        )


@dataclass(frozen=True)
class CaptionResult:
    """The captions of one image.

    Attributes:
        candidates: those that were asked for, best first.
        considered: all that were decoded, best first: the evidence for tags and confidence; the
            candidates where there are no more.
        calibrated: the best caption's calibrated confidence; None where the model has none.
        familiarity: share in (0, 1] of held-out images that are at least as unlike the training
            images as this one (`captioner.model.familiarity`); None where it is not measured.
        seen: what the tag classifier sees, whether a caption says it or not: every lemma that it
            knows with a probability in [0, 1]; None where the model has no classifier.
    """

    candidates: tuple[Candidate, ...]
    considered: tuple[Candidate, ...] = ()
    calibrated: float | None = None
    familiarity: float | None = None
    seen: Mapping[Lemma, float] | None = None

    def __post_init__(self) -> None:
        if not self.considered:
            object.__setattr__(self, "considered", self.candidates)

    @property
    def text(self) -> str:
        """The best caption."""
        return self.candidates[0].text

    @property
    def is_calibrated(self) -> bool:
        """Whether the confidence was measured: records and files say ``calibrated`` for it."""
        return self.calibrated is not None

    @property
    def confidence(self) -> float:
        """How far the best caption can be trusted, in [0, 1].

        Calibrated (`captioner calibrate`), it is the share of the caption's content words that are
        right, as far as can be expected: that people who describe such an image would use; and less
        where the image is unlike those that the model learnt from; see
        :func:`captioner.model.tags.caption_confidence`. Otherwise, and for captions drawn at random
        or with words that were given, it is the geometric mean of the words' probabilities,
        :attr:`Candidate.confidence`: the model's own opinion.
        """
        return self.candidates[0].confidence if self.calibrated is None else self.calibrated
