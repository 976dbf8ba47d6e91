"""Captions begun and finished, in tensors: B images, K beams, T words, V vocabulary."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from captioner.decoding.rules import NEVER
from captioner.errors import CaptionerError

BLOCK = 64
"""Neighbouring words of which the largest score is found first, which is fast; see `top`."""

FEW = 32
"""Up to so many values are sorted, which is faster than `torch.topk`."""


@dataclass(frozen=True)
class Hypothesis:
    """One caption as word ids.

    Attributes:
        ids: the words, without begin and end of sentence.
        log_probs: natural-log probability of every word, then that of the end of sentence if
            `finished`; of the model's own distribution, before temperature, top-k and blocking.
        log_prob: their sum.
        score: log_prob / len(log_probs)**length_penalty.
        finished: whether the caption ended by itself, with an end of sentence.
    """

    ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    log_prob: float
    score: float
    finished: bool


@dataclass
class Hypotheses:
    """B x K word sequences, padded. A place with total -inf holds none."""

    ids: Tensor  # (B, K, T) int64
    log_probs: Tensor  # (B, K, T + 1) float32, of the words and the end of sentence, then zeros
    total: Tensor  # (B, K) float32, sum of log_probs
    length: Tensor  # (B, K) int64, how many log_probs count
    finished: Tensor  # (B, K) bool

    @classmethod
    def empty(cls, images: int, beams: int, max_length: int, device: torch.device) -> Hypotheses:
        """Hypotheses without a word."""
        return cls(
            ids=torch.zeros(images, beams, max_length, dtype=torch.int64, device=device),
            log_probs=torch.zeros(images, beams, max_length + 1, device=device),
            total=torch.zeros(images, beams, device=device),
            length=torch.zeros(images, beams, dtype=torch.int64, device=device),
            finished=torch.zeros(images, beams, dtype=torch.bool, device=device),
        )

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.ids, self.log_probs, self.total, self.length, self.finished

    def select_images(self, images: Tensor) -> Hypotheses:
        """Keep the images (B',), in this order."""
        return Hypotheses(*(x.index_select(0, images) for x in self._tensors()))

    def select_beams(self, beams: Tensor) -> Hypotheses:
        """New beam j of image b continues old beam ``beams[b, j]``; ``beams``: (B, K')."""
        rows = torch.arange(len(beams), device=beams.device)[:, None]
        return Hypotheses(*(x[rows, beams] for x in self._tensors()))

    def joined(self, other: Hypotheses) -> Hypotheses:
        """These and the other's, which are after them."""
        pairs = zip(self._tensors(), other._tensors(), strict=True)
        return Hypotheses(*(torch.cat(pair, dim=1) for pair in pairs))

    def score(self, length_penalty: float) -> Tensor:
        """Scores (B, K), by which they are ranked."""
        return self.total / self.length.clamp(min=1).float() ** length_penalty  # (B, K)

    def best(self, count: int, length_penalty: float) -> Hypotheses:
        """The `count` best of every image: finished ones first, then by score, then by place."""
        order = self.score(length_penalty).sort(dim=1, descending=True, stable=True).indices
        finished = self.finished.gather(1, order).byte()
        order = order.gather(1, finished.sort(dim=1, descending=True, stable=True).indices)
        return self.select_beams(order[:, :count])

    def ranked(self, length_penalty: float) -> list[list[Hypothesis]]:
        """As Python objects, best first; sums and scores in double precision."""
        columns = (x.tolist() for x in self._tensors())
        captions = []
        for ids, log_probs, total, length, finished in zip(*columns, strict=True):
            found = []
            for k in range(len(ids)):
                if total[k] == NEVER or length[k] == 0:
                    continue
                parts = tuple(log_probs[k][: length[k]])
                found.append(
                    Hypothesis(
                        ids=tuple(ids[k][: length[k] - finished[k]]),
                        log_probs=parts,
                        log_prob=(log_prob := math.fsum(parts)),
                        score=log_prob / len(parts) ** length_penalty,
                        finished=finished[k],
                    )
                )
            if not found:
                raise CaptionerError(
                    "no caption is possible: every word is forbidden and the model rules out the "
                    "end of sentence or a required word; require fewer words, or ban fewer words"
                )
            captions.append(sorted(found, key=lambda h: (h.finished, h.score), reverse=True))
        return captions


def append(hypotheses: Hypotheses, words: Tensor, log_probs: Tensor, t: int) -> None:
    """Write word ``t`` of every hypothesis, in place."""
    if t < hypotheses.ids.shape[-1]:
        hypotheses.ids[..., t] = words
    hypotheses.log_probs[..., t] = log_probs


def top(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest along the last axis, largest first; of equal ones the first.

    `torch.topk` promises no order of equal values, and its choice changes with the batch size.

    Of many values, those of the `count` blocks with the largest maxima are looked at, of equal
    ones the first: an element of another block has one before it in each of these.
    """
    size = values.shape[-1]
    if size < 4 * BLOCK * count:
        return _top(values, count)
    whole = size // BLOCK * BLOCK
    maxima = [values[..., :whole].reshape(*values.shape[:-1], whole // BLOCK, BLOCK).amax(dim=-1)]
    if whole < size:
        maxima.append(values[..., whole:].amax(dim=-1, keepdim=True))
    blocks = _top(torch.cat(maxima, dim=-1), count)[1].sort(dim=-1).values
    places = (blocks[..., None] * BLOCK + torch.arange(BLOCK, device=values.device)).flatten(-2)
    beyond = places >= size
    places = places.clamp(max=size - 1)
    found, order = _top(values.gather(-1, places).masked_fill(beyond, NEVER), count)
    return found, places.gather(-1, order)


def _top(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """As `top`, looking at everything."""
    if count == 1:
        best = values.max(dim=-1, keepdim=True)  # documented to give the first of equal values
        return best.values, best.indices
    if count == values.shape[-1] or values.shape[-1] <= FEW:
        found, places = values.sort(dim=-1, descending=True, stable=True)
        return found[..., :count], places[..., :count]
    found, places = values.topk(count + 1, dim=-1)
    tied = (found[..., count - 1] == found[..., count]) & (found[..., count] > NEVER)
    places = places[..., :count]
    if tied.any():  # common with bfloat16 logits, which take few values
        places[tied] = _first_of_equals(values[tied], count)
    places = places.sort(dim=-1).values
    found, order = values.gather(-1, places).sort(dim=-1, descending=True, stable=True)
    return found, places.gather(-1, order)


def _first_of_equals(values: Tensor, count: int) -> Tensor:
    """Places (R, count) of the largest in each row of values (R, V) float32, ties by place.

    One topk over unique keys, the value above and the place below, much faster than a sort.
    """
    bits = values.view(torch.int32)
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # as integers, in the floats' order
    last = values.shape[-1] - 1
    from_end = torch.arange(last, -1, -1, device=values.device)
    keys = (ordered.long() << 32) + from_end
    return last - (keys.topk(count, dim=-1).values & 0xFFFFFFFF)
