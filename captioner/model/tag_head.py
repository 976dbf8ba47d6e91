"""Which lemmas does an image show? A classifier beside the decoder, for tags no caption says.

A caption names five things of an image that shows twenty. The classifier learns from all captions
of an image at once what people name (Fang et al. 2015, section 3, and Wu et al. 2016, section 3.1,
"attributes"). It is fitted once, to the features of the trained captioner.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from captioner.errors import damaged
from captioner.text.lexicon import Lemma, Lexicon

MIN_IMAGES, MIN_FREQUENCY = 20, 0.005
"""A lemma of fewer training images than 20, and of less than one in 200, is not learnt."""
RIDGE = 0.05
"""Pull of a lemma's weights to 0, where features are scaled to a spread of 1. Chosen on Flickr8k's
validation images, whose mean average precision is the same within 1% from 0.03 to 0.1."""
STEPS, TOLERANCE = 100, 1e-5  # of the search; of the largest slope, in its own steps
ROWS = 4096  # images at once


class Seen(Mapping[Lemma, float]):
    """The probabilities of lemmas in one image. The images share the table of the lemmas.

    Args:
        places: of the L lemmas, from 0 on.
        probabilities: L numbers, each at the place of its lemma.
    """

    def __init__(self, places: Mapping[Lemma, int], probabilities: Sequence[float]) -> None:
        self._places, self._probabilities = places, probabilities

    def __getitem__(self, lemma: Lemma) -> float:
        return self._probabilities[self._places[lemma]]

    def __iter__(self) -> Iterator[Lemma]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def items(self) -> ItemsView[Lemma, float]:
        """Every lemma with its probability."""
        return _Items(self)

    def pairs(self) -> Iterator[tuple[Lemma, float]]:
        """The same, one by one."""
        return zip(self._places, self._probabilities, strict=True)


class _Items(ItemsView[Lemma, float]):
    """Without looking every lemma up, which takes longer than the rest of the search for tags."""

    def __init__(self, seen: Seen) -> None:
        super().__init__(seen)
        self._seen = seen

    def __iter__(self) -> Iterator[tuple[Lemma, float]]:
        return self._seen.pairs()


class TagHead(nn.Module):
    """One logistic regression a lemma, on the pooled features scaled to length 1.

    Args:
        feature_size: D of the encoder.
        count: number of lemmas L: the first of the model's lexicon, which lists the most frequent
            ones first.
    """

    def __init__(self, feature_size: int, count: int) -> None:
        super().__init__()
        self.linear = nn.Linear(feature_size, count)

    def __len__(self) -> int:
        return self.linear.out_features

    @classmethod
    @torch.no_grad()
    def fit(cls, pooled: Tensor, named: Tensor) -> TagHead:
        """Maximise the probability of what people name, less :data:`RIDGE` a squared weight.

        Args:
            pooled: (N, D) features of the training images.
            named: (N, L) bool, which lemmas people name of them.
        """
        scaled = functional.normalize(pooled.float(), dim=1)
        mean, spread = scaled.mean(dim=0), scaled.std(dim=0, correction=0).clamp(min=1e-6)
        weight, bias = _fit_logistic((scaled - mean) / spread, named)
        head = cls(pooled.shape[1], named.shape[1])
        # In the precision that the file keeps it in: the calibration is to be of the same.
        head.linear.weight.copy_((weight / spread).half())
        head.linear.bias.copy_(bias - head.linear.weight @ mean)
        return head.requires_grad_(False)

    def forward(self, pooled: Tensor) -> Tensor:
        """Probabilities (B, L) of pooled features (B, D)."""
        probabilities: Tensor = self.linear(functional.normalize(pooled, dim=1)).sigmoid()
        return probabilities

    def seen(self, pooled: Tensor, lexicon: Lexicon) -> list[Mapping[Lemma, float]]:
        """The probability of every lemma that it knows, for each of B pooled features (B, D)."""
        places = {lemma: place for place, lemma in enumerate(lexicon.lemmas[: len(self)])}
        return [Seen(places, row) for row in self(pooled).tolist()]

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> TagHead:
        """Build it from its ``state_dict``.

        Raises:
            CaptionerError: when a tensor is missing, unknown, or has an impossible shape or value.
        """
        weight, bias = state.get("linear.weight"), state.get("linear.bias")
        if len(state) != 2 or weight is None or bias is None:
            raise _damaged(f"its tensors are {', '.join(state)}")
        if weight.ndim != 2 or bias.shape != weight.shape[:1] or not weight.numel():
            raise _damaged(f"weight {tuple(weight.shape)} and bias {tuple(bias.shape)} do not fit")
        if not weight.isfinite().all() or not bias.isfinite().all():
            raise _damaged("a value is not finite")
        head = cls(weight.shape[1], len(bias))
        head.load_state_dict({"linear.weight": weight, "linear.bias": bias})
        return head.requires_grad_(False)


def learnable(lexicon: Lexicon, images: int) -> int:
    """How many of its lemmas occur often enough to be learnt from this many images."""
    minimum = min(MIN_FREQUENCY, MIN_IMAGES / max(images, 1))
    return sum(lemma.frequency >= minimum for lemma in lexicon.lemmas)


def named_lemmas(
    captions_by_image: Iterable[Sequence[str]], lexicon: Lexicon, count: int
) -> Tensor:
    """Which of the lexicon's first ``count`` lemmas people name: (N, L) bool for N images."""
    places = {lemma: place for place, lemma in enumerate(lexicon.lemmas[:count])}
    rows = []
    for captions in captions_by_image:
        row = torch.zeros(count, dtype=torch.bool)
        for lemma in lexicon.lemmas_in(captions) & places.keys():
            row[places[lemma]] = True
        rows.append(row)
    return torch.stack(rows) if rows else torch.zeros(0, count, dtype=torch.bool)


