"""The decoder word by word, as it captions: what it leaves out changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from captioner.networks.configs import ATTENTIONS, CELLS, DecoderConfig
from captioner.networks.decoder import Decoder
from captioner.networks.decoder_steps import DecoderState, DecoderSteps
from captioner.networks.fast_steps import Evidence, FastSteps, current_steps
from captioner.networks.features import ImageFeatures
from captioner.networks.int8_steps import Int8Steps

pytestmark = pytest.mark.arithmetic


KINDS = [FastSteps, Int8Steps]
IMAGES, BEAMS, CELLS_IN_GRID, SIZE, WORDS = 8, 3, 6, 10, 20


def make_decoder(cell: str = "lstm", attention: str = "spatial") -> Decoder:
    torch.manual_seed(0)
    layers = 2 if attention == "layered" else 1
    config = DecoderConfig(cell, attention, layers, hidden_size=16, embed_size=12, heads=2)
    decoder = Decoder(config, WORDS, SIZE).eval()
    for parameter in decoder.parameters():  # as training leaves them: no bias is 0
        torch.nn.init.normal_(parameter, std=0.4)
    return decoder


def make_features(share: float = 1.0) -> ImageFeatures:
    """Features of which this share is not 0."""
    generator = torch.manual_seed(1)
    grid = torch.rand(IMAGES, CELLS_IN_GRID, SIZE, generator=generator)
    return ImageFeatures.from_grid(grid * (torch.rand(grid.shape, generator=generator) < share))


def read_two_words(steps: DecoderSteps, share: float = 1.0) -> tuple[Tensor, DecoderState]:
    """Logits (B, K, V) and the state after two words of three captions of each image."""
    words = torch.randint(WORDS, (2, IMAGES, BEAMS), generator=torch.manual_seed(2))
    state = steps.start(make_features(share))
    state = state.select_beams(torch.zeros(IMAGES, BEAMS, dtype=torch.int64))
    _, state = steps.step(words[0], state)
    return steps.step(words[1], state)


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("cell", CELLS)
@torch.inference_mode()
def test_it_says_what_the_decoder_says(cell: str, attention: str, share: float) -> None:
    decoder = make_decoder(cell, attention)
    found, _ = read_two_words(FastSteps(decoder), share)
    nearly, _ = read_two_words(Int8Steps(decoder), share)
    expected, _ = read_two_words(DecoderSteps(decoder), share)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (found[0, 0] - found[0, 1]).abs().max() > 0.01
    assert 1e-4 < ((nearly - expected).norm() / expected.norm()).item() < 0.03


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 23])
@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_captions_that_are_left_out_change_nothing_of_the_others(
    kind: type[FastSteps], cell: str, attention: str, count: int
) -> None:
    steps = kind(make_decoder(cell, attention))
    _, state = read_two_words(steps)
    words = torch.randint(WORDS, (IMAGES, BEAMS), generator=torch.manual_seed(3))
    places = torch.randperm(IMAGES * BEAMS, generator=torch.manual_seed(count))[:count]
    open_ = torch.zeros(IMAGES * BEAMS, dtype=torch.bool)
    open_[places] = True
    open_ = open_.view(IMAGES, BEAMS)
    logits, after = steps.step_open(words, state, open_)
    expected, expected_after = steps.step(words, state)
    assert torch.equal(logits, expected[open_])  # to the last bit
    for part, whole in zip(after.hidden, expected_after.hidden, strict=True):
        assert torch.equal(part[:, open_], whole[:, open_])


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_evidence_is_added_but_for_the_words_it_is_spent_on(kind: type[FastSteps]) -> None:
    steps = kind(make_decoder())
    _, state = read_two_words(steps)
    words = torch.zeros(IMAGES, BEAMS, dtype=torch.int64)
    open_ = torch.ones(IMAGES, BEAMS, dtype=torch.bool)
    open_[2, 1] = False
    scores = torch.rand(IMAGES, WORDS, generator=torch.manual_seed(4))
    spent = torch.randint(WORDS, (IMAGES, BEAMS, 2), generator=torch.manual_seed(5))
    added = scores[:, None].repeat(1, BEAMS, 1).scatter(2, spent, 0.0)
    plain, _ = steps.step(words, state)
    found, _ = steps.step_open(words, state, open_, Evidence(scores, spent))
    torch.testing.assert_close(found, (plain + added)[open_], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("share", [0.2, 1.0])
@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_what_is_kept_of_an_image_does_not_depend_on_the_others(
    kind: type[FastSteps], share: float
) -> None:
    steps, features = kind(make_decoder()), make_features(share)
    together = steps.start(features).memory
    for image in range(IMAGES):
        alone = steps.start(ImageFeatures(*(part[image : image + 1] for part in features))).memory
        assert torch.equal(alone.keys[:, 0], together.keys[:, image])
        assert torch.equal(alone.values[:, 0], together.values[:, image])


def test_they_are_made_again_for_other_weights_or_another_precision() -> None:
    decoder = make_decoder()
    steps = current_steps(None, decoder, "fp32")
    assert type(steps) is FastSteps and current_steps(steps, decoder, "bf16") is steps
    whole = current_steps(steps, decoder, "int8")
    assert type(whole) is Int8Steps and current_steps(whole, decoder, "int8") is whole
    assert type(current_steps(whole, decoder, "fp32")) is FastSteps
    with torch.no_grad():
        decoder.rnn.weight_hh_l0.mul_(2)
    assert current_steps(whole, decoder, "int8") is not whole
