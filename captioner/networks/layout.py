"""Where the words of a batch of captions stand when no padding is between them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class WordLayout(NamedTuple):
    """The P words of N captions, those of one step together, one step after the other.

    In each step the longest captions come first, always in the same order, so that step t has the
    first ``counts[t]`` captions. Shapes: B images, C captions of each, T words.

    Attributes:
        shape: (B, C, T).
        places: (P,) int64, of the words among all B * C * T.
        captions: (N,) int64, of the captions among all B * C, the longest first.
        slots: (P,) int64, of the words where each image has Q places.
        most: the number Q, of words of the image that has most of them.
        counts: how many captions have each step.
    """

    shape: tuple[int, int, int]
    places: Tensor
    captions: Tensor
    slots: Tensor
    most: int
    counts: tuple[int, ...]

    @classmethod
    def of(cls, lengths: Tensor, steps: int) -> WordLayout:
        """The layout of captions of these lengths.

        Args:
            lengths: (B, C) int64; captions that are not there have 0.
            steps: the number T, at least the greatest length.
        """
        device, lengths = lengths.device, lengths.cpu()  # few numbers, and one wait for a GPU
        images, per_image = lengths.shape
        counted = lengths.flatten()
        order = counted.argsort(descending=True, stable=True)
        order = order[: int(counted.count_nonzero())]
        has = torch.arange(steps)[:, None] < counted[order]  # (T, N)
        step, rank = has.nonzero().unbind(1)
        places = order[rank] * steps + step
        said = torch.arange(steps) < lengths[..., None]  # (B, C, T)
        slots = said.view(images, -1).cumsum(1) - 1
        most = int(lengths.sum(1).max())
        slots = (slots + most * torch.arange(images)[:, None]).flatten()[places]
        counts = tuple(count for count in has.sum(1).tolist() if count)
        places, order, slots = (each.to(device) for each in (places, order, slots))
        return cls((images, per_image, steps), places, order, slots, most, counts)

    @property
    def images(self) -> Tensor:
        """(N,) int64, the image of each caption."""
        return self.captions // self.shape[1]

    def ranks(self) -> Tensor:
        """(P,) int64, the place of each word's caption in ``captions``."""
        ranks = torch.arange(len(self.captions), device=self.captions.device)
        return torch.cat([ranks[:count] for count in self.counts])

    def spread(self, values: Tensor) -> Tensor:
        """Values (P, E) of the words -> (B, C, T, E), 0 where no word is."""
        images, captions, steps = self.shape
        found = values.new_zeros(images * captions * steps, values.shape[1])
        return found.index_copy(0, self.places, values).view(images, captions, steps, -1)

    def by_image(self, values: Tensor) -> Tensor:
        """Values (P, H) of the words -> (B, Q, H), those of an image together, then 0."""
        found = values.new_zeros(self.shape[0] * self.most, values.shape[1])
        return found.index_copy(0, self.slots, values).view(self.shape[0], self.most, -1)

    def from_images(self, values: Tensor) -> Tensor:
        """Back from :meth:`by_image`: (B, Q, H) -> (P, H)."""
        return values.flatten(0, 1).index_select(0, self.slots)
