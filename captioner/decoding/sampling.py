"""Captions drawn at random.

Shapes: B images, K samples begun, N samples asked for, T words, V vocabulary, M candidates,
R samples that have not ended.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

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


def sample(
    step: OpenStep[S],
    state: S,
    words: Tensor,
    begun: Hypotheses,
    first: int,
    uniform: Tensor,
    rules: Rules,
    options: DecodingOptions,
    done: list[tuple[Tensor, Hypotheses]],
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
        logits, state = step.step(words, state, running)
        log_probs, of_running = rules.apply(logits, samples.ids[..., :t][running])  # (R, V), (R,)
        check_numbers(of_running.isnan(), t)
        numbers = uniform[..., t] if t == first else uniform[..., t][running][:, None]
        drawn = draw(log_probs, numbers, options)  # (R, N) at first, then (R, 1)
        if t == first:
            (words, values), end = drawn, of_running[:, None].expand_as(drawn[0])
            copies = torch.zeros_like(words)
            samples, state = samples.select_beams(copies), state.select_beams(copies)
            running = running.expand_as(words)
        else:
            words, values = torch.full_like(words, rules.eos), torch.zeros_like(uniform[..., t])
            end = values.clone()
            words[running], values[running] = (each[:, 0] for each in drawn)
            end[running] = of_running
        stuck = values == NEVER  # as in beam search
        can_end = end > NEVER
        values = torch.where(stuck, end.masked_fill(~can_end, 0.0), values)
        words = words.masked_fill(stuck | ~running, rules.eos)
        ends = running & (words == rules.eos)
        cut = ends & ~can_end if t < options.max_length else running & ~(ends & can_end)
        counted = running & ~cut
        append(samples, words, values.masked_fill(~counted, 0.0), t)
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


def draw(log_probs: Tensor, uniform: Tensor, options: DecodingOptions) -> tuple[Tensor, Tensor]:
    """Draw by inverting the cumulative distribution.

    Args:
        log_probs: (R, V), -inf for words that may not be drawn.
        uniform: (R, N) in [0, 1): N draws from each distribution.
        options: temperature, top_k, top_p.

    Returns:
        words (R, N) and their entries of `log_probs` (R, N); -inf where no word can be drawn.
    """
    vocabulary = log_probs.shape[-1]
    if options.top_k > 0:
        values, words = top(log_probs, min(options.top_k, vocabulary))  # (R, M)
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
    target = uniform * mass[..., -1:]
    places = torch.searchsorted(mass, target, right=True).clamp(max=mass.shape[-1] - 1)
    return words.expand_as(values).gather(-1, places), values.gather(-1, places)


def uniform_numbers(streams: Sequence[int], options: DecodingOptions) -> Tensor:
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
