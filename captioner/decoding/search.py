"""Turn next-word scores into captions: greedy, beam search, sampling.

Nothing here knows a model. `decode` drives a step function that scores the next word of B images
times K beams at once, and keeps all bookkeeping in tensors, so that a step costs a fixed number of
kernels however many images there are. Captions that nobody continues are not asked for, and images
whose search is over leave the batch, unless its shape is to stay fixed.

Shapes: B images, K beams (or samples), N captions asked for, T words, V vocabulary, M candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from captioner.decoding.beam import beam_search
from captioner.decoding.hypotheses import Hypotheses, Hypothesis, append
from captioner.decoding.options import DecodingOptions
from captioner.decoding.rules import (
    NEVER,
    OpenStep,
    Rules,
    S,
    StepFunction,
    check_constraints,
    check_numbers,
)
from captioner.decoding.sampling import sample, uniform_numbers
from captioner.errors import CaptionerError


@torch.no_grad()
def decode(
    step: StepFunction[S] | OpenStep[S],
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
    joining: Sequence[int] = (),
) -> list[list[Hypothesis]]:
    """Caption a batch of images.

    What an image gets depends on no other image. Equal scores are ordered by beam, then word id.
    The end of sentence is never the first word and always allowed later, so every search ends.

    Args:
        step: scores the next word of every beam, or of every open beam. First called with one beam
            per image (K=1).
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
            same shape whatever the images: an image then gets the same numbers, to the last bit,
            in the same row of any batch of one size. With an `OpenStep`, an image that is over
            costs little.
        prompt: ids that every caption begins with, at most `max_length`.
        required: further ids that every caption contains, each once or more; with those of the
            prompt at most `max_length`. See `captioner.decoding.beam`.
        joining: ids of the words that never join a word with itself; see `joining_words`.

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
    check_constraints(prompt, required, {eos, *forbidden}, options)
    if batch_size == 0:
        return []
    step = step if isinstance(step, OpenStep) else OpenStep.of(step)
    never, where = sorted(set(forbidden)), torch.device(device)
    rules = Rules(eos, never, options.no_repeat_ngram, where, required, joining)
    words = torch.full((batch_size, 1), bos, dtype=torch.int64, device=device)
    begun = Hypotheses.empty(batch_size, 1, options.max_length, words.device)
    if prompt:
        words, state = _read_prompt(step, state, words, begun, prompt)
    done: list[tuple[Tensor, Hypotheses]] = []  # (image numbers, their hypotheses)
    if options.sample:
        numbers = range(batch_size) if streams is None else streams
        if len(numbers) != batch_size:
            raise ValueError(f"streams has {len(numbers)} numbers for {batch_size} images")
        uniform = uniform_numbers(numbers, options).to(device)
        sample(step, state, words, begun, len(prompt), uniform, rules, options, done, fixed_shape)
    else:
        beam_search(step, state, words, begun, len(prompt), rules, options, done, fixed_shape)
    captions: list[list[Hypothesis]] = [[] for _ in range(batch_size)]
    for images, hypotheses in done:
        ranked = hypotheses.ranked(options.length_penalty)
        for image, best in zip(images.tolist(), ranked, strict=True):
            captions[image] = best[: options.num_captions]
    return captions


def _read_prompt(
    step: OpenStep[S], state: S, words: Tensor, begun: Hypotheses, prompt: Sequence[int]
) -> tuple[Tensor, S]:
    """Say the prompt: `begun` holds it then, with its probabilities; words (B, 1) and state."""
    for t, word in enumerate(prompt):
        logits, state = step.step(words, state, torch.ones_like(words, dtype=torch.bool))
        if not 0 <= word < logits.shape[-1]:
            raise ValueError(f"prompt has the id {word}, the vocabulary ends at {logits.shape[-1]}")
        log_probs = F.log_softmax(logits.float(), dim=-1)[:, word, None]  # (B, 1)
        check_numbers(log_probs.isnan(), t)
        if (log_probs == NEVER).any():
            raise CaptionerError(
                f"no caption is possible: the model rules out word {t + 1} of the prompt; "
                "give another"
            )
        words = torch.full_like(words, word)
        append(begun, words, log_probs, t)
        begun.total = begun.total + log_probs
        begun.length = begun.length + 1
    return words, state
