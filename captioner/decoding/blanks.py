"""Fill in the blanks of a sentence: which words make the whole sentence most probable.

A recurrent decoder says a sentence from left to right, so the words after a blank are known to
it only through the sentences that it would make. They are therefore all tried: every word in the
first blank, run through all that follows, to the end of the sentence. By the chain rule the
probability of a filling, given the image and the words on both sides, is

    P(words in the blanks | the others) = P(whole sentence) / sum over all fillings of the same.

Nothing here knows a model; a step function scores words, as in `captioner.decoding.search`.

Shapes: K sentences begun, M words that a blank may be, N fillings, C blanks, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from captioner.decoding.options import FillOptions
from captioner.decoding.rules import NEVER, DecodeState, StepFunction, not_numbers
from captioner.errors import CaptionerError
from captioner.text.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID, detokenize

CELLS = 4_000_000
"""Scores that are computed at once: bounds the memory of a step to some tens of megabytes."""

S = TypeVar("S", bound=DecodeState)


@dataclass(frozen=True)
class Filling:
    """One way to fill all blanks.

    Attributes:
        words: one for each blank.
        text: the whole sentence.
        probability: of these words, given the image and the other words of the sentence, among
            all the fillings that were considered.
        log_prob: natural logarithm of the whole sentence's probability, end of sentence included.
    """

    words: tuple[str, ...]
    text: str
    probability: float
    log_prob: float

    def __str__(self) -> str:
        """The sentence and its probability, on one line."""
        return f"{self.text} ({self.probability:.2f})"


@dataclass(frozen=True)
class FillResult:
    """The blanks of one sentence, filled for one image.

    Attributes:
        fillings: the most probable ones, best first.
        blanks: for each blank its most probable words, each with its probability whatever stands
            in the other blanks.
        considered: fillings whose whole sentences were scored.
        unexplored: at most this share of the probability, in [0, 1], lies in fillings that were
            not considered: a true probability is at least (1 - unexplored) times the given one,
            and at most as large. 0 where all were considered.
    """

    fillings: tuple[Filling, ...]
    blanks: tuple[tuple[tuple[str, float], ...], ...]
    considered: int
    unexplored: float

    def __str__(self) -> str:
        """The best filling and its probability, on one line."""
        return str(self.fillings[0])


# --- search --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fillings:
    """What `search_fillings` has found.

    Attributes:
        ids: words in the blanks (N, C) int64, the most probable sentence first.
        log_probs: of the whole sentences (N,) float64.
        lost: logarithm of the probability of all the begun sentences that were given up; what
            they could have become is at most as probable. -inf if none was.
    """

    ids: Tensor
    log_probs: Tensor
    lost: float


@dataclass(frozen=True)
class _Block(Generic[S]):
    """K sentences begun, few enough to be scored at once.

    `words` (K,) are the last ones, which the state has not read yet; `ids` (K, c) those in the
    blanks so far, `total` (K,) float64 the log-probabilities. The latter two are on the CPU, as
    some devices have no double precision.
    """

    state: S
    words: Tensor
    ids: Tensor
    total: Tensor


@torch.no_grad()
def search_fillings(
    step: StepFunction[S],
    state: S,
    sentence: Sequence[int | None],
    *,
    beam_size: int,
    bos: int,
    eos: int,
    never: Sequence[int],
    device: torch.device | str,
) -> Fillings:
    """Fill the blanks of one sentence for one image.

    Exact with one blank: all words are tried. From the second blank on, the `beam_size` most
    probable beginnings are continued, and the probability of the others is added up.

    Args:
        step: scores the next words, B = 1.
        state: its first state, B = 1 and K = 1.
        sentence: ids, None for a blank.
        beam_size: see above.
        bos: id that starts every sentence.
        eos: id that ends it.
        never: ids that no blank is filled with, in addition to `eos`.
        device: where `step` expects words and gives scores.

    Raises:
        CaptionerError: the scores contain NaN, or the model rules out every filling.
    """
    first = torch.full((1,), bos, dtype=torch.int64, device=device)
    nothing = torch.zeros((1, 0), dtype=torch.int64)
    blocks = [_Block(state, first, nothing, torch.zeros(1, dtype=torch.float64))]
    lost = NEVER
    is_first = True
    for word in [*sentence, eos]:
        if word is not None:
            blocks = [_say(step, block, word) for block in blocks]
            continue
        blocks, given_up = _fill(step, blocks, {eos, *never}, None if is_first else beam_size)
        lost = _add_logs([lost, given_up])
        is_first = False
    total, ids = torch.cat([b.total for b in blocks]), torch.cat([b.ids for b in blocks])
    ids, total = ids[total > NEVER], total[total > NEVER]
    if not len(total):
        raise CaptionerError(
            "no word can fill the blank: the model rules out every such sentence; change the "
            "other words"
        )
    order = total.sort(descending=True, stable=True).indices
    return Fillings(ids[order], total[order], lost)


def _score(step: StepFunction[S], block: _Block[S]) -> tuple[Tensor, S]:
    """Log-probabilities (K, V) of the next words, and the new state."""
    logits, state = step(block.words[None], block.state)
    log_probs = functional.log_softmax(logits[0].float(), dim=-1)
    if log_probs[:, 0].isnan().any():
        raise not_numbers("the model's scores")
    return log_probs, state


def _say(step: StepFunction[S], block: _Block[S], word: int) -> _Block[S]:
    """Continue every sentence with the same word."""
    log_probs, state = _score(step, block)
    total = block.total + log_probs[:, word].cpu().double()
    return _Block(state, torch.full_like(block.words, word), block.ids, total)


def _fill(
    step: StepFunction[S], blocks: Sequence[_Block[S]], never: set[int], keep: int | None
) -> tuple[list[_Block[S]], float]:
    """Continue every sentence with every word; keep the best `keep` of all.

    Returns:
        the sentences, in blocks, and the logarithm of the probability of those not kept.
    """
    best = torch.zeros(0, dtype=torch.float64)
    places = torch.zeros((0, 3), dtype=torch.int64)  # block, sentence in it, word
    states: list[S] = []
    lost: list[float] = []
    vocabulary = 1
    for number, block in enumerate(blocks):
        log_probs, state = _score(step, block)
        states.append(state)
        vocabulary = log_probs.shape[1]
        words = torch.tensor(sorted(set(range(vocabulary)) - never))  # (M,)
        totals = block.total[:, None] + log_probs.cpu()[:, words].double()  # (K, M)
        values, kept, rest = _best(totals.flatten(), keep)
        lost.append(rest)
        sentence, word = kept // len(words), words[kept % len(words)]
        best = torch.cat([best, values])
        places = torch.cat(
            [places, torch.stack([torch.full_like(word, number), sentence, word], 1)]
        )
        best, kept, rest = _best(best, keep)
        lost.append(rest)
        places = places[kept]

    size = max(1, CELLS // vocabulary)
    filled = []
    for number, (block, state) in enumerate(zip(blocks, states, strict=True)):
        here = (places[:, 0] == number).nonzero()[:, 0]
        for some in torch.split(here, size):
            sentence, word = places[some, 1], places[some, 2]
            ids = torch.cat([block.ids[sentence], word[:, None]], dim=1)
            device = block.words.device
            filled.append(
                _Block(
                    state.select_beams(sentence[None].to(device)), word.to(device), ids, best[some]
                )
            )
    return filled, _add_logs(lost)


def _best(values: Tensor, keep: int | None) -> tuple[Tensor, Tensor, float]:
    """The largest `keep` of values (N,), their places, and the others' logarithm of the sum."""
    if keep is None or len(values) <= keep:
        return values, torch.arange(len(values)), NEVER
    found, places = values.topk(keep)
    others = values.clone()
    others[places] = NEVER
    return found, places, _log_sum(others)


