"""What a captioner says of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from captioner.decoding.hypotheses import Hypothesis
from captioner.decoding.options import DecodingOptions
from captioner.model.tags import Tag, TagCalibration, caption_confidence, tags_of
from captioner.text.languages import DEFAULT_LANGUAGE
from captioner.text.lexicon import Lemma, Lexicon
from captioner.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from captioner.model.caption_model import CaptionModel


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
    words: tuple[str, ...] = field(repr=False)
    word_probs: tuple[float, ...] = field(repr=False)

    def __str__(self) -> str:
        """The caption and its confidence, on one line."""
        return f"{self.text} ({self.confidence:.2f})"

    @classmethod
    def of(cls, hypothesis: Hypothesis, tokenizer: Tokenizer) -> Candidate:
        """What the search found, in words."""
        words = tokenizer.decode(hypothesis.ids)
        log_probs = torch.tensor(hypothesis.log_probs, dtype=torch.float64)
        return cls(
            text=tokenizer.detokenize(words),
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
        language: of the captions, a BCP 47 tag such as ``en``.
        other_languages: the captions of the same image in the other languages that were asked for,
            by their tags, in the order in which they were asked for. They are captions of their
            own and no translations of this one, and have no other languages themselves.
        familiarity: share in (0, 1] of held-out images that are at least as unlike the training
            images as this one (`captioner.model.familiarity`); None where it is not measured.
        seen: what the tag classifier sees, whether a caption says it or not: every lemma that it
            knows with a probability in [0, 1]; None where the model has no classifier.
        lexicon: of the model, for :attr:`tags`; None where it gives none.
        tag_calibration: of the model, likewise.
    """

    candidates: tuple[Candidate, ...]
    considered: tuple[Candidate, ...] = field(default=(), repr=False)
    calibrated: float | None = None
    familiarity: float | None = None
    seen: Mapping[Lemma, float] | None = field(default=None, repr=False)
    language: str = DEFAULT_LANGUAGE
    other_languages: Mapping[str, CaptionResult] = field(default_factory=dict, repr=False)
    lexicon: Lexicon | None = field(default=None, repr=False, compare=False)
    tag_calibration: TagCalibration | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        """The best caption and its confidence, on one line."""
        return f"{self.text} ({self.confidence:.2f})"

    def __post_init__(self) -> None:
        if not self.considered:
            object.__setattr__(self, "considered", self.candidates)

    @property
    def text(self) -> str:
        """The best caption."""
        return self.candidates[0].text

    @property
    def by_language(self) -> dict[str, CaptionResult]:
        """The result of each language, this one's first."""
        return {self.language: self, **self.other_languages}

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

    @property
    def tags(self) -> tuple[Tag, ...]:
        """What the image shows, surest first; see :func:`captioner.model.tags.tags_of`.

        All that there is any evidence for: those with a confidence of 0.25 and more are what the
        command line keeps. Empty for a model without a lexicon, and where words were given.
        """
        if self.lexicon is None:
            return ()
        return tags_of(self, self.lexicon, self.tag_calibration)


def results_of(
    model: CaptionModel,
    found: Sequence[Sequence[Hypothesis]],
    pooled: Tensor,
    options: DecodingOptions,
) -> list[CaptionResult]:
    """The results of B images.

    Args:
        model: that captioned them.
        found: of each image all captions that were decoded, best first.
        pooled: features of the images (B, D).
        options: see :func:`result_of`.
    """
    familiarity: Sequence[float | None] = [None] * len(found)
    if model.familiarity is not None:
        familiarity = model.familiarity(pooled).tolist()
    seen: Sequence[Mapping[Lemma, float] | None] = [None] * len(found)
    if model.tag_head is not None and model.lexicon is not None:
        seen = model.tag_head.seen(pooled, model.lexicon)
    return [
        result_of(
            [Candidate.of(each, model.tokenizer) for each in hypotheses],
            options,
            model.lexicon,
            model.tag_calibration,
            familiarity=share,
            seen=lemmas,
            language=model.language,
        )
        for hypotheses, share, lemmas in zip(found, familiarity, seen, strict=True)
    ]


def result_of(
    considered: Sequence[Candidate],
    options: DecodingOptions,
    lexicon: Lexicon | None,
    tag_calibration: TagCalibration | None,
    *,
    familiarity: float | None = None,
    seen: Mapping[Lemma, float] | None = None,
    language: str = DEFAULT_LANGUAGE,
) -> CaptionResult:
    """The result of one image.

    Args:
        considered: all captions that were decoded, best first.
        options: that were asked for; `captioner.model.tags.with_evidence` decodes more.
        lexicon: of the model, if it has one.
        tag_calibration: likewise.
        familiarity: see `CaptionResult`.
        seen: see `CaptionResult`.
        language: see `CaptionResult`.
    """
    asked = CaptionResult(
        tuple(considered[: options.num_captions]),
        tuple(considered),
        familiarity=familiarity,
        seen=seen,
        language=language,
    )
    if lexicon is None or options.prompt or options.must_include:
        return asked  # Words that were given are no evidence.
    asked = replace(asked, lexicon=lexicon, tag_calibration=tag_calibration)
    if tag_calibration is None or options.sample:
        return asked
    return replace(asked, calibrated=caption_confidence(asked, lexicon, tag_calibration))
