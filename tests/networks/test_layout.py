"""Where words stand when no padding is between them."""

from __future__ import annotations

import torch

from captioner.networks.layout import WordLayout

LENGTHS = torch.tensor([[2, 0, 3], [1, 3, 0]])  # of 3 captions of each of 2 images


def test_the_words_of_a_step_stand_together_the_longest_captions_first() -> None:
    layout = WordLayout.of(LENGTHS, steps=4)
    assert layout.shape == (2, 3, 4)
    assert layout.captions.tolist() == [2, 4, 0, 3]
    assert layout.images.tolist() == [0, 1, 0, 1]
    assert layout.counts == (4, 3, 2)
    # Caption c begins at place 4 * c.
    assert layout.places.tolist() == [8, 16, 0, 12, 9, 17, 1, 10, 18]
    assert layout.ranks().tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1]
    assert layout.most == 5


def test_values_come_back_from_where_they_are_spread() -> None:
    layout = WordLayout.of(LENGTHS, steps=4)
    values = torch.arange(1.0, 10)[:, None] * torch.tensor([1.0, -1.0])  # (9, 2)
    spread = layout.spread(values)
    assert spread[0, :, :, 0].tolist() == [[3, 7, 0, 0], [0, 0, 0, 0], [1, 5, 8, 0]]
    assert torch.equal(spread.flatten(0, 2)[layout.places], values)
    by_image = layout.by_image(values)
    assert by_image[..., 0].tolist() == [[3, 7, 1, 5, 8], [4, 2, 6, 9, 0]]
    assert torch.equal(layout.from_images(by_image), values)
