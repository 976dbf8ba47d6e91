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
from torch.nn.functional import pad

from captioner.model.tag_head import TagHead
from captioner.networks.decoder_steps import DecoderState
from captioner.networks.fast_steps import Evidence, FastSteps
from captioner.networks.features import ImageFeatures
from captioner.text.lexicon import Lexicon
from captioner.text.tokenizer import PAD_ID, SPECIAL_WORDS

SUREST = 1e-4, 1 - 1e-3
"""Probabilities beyond these count as these: the classifier alone rules no lemma out, or in."""


class GuidedState(NamedTuple):
    """The decoder's state, and what is left of the evidence.

    Attributes:
        decoder: of B images with K captions each.
        evidence: for each image that of all words, and for each caption the words of the lemmas
            that it has said.
    """

    decoder: DecoderState
    evidence: Evidence

    def select_beams(self, beams: Tensor) -> Self:
        """Reorder: new beam j of image b continues beams[b, j]."""
        spent = self.evidence.spent
        spent = spent.gather(1, beams[..., None].expand(-1, -1, spent.shape[-1]))
        return type(self)(self.decoder.select_beams(beams), self.evidence._replace(spent=spent))

    def select_images(self, images: Tensor) -> Self:
        """Keep the images (B',) in this order."""
        kept = Evidence(*(part.index_select(0, images) for part in self.evidence))
        return type(self)(self.decoder.select_images(images), kept)


class GuidedSteps:
    """A decoder, word by word, that hears the tag classifier.

    Args:
        steps: the decoder.
        head: the classifier of the lexicon's first L lemmas.
        lexicon: of the decoder's vocabulary.
        weight: times the evidence is added to the logits, above 0.
    """

    def __init__(self, steps: FastSteps, head: TagHead, lexicon: Lexicon, weight: float) -> None:
        self.parts = steps, head, lexicon, weight
        self._steps, self._head, self._weight = steps, head, weight
        device = head.linear.weight.device
        lemmas = lexicon.lemmas[: len(head)]
        self._frequencies = torch.tensor([lemma.frequency for lemma in lemmas], device=device)
        self._lemma_of = lemma_of_words(lexicon, len(head)).to(device)
        self._same_lemma = words_of_same_lemma(self._lemma_of, len(head))

    def start(self, features: ImageFeatures, styles: Tensor | None = None) -> GuidedState:
        """The state before the first word, with one caption (K = 1) for each image."""
        known = log_evidence(self._head(features.pooled), self._frequencies) * self._weight
        of_words = pad(known, (0, 1)).index_select(1, self._lemma_of)  # (B, V)
        nothing = self._lemma_of.new_zeros(len(known), 1, 0)
        return GuidedState(self._steps.start(features, styles), Evidence(of_words, nothing))

    def step_open(
        self, words: Tensor, state: GuidedState, open_: Tensor
    ) -> tuple[Tensor, GuidedState]:
        """Read one more word of the open captions; see `FastSteps.step_open`."""
        # What has been said needs no more support: without this, it would be said again.
        spent = torch.cat([state.evidence.spent, self._same_lemma[words]], dim=-1)
        evidence = state.evidence._replace(spent=spent)
        logits, decoder = self._steps.step_open(words, state.decoder, open_, evidence)
        return logits, GuidedState(decoder, evidence)


def lemma_of_words(lexicon: Lexicon, count: int) -> Tensor:
    """The place of each word id's lemma (V,), int64; ``count`` where it is not one of the first.

    Args:
        lexicon: of the vocabulary.
        count: how many lemmas are distinguished.
    """
    places = [place if 0 <= place < count else count for place in lexicon.places]
    return torch.tensor([count] * len(SPECIAL_WORDS) + places)


def words_of_same_lemma(lemma_of: Tensor, count: int) -> Tensor:
    """For each word all words of its lemma: ids (V, W), filled up with `PAD_ID`.

    A word without a lemma has the filling alone.

    Args:
        lemma_of: of the words, (V,), as :func:`lemma_of_words` gives them.
        count: how many lemmas are distinguished.
    """
    words: list[list[int]] = [[] for _ in range(count)]
    for word, lemma in enumerate(lemma_of.tolist()):
        if lemma < count:
            words[lemma].append(word)
    longest = max(map(len, words), default=0)
    table = [row + [PAD_ID] * (longest - len(row)) for row in [*words, []]]
    return torch.tensor(table, dtype=torch.int64, device=lemma_of.device)[lemma_of]


def log_evidence(probabilities: Tensor, frequencies: Tensor) -> Tensor:
    """How much more probable the image makes each lemma: the logarithm of the odds' ratio.

    Args:
        probabilities: (B, L), of the lemmas given the image.
        frequencies: (L,), of the lemmas in all images.

    Returns:
        (B, L), natural logarithms, 0 where the image says nothing about a lemma.
    """
    return probabilities.clamp(*SUREST).logit() - frequencies.clamp(*SUREST).logit()
