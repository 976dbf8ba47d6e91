"""The tag classifier has a say in the choice of words."""

from __future__ import annotations

import math

import pytest
import torch

from captioner import load_model
from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError
from captioner.model.guidance import GuidedSteps, lemma_of_words, log_evidence
from captioner.model.tag_head import TagHead
from captioner.networks.configs import DecoderConfig
from captioner.networks.decoder import Decoder
from captioner.networks.fast_steps import FastSteps
from captioner.networks.features import ImageFeatures
from captioner.text.lexicon import NO_LEMMA, Lemma, Lexicon

WORDS = ["a", "dog", "dogs", "runs", "unicorn"]  # ids 4 to 8
LEMMAS = [Lemma("dog", "noun", 0.5), Lemma("run", "verb", 0.2), Lemma("unicorn", "noun", 0.01)]
LEXICON = Lexicon(WORDS, LEMMAS, [NO_LEMMA, 0, 0, 1, 2])
A, DOG, DOGS, RUNS, UNICORN = range(4, 9)


def a_head(logits: list[float]) -> TagHead:
    """A classifier of the first lemmas that says the same of every image."""
    return TagHead.from_state(
        {"linear.weight": torch.zeros(len(logits), 8), "linear.bias": torch.tensor(logits)}
    )


def test_evidence_is_the_logarithm_of_the_odds_ratio() -> None:
    found = log_evidence(torch.tensor([[0.8, 0.2, 0.0]]), torch.tensor([0.5, 0.2, 0.5]))
    assert found[0].tolist() == pytest.approx([math.log(4), 0, math.log(1e-4 / (1 - 1e-4))], 1e-4)


def test_words_have_the_places_of_their_lemmas() -> None:
    assert lemma_of_words(LEXICON, 2).tolist() == [2, 2, 2, 2, 2, 0, 0, 1, 2]


@torch.no_grad()
def test_a_lemma_is_supported_until_one_of_its_words_is_said() -> None:
    torch.manual_seed(0)
    decoder = Decoder(DecoderConfig(hidden_size=8, embed_size=8, heads=2), 9, 8).eval()
    features = ImageFeatures.from_grid(torch.randn(1, 4, 8))
    plain = FastSteps(decoder)
    guided = GuidedSteps(plain, a_head([2.0, -1.0]), LEXICON, weight=0.5)
    dog, run = 0.5 * 2.0, 0.5 * (-1.0 - math.log(0.2 / 0.8))
    state, other = guided.start(features), plain.start(features)
    # Two beams from here: one has said "dogs", the other "a".
    for words, expected in (
        ([[1]], [[(A, 0), (DOG, dog), (DOGS, dog), (RUNS, run), (UNICORN, 0)]]),
        ([[DOGS, A]], [[(DOG, 0), (DOGS, 0), (RUNS, run)], [(DOG, dog), (RUNS, run)]]),
        ([[RUNS, A]], [[(DOG, dog), (RUNS, 0)], [(DOG, 0), (RUNS, run)]]),
    ):
        open_ = torch.ones(1, len(words[0]), dtype=torch.bool)
        logits, state = guided.step_open(torch.tensor(words), state, open_)
        known, other = plain.step(torch.tensor(words), other)
        for beam, changes in enumerate(expected):
            for word, change in changes:
                found = float(logits[beam, word] - known[0, beam, word])
                assert found == pytest.approx(change, abs=1e-5), (words, beam, word)
        beams = torch.tensor([[1, 0]]) if len(words[0]) == 2 else torch.tensor([[0, 0]])
        state, other = state.select_beams(beams), other.select_beams(beams)
    twice = state.select_images(torch.tensor([0, 0])).evidence
    assert (twice.scores.shape, twice.spent.shape) == ((2, 9), (2, 2, 6))


def test_a_weight_without_a_classifier_is_refused() -> None:
    model = load_model()
    model.check_options(DecodingOptions(tag_weight=0.3))
    model.tag_head = None
    with pytest.raises(CaptionerError, match=r"tag_weight=0\.3"):
        model.check_options(DecodingOptions(tag_weight=0.3))
    model.check_options(DecodingOptions())
