"""How similar is an image to those that a captioner was trained on?

A captioner describes every image, and is about as certain of a retina scan as of a dog on a lawn.
The CNN's features show what it cannot know: those of an unfamiliar image lie far from those
of the training images.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from captioner.errors import CaptionerError, damaged
from captioner.networks.measured import Measured

COMPONENTS = 32
"""Directions with a variance of their own; see :meth:`Familiarity.fit`."""
IMAGES_PER_COMPONENT = 10
"""Minimum number of training images for each such direction."""


class Familiarity(Measured):
    """The distance of an image's features from the training images', as a share of others.

    The pooled features, scaled to length 1, are taken for a Gaussian whose covariance has K
    directions of its own and one variance for all others (probabilistic PCA, Tipping and Bishop
    1999, section 3), and the distance is Mahalanobis' (Lee et al. 2018, section 2.1, with one
    class). The held-out images' distances give the scale.

    Args:
        mean: (D,) of the training images' scaled features.
        basis: (K, D), orthonormal directions.
        variances: (K,), along them.
        other_variance: (1,), along any other direction.
        distances: (M,), rising, of images that the captioner was not trained on.

    Raises:
        CaptionerError: when the shapes do not belong together or a value is impossible.
    """

    part = "familiarity"

    mean: Tensor
    basis: Tensor
    variances: Tensor
    other_variance: Tensor
    distances: Tensor

    def __init__(
        self,
        mean: Tensor,
        basis: Tensor,
        variances: Tensor,
        other_variance: Tensor,
        distances: Tensor,
    ) -> None:
        super().__init__()
        _check(mean, basis, variances, other_variance, distances)
        for name, tensor in (
            ("mean", mean),
            ("basis", basis),
            ("variances", variances),
            ("other_variance", other_variance),
            ("distances", distances),
        ):
            self.register_buffer(name, tensor.to(torch.float32))

    @classmethod
    def fit(cls, learnt: Tensor, held_out: Tensor) -> Familiarity:
        """Measure the training images, and by them the held-out ones.

        Args:
            learnt: (N, D) pooled features of the images that the captioner was trained on.
            held_out: (M, D) of images like them that it was not trained on.

        Raises:
            CaptionerError: there are fewer than two training images or no other.
        """
        check_counts(len(learnt), len(held_out))
        scaled = functional.normalize(learnt.double(), dim=1)
        mean = scaled.mean(dim=0)
        count = min(COMPONENTS, len(learnt) // IMAGES_PER_COMPONENT, learnt.shape[1] - 1)
        variances, directions = torch.linalg.eigh((scaled - mean).T.cov())  # rising
        rest = len(variances) - count
        # Equal images have no spread, and nothing is 0 standard deviations away from them.
        other = variances[:rest].mean().clamp(min=1e-9)
        # In the precision that the file keeps them in: the distances are to be of the same basis.
        basis = directions[:, rest:].T.flip(0).half().float()
        own = variances[rest:].flip(0).clamp(min=1e-9)
        fitted = cls(mean, basis, own, other[None], torch.zeros(1))
        fitted.distances = fitted.distance(held_out.float()).sort().values
        return fitted

    def distance(self, pooled: Tensor) -> Tensor:
        """Squared Mahalanobis distances (B,) of pooled features (B, D)."""
        away = functional.normalize(pooled, dim=1) - self.mean
        along = away @ self.basis.T  # (B, K)
        across = away.square().sum(dim=1) - along.square().sum(dim=1)
        return (along.square() / self.variances).sum(dim=1) + across / self.other_variance

    def forward(self, pooled: Tensor) -> Tensor:
        """The share (B,) of the held-out images that are at least as far away, in (0, 1].

        0.5 is an image as any other, 0.01 one of the strangest hundredth. The image itself is
        counted among them, so that no share is 0 (Vovk et al. 2005, "conformal p-value").

        Args:
            pooled: (B, D) features of images.
        """
        distance = self.distance(pooled)
        farther = len(self.distances) - torch.searchsorted(self.distances, distance)
        return (farther + 1) / (len(self.distances) + 1)


def _check(
    mean: Tensor, basis: Tensor, variances: Tensor, other_variance: Tensor, distances: Tensor
) -> None:
    if mean.ndim != 1 or basis.ndim != 2 or basis.shape[1:] != mean.shape:
        raise _damaged(f"mean {tuple(mean.shape)} and basis {tuple(basis.shape)} do not fit")
    if variances.shape != basis.shape[:1] or other_variance.shape != (1,):
        raise _damaged(
            f"variances {tuple(variances.shape)} and {tuple(other_variance.shape)} do not fit"
        )
    if distances.ndim != 1 or not len(distances) or not torch.equal(distances, distances.sort()[0]):
        raise _damaged("its distances do not rise")
    if not (variances > 0).all() or not (other_variance > 0).all():
        raise _damaged("a variance is not above 0")
    if not all(part.isfinite().all() for part in (mean, basis, variances, other_variance)):
        raise _damaged("a value is not finite")


def check_counts(learnt: int, held_out: int) -> None:
    """Refuse, before any work, images that are too few to measure how familiar others are.

    Raises:
        CaptionerError: there are fewer than two training images or no other.
    """
    if learnt < 2 or not held_out:
        raise CaptionerError(
            f"familiarity: {learnt} training images and {held_out} others; it takes at least two "
            "and one"
        )


_damaged = partial(damaged, Familiarity.part)
