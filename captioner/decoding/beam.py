"""Beam search, with and without words that every caption must contain.

Shapes: B images, K beams, N captions asked for, T words, V vocabulary, M candidates,
R open beams.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from captioner.decoding.hypotheses import Hypotheses, append, top
from captioner.decoding.options import DecodingOptions
from captioner.decoding.rules import (
    LEAVING,
    NEVER,
    OpenStep,
    Rules,
    S,
    check_numbers,
)


def beam_search(
    step: OpenStep[S],
    state: S,
    words: Tensor,
    begun: Hypotheses,
    first: int,
    rules: Rules,
    options: DecodingOptions,
    done: list[tuple[Tensor, Hypotheses]],
    fixed_shape: bool,
) -> None:
    """Beam search with length normalisation; appends each image to `done` when its search is over.

    At each step the K most probable extensions of all beams of an image are kept. Those that end
    the sentence leave the beam for the pool of the N best finished captions; the others continue.
    So K=1 is greedy decoding, and nothing is lost when K covers all extensions. A caption of
    max_length words may only end.

    A beam is given up when N captions are finished and it cannot pass the worst of them:
    log-probabilities only fall, so a beam with sum s ends with a score of at most
    s / (max_length + 1)**length_penalty (the argument of Huang et al. 2017 for optimal beam
    search, with lengths up to max_length + 1). Nothing is lost: the extensions that move up into
    its place have smaller sums still. An image is over when it has no beam left.

    The search starts at word `first` of the captions `begun` (B, 1), after the prompt. Where
    words are required, `_extend_in_banks` decides which extensions are kept.
    """
    longest = options.max_length
    wanted, alpha = options.num_captions, options.length_penalty
    images = torch.arange(len(words), device=words.device)
    beams = begun
    pool = Hypotheses.empty(len(words), 0, longest, words.device)
    extend = _extend_in_banks if len(rules.required) else _extend
    for t in range(first, longest + 1):
        logits, state = step.step(words, state, beams.total > NEVER)
        parents, words, beams = extend(logits, beams, t, rules, options)
        ended = words == rules.eos
        if ended.any():
            closing = replace(beams, total=beams.total.masked_fill(~ended, NEVER))
            pool = pool.joined(closing).best(wanted, alpha)
        beams.total = beams.total.masked_fill(ended | _is_hopeless(beams, pool, options), NEVER)

        over = (beams.total == NEVER).all(dim=1)  # all of them after the last step
        # An image that is over costs little while it stays. To leave costs a copy of the features
        # of all that stay: not for every single image.
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
    logits: Tensor, beams: Hypotheses, t: int, rules: Rules, options: DecodingOptions
) -> tuple[Tensor, Tensor, Hypotheses]:
    """Keep the best extensions by one word: parents (B, K'), words (B, K'), new beams.

    K' is beam_size, or fewer while there are fewer extensions. Logits: (R, V), of the open beams.
    """
    shape, open_at = beams.total.shape, _open_places(beams)
    ids = beams.ids[..., :t].flatten(0, 1).index_select(0, open_at)  # (R, t)
    log_probs, end = rules.apply(logits, ids)  # (R, V), (R,)
    if t == options.max_length:
        best, next_ = end[:, None], torch.full_like(end, rules.eos, dtype=torch.int64)[:, None]
    else:
        best, next_ = top(log_probs, min(options.beam_size, log_probs.shape[-1]))  # (R, M)
    check_numbers(best[:, 0].isnan(), t)

    # Nothing is allowed: end. If even the model rules that out, stop unfinished, at no cost.
    stuck, ends = best[:, 0] == NEVER, end > NEVER
    best[:, 0] = torch.where(stuck, end.masked_fill(~ends, 0.0), best[:, 0])
    next_[:, 0] = next_[:, 0].masked_fill(stuck, rules.eos)

    values = _spread(best, open_at, shape, NEVER)  # (B, K, M)
    words, can_end = _spread(next_, open_at, shape, rules.eos), _spread(ends, open_at, shape, False)
    sums = (beams.total[..., None] + values).flatten(1)  # (B, K * M)
    total, places = top(sums, min(options.beam_size, sums.shape[1]))
    parents = places // values.shape[-1]
    words = words.flatten(1).gather(1, places)
    values = values.flatten(1).gather(1, places)
    can_end = can_end.gather(1, parents)
    beams = beams.select_beams(parents)
    append(beams, words, values, t)
    beams.total = total
    beams.finished = (words == rules.eos) & can_end & (total > NEVER)
    beams.length = torch.where((words == rules.eos) & ~can_end, t, t + 1)
    return parents, words, beams


def _extend_in_banks(
    logits: Tensor, beams: Hypotheses, t: int, rules: Rules, options: DecodingOptions
) -> tuple[Tensor, Tensor, Hypotheses]:
    """As `_extend`, for captions that must contain C words: the best of each bank are kept.

    Bank c holds the beams that have said c of the words, beam_size of them (grid beam search,
    Hokamp and Liu 2017, algorithm 1), so that those without compete with none that paid for one.
    A beam continues with its best words within its bank, or with any word that it still lacks into
    the next (as in Post and Vilar 2018, section 3.1, who share one beam among the banks). Only
    the last bank may end, so captions without all words are never found.

    A way on is never missing: a word still to be said repeats no n-gram, and each step opens the
    next bank while it is not the last.

    Returns:
        parents (B, K'), words (B, K'), new beams; K' is (C + 1) * beam_size, in the order of the
        banks, or fewer while there are fewer extensions.
    """
    shape, open_at = beams.total.shape, _open_places(beams)
    ids = beams.ids[..., :t].flatten(0, 1).index_select(0, open_at)  # (R, t)
    log_probs, end = rules.apply(logits, ids)  # (R, V), (R,)
    check_numbers(end.isnan(), t)
    required, count = rules.required, len(rules.required)
    said = (ids[..., None] == required).any(dim=-2)  # (R, C)
    bank = said.sum(dim=-1, keepdim=True)  # (R, 1)
    lacking = log_probs[:, required].masked_fill(said, NEVER)  # (R, C)
    end = end.masked_fill(bank[:, 0] < count, NEVER)
    if t == options.max_length:
        log_probs, lacking = torch.full_like(log_probs, NEVER), torch.full_like(lacking, NEVER)
    log_probs[:, required] = log_probs[:, required].masked_fill(~said, NEVER)
    log_probs[:, rules.eos] = end if t > 0 else NEVER
    values, words = top(log_probs, min(options.beam_size, log_probs.shape[-1]))  # (R, M)

    banks = torch.cat([bank.expand_as(values), (bank + 1).expand_as(lacking)], dim=-1)
    words = torch.cat([words, required.expand_as(lacking)], dim=-1)
    values = torch.cat([values, lacking], dim=-1)  # (R, M + C)
    banks = _spread(banks, open_at, shape, 0).flatten(1)
    words = _spread(words, open_at, shape, rules.eos)
    values = _spread(values, open_at, shape, NEVER)  # (B, K, M + C)
    sums = (beams.total[..., None] + values).flatten(1)
    numbers = torch.arange(count + 1, device=sums.device)[:, None]  # (C + 1, 1)
    in_bank = sums[:, None].masked_fill(banks[:, None] != numbers, NEVER)  # (B, C + 1, N)
    total, places = (x.flatten(1) for x in top(in_bank, min(options.beam_size, sums.shape[1])))
    parents = places // values.shape[-1]
    words, values = words.flatten(1).gather(1, places), values.flatten(1).gather(1, places)
    beams = beams.select_beams(parents)
    append(beams, words, values, t)
    beams.total = total
    beams.finished = (words == rules.eos) & (total > NEVER)
    beams.length = torch.full_like(parents, t + 1)
    return parents, words, beams


def _open_places(beams: Hypotheses) -> Tensor:
    """The open beams (R,), as places among all B * K."""
    return (beams.total > NEVER).flatten().nonzero()[:, 0]


def _spread(of_open: Tensor, open_at: Tensor, shape: torch.Size, other: float | bool) -> Tensor:
    """What R open beams have (R, ...), where they are among all (B, K, ...); `other` elsewhere."""
    whole = of_open.new_full((shape.numel(), *of_open.shape[1:]), other)
    return whole.index_copy_(0, open_at, of_open).view(*shape, *of_open.shape[1:])


def _is_hopeless(beams: Hypotheses, pool: Hypotheses, options: DecodingOptions) -> Tensor:
    """Beams (B, K) that cannot change the result of their image; see `beam_search`."""
    longest = float(options.max_length + 1)
    reachable = beams.total / longest**options.length_penalty
    if pool.total.shape[1] < options.num_captions:
        return torch.zeros_like(reachable, dtype=torch.bool)
    worst = pool.score(options.length_penalty)[:, -1]
    hopeless: Tensor = reachable <= worst.masked_fill(~pool.finished[:, -1], NEVER)[:, None]
    return hopeless
