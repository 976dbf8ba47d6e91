"""What may be said next, and what a step of the search gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError

NEVER = -math.inf

LEAVING = 0.25
"""Images whose search is over leave the batch when they are this share of it."""


class DecodeState(Protocol):
    """What a step function carries from word to word: recurrent state, image features."""

    def select_beams(self, beams: Tensor) -> Self:
        """Reorder, with beams (B, K') int64: new beam j of image b continues beams[b, j]."""
        ...

    def select_images(self, images: Tensor) -> Self:
        """Keep the images (B',) int64 in this order."""
        ...


S = TypeVar("S", bound=DecodeState)
StepFunction = Callable[[Tensor, S], tuple[Tensor, S]]
"""Last words (B, K) int64 and state -> logits of the next word (B, K, V), and the new state."""


def check_constraints(
    prompt: Sequence[int], required: Sequence[int], never: set[int], options: DecodingOptions
) -> None:
    """Raise ValueError where the ids to be said contradict the others; see `decode`."""
    wrong = sorted(never & {*prompt, *required})
    if wrong:
        raise ValueError(f"prompt and required contain ids that are forbidden or eos: {wrong}")
    if required and options.sample:
        raise ValueError("required ids need the search: leave them out, or sample=False")
    if len(set(required)) < len(required) or set(required) & set(prompt):
        raise ValueError("required names an id twice, or one of the prompt: leave it out")
    if len(prompt) + len(required) > options.max_length:
        raise ValueError(
            f"{len(prompt) + len(required)} words are given, and a caption has at most "
            f"max_length={options.max_length}; raise it"
        )


@dataclass(frozen=True)
class OpenStep(Generic[S]):
    """A step function that can leave out captions that nobody continues.

    Attributes:
        step: last words (B, K) int64, state, and which captions are open (B, K) bool -> logits of
            the next words of the R open ones (R, V), image by image, and the new state, which may
            be anything where captions are not open. What a caption gives depends neither on the
            others nor on which of them are open.
    """

    step: Callable[[Tensor, S, Tensor], tuple[Tensor, S]]

    @classmethod
    def of(cls, step: StepFunction[S]) -> OpenStep[S]:
        """A step function that leaves out nothing."""

        def only_open(words: Tensor, state: S, open_: Tensor) -> tuple[Tensor, S]:
            logits, state = step(words, state)
            return logits[open_], state

        return cls(only_open)


class Rules:
    """Which words may come next."""

    def __init__(
        self,
        eos: int,
        forbidden: Sequence[int],
        no_repeat_ngram: int,
        device: torch.device,
        required: Sequence[int] = (),
        joining: Sequence[int] = (),
    ) -> None:
        self.eos = eos
        self.largest_id = max([eos, *forbidden, *required])
        self.smallest_id = min([eos, *forbidden, *required])
        self.required = torch.tensor(required, dtype=torch.int64, device=device)
        self.forbidden = torch.tensor(forbidden, dtype=torch.int64, device=device)
        self.no_repeat_ngram = no_repeat_ngram
        self.joining = torch.tensor(joining, dtype=torch.int64, device=device)

    def apply(self, logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The model's log-probabilities, -inf for words that may not follow.

        Args:
            logits: (R, V), any float type.
            ids: (R, t) words so far.

        Returns:
            log-probabilities (R, V) float32, and those of the end of sentence (R,) whether
            allowed or not.
        """
        vocabulary = logits.shape[-1]
        if not 0 <= self.smallest_id <= self.largest_id < vocabulary:
            raise ValueError(
                f"eos and forbidden ids go from {self.smallest_id} to {self.largest_id}, the "
                f"vocabulary from 0 to {vocabulary - 1}: give ids of this vocabulary"
            )
        log_probs = F.log_softmax(logits.float(), dim=-1)
        end = log_probs[..., self.eos].clone()
        log_probs.index_fill_(-1, self.forbidden, NEVER)
        if 0 < self.no_repeat_ngram <= ids.shape[-1]:
            log_probs.scatter_(-1, self._repeating(ids), NEVER)
        if self.no_repeat_ngram and len(self.joining) and ids.shape[-1] > 1:
            log_probs.scatter_(-1, self._echoing(ids), NEVER)
        # Written last: whatever is blocked, a caption may end; but it has at least one word.
        log_probs[..., self.eos] = end if ids.shape[-1] > 0 else NEVER
        return log_probs, end

    def _echoing(self, ids: Tensor) -> Tensor:
        """Words (R, 2) that a joining word would join with themselves, or the end of sentence.

        "white and" and "a hat and a": the joining word is the last one or the one before.
        """
        padded = F.pad(ids[..., -3:], (max(0, 3 - ids.shape[-1]), 0), value=self.eos)
        joins = torch.isin(padded[..., 1:], self.joining)
        return torch.where(joins, padded[..., :-1], self.eos)

    def _repeating(self, ids: Tensor) -> Tensor:
        """Words (R, W) that would repeat an n-gram; the end of sentence as a filler."""
        n = self.no_repeat_ngram
        grams = ids.unfold(-1, n, 1)  # (R, W, n), W = t - n + 1
        context = ids[..., None, ids.shape[-1] - n + 1 :]  # (R, 1, n - 1)
        seen = (grams[..., :-1] == context).all(dim=-1)
        return torch.where(seen, grams[..., -1], self.eos)


def check_numbers(broken: Tensor, t: int) -> None:
    """Raise CaptionerError where any score of word ``t`` is not a number."""
    if broken.any():
        raise not_numbers(f"the model's scores for word {t + 1}")


def not_numbers(scores: str) -> CaptionerError:
    """What is wrong, and what to do, where `scores` contain NaN."""
    return CaptionerError(
        f"{scores} are not numbers (NaN): its weights are damaged or overflow in half precision; "
        "load another model file or run it in float32"
    )
