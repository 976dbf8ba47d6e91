"""The decoder word by word: with and without its table of words, and for which weights."""

from __future__ import annotations

import pytest
import torch

from captioner.networks.configs import CELLS, DecoderConfig
from captioner.networks.decoder import Decoder
from captioner.networks.decoder_steps import DecoderSteps
from captioner.networks.features import ImageFeatures

pytestmark = pytest.mark.arithmetic


def make_decoder(cell: str = "lstm", attention: str = "spatial") -> Decoder:
    torch.manual_seed(0)
    config = DecoderConfig(cell, attention, hidden_size=16, embed_size=12, heads=2)
    decoder = Decoder(config, 20, 10).eval()
    for parameter in decoder.parameters():  # as training leaves them: no bias is 0
        torch.nn.init.normal_(parameter, std=0.4)
    return decoder


@pytest.mark.parametrize("attention", ["none", "spatial"])
@pytest.mark.parametrize("cell", CELLS)
@torch.inference_mode()
def test_words_are_multiplied_beforehand_or_as_they_come(cell: str, attention: str) -> None:
    decoder = make_decoder(cell, attention)
    grid = torch.randn(3, 6, 10, generator=torch.manual_seed(1))
    words = torch.randint(20, (2, 3, 4), generator=torch.manual_seed(2))
    kinds = [DecoderSteps(decoder), DecoderSteps(decoder, tabulate=False)]
    scores = []
    for steps in kinds:
        state = steps.start(ImageFeatures.from_grid(grid))
        state = state.select_beams(torch.zeros(3, 4, dtype=torch.int64))
        _, state = steps.step(words[0], state)
        logits, state = steps.step(words[1], state)
        scores.append(logits)
    torch.testing.assert_close(*scores, rtol=1e-5, atol=1e-5)
    assert (scores[0][0, 0] - scores[0][0, 1]).abs().max() > 0.01


def test_a_change_of_weights_is_noticed() -> None:
    decoder = make_decoder()
    steps = DecoderSteps(decoder)
    assert steps.is_current(decoder)
    with torch.no_grad():
        decoder.rnn.weight_hh_l0.mul_(2)
    assert not steps.is_current(decoder)
