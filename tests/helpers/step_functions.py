"""Step functions to decode with: tables of logits, and a small network."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from captioner.decoding.hypotheses import Hypothesis
from captioner.decoding.options import DecodingOptions
from captioner.decoding.rules import OpenStep, StepFunction
from captioner.decoding.search import decode

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIAL = (PAD, BOS, UNK)


class Table:
    """A Markov chain per image: the logits are rows (B, T + 1, V, V) by position, last word."""

    def __init__(self, logits: Tensor, position: int = 0) -> None:
        self.logits = logits
        self.position = position

    def select_beams(self, beams: Tensor) -> Table:
        assert len(beams) == len(self.logits)
        return self

    def select_images(self, images: Tensor) -> Table:
        return Table(self.logits[images], self.position)


def table_step(words: Tensor, state: Table) -> tuple[Tensor, Table]:
    images = torch.arange(len(words))[:, None]
    logits = state.logits[images, state.position, words]
    return logits, Table(state.logits, state.position + 1)


def tables(images: int, words: int, max_length: int, seed: int, spread: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    size = 4 + words
    return torch.randn(images, max_length + 1, size, size, generator=generator) * spread


def decode_table(
    logits: Tensor,
    options: DecodingOptions,
    forbidden: Sequence[int] = SPECIAL,
    step: StepFunction[Table] | OpenStep[Table] = table_step,
    **extra: Any,
) -> list[list[Hypothesis]]:
    return decode(
        step,
        Table(logits),
        len(logits),
        options,
        bos=BOS,
        eos=EOS,
        forbidden=forbidden,
        device="cpu",
        **extra,
    )


class Recurrent(nn.Module):
    """A small GRU that sees a feature of its image, so that mixed-up states change the result."""

    def __init__(self, seed: int, words: int = 12, features: int = 5, hidden: int = 8) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(4 + words, hidden)
        self.cell = nn.GRUCell(hidden + features, hidden)
        self.start = nn.Linear(features, hidden)
        self.out = nn.Linear(hidden, 4 + words)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.7)

    def first(self, features: Tensor) -> RecurrentState:
        return RecurrentState(features, self.start(features)[:, None])

    def step(self, words: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        beams = words.shape[1]
        image = state.features[:, None].expand(-1, beams, -1)
        inputs = torch.cat([self.embedding(words), image], dim=-1)
        hidden = self.cell(inputs.flatten(0, 1), state.hidden.flatten(0, 1))
        hidden = hidden.unflatten(0, words.shape)
        return self.out(hidden), RecurrentState(state.features, hidden)

    def decode(self, features: Tensor, options: DecodingOptions, **extra: Any) -> Any:
        return decode(
            self.step,
            self.first(features),
            len(features),
            options,
            bos=BOS,
            eos=EOS,
            forbidden=SPECIAL,
            device="cpu",
            **extra,
        )

    def rescore(self, feature: Tensor, hypothesis: Hypothesis) -> list[float]:
        """Teacher-forced log-probabilities of one caption, alone in its batch."""
        targets = [*hypothesis.ids, EOS] if hypothesis.finished else [*hypothesis.ids]
        state, last, log_probs = self.first(feature[None]), BOS, []
        with torch.no_grad():
            for target in targets:
                logits, state = self.step(torch.tensor([[last]]), state)
                log_probs.append(logits[0, 0].log_softmax(-1)[target].item())
                last = target
        return log_probs


@dataclasses.dataclass
class RecurrentState:
    features: Tensor  # (B, F)
    hidden: Tensor  # (B, K, H)

    def select_beams(self, beams: Tensor) -> RecurrentState:
        rows = torch.arange(len(beams))[:, None]
        return RecurrentState(self.features, self.hidden[rows, beams])

    def select_images(self, images: Tensor) -> RecurrentState:
        return RecurrentState(self.features[images], self.hidden[images])


def repeats(ids: Sequence[int], n: int) -> bool:
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return n > 0 and len(set(grams)) < len(grams)


def chain_log_probs(logits: Tensor, ids: Sequence[int]) -> list[float]:
    """Log-probabilities of ids under one image's table (T + 1, V, V), in double precision."""
    rows = logits.double().log_softmax(-1)
    return [
        rows[t, last, word].item()
        for t, (last, word) in enumerate(zip([BOS, *ids], ids, strict=False))
    ]


def brute_force(logits: Tensor, options: DecodingOptions) -> list[tuple[float, tuple[int, ...]]]:
    """Every caption the options admit, best first."""
    words = range(4, logits.shape[-1])
    found = []
    for length in range(1, options.max_length + 1):
        for ids in itertools.product(words, repeat=length):
            if not repeats(ids, options.no_repeat_ngram):
                log_prob = sum(chain_log_probs(logits, [*ids, EOS]))
                found.append((log_prob / (length + 1) ** options.length_penalty, ids))
    return sorted(found, reverse=True)


def check_invariants(found: list[Hypothesis], options: DecodingOptions) -> None:
    for h in found:
        assert 1 <= len(h.ids) <= options.max_length
        assert len(h.log_probs) == len(h.ids) + h.finished
        assert all(-math.inf < log_prob <= 0.0 for log_prob in h.log_probs)
        assert h.log_prob == math.fsum(h.log_probs)
        assert h.score == h.log_prob / len(h.log_probs) ** options.length_penalty
        assert not {EOS, *SPECIAL} & set(h.ids)
        assert not repeats(h.ids, options.no_repeat_ngram)
    ranks = [(h.finished, h.score) for h in found]
    assert ranks == sorted(ranks, reverse=True)
    if not options.sample:
        assert len({h.ids for h in found}) == len(found)


def fixed_chain(size: int, steps: Sequence[dict[int, float]]) -> Tensor:
    """One image whose next-word probabilities at each position do not depend on the last word."""
    logits = torch.full((1, len(steps), size, size), -30.0)
    for t, probabilities in enumerate(steps):
        for word, probability in probabilities.items():
            logits[0, t, :, word] = math.log(probability)
    return logits
