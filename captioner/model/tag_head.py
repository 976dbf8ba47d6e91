"""Which lemmas does a picture show? A classifier beside the decoder, for tags no caption says.

A caption names five things of a picture that shows twenty. The classifier learns from all captions
of a picture at once what people name (Fang et al. 2015, section 3, and Wu et al. 2016, section 3.1,
"attributes"). It reads the features of the finished captioner and is fitted to them at a stroke.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from captioner.errors import CaptionerError
from captioner.text.lexicon import Lexicon

LEAST_IMAGES, LEAST_FREQUENCY = 20, 0.005
"""A lemma that fewer training images than 20, and fewer than one in 200, are described with cannot
be learnt from them."""
RIDGE = 0.05
"""Pull of a lemma's weights to 0, where features are scaled to a spread of 1. Chosen on Flickr8k's
validation images, whose mean average precision is the same within 1% from 0.03 to 0.1."""
STEPS = 100


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
    def fit(cls, pooled: Tensor, named: Tensor) -> TagHead:
        """Maximise the probability of what people name, less :data:`RIDGE` a squared weight.

        Args:
            pooled: (N, D) features of the training pictures.
            named: (N, L) bool, which lemmas people name of them.
        """
        scaled = functional.normalize(pooled.float(), dim=1)
        mean, spread = scaled.mean(dim=0), scaled.std(dim=0, correction=0).clamp(min=1e-6)
        inputs, targets = (scaled - mean) / spread, named.float()
        weight = torch.zeros(named.shape[1], pooled.shape[1], requires_grad=True)
        # Begin with what is known without looking: how frequent every lemma is.
        bias = targets.mean(dim=0).clamp(1e-4, 1 - 1e-4).logit().requires_grad_()
        search = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            search.zero_grad()
            logits = functional.linear(inputs, weight, bias)
            missed = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            value = missed.sum(dim=1).mean() + RIDGE * weight.square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        search.step(loss)  # type: ignore[no-untyped-call]
        head = cls(pooled.shape[1], named.shape[1])
        with torch.no_grad():
            # In the precision that the file keeps it in: the calibration is to be of the same.
            head.linear.weight.copy_((weight / spread).half())
            head.linear.bias.copy_(bias - head.linear.weight @ mean)
        return head.requires_grad_(False)

    def forward(self, pooled: Tensor) -> Tensor:
        """Probabilities (B, L) of pooled features (B, D)."""
        probabilities: Tensor = self.linear(functional.normalize(pooled, dim=1)).sigmoid()
        return probabilities

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
    """How many of its lemmas occur often enough to be learnt from so many images."""
    least = min(LEAST_FREQUENCY, LEAST_IMAGES / max(images, 1))
    return sum(lemma.frequency >= least for lemma in lexicon.lemmas)


def named_lemmas(
    captions_by_image: Iterable[Sequence[str]], lexicon: Lexicon, count: int
) -> Tensor:
    """Which of the lexicon's first ``count`` lemmas people name: (N, L) bool for N pictures."""
    places = {lemma: place for place, lemma in enumerate(lexicon.lemmas[:count])}
    rows = []
    for captions in captions_by_image:
        row = torch.zeros(count, dtype=torch.bool)
        for lemma in lexicon.lemmas_in(captions) & places.keys():
            row[places[lemma]] = True
        rows.append(row)
    return torch.stack(rows) if rows else torch.zeros(0, count, dtype=torch.bool)


def mean_average_precision(probabilities: Tensor, named: Tensor) -> float:
    """The mean, over the lemmas that are named at all, of each one's average precision.

    Average precision is the mean of the precision at every right picture, the pictures sorted by
    falling probability (Everingham et al. 2015, section 4.2, without interpolation).

    Args:
        probabilities: (N, L).
        named: (N, L) bool.

    Returns:
        In [0, 1]; 0 where no lemma is named.
    """
    order = probabilities.argsort(dim=0, descending=True, stable=True)
    hits = named.gather(0, order).double()
    precision = hits.cumsum(dim=0) / torch.arange(1, len(hits) + 1)[:, None]
    known = hits.sum(dim=0) > 0
    found = (precision * hits).sum(dim=0)[known] / hits.sum(dim=0)[known]
    return float(found.mean()) if len(found) else 0.0


def _damaged(reason: str) -> CaptionerError:
    return CaptionerError(f"tag classifier: {reason}; the file is damaged, get it again")
