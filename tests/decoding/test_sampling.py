"""Captions drawn at random follow the model's distribution."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from captioner.decoding.options import DecodingOptions
from captioner.decoding.sampling import draw
from captioner.decoding.search import decode
from helpers.step_functions import (
    BOS,
    EOS,
    SPECIAL,
    Table,
    brute_force,
    check_invariants,
    decode_table,
    fixed_chain,
    table_step,
    tables,
)

pytestmark = pytest.mark.arithmetic


# --- sampling ------------------------------------------------------------------------------------


def sampled_distribution(
    logits: Tensor, options: DecodingOptions, images: int
) -> dict[tuple[int, ...], float]:
    results = decode_table(logits.expand(images, -1, -1, -1), options)
    counts = Counter(h.ids + (EOS,) * h.finished for found in results for h in found)
    total = images * options.num_captions
    assert sum(counts.values()) == total
    return {ids: count / total for ids, count in counts.items()}


def exact_distribution(logits: Tensor, options: DecodingOptions) -> dict[tuple[int, ...], float]:
    """Probability of every sample, by walking the tree; one image (T + 1, V, V)."""
    words = [EOS, *range(4, logits.shape[-1])]
    result = {}
    paths: list[tuple[float, tuple[int, ...]]] = [(1.0, ())]
    for t in range(options.max_length + 1):
        longer = []
        for probability, ids in paths:
            row = logits[t, ids[-1] if ids else BOS].double()
            allowed = [w for w in words if t > 0 or w != EOS]
            weights = {w: math.exp(row[w].item() / options.temperature) for w in allowed}
            by_weight = sorted(weights.items(), key=lambda item: -item[1])
            ranked = [w for w, _ in by_weight][: options.top_k or None]
            whole, kept, before = sum(weights[w] for w in ranked), [], 0.0
            for w in ranked:
                if before < options.top_p * whole:
                    kept.append(w)
                before += weights[w]
            rest = 0.0
            for w in kept:
                share = probability * weights[w] / sum(weights[k] for k in kept)
                if w == EOS:
                    result[(*ids, EOS)] = share
                elif t < options.max_length:
                    longer.append((share, (*ids, w)))
                else:
                    rest += share
            if rest > 0:
                result[ids] = rest
        paths = longer
    return result


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 3.0},
        {"top_k": 2},
        {"top_p": 0.7},
        {"top_k": 3, "top_p": 0.8, "temperature": 1.5},
    ],
)
@pytest.mark.parametrize("per_image", [True, False])
def test_samples_follow_the_distribution(extra: dict[str, Any], per_image: bool) -> None:
    logits = tables(images=1, words=3, max_length=2, seed=5, spread=1.0)
    draws = 4000
    options = DecodingOptions(
        sample=True,
        num_captions=draws if per_image else 1,
        max_length=2,
        no_repeat_ngram=0,
        **extra,
    )
    found = sampled_distribution(logits, options, images=1 if per_image else draws)
    expected = exact_distribution(logits[0], options)
    assert sum(expected.values()) == pytest.approx(1.0)
    assert set(found) <= set(expected)
    distance = sum(abs(p - found.get(ids, 0.0)) for ids, p in expected.items()) / 2
    # Mean plus four standard deviations of this distance for exact samples, roughly.
    assert distance < sum(math.sqrt(p / draws) for p in expected.values()) * 0.6


def test_same_seed_same_samples_other_seed_other_samples() -> None:
    logits = tables(images=4, words=20, max_length=6, seed=0, spread=0.5)
    options = DecodingOptions(sample=True, num_captions=3, max_length=6, seed=7)
    torch.manual_seed(0)
    first = decode_table(logits, options)
    torch.manual_seed(1)
    assert decode_table(logits, options) == first
    other = decode_table(logits, dataclasses.replace(options, seed=8))
    assert all(a != b for a, b in zip(first, other, strict=True))
    # Samples of an image differ, and so do equal images with different streams.
    assert all(len({h.ids for h in found}) == 3 for found in first)
    same_image = decode_table(logits[:1].expand(4, -1, -1, -1), options)
    assert len({found[0].ids for found in same_image}) == 4
    shared = decode_table(logits[:1].expand(4, -1, -1, -1), options, streams=[5, 5, 5, 6])
    assert shared[0] == shared[1] == shared[2] != shared[3]


def test_decoding_leaves_the_global_random_state_alone() -> None:
    logits = tables(images=2, words=5, max_length=4, seed=0)
    before = torch.get_rng_state()
    decode_table(logits, DecodingOptions(sample=True, max_length=4))
    assert torch.equal(torch.get_rng_state(), before)


def test_more_samples_keep_the_first_ones() -> None:
    logits = tables(images=2, words=20, max_length=4, seed=0, spread=0.5)
    few = DecodingOptions(sample=True, num_captions=2, max_length=4)
    many = dataclasses.replace(few, num_captions=6)
    for some, more in zip(decode_table(logits, few), decode_table(logits, many), strict=True):
        assert {h.ids for h in some} <= {h.ids for h in more}


@pytest.mark.parametrize("extra", [{"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-6}])
def test_sampling_from_the_best_word_only_is_greedy(extra: dict[str, Any]) -> None:
    logits = tables(images=20, words=10, max_length=12, seed=4)
    greedy = decode_table(logits, DecodingOptions(beam_size=1, max_length=12))
    sampled = decode_table(
        logits, DecodingOptions(sample=True, num_captions=2, max_length=12, **extra)
    )
    ended = 0
    for (best,), samples in zip(greedy, sampled, strict=True):
        for h in samples:
            assert h.ids == best.ids
            # At the longest length greedy decoding must end; a sample is cut instead.
            assert h.finished or len(h.ids) == 12
            assert h.log_probs == best.log_probs[: len(h.log_probs)]
            ended += h.finished
    assert ended > 20


def test_no_draw_is_a_word_that_must_not_be_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    log_probs = torch.randn(50, 300, generator=generator).mul(3).log_softmax(-1)
    log_probs[..., :3] = log_probs[..., -3:] = -math.inf
    edges = torch.tensor([0.0, 1.0 - 2.0**-24]).expand(50, 2)
    for extra in ({}, {"top_k": 5}, {"top_p": 0.9}, {"temperature": 9.0}):
        options = DecodingOptions(sample=True, **extra)
        words, values = draw(log_probs, edges, options)
        assert (values > -math.inf).all()
        assert torch.equal(log_probs.gather(1, words), values)
        if not {"top_k", "top_p"} & set(extra):
            assert words[:, 0].tolist() == [3] * 50


def test_ended_samples_are_fed_the_end_and_their_scores_ignored() -> None:
    # After the end the table knows nothing, not even a distribution.
    logits = tables(images=1, words=5, max_length=9, seed=0)
    logits[:, :, EOS] = -math.inf
    fed: list[Tensor] = []

    def step(words: Tensor, state: Table) -> tuple[Tensor, Table]:
        fed.append(words[0])
        return table_step(words, state)

    options = DecodingOptions(sample=True, num_captions=20, max_length=9)
    (found,) = decode(
        step, Table(logits), 1, options, bos=BOS, eos=EOS, forbidden=SPECIAL, device="cpu"
    )
    assert len({len(h.ids) for h in found}) > 3
    ended = torch.stack(fed[1:]) == EOS  # (t, N)
    assert torch.equal(ended, ended.cummax(dim=0).values)
    check_invariants(found, options)


def test_cut_sample_is_unfinished() -> None:
    logits = fixed_chain(6, [{4: 1.0}] * 4)
    options = DecodingOptions(sample=True, max_length=3, no_repeat_ngram=0)
    (found,) = decode_table(logits, options)[0]
    assert (found.ids, len(found.log_probs), found.finished) == ((4, 4, 4), 3, False)


def test_options_wider_than_the_vocabulary_are_fine() -> None:
    logits = tables(images=2, words=3, max_length=3, seed=0)
    plain = DecodingOptions(sample=True, num_captions=5, max_length=3, top_k=7)
    wide = dataclasses.replace(plain, top_k=1000)
    assert decode_table(logits, wide) == decode_table(logits, plain)
    beam = decode_table(logits, DecodingOptions(beam_size=1000, max_length=3))
    assert [h.ids for (h,) in beam] == [
        brute_force(table, DecodingOptions(max_length=3))[0][1] for table in logits
    ]
