"""The decoder of inference says what the decoder says, and notices new weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from captioner.networks.decoder import CELLS, Decoder, DecoderConfig
from captioner.networks.encoder import ImageFeatures
from captioner.networks.fast_decoder import FastDecoder


def make_decoder(cell: str, attention: str) -> Decoder:
    torch.manual_seed(0)
    config = DecoderConfig(cell, attention, hidden_size=16, embed_size=12, heads=2)
    decoder = Decoder(config, 20, 10).eval()
    for parameter in decoder.parameters():  # as training leaves them: no bias is 0
        torch.nn.init.normal_(parameter, std=0.4)
    return decoder


def make_features(images: int) -> ImageFeatures:
    return ImageFeatures.from_grid(torch.randn(images, 6, 10, generator=torch.manual_seed(1)))


@pytest.mark.parametrize("attention", ["none", "spatial"])
@pytest.mark.parametrize("cell", CELLS)
def test_every_step_gives_the_decoders_logits(cell: str, attention: str) -> None:
    decoder = make_decoder(cell, attention)
    fast = FastDecoder(decoder)
    random = torch.Generator().manual_seed(2)

    def drawn(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=random)

    with torch.inference_mode():
        slow_state, fast_state = decoder.start(make_features(3)), fast.start(make_features(3))
        spread = torch.zeros(3, 4, dtype=torch.int64)
        slow_state, fast_state = slow_state.select_beams(spread), fast_state.select_beams(spread)
        seen = []
        for images in ([0, 1, 2], [2, 0], [1]):
            keep = torch.tensor(images)
            slow_state = slow_state.select_images(keep)
            fast_state = fast_state.select_images(keep)
            for _ in range(2):
                words = drawn(20, len(images), 4)
                expected, slow_state = decoder.step(words, slow_state)
                found, fast_state = fast.step(words, fast_state)
                assert found.shape == (len(images), 4, 20)
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
                seen.append(expected)
                beams = drawn(4, len(images), 4)
                slow_state = slow_state.select_beams(beams)
                fast_state = fast_state.select_beams(beams)
    # What is compared differs from step to step and beam to beam.
    assert (seen[0] - seen[1]).abs().max() > 0.1
    assert (seen[1][0, 0] - seen[1][0, 1]).abs().max() > 0.01


def test_a_change_of_weights_is_noticed() -> None:
    decoder = make_decoder("lstm", "spatial")
    fast = FastDecoder(decoder)
    assert fast.is_of(decoder)
    with torch.no_grad():
        decoder.rnn.weight_hh_l0.mul_(2)
    assert not fast.is_of(decoder)


def test_deeper_decoders_are_not_for_it() -> None:
    config = DecoderConfig(layers=2, hidden_size=16, embed_size=12, heads=2)
    with pytest.raises(AssertionError, match="deeper layers"):
        FastDecoder(Decoder(config, 20, 10))
