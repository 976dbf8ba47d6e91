"""What the encoder gives the decoder."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class ImageFeatures(NamedTuple):
    """What the decoder sees of a batch of images.

    ``grid``: (B, R, D), one vector for every cell of the CNN's last feature map, row by row.
    ``pooled``: (B, D), their mean.
    """

    grid: Tensor
    pooled: Tensor

    @classmethod
    def from_grid(cls, grid: Tensor) -> ImageFeatures:
        """Features of a grid (B, R, D); the pooled vector is its mean over R, (B, D)."""
        return cls(grid, grid.mean(dim=1))


def as_cells(grid: Tensor) -> Tensor:
    """A feature map (B, D, h, w) as a vector for each cell (B, R, D), row by row."""
    return grid.flatten(2).transpose(1, 2)
