"""Turn next-word scores into captions: greedy, beam search, sampling.

Nothing here knows a model. `decode` drives a step function that scores the next word of B images
times K beams at once, and keeps all bookkeeping in tensors, so that a step costs a fixed number of
kernels however many images there are. Images whose search is over leave the batch,
unless its shape is to stay fixed.

Shapes: B images, K beams (or samples), N captions asked for, T words, V vocabulary, M candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from captioner.errors import CaptionerError

NEVER = -math.inf

LEAVING = 0.25
"""Images whose search is over leave the batch when they are this share of it."""


@dataclass(frozen=True)
class DecodingOptions:
    """How captions are searched for. Checked in full when made; ValueError names what is wrong.

    Attributes:
        beam_size: beams kept per image; 1 is greedy decoding. Sampling does not use it.
        num_captions: captions wanted per image. Beam search gives the best distinct ones, so at
            most `beam_size`; sampling gives that many independent samples.
        max_length: most words a caption may have, the end of sentence not counted.
        length_penalty: alpha in score = log_prob / length**alpha, with the end of sentence counted
            in the length (Wu et al. 2016, equation 14, with length**alpha for their lp). 0 ranks
            by probability, 1 by the mean per word.
        sample: draw words at random instead of searching for the most probable caption.
        temperature: divides the log-probabilities before sampling; below 1 is more conservative.
        top_k: sample from the k most probable words only; 0 for all (Fan et al. 2018).
        top_p: sample from the fewest words whose probability reaches p (Holtzman et al. 2020).
        seed: of the random numbers. The same seed gives the same samples.
        no_repeat_ngram: no n words in a row occur twice in a caption; 0 allows it
            (Paulus et al. 2018, section 2.5). Self-critical training likes "a man and a man".
        banned_words: words that never occur. The caller turns them into `forbidden` ids.
        prompt: the words every caption begins with. They count in its length and in `max_length`,
            and their probabilities in its probability. `no_repeat_ngram` holds for what follows.
            The caller turns them into `prompt` ids.
        must_include: words that every caption says, each at least once, anywhere; those of the
            prompt count. Beam search only. The caller turns them into `required` ids.
        style: how the captions are written, one of the model's styles; None: its first. The caller
            starts the decoder in it.
    """

    beam_size: int = 3
    num_captions: int = 1
    max_length: int = 20
    length_penalty: float = 0.7
    sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    no_repeat_ngram: int = 2
    banned_words: tuple[str, ...] = ()
    prompt: str | None = None
    must_include: tuple[str, ...] = ()
    style: str | None = None

    def __post_init__(self) -> None:
        for name, least in (
            ("beam_size", 1),
            ("num_captions", 1),
            ("max_length", 1),
            ("top_k", 0),
            ("seed", 0),
            ("no_repeat_ngram", 0),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name}={value!r}: give a whole number of at least {least}")
        # Beyond 10 the power of the length leaves the range of a float.
        self._check_number("length_penalty", lambda x: 0 <= x <= 10, "from 0 to 10")
        self._check_number("temperature", lambda x: 0 < x < math.inf, "above 0, say 0.7")
        self._check_number("top_p", lambda x: 0 < x <= 1, "above 0 and at most 1")
        self._check_together()

    def _check_number(self, name: str, in_range: Callable[[float], bool], remedy: str) -> None:
        value = getattr(self, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not in_range(value):  # NaN is in no range
            raise ValueError(f"{name}={value!r}: give a number {remedy}")

    def _check_together(self) -> None:
        if not self.sample:
            if self.num_captions > self.beam_size:
                raise ValueError(
                    f"num_captions={self.num_captions}: beam search gives at most beam_size="
                    f"{self.beam_size}; raise beam_size or set sample=True"
                )
            for name, neutral in (("temperature", 1.0), ("top_k", 0), ("top_p", 1.0)):
                if (value := getattr(self, name)) != neutral:
                    raise ValueError(
                        f"{name}={value!r} works on sampling only: set sample=True or leave it out"
                    )
        self._check_words()

    def _check_words(self) -> None:
        for name in ("banned_words", "must_include"):
            words = getattr(self, name)
            if isinstance(words, str) or not all(isinstance(word, str) and word for word in words):
                raise ValueError(f"{name}={words!r}: give a list of words, such as ['blurry']")
            # A list from a configuration file would make the options unhashable.
            object.__setattr__(self, name, tuple(words))
        if self.prompt is not None and not (isinstance(self.prompt, str) and self.prompt.strip()):
            raise ValueError(f"prompt={self.prompt!r}: give the first words, such as 'two dogs'")
        if self.style is not None and not (isinstance(self.style, str) and self.style):
            raise ValueError(f"style={self.style!r}: give the name of a style, or None")
        if self.must_include and self.sample:
            raise ValueError(
                f"must_include={self.must_include!r} works on the search only: leave it or sample "
                "out"
            )


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


@torch.no_grad()
def decode(
    step: StepFunction[S],
    state: S,
    batch_size: int,
    options: DecodingOptions,
    *,
    bos: int,
    eos: int,
    forbidden: Sequence[int],
    device: torch.device | str,
    streams: Sequence[int] | None = None,
    fixed_shape: bool = False,
    prompt: Sequence[int] = (),
    required: Sequence[int] = (),
) -> list[list[Hypothesis]]:
    """Caption a batch of images.

    What an image gets depends on no other image. Equal scores are ordered by beam, then word id.
    The end of sentence is never the first word and always allowed later, so every search ends.

    Args:
        step: scores the next word of every beam. First called with one beam per image (K=1).
        state: its first state, K=1.
        batch_size: B.
        options: see `DecodingOptions`.
        bos: id that starts every sentence.
        eos: id that ends it.
        forbidden: ids never produced (padding, begin of sentence, unknown, banned words).
        device: where `step` expects words and gives logits.
        streams: for sampling, the number of each image's random stream (B,); images that share
            seed and stream share their random numbers. Default: the place in the batch; the
            place in the data set makes samples independent of the batch size.
        fixed_shape: keep images whose search is over in the batch, so that every step has the
            same shape whatever the images: the kernels are then the same, and an image gets the
            very same numbers, to the last bit, in any batch of one size. Costs what the steps
            for finished images cost.
        prompt: ids that every caption begins with, at most `max_length`.
        required: ids that every caption contains besides, each once or more; with those of the
            prompt at most `max_length`. See `_extend_in_banks`.

    Returns:
        For every image its `num_captions` hypotheses, finished ones first, then by falling score.
        Fewer only if the rules admit fewer. Unfinished ones appear when too few could be finished.

    Raises:
        CaptionerError: the logits contain NaN, or no caption at all is possible.
        ValueError: an id is outside the vocabulary, `eos` is forbidden, `streams` has the wrong
            length, or `prompt` and `required` contradict the other arguments.
    """
    if eos in forbidden:
        raise ValueError(f"forbidden contains eos={eos}: without it no caption ends; leave it out")
    _check_constraints(prompt, required, {eos, *forbidden}, options)
    if batch_size == 0:
        return []
    rules = _Rules(
        eos, sorted(set(forbidden)), options.no_repeat_ngram, torch.device(device), required
    )
    words = torch.full((batch_size, 1), bos, dtype=torch.int64, device=device)
    begun = _Hypotheses.empty(batch_size, 1, options.max_length, words.device)
    if prompt:
        words, state = _read_prompt(step, state, words, begun, prompt)
    done: list[tuple[Tensor, _Hypotheses]] = []  # (image numbers, their hypotheses)
    if options.sample:
        numbers = range(batch_size) if streams is None else streams
        if len(numbers) != batch_size:
            raise ValueError(f"streams has {len(numbers)} numbers for {batch_size} images")
        uniform = _uniform(numbers, options).to(device)
        _sample(step, state, words, begun, len(prompt), uniform, rules, options, done, fixed_shape)
    else:
        _beam_search(step, state, words, begun, len(prompt), rules, options, done, fixed_shape)
    captions: list[list[Hypothesis]] = [[] for _ in range(batch_size)]
    for images, hypotheses in done:
        ranked = hypotheses.ranked(options.length_penalty)
        for image, best in zip(images.tolist(), ranked, strict=True):
            captions[image] = best[: options.num_captions]
    return captions


def _check_constraints(
    prompt: Sequence[int], required: Sequence[int], never: set[int], options: DecodingOptions
) -> None:
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


@dataclass
class _Hypotheses:
    """B x K word sequences, padded. A place with total -inf holds none."""

    ids: Tensor  # (B, K, T) int64
    log_probs: Tensor  # (B, K, T + 1) float32, of the words and the end of sentence, then zeros
    total: Tensor  # (B, K) float32, sum of log_probs
    length: Tensor  # (B, K) int64, how many log_probs count
    finished: Tensor  # (B, K) bool

    @classmethod
    def empty(cls, images: int, beams: int, max_length: int, device: torch.device) -> _Hypotheses:
        return cls(
            ids=torch.zeros(images, beams, max_length, dtype=torch.int64, device=device),
            log_probs=torch.zeros(images, beams, max_length + 1, device=device),
            total=torch.zeros(images, beams, device=device),
            length=torch.zeros(images, beams, dtype=torch.int64, device=device),
            finished=torch.zeros(images, beams, dtype=torch.bool, device=device),
        )

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.ids, self.log_probs, self.total, self.length, self.finished

    def select_images(self, images: Tensor) -> _Hypotheses:
        return _Hypotheses(*(x.index_select(0, images) for x in self._tensors()))

    def select_beams(self, beams: Tensor) -> _Hypotheses:
        rows = torch.arange(len(beams), device=beams.device)[:, None]
        return _Hypotheses(*(x[rows, beams] for x in self._tensors()))

    def joined(self, other: _Hypotheses) -> _Hypotheses:
        pairs = zip(self._tensors(), other._tensors(), strict=True)
        return _Hypotheses(*(torch.cat(pair, dim=1) for pair in pairs))

    def score(self, length_penalty: float) -> Tensor:
        return self.total / self.length.clamp(min=1).float() ** length_penalty  # (B, K)

    def best(self, count: int, length_penalty: float) -> _Hypotheses:
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


class _Rules:
    """Which words may come next."""

    def __init__(
        self,
        eos: int,
        forbidden: Sequence[int],
        no_repeat_ngram: int,
        device: torch.device,
        required: Sequence[int] = (),
    ) -> None:
        self.eos = eos
        self.largest_id = max([eos, *forbidden, *required])
        self.smallest_id = min([eos, *forbidden, *required])
        self.required = torch.tensor(required, dtype=torch.int64, device=device)
        self.forbidden = torch.tensor(forbidden, dtype=torch.int64, device=device)
        self.no_repeat_ngram = no_repeat_ngram

    def apply(self, logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The model's log-probabilities, -inf for words that may not follow.

        Args:
            logits: (B, K, V), any float type.
            ids: (B, K, t) words so far.

        Returns:
            log-probabilities (B, K, V) float32, and those of the end of sentence (B, K) whether
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
        # Written last: whatever is blocked, a caption may end; but it has at least one word.
        log_probs[..., self.eos] = end if ids.shape[-1] > 0 else NEVER
        return log_probs, end

    def _repeating(self, ids: Tensor) -> Tensor:
        """Words (B, K, W) that would repeat an n-gram; the end of sentence as a filler."""
        n = self.no_repeat_ngram
        grams = ids.unfold(-1, n, 1)  # (B, K, W, n), W = t - n + 1
        context = ids[..., None, ids.shape[-1] - n + 1 :]  # (B, K, 1, n - 1)
        seen = (grams[..., :-1] == context).all(dim=-1)
        return torch.where(seen, grams[..., -1], self.eos)


def _read_prompt(
    step: StepFunction[S], state: S, words: Tensor, begun: _Hypotheses, prompt: Sequence[int]
) -> tuple[Tensor, S]:
    """Say the prompt: `begun` holds it then, with its probabilities; words (B, 1) and state."""
    for t, word in enumerate(prompt):
        logits, state = step(words, state)
        if not 0 <= word < logits.shape[-1]:
            raise ValueError(f"prompt has the id {word}, the vocabulary ends at {logits.shape[-1]}")
        log_probs = F.log_softmax(logits.float(), dim=-1)[..., word]  # (B, 1)
        _check_numbers(log_probs.isnan(), t)
        if (log_probs == NEVER).any():
            raise CaptionerError(
                f"no caption is possible: the model rules out word {t + 1} of the prompt; "
                "give another"
            )
        words = torch.full_like(words, word)
        _append(begun, words, log_probs, t)
        begun.total = begun.total + log_probs
        begun.length = begun.length + 1
    return words, state


def _beam_search(
    step: StepFunction[S],
    state: S,
    words: Tensor,
    begun: _Hypotheses,
    first: int,
    rules: _Rules,
    options: DecodingOptions,
    done: list[tuple[Tensor, _Hypotheses]],
    fixed_shape: bool,
) -> None:
    """Beam search with length normalisation; appends each image to `done` when its search is over.

    At each step the K most probable extensions of all beams of an image are kept. Those that end
    the sentence leave the beam for the pool of the N best finished captions; the others go on. So
    K=1 is greedy decoding, and nothing is lost when K covers all extensions. A caption of
    max_length words may only end.

    An image is over when N captions are finished and no open beam can pass the worst of them:
    log-probabilities only fall, so a beam with sum s ends with a score of at most
    s / (max_length + 1)**length_penalty (the argument of Huang et al. 2017 for optimal beam
    search, with lengths up to max_length + 1).

    The search starts at word `first` of the captions `begun` (B, 1), behind the prompt. Where
    words are required, `_extend_in_banks` decides which extensions are kept.
    """
    longest = options.max_length
    wanted, alpha = options.num_captions, options.length_penalty
    images = torch.arange(len(words), device=words.device)
    beams = begun
    pool = _Hypotheses.empty(len(words), 0, longest, words.device)
    extend = _extend_in_banks if len(rules.required) else _extend
    for t in range(first, longest + 1):
        logits, state = step(words, state)
        parents, words, beams = extend(logits, beams, t, rules, options)
        ended = words == rules.eos
        closing = replace(beams, total=beams.total.masked_fill(~ended, NEVER))
        pool = pool.joined(closing).best(wanted, alpha)
        beams.total = beams.total.masked_fill(ended, NEVER)

        over = _is_over(beams, pool, options)  # all of them after the last step, which only ends
        # To leave costs a copy of the features of all that stay: not for every single image.
        if over.all() or (not fixed_shape and over.sum() >= LEAVING * len(over)):
            gone, stay = over.nonzero()[:, 0], (~over).nonzero()[:, 0]
            done.append((images[gone], pool.select_images(gone)))
            if len(stay) == 0:
                return
            images, parents, words = images[stay], parents[stay], words[stay]
            beams, pool = beams.select_images(stay), pool.select_images(stay)
            state = state.select_images(stay)
        if options.beam_size > 1 or len(rules.required):
            state = state.select_beams(parents)


def _extend(
    logits: Tensor, beams: _Hypotheses, t: int, rules: _Rules, options: DecodingOptions
) -> tuple[Tensor, Tensor, _Hypotheses]:
    """Keep the best extensions by one word: parents (B, K'), words (B, K'), new beams.

    K' is beam_size, or fewer while there are fewer extensions.
    """
    log_probs, end = rules.apply(logits, beams.ids[..., :t])  # (B, K, V), (B, K)
    if t == options.max_length:
        values, words = end[..., None], torch.full_like(beams.length, rules.eos)[..., None]
    else:
        values, words = _top(log_probs, min(options.beam_size, log_probs.shape[-1]))  # (B, K, M)
    open_ = beams.total > NEVER  # (B, K)
    _check_numbers(values[..., 0].isnan() & open_, t)

    # Nothing is allowed: end. If even the model rules that out, stop unfinished, at no cost.
    stuck = values[..., 0] == NEVER
    can_end = end > NEVER
    values[..., 0] = torch.where(stuck, end.masked_fill(~can_end, 0.0), values[..., 0])
    words[..., 0] = words[..., 0].masked_fill(stuck, rules.eos)

    sums = beams.total[..., None] + values
    sums = sums.masked_fill(~open_[..., None], NEVER).flatten(1)  # (B, K * M)
    total, places = _top(sums, min(options.beam_size, sums.shape[1]))
    parents = places // values.shape[-1]
    words = words.flatten(1).gather(1, places)
    values = values.flatten(1).gather(1, places)
    can_end = can_end.gather(1, parents)
    beams = beams.select_beams(parents)
    _append(beams, words, values, t)
    beams.total = total
    beams.finished = (words == rules.eos) & can_end & (total > NEVER)
    beams.length = torch.where((words == rules.eos) & ~can_end, t, t + 1)
    return parents, words, beams


def _extend_in_banks(
    logits: Tensor, beams: _Hypotheses, t: int, rules: _Rules, options: DecodingOptions
) -> tuple[Tensor, Tensor, _Hypotheses]:
    """As `_extend`, for captions that must contain C words: the best of each bank are kept.

    Bank c holds the beams that have said c of the words, beam_size of them (grid beam search,
    Hokamp and Liu 2017, algorithm 1), so that those without compete with none that paid for one.
    A beam goes on with its best words within its bank, or with any word that it still lacks into
    the next (as in Post and Vilar 2018, section 3.1, who share one beam among the banks). Only
    the last bank may end, so captions without all words are never found.

    A way on is never missing: a word still to be said repeats no n-gram, and each step opens the
    next bank while it is not the last.

    Returns:
        parents (B, K'), words (B, K'), new beams; K' is (C + 1) * beam_size, in the order of the
        banks, or fewer while there are fewer extensions.
    """
    log_probs, end = rules.apply(logits, beams.ids[..., :t])  # (B, K, V), (B, K)
    open_ = beams.total > NEVER  # (B, K)
    _check_numbers(end.isnan() & open_, t)
    required, count = rules.required, len(rules.required)
    said = (beams.ids[..., :t, None] == required).any(dim=-2)  # (B, K, C)
    bank = said.sum(dim=-1, keepdim=True)  # (B, K, 1)
    lacking = log_probs[..., required].masked_fill(said, NEVER)  # (B, K, C)
    end = end.masked_fill(bank[..., 0] < count, NEVER)
    if t == options.max_length:
        log_probs, lacking = torch.full_like(log_probs, NEVER), torch.full_like(lacking, NEVER)
    log_probs[..., required] = log_probs[..., required].masked_fill(~said, NEVER)
    log_probs[..., rules.eos] = end if t > 0 else NEVER
    values, words = _top(log_probs, min(options.beam_size, log_probs.shape[-1]))  # (B, K, M)

    banks = torch.cat([bank.expand_as(values), (bank + 1).expand_as(lacking)], dim=-1).flatten(1)
    words = torch.cat([words, required.expand_as(lacking)], dim=-1)
    values = torch.cat([values, lacking], dim=-1)  # (B, K, M + C)
    sums = (beams.total[..., None] + values).masked_fill(~open_[..., None], NEVER).flatten(1)
    numbers = torch.arange(count + 1, device=sums.device)[:, None]  # (C + 1, 1)
    in_bank = sums[:, None].masked_fill(banks[:, None] != numbers, NEVER)  # (B, C + 1, N)
    total, places = (x.flatten(1) for x in _top(in_bank, min(options.beam_size, sums.shape[1])))
    parents = places // values.shape[-1]
    words, values = words.flatten(1).gather(1, places), values.flatten(1).gather(1, places)
    beams = beams.select_beams(parents)
    _append(beams, words, values, t)
    beams.total = total
    beams.finished = (words == rules.eos) & (total > NEVER)
    beams.length = torch.full_like(parents, t + 1)
    return parents, words, beams


def _append(hypotheses: _Hypotheses, words: Tensor, log_probs: Tensor, t: int) -> None:
    if t < hypotheses.ids.shape[-1]:
        hypotheses.ids[..., t] = words
    hypotheses.log_probs[..., t] = log_probs


def _is_over(beams: _Hypotheses, pool: _Hypotheses, options: DecodingOptions) -> Tensor:
    """Images (B,) whose result no open beam can change; see `_beam_search`."""
    longest = float(options.max_length + 1)
    reachable: Tensor = beams.total.amax(dim=1) / longest**options.length_penalty
    if pool.total.shape[1] < options.num_captions:
        return reachable == NEVER
    worst = pool.score(options.length_penalty)[:, -1]
    return reachable <= worst.masked_fill(~pool.finished[:, -1], NEVER)


def _sample(
    step: StepFunction[S],
    state: S,
    words: Tensor,
    begun: _Hypotheses,
    first: int,
    uniform: Tensor,
    rules: _Rules,
    options: DecodingOptions,
    done: list[tuple[Tensor, _Hypotheses]],
    fixed_shape: bool,
) -> None:
    """Draw N captions per image; appends each image to `done` when all of its samples ended.

    After max_length words one more draw says whether the sample ends there: finished samples are
    exact samples of the model's distribution, and a longer one is cut and unfinished.
    """
    images = torch.arange(len(words), device=words.device)
    samples = begun
    running = torch.ones_like(words, dtype=torch.bool)
    for t in range(first, options.max_length + 1):
        logits, state = step(words, state)
        log_probs, end = rules.apply(logits, samples.ids[..., :t])
        _check_numbers(end.isnan() & running, t)
        words, values = _draw(log_probs, uniform[..., t], options)  # (B, N)
        if t == first:
            copies = torch.zeros_like(words)
            samples, state = samples.select_beams(copies), state.select_beams(copies)
            running, end = running.expand_as(words), end.expand_as(words)
        stuck = values == NEVER  # as in beam search
        can_end = end > NEVER
        values = torch.where(stuck, end.masked_fill(~can_end, 0.0), values)
        words = words.masked_fill(stuck | ~running, rules.eos)
        ends = running & (words == rules.eos)
        cut = ends & ~can_end if t < options.max_length else running & ~(ends & can_end)
        counted = running & ~cut
        _append(samples, words, values.masked_fill(~counted, 0.0), t)
        samples.length = samples.length + counted
        samples.finished = samples.finished | (ends & ~cut)
        running = running & ~ends & ~cut

        over = ~running.any(dim=1)
        if over.all() or (not fixed_shape and over.sum() >= LEAVING * len(over)):
            gone, stay = over.nonzero()[:, 0], (~over).nonzero()[:, 0]
            done.append((images[gone], samples.select_images(gone)))
            if len(stay) == 0:
                return
            images, words, running = images[stay], words[stay], running[stay]
            uniform, samples = uniform[stay], samples.select_images(stay)
            state = state.select_images(stay)


def _draw(log_probs: Tensor, uniform: Tensor, options: DecodingOptions) -> tuple[Tensor, Tensor]:
    """Draw by inverting the cumulative distribution.

    Args:
        log_probs: (B, K, V), -inf for words that may not be drawn.
        uniform: (B, N) in [0, 1), N a multiple of K: N / K draws from each distribution.
        options: temperature, top_k, top_p.

    Returns:
        words (B, N) and their entries of `log_probs` (B, N); -inf where no word can be drawn.
    """
    vocabulary = log_probs.shape[-1]
    if options.top_k > 0:
        values, words = _top(log_probs, min(options.top_k, vocabulary))  # (B, K, M)
    elif options.top_p < 1.0:
        values, words = log_probs.sort(dim=-1, descending=True, stable=True)
    else:
        values, words = log_probs, torch.arange(vocabulary, device=log_probs.device)
    highest = values.amax(dim=-1, keepdim=True)
    highest = highest.masked_fill(highest == NEVER, 0.0)
    weights = ((values - highest) / options.temperature).exp()  # the best word's weight is 1
    if options.top_p < 1.0:
        mass = weights.cumsum(dim=-1)
        before = F.pad(mass[..., :-1], (1, 0))
        weights = weights.masked_fill(before >= options.top_p * mass[..., -1:], 0.0)
    mass = weights.cumsum(dim=-1)
    # Below the whole even when rounded, since uniform <= 1 - 2**-24: there is a word beyond it.
    target = uniform.reshape(*log_probs.shape[:2], -1) * mass[..., -1:]
    places = torch.searchsorted(mass, target, right=True).clamp(max=mass.shape[-1] - 1)
    words = words.expand_as(values).gather(-1, places)
    return words.reshape(uniform.shape), values.gather(-1, places).reshape(uniform.shape)


def _uniform(streams: Sequence[int], options: DecodingOptions) -> Tensor:
    """Random numbers (B, N, T + 1) in [0, 1), a function of seed and stream alone.

    Drawn before the search, so that they depend on neither the device nor on which images end
    first; the first samples stay the same when more are asked for.
    """
    shape = (options.num_captions, options.max_length + 1)
    draws = [
        np.random.default_rng([options.seed, stream]).random(shape, dtype=np.float32)
        for stream in streams
    ]
    return torch.from_numpy(np.stack(draws))


def _top(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest along the last axis, largest first; of equal ones the first.

    `torch.topk` promises no order of equal values, and its choice changes with the batch size.
    """
    if count == 1:
        best = values.max(dim=-1, keepdim=True)  # documented to give the first of equal values
        return best.values, best.indices
    if count == values.shape[-1]:
        found, places = values.sort(dim=-1, descending=True, stable=True)
        return found, places
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


def _check_numbers(broken: Tensor, t: int) -> None:
    if broken.any():
        raise not_numbers(f"the model's scores for word {t + 1}")


def not_numbers(scores: str) -> CaptionerError:
    """What is wrong, and what to do, where `scores` contain NaN."""
    return CaptionerError(
        f"{scores} are not numbers (NaN): its weights are damaged or overflow in half precision; "
        "load another model file or run it in float32"
    )