def _log_sum(values: Tensor) -> float:
    return float(values.logsumexp(0)) if (values > NEVER).any() else NEVER


def _add_logs(values: Iterable[float]) -> float:
    return _log_sum(torch.tensor(list(values), dtype=torch.float64))


Join = Callable[[Iterable[str]], str]
"""Makes a text of words, as `captioner.text.tokenizer.Tokenizer.detokenize` does."""


def fill_each(
    step: StepFunction[S],
    states: Iterable[S],
    sentence: Sequence[str | None],
    ids: Sequence[int | None],
    every_word: Sequence[str],
    options: FillOptions,
    device: torch.device | str,
    join: Join = detokenize,
) -> list[FillResult]:
    """Fill the blanks of one sentence for each of some images.

    Args:
        step: see `search_fillings`, as for `device`.
        states: the first state of each image, of one sentence each.
        sentence: the words, None for a blank.
        ids: those of the words, None for a blank.
        every_word: the word of every id.
        options: how they are searched for.
        device: where `step` expects words.
        join: makes a text of words.
    """
    results = []
    for state in states:
        found = search_fillings(
            step,
            state,
            ids,
            beam_size=options.beam_size,
            bos=BOS_ID,
            eos=EOS_ID,
            never=(PAD_ID, BOS_ID, UNK_ID),
            device=device,
        )
        results.append(result_of(found, sentence, every_word, options.top, join))
    return results


# --- result --------------------------------------------------------------------------------


def result_of(
    found: Fillings,
    sentence: Sequence[str | None],
    words: Sequence[str],
    top: int,
    join: Join = detokenize,
) -> FillResult:
    """Probabilities and sentences out of what was found.

    Args:
        found: by `search_fillings`.
        sentence: the words, None for a blank.
        words: the word of every id.
        top: how many fillings, and words of each blank, are wanted.
        join: makes a text of words.
    """
    whole = _log_sum(found.log_probs)
    shares = (found.log_probs - whole).exp()  # (N,)
    fillings = []
    for ids, share, log_prob in zip(
        found.ids[:top], shares[:top], found.log_probs[:top], strict=True
    ):
        chosen = tuple(words[int(place)] for place in ids)
        rest = iter(chosen)
        text = join(next(rest) if word is None else word for word in sentence)
        fillings.append(Filling(chosen, text, float(share), float(log_prob)))
    blanks = []
    for column in found.ids.T:
        mass = torch.zeros(len(words), dtype=torch.float64).index_add_(0, column, shares)
        order = mass.sort(descending=True, stable=True).indices[:top]
        blanks.append(tuple((words[int(i)], float(mass[i])) for i in order if mass[i] > 0))
    unexplored = 0.0 if found.lost == NEVER else 1 / (1 + math.exp(min(whole - found.lost, 700.0)))
    return FillResult(tuple(fillings), tuple(blanks), len(found.ids), unexplored)