def _fit_logistic(inputs: Tensor, named: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (L, D) and biases (L,) of all lemmas at once, by L-BFGS (Liu and Nocedal 1989).

    It searches along the principal directions of the features, each in steps of the size that the
    features' variance and the lemma's frequency suggest, where a dozen steps lead to the optimum.

    Args:
        inputs: (N, D) features, each with a mean of 0.
        named: (N, L) bool.
    """
    # Begin with what is known without looking: how frequent every lemma is.
    rates = named.float().mean(dim=0).clamp(1e-4, 1 - 1e-4)
    curvature = rates * (1 - rates)
    variances, directions = torch.linalg.eigh(inputs.T @ inputs / len(inputs))
    weight_step = (curvature[:, None] * variances.clamp(min=0) + 2 * RIDGE).rsqrt()
    bias_step = curvature.rsqrt()
    rotated = inputs @ directions
    weight = torch.zeros_like(weight_step).requires_grad_()
    bias = (rates.logit() / bias_step).requires_grad_()
    search = torch.optim.LBFGS(
        [weight, bias],
        max_iter=STEPS,
        history_size=10,
        tolerance_grad=TOLERANCE,
        line_search_fn="strong_wolfe",
    )

    @torch.no_grad()
    def loss() -> Tensor:
        weights, biases = weight * weight_step, bias * bias_step
        value: Tensor = RIDGE * weights.square().sum()
        weight_slope, bias_slope = 2 * RIDGE * weights, torch.zeros_like(biases)
        # Logits of a million images and a thousand lemmas do not fit in memory.
        parts = zip(torch.split(rotated, ROWS), torch.split(named, ROWS), strict=True)
        for rows, right in parts:
            logits, targets = functional.linear(rows, weights, biases), right.float()
            value += (functional.softplus(logits) - targets * logits).sum() / len(inputs)
            error = (logits.sigmoid() - targets) / len(inputs)
            weight_slope += error.T @ rows
            bias_slope += error.sum(dim=0)
        weight.grad, bias.grad = weight_slope * weight_step, bias_slope * bias_step
        return value

    search.step(loss)  # type: ignore[no-untyped-call]
    found: Tensor = (weight * weight_step) @ directions.T
    return found, bias * bias_step


_damaged = partial(damaged, "tag classifier")
