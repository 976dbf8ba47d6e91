"""What the tag classifier believes, as evidence for the next word.

The classifier learns from all captions of an image at once what people name of it, and is better at
that than the decoder, which is better at how to say it. The log-probabilities of both are added in
the search ("shallow fusion", Gulcehre et al. 2015, section 4.1; attributes of the image as in Wu et
al. 2016).
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

from captioner.model.tag_head import TagHead
from captioner.networks.decoder_steps import DecoderState, DecoderSteps
from captioner.networks.features import ImageFeatures
from captioner.text.lexicon import Lexicon
from captioner.text.tokenizer import SPECIAL_WORDS

SUREST = 1e-4, 1 - 1e-3
"""Probabilities beyond these count as these: the classifier alone rules no lemma out, or in."""


class GuidedState(NamedTuple):
    """The decoder's state, and what is left of the evidence.

    Attributes:
        decoder: of B images with K captions each.
        evidence: (B, K, L + 1), added to the logits of a lemma's words until one of them is said;
            the last column is that of the words without a lemma, and 0.
    """

    decoder: DecoderState
    evidence: Tensor

    def select_beams(self, beams: Tensor) -> Self:
        """Reorder: new beam j of image b continues beams[b, j]."""
        rows = torch.arange(len(beams), device=beams.device)[:, None]
        return type(self)(self.decoder.select_beams(beams), self.evidence[rows, beams])

    def select_images(self, images: Tensor) -> Self:
        """Keep the images (B',) in this order."""
        return type(self)(self.decoder.select_images(images), self.evidence[images])


class GuidedSteps:
    """A decoder, word by word, that hears the tag classifier.

    Args:
        steps: the decoder.
        head: the classifier of the lexicon's first L lemmas.
        lexicon: of the decoder's vocabulary.
        weight: times the evidence is added to the logits, above 0.
    """

    def __init__(self, steps: DecoderSteps, head: TagHead, lexicon: Lexicon, weight: float) -> None:
        self.parts = steps, head, lexicon, weight
        self._steps, self._head, self._weight = steps, head, weight
        device = head.linear.weight.device
        lemmas = lexicon.lemmas[: len(head)]
        self._frequencies = torch.tensor([lemma.frequency for lemma in lemmas], device=device)
        self._lemma_of = lemma_of_words(lexicon, len(head)).to(device)

    def start(self, features: ImageFeatures, styles: Tensor | None = None) -> GuidedState:
        """The state before the first word, with one caption (K = 1) for each image."""
        known = log_evidence(self._head(features.pooled), self._frequencies) * self._weight
        none = known.new_zeros(len(known), 1)
        return GuidedState(
            self._steps.start(features, styles), torch.cat([known, none], dim=1)[:, None]
        )

    def step(self, words: Tensor, state: GuidedState) -> tuple[Tensor, GuidedState]:
        """Read one more word (B, K) of every caption: logits (B, K, V), and the new state."""
        said = self._lemma_of[words][..., None]
        # What has been said needs no more support: without this, it would be said again.
        evidence = state.evidence.scatter(2, said, 0.0)
        logits, decoder = self._steps.step(words, state.decoder)
        return logits + evidence[..., self._lemma_of], GuidedState(decoder, evidence)


def lemma_of_words(lexicon: Lexicon, count: int) -> Tensor:
    """The place of each word id's lemma (V,), int64; ``count`` where it is not one of the first.

    Args:
        lexicon: of the vocabulary.
        count: how many lemmas are distinguished.
    """
    places = [place if 0 <= place < count else count for place in lexicon.places]
    return torch.tensor([count] * len(SPECIAL_WORDS) + places)


def log_evidence(probabilities: Tensor, frequencies: Tensor) -> Tensor:
    """How much more probable the image makes each lemma: the logarithm of the odds' ratio.

    Args:
        probabilities: (B, L), of the lemmas given the image.
        frequencies: (L,), of the lemmas in all images.

    Returns:
        (B, L), natural logarithms, 0 where the image says nothing about a lemma.
    """
    return probabilities.clamp(*SUREST).logit() - frequencies.clamp(*SUREST).logit()
