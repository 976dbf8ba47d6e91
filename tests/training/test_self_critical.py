"""Self-critical training: what samples are worth, and what the loss makes of that."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from captioner.decoding.hypotheses import Hypothesis
from captioner.decoding.options import DecodingOptions
from captioner.networks.configs import DecoderConfig
from captioner.networks.decoder import Decoder, shift
from captioner.networks.features import ImageFeatures
from captioner.text.cider import CiderD
from captioner.text.tokenizer import PAD_ID, Tokenizer
from captioner.training.self_critical import (
    NEVER_SAID,
    CaptionReward,
    advantages,
    as_captions,
    draw_samples,
    policy_loss,
    words_and_end,
)

pytestmark = pytest.mark.arithmetic

TOKENIZER = Tokenizer(["a", "dog", "runs", "cat", "sits", "with"])
REFERENCES = {"1": ["A dog runs."], "2": ["a cat sits"]}
OPTIONS = DecodingOptions(sample=True, num_captions=3, max_length=6, seed=5)


def said(text: str, finished: bool = True) -> Hypothesis:
    """A sample that says this; its probabilities do not matter."""
    ids = tuple(TOKENIZER.encode(text))
    return Hypothesis(ids, (-1.0,) * (len(ids) + finished), -1.0, -1.0, finished)


def cider_d(
    candidates: dict[str, str], references: dict[str, list[str]], words: Callable[[str], list[str]]
) -> dict[str, float]:
    return CiderD(references, tokenize=words).evaluate(candidates)["CIDEr-D"].per_image


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(0)
    config = DecoderConfig(hidden_size=16, embed_size=16, heads=2, dropout=0.5)
    decoder = Decoder(config, len(TOKENIZER), 8)
    for parameter in decoder.parameters():
        parameter.data.mul_(3)  # so that words differ in their probability
    return decoder


@pytest.fixture
def features() -> ImageFeatures:
    return ImageFeatures.from_grid(torch.randn(4, 9, 8, generator=torch.Generator().manual_seed(1)))


# --- rewards -------------------------------------------------------------------------------


def test_a_reference_is_worth_ten_and_the_other_image_s_nothing() -> None:
    reward = CaptionReward(REFERENCES, TOKENIZER)
    rewards = reward.score(["1", "2"], [[said("a dog runs")], [said("a dog runs")]])
    # In both images "a" and the end stand alone, so that they weigh nothing.
    assert rewards.tolist() == [[pytest.approx(10.0)], [0.0]]


def test_a_sample_that_was_cut_lacks_what_ends_with_the_sentence() -> None:
    reward = CaptionReward(REFERENCES, TOKENIZER)
    rewards = reward.score(["1"], [[said("a dog runs", finished=False)]])
    # Of three pairs of words it has two, of two triples one, of the one quadruple nothing; it is
    # one word shorter (sigma = 6).
    shares = 1 + 2 / math.sqrt(2 * 3) + 1 / math.sqrt(2)
    assert rewards.tolist() == [[pytest.approx(10 / 4 * math.exp(-1 / 72) * shares)]]


def test_a_bad_ending_costs() -> None:
    references = {"1": ["a dog runs with a cat"], "2": ["a cat sits"], "3": ["a dog sits"]}
    reward = CaptionReward(references, TOKENIZER)
    whole, cut, ended = reward.score(
        ["1"],
        [
            [
                said("a dog runs with a cat"),
                said("a dog runs with a", finished=False),
                said("a dog runs with a"),
            ]
        ],
    )[0].tolist()
    assert whole > cut > ended
    # Without the end as a word, ending there is worth as much as being cut there.
    plain = {"1": "a dog runs with a", "2": "a", "3": "a"}
    without = cider_d(plain, references, str.split)["1"]
    assert without > ended


def test_rewards_are_the_metric_s_with_the_frequencies_of_all_images_given() -> None:
    captions = {"1": "a dog sits", "2": "a cat runs with a dog"}
    samples = [[said(text), said("a")] for text in captions.values()]
    rewards = CaptionReward(REFERENCES, TOKENIZER).score(list(captions), samples)
    expected = cider_d(captions, REFERENCES, words_and_end)
    assert rewards[:, 0].tolist() == pytest.approx(list(expected.values()))


def test_bleu_can_be_a_share_of_the_reward() -> None:
    samples = [[said("a dog runs"), said("a dog sits"), said("a dog runs with a cat")]]
    without, twice = (CaptionReward(REFERENCES, TOKENIZER, w).score(["1"], samples) for w in (0, 2))
    # The second shares no four words with the reference; the third has the first two of 7, 6, 5 and
    # 4 runs of words to match and, being longer than the reference, no brevity penalty.
    third = (4 / 7 * 2 / 6 * 1 / 5 * 1e-15) ** 0.25
    assert (twice - without)[0].tolist() == pytest.approx([2, 0, 2 * third], abs=1e-3)


def test_words_that_were_not_learnt_still_count_in_the_references() -> None:
    rare = {**REFERENCES, "1": ["A dog runs somewhere."]}
    reward = CaptionReward(rare, TOKENIZER).score(["1"], [[said("a dog runs")]])
    assert 0 < reward.item() < 9


def test_each_sample_is_compared_with_the_mean_of_the_others() -> None:
    rewards = torch.tensor([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]])
    assert advantages(rewards).tolist() == [[-3.0, -1.5, 4.5], [0.0, 0.0, 0.0]]


# --- samples -------------------------------------------------------------------------------


def test_samples_as_training_captions() -> None:
    captions = as_captions([[said("a dog"), said("cat", finished=False)], [said("a"), said("a")]])
    assert captions.tolist() == [[[1, 4, 5, 2], [1, 7, 0, 0]], [[1, 4, 2, 0], [1, 4, 2, 0]]]


def test_samples_depend_on_seed_and_stream_alone(decoder: Decoder, features: ImageFeatures) -> None:
    together = draw_samples(decoder, features, OPTIONS, [7, 8, 9, 3])
    alone = draw_samples(decoder, ImageFeatures(*(x[2:3] for x in features)), OPTIONS, [9])
    assert [sample.ids for sample in alone[0]] == [sample.ids for sample in together[2]]
    again = draw_samples(decoder, features, OPTIONS, [7, 8, 9, 3])
    assert again == together
    assert draw_samples(decoder, features, OPTIONS, [7, 8, 9, 4])[3] != together[3]
    assert all(len(of_image) == 3 for of_image in together)
    assert len({sample.ids for of_image in together for sample in of_image}) > 6


def test_nothing_is_dropped_while_drawing(decoder: Decoder, features: ImageFeatures) -> None:
    decoder.train()
    in_training = draw_samples(decoder, features, OPTIONS, range(4))
    assert decoder.training
    decoder.eval()
    assert draw_samples(decoder, features, OPTIONS, range(4)) == in_training
    assert not decoder.training


def test_reading_the_samples_again_gives_the_probabilities_they_were_drawn_with(
    decoder: Decoder, features: ImageFeatures
) -> None:
    decoder.eval()
    samples = draw_samples(decoder, features, OPTIONS, range(4))
    inputs, targets = shift(as_captions(samples))
    log_probs = decoder.logits(decoder(features, inputs)).log_softmax(-1)
    log_probs = log_probs.gather(3, targets[..., None])[..., 0]
    for image, of_image in enumerate(samples):
        for place, sample in enumerate(of_image):
            there = targets[image, place] != PAD_ID
            assert log_probs[image, place][there].tolist() == pytest.approx(
                list(sample.log_probs), abs=1e-5
            )
            assert not set(sample.ids) & set(NEVER_SAID)


# --- the loss ------------------------------------------------------------------------------


def test_the_loss_weighs_the_log_probability_of_each_word() -> None:
    logits = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    words, advantage = torch.tensor([4, 2, 5]), torch.tensor([0.5, -1.0, 2.0])
    allowed = logits[:, [2, 4, 5]].log_softmax(1)
    picked = allowed[0, 1], allowed[1, 0], allowed[2, 2]
    expected = -(0.5 * picked[0] - picked[1] + 2 * picked[2]) / 3
    assert policy_loss(logits, words, advantage).item() == pytest.approx(expected.item())
    # Drawn with half the temperature, they had the probabilities of doubled logits.
    assert policy_loss(logits, words, advantage, 0.5).item() == pytest.approx(
        policy_loss(2 * logits, words, advantage).item()
    )


def test_the_gradient_makes_the_better_sample_more_probable(
    decoder: Decoder, features: ImageFeatures
) -> None:
    decoder.eval()
    captions = as_captions([[said("a dog runs"), said("a cat sits")]] * 4)
    advantage = advantages(torch.tensor([[10.0, 0.0]] * 4))

    def log_probs() -> tuple[Tensor, Tensor, Tensor]:
        inputs, targets = shift(captions)
        logits = decoder.logits(decoder(features, inputs))
        logits = logits.index_fill(3, torch.tensor(NEVER_SAID), -math.inf)
        found = logits.log_softmax(-1).gather(3, targets[..., None])[..., 0].sum(-1)
        weights = advantage[..., None].expand_as(targets)
        return (
            found[:, 0],
            found[:, 1],
            policy_loss(logits.flatten(0, 2), targets.flatten(), weights.flatten()),
        )

    better, worse, loss = log_probs()
    loss.backward()
    with torch.no_grad():
        for parameter in decoder.parameters():
            if parameter.grad is not None:
                parameter -= 1e-4 * parameter.grad
    better_after, worse_after, after = log_probs()
    assert after < loss
    assert torch.all(better_after - worse_after > better - worse)


def test_equal_rewards_teach_nothing() -> None:
    logits = torch.randn(4, 6, requires_grad=True)
    words = torch.tensor([4, 5, 2, 4])
    policy_loss(logits, words, advantages(torch.full((1, 4), 3.0))[0]).backward()
    assert logits.grad is not None
    assert torch.count_nonzero(logits.grad) == 0
