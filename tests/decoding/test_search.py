from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from captioner.decoding.hypotheses import top
from captioner.decoding.options import DecodingOptions
from captioner.decoding.rules import OpenStep
from captioner.decoding.search import decode
from captioner.errors import CaptionerError
from helpers.step_functions import (
    BOS,
    EOS,
    PAD,
    SPECIAL,
    Recurrent,
    RecurrentState,
    Table,
    brute_force,
    chain_log_probs,
    check_invariants,
    decode_table,
    fixed_chain,
    repeats,
    table_step,
    tables,
)

pytestmark = pytest.mark.arithmetic


def plain_beam_search(logits: Tensor, options: DecodingOptions) -> list[tuple[float, list[int]]]:
    """The documented search for one image, in Python lists, without the early stop."""
    rows = logits.double().log_softmax(-1).tolist()
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    finished = []
    for t in range(options.max_length + 1):
        extensions = []
        for total, ids in beams:
            row = rows[t][ids[-1] if ids else BOS]
            for word in [EOS, *range(4, len(row))]:
                allowed = t > 0 if word == EOS else t < options.max_length
                if allowed and not repeats([*ids, word], options.no_repeat_ngram):
                    extensions.append((total + row[word], [*ids, word]))
        kept = sorted(extensions, key=lambda e: -e[0])[: options.beam_size]
        beams = [e for e in kept if e[1][-1] != EOS]
        finished += [
            (total / (t + 1) ** options.length_penalty, ids[:-1])
            for total, ids in kept
            if ids[-1] == EOS
        ]
    return sorted(finished, key=lambda e: -e[0])[: options.num_captions]


# --- beam search ---------------------------------------------------------------------------------


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("ngram", [0, 1, 2])
def test_wide_beam_finds_what_exhaustive_search_finds(length_penalty: float, ngram: int) -> None:
    logits = tables(images=3, words=3, max_length=4, seed=ngram)
    options = DecodingOptions(
        beam_size=120,
        num_captions=12,
        max_length=4,
        length_penalty=length_penalty,
        no_repeat_ngram=ngram,
    )
    for image, found in enumerate(decode_table(logits, options)):
        expected = brute_force(logits[image], options)[:12]
        assert [h.ids for h in found] == [ids for _, ids in expected]
        assert [h.score for h in found] == pytest.approx([s for s, _ in expected], abs=1e-5)
        assert all(h.finished for h in found)


def test_every_caption_is_listed_when_there_are_fewer_than_asked_for() -> None:
    logits = tables(images=2, words=2, max_length=2, seed=0)
    options = DecodingOptions(beam_size=50, num_captions=50, max_length=2)
    for image, found in enumerate(decode_table(logits, options)):
        expected = brute_force(logits[image], options)
        assert len(expected) == 6
        assert [h.ids for h in found] == [ids for _, ids in expected]


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 1.7])
@pytest.mark.parametrize(
    ("beam_size", "num_captions", "ngram"), [(1, 1, 0), (2, 1, 2), (3, 3, 0), (5, 2, 1)]
)
def test_narrow_beam_equals_a_plain_search_without_early_stop(
    beam_size: int, num_captions: int, ngram: int, length_penalty: float
) -> None:
    logits = tables(images=40, words=6, max_length=6, seed=beam_size)
    options = DecodingOptions(
        beam_size=beam_size,
        num_captions=num_captions,
        max_length=6,
        no_repeat_ngram=ngram,
        length_penalty=length_penalty,
    )
    for image, found in enumerate(decode_table(logits, options)):
        expected = plain_beam_search(logits[image], options)
        assert [list(h.ids) for h in found] == [ids for _, ids in expected]
        assert [h.score for h in found] == pytest.approx([s for s, _ in expected], abs=1e-5)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_beam_of_one_is_greedy(length_penalty: float) -> None:
    logits = tables(images=30, words=5, max_length=5, seed=1)
    options = DecodingOptions(
        beam_size=1, max_length=5, length_penalty=length_penalty, no_repeat_ngram=0
    )
    for image, (found,) in enumerate(decode_table(logits, options)):
        last, ids = BOS, []
        for t in range(5):
            row = logits[image, t, last].clone()
            row[list(SPECIAL)] = -math.inf
            if t == 0:
                row[EOS] = -math.inf
            last = int(row.argmax())
            if last == EOS:
                break
            ids.append(last)
        assert found.ids == tuple(ids)
        assert found.finished
        assert list(found.log_probs) == pytest.approx(
            chain_log_probs(logits[image], [*ids, EOS]), abs=1e-5
        )


def test_search_goes_on_while_a_longer_caption_can_still_win() -> None:
    # "4" ends with probability 0.6: score log(0.6) / 2. Its continuation is then certain:
    # log(0.4) / 5 is better per word although less probable.
    logits = fixed_chain(6, [{4: 1.0}, {EOS: 0.6, 5: 0.4}, {5: 1.0}, {5: 1.0}, {EOS: 1.0}])
    long, short = (4, 5, 5, 5), (4,)
    by_mean = DecodingOptions(
        beam_size=2, num_captions=2, max_length=4, length_penalty=1.0, no_repeat_ngram=0
    )
    assert [h.ids for h in decode_table(logits, by_mean)[0]] == [long, short]
    by_sum = dataclasses.replace(by_mean, length_penalty=0.0)
    assert [h.ids for h in decode_table(logits, by_sum)[0]] == [short, long]
    best = decode_table(logits, dataclasses.replace(by_mean, num_captions=1))[0][0]
    assert best.ids == long
    assert best.score == pytest.approx(math.log(0.4) / 5, abs=1e-6)


class Recorder:
    """table_step that notes the batch it was given at every step."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, int]] = []

    def __call__(self, words: Tensor, state: Table) -> tuple[Tensor, Table]:
        self.shapes.append((words.shape[0], words.shape[1]))
        return table_step(words, state)


@pytest.mark.parametrize(
    ("options", "shapes"),
    [
        ({"beam_size": 1}, [(3, 1), (3, 1), (2, 1), (2, 1), (1, 1)]),
        ({"beam_size": 2}, [(3, 1), (3, 2), (2, 2), (2, 2), (1, 2)]),
        ({"sample": True, "num_captions": 2}, [(3, 1), (3, 2), (2, 2), (2, 2), (1, 2)]),
    ],
)
def test_images_leave_the_batch_as_soon_as_they_are_over(
    options: dict[str, Any], shapes: list[tuple[int, int]]
) -> None:
    lengths = [3, 1, 4]
    word = {4: 1.0}
    chains = [fixed_chain(7, [word] * length + [{EOS: 1.0}] * (10 - length)) for length in lengths]
    recorder = Recorder()
    decoding = DecodingOptions(max_length=9, no_repeat_ngram=0, **options)
    results = decode_table(torch.cat(chains), decoding, step=recorder)
    assert [found[0].ids for found in results] == [(4,) * length for length in lengths]
    assert recorder.shapes == shapes


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({"beam_size": 1}, [2, 2, 1, 1]),
        # The second image's other beam is not asked for: it has no chance when the first ends.
        ({"beam_size": 2}, [2, 4, 2, 2]),
        ({"sample": True, "num_captions": 2}, [2, 4, 2, 2]),
    ],
)
def test_only_captions_that_can_change_the_result_are_asked_for(
    options: dict[str, Any], counts: list[int]
) -> None:
    ends = [{EOS: 1.0}]
    chains = [
        fixed_chain(7, [{4: 0.6, 5: 0.4}, {4: 1.0}, {4: 1.0}, *ends * 7]),
        fixed_chain(7, [{4: 1.0}, *ends * 9]),
    ]
    asked: list[int] = []

    def step(words: Tensor, state: Table, open_: Tensor) -> tuple[Tensor, Table]:
        asked.append(int(open_.sum()))
        logits, state = table_step(words, state)
        return logits[open_], state

    decoding = DecodingOptions(max_length=9, no_repeat_ngram=0, **options)
    found = decode_table(torch.cat(chains), decoding, step=OpenStep(step), fixed_shape=True)
    assert [len(best.ids) for best, *_ in found] == [3, 1]
    assert asked == counts


@pytest.mark.parametrize("beam_size", [1, 3])
def test_caption_of_max_length_words_is_ended(beam_size: int) -> None:
    logits = tables(images=5, words=4, max_length=3, seed=3)
    logits[..., EOS] = -8.0
    options = DecodingOptions(beam_size=beam_size, max_length=3)
    for image, (found,) in enumerate(decode_table(logits, options)):
        assert len(found.ids) == 3
        assert found.finished
        expected = chain_log_probs(logits[image], [*found.ids, EOS])
        assert list(found.log_probs) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_unfinished_captions_are_the_fallback(beam_size: int) -> None:
    logits = tables(images=2, words=4, max_length=3, seed=3)
    logits[0, ..., EOS] = -math.inf
    options = DecodingOptions(beam_size=beam_size, num_captions=beam_size, max_length=3)
    never_ends, ends = decode_table(logits, options)
    assert len(never_ends) == len(ends) == beam_size
    assert all(h.finished for h in ends)
    for h in never_ends:
        assert not h.finished
        assert len(h.ids) == 3
        assert list(h.log_probs) == pytest.approx(chain_log_probs(logits[0], h.ids), abs=1e-5)
    check_invariants(never_ends, options)


def test_finished_captions_come_before_unfinished_ones() -> None:
    # The only way to end is after "4"; the probable way starts with "5" and never ends.
    logits = torch.full((1, 4, 6, 6), -math.inf)
    logits[0, 0, BOS, 4:] = torch.tensor([0.1, 0.9]).log()
    logits[0, 1:, 5, 5] = 0.0
    logits[0, 1:, 4, [EOS, 5]] = torch.tensor([0.5, 0.5]).log()
    options = DecodingOptions(beam_size=2, num_captions=2, max_length=3, no_repeat_ngram=0)
    first, second = decode_table(logits, options)[0]
    assert (first.ids, first.finished) == ((4,), True)
    assert (second.ids, second.finished) == ((5, 5, 5), False)
    assert second.score > first.score


def test_search_goes_on_while_only_unfinished_captions_were_found() -> None:
    # "5" may only repeat itself, which is blocked: it stops unfinished at the first step.
    logits = torch.full((1, 4, 7, 7), -math.inf)
    logits[0, 0, BOS, 4:6] = torch.tensor([0.1, 0.9]).log()
    logits[0, 1:, 5, 5] = 0.0
    logits[0, 1:, 4, 6] = 0.0
    logits[0, 1:, 6, EOS] = 0.0
    options = DecodingOptions(beam_size=2, num_captions=1, max_length=3, no_repeat_ngram=1)
    (found,) = decode_table(logits, options)[0]
    assert (found.ids, found.finished) == ((4, 6), True)
    both = dataclasses.replace(options, num_captions=2)
    assert [h.ids for h in decode_table(logits, both)[0]] == [(4, 6), (5,)]


def test_blocked_search_ends_and_no_caption_is_empty() -> None:
    # Two words that may occur once each: after both only the end is left, improbable as it is.
    logits = fixed_chain(6, [{4: 0.7, 5: 0.3}] * 10)
    options = DecodingOptions(beam_size=1, max_length=9, no_repeat_ngram=1)
    (found,) = decode_table(logits, options)[0]
    assert found.ids == (4, 5)
    assert found.finished
    assert found.log_probs[-1] == pytest.approx(-30.0, abs=1e-4)

    ends_at_once = fixed_chain(6, [{EOS: 0.9, 4: 0.1}, {EOS: 1.0}])
    for chosen in (
        DecodingOptions(beam_size=1, max_length=1),
        DecodingOptions(beam_size=3, max_length=1),
        DecodingOptions(sample=True, max_length=1),
    ):
        (found,) = decode_table(ends_at_once, chosen)[0]
        assert found.ids == (4,)
        assert found.log_probs[0] == pytest.approx(math.log(0.1), abs=1e-6)


@pytest.mark.parametrize(
    "options", [DecodingOptions(max_length=3), DecodingOptions(sample=True, max_length=3)]
)
def test_empty_caption_only_when_every_word_is_forbidden(options: DecodingOptions) -> None:
    logits = tables(images=2, words=2, max_length=3, seed=0)
    everything = [*SPECIAL, 4, 5]
    for image, (found,) in enumerate(decode_table(logits, options, everything)):
        assert (found.ids, found.finished) == ((), True)
        assert list(found.log_probs) == pytest.approx(chain_log_probs(logits[image], [EOS]))
    logits[..., EOS] = -math.inf
    with pytest.raises(CaptionerError, match="no caption is possible.*ban fewer words"):
        decode_table(logits, options, everything)


@pytest.mark.parametrize("sample", [False, True])
def test_search_that_the_model_gives_no_way_on_stops_unfinished(sample: bool) -> None:
    # n-gram blocking forbids a second "4", the model itself everything else.
    logits = torch.full((1, 6, 5, 5), -math.inf)
    logits[..., 4] = 0.0
    options = DecodingOptions(beam_size=1, sample=sample, max_length=5, no_repeat_ngram=1)
    (found,) = decode_table(logits, options)[0]
    assert (found.ids, found.log_probs, found.finished) == ((4,), (0.0,), False)


def test_forbidden_words_keep_their_probability_in_the_model_distribution() -> None:
    logits = fixed_chain(7, [{4: 0.6, 5: 0.3, 6: 0.1}, {EOS: 1.0}])
    (found,) = decode_table(logits, DecodingOptions(max_length=1), [*SPECIAL, 4])[0]
    assert found.ids == (5,)
    assert found.log_probs[0] == pytest.approx(math.log(0.3), abs=1e-6)
    (found,) = decode_table(logits, DecodingOptions(max_length=1), [])[0]
    assert found.ids == (4,)


def test_no_repeat_ngram_blocks_the_word_that_completes_the_ngram() -> None:
    # "4 5 4" wants to go on with 5: the pair (4, 5) was there.
    steps = [{4: 0.9, 6: 0.1}, {5: 0.9, 6: 0.1}, {4: 0.9, 6: 0.1}, {5: 0.9, 6: 0.1}, {EOS: 1.0}]
    logits = fixed_chain(7, steps)
    expected = {0: (4, 5, 4, 5), 1: (4, 5, 6), 2: (4, 5, 4, 6), 3: (4, 5, 4, 5)}
    for n, ids in expected.items():
        options = DecodingOptions(beam_size=1, max_length=4, no_repeat_ngram=n)
        assert decode_table(logits, options)[0][0].ids == ids, n


def test_a_joining_word_does_not_join_a_word_with_itself() -> None:
    # 7 joins: "4 7 4" and "4 7 5 4" are not said, "4 7 5" and "4 5 4" are.
    again = {4: 0.9, 6: 0.1}
    for steps, expected in (
        ([again, {7: 1.0}, again], (4, 7, 6)),
        ([again, {7: 1.0}, {5: 1.0}, again], (4, 7, 5, 6)),
        ([again, {5: 1.0}, again], (4, 5, 4)),
    ):
        logits = fixed_chain(8, [*steps, {EOS: 1.0}])
        for n, ids in ((2, expected), (0, (*expected[:-1], 4))):
            options = DecodingOptions(beam_size=1, max_length=len(steps), no_repeat_ngram=n)
            assert decode_table(logits, options, joining=[7])[0][0].ids == ids, (steps, n)


def test_equal_scores_are_ordered_by_beam_then_word() -> None:
    logits = torch.zeros(3, 3, 8, 8)
    options = DecodingOptions(beam_size=3, num_captions=3, max_length=2, length_penalty=0.0)
    # First the beams 4, 5, 6; then the three first extensions of the first of them: end, 4, 5.
    expected = [(4,), (4, 4), (4, 5)]
    assert [[h.ids for h in found] for found in decode_table(logits, options)] == [expected] * 3
    greedy = DecodingOptions(beam_size=1, max_length=2)
    assert [found[0].ids for found in decode_table(logits, greedy)] == [(4,)] * 3


@pytest.mark.parametrize("size", [30, 512, 1927])  # 512 and more: in blocks
def test_top_is_ordered_by_value_then_place_and_skips_nothing(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-5, 6, (40, size), generator=generator).float()
    values[3] = -math.inf
    values[4, 5:] = -math.inf
    values[5:25] = torch.randn(20, size, generator=generator)
    values[6, :-1] = -math.inf
    values[7, size // 2] = values[7, -1] = 9
    for count in (1, 2, 7, 29, 30):
        found, places = top(values, count)
        for row, found_row, places_row in zip(
            values.tolist(), found.tolist(), places.tolist(), strict=True
        ):
            order = sorted((-value, place) for place, value in enumerate(row))[:count]
            assert found_row == [-negative for negative, _ in order]
            possible = sum(value > -math.inf for value in found_row)
            assert places_row[:possible] == [place for _, place in order[:possible]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_log_probs_are_computed_in_single_precision(dtype: torch.dtype) -> None:
    logits = tables(images=4, words=30, max_length=5, seed=0).to(dtype)
    options = DecodingOptions(beam_size=4, num_captions=4, max_length=5)
    for image, found in enumerate(decode_table(logits, options)):
        expected = plain_beam_search(logits[image], options)
        assert [h.score for h in found] == pytest.approx([s for s, _ in expected], abs=1e-5)
        for h in found:
            exact = chain_log_probs(logits[image], [*h.ids, EOS])
            assert list(h.log_probs) == pytest.approx(exact, abs=1e-5)


# --- a model with a state ------------------------------------------------------------------------

MANY_OPTIONS = [
    DecodingOptions(beam_size=1, max_length=8),
    DecodingOptions(beam_size=4, num_captions=4, max_length=8),
    DecodingOptions(beam_size=5, num_captions=2, max_length=8, length_penalty=0.5),
    DecodingOptions(beam_size=3, num_captions=3, max_length=8, no_repeat_ngram=2),
    DecodingOptions(beam_size=40, num_captions=30, max_length=4, length_penalty=0.0),
    DecodingOptions(sample=True, num_captions=4, max_length=8, seed=1),
    DecodingOptions(sample=True, num_captions=3, max_length=8, top_k=4, temperature=0.6),
    DecodingOptions(sample=True, num_captions=2, max_length=8, top_p=0.8, no_repeat_ngram=1),
]


@pytest.mark.parametrize("options", MANY_OPTIONS)
@pytest.mark.parametrize("seed", [0, 1])
def test_teacher_forced_pass_gives_the_same_log_probs(options: DecodingOptions, seed: int) -> None:
    model = Recurrent(seed)
    features = torch.randn(6, 5)
    results = model.decode(features, options)
    assert len(results) == 6
    for feature, found in zip(features, results, strict=True):
        assert len(found) == options.num_captions
        check_invariants(found, options)
        for h in found:
            assert list(h.log_probs) == pytest.approx(model.rescore(feature, h), abs=1e-5)


@pytest.mark.parametrize("options", MANY_OPTIONS)
def test_image_does_not_depend_on_its_batch(options: DecodingOptions) -> None:
    model = Recurrent(seed=2)
    features = torch.randn(9, 5)
    together = model.decode(features, options)
    assert len({found[0].ids for found in together}) > 2  # the images differ
    for image, in_batch in enumerate(together):
        (alone,) = model.decode(features[image : image + 1], options, streams=[image])
        assert [(h.ids, h.finished) for h in alone] == [(h.ids, h.finished) for h in in_batch]
        for one, other in zip(alone, in_batch, strict=True):
            assert list(one.log_probs) == pytest.approx(other.log_probs, abs=1e-5)


def test_decoding_records_no_gradients() -> None:
    model = Recurrent(seed=0)
    seen = []

    def step(words: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        logits, state = model.step(words, state)
        seen.append(logits.requires_grad)
        return logits, state

    decode(
        step,
        model.first(torch.randn(2, 5)),
        2,
        DecodingOptions(max_length=4),
        bos=BOS,
        eos=EOS,
        forbidden=SPECIAL,
        device="cpu",
    )
    assert seen
    assert not any(seen)


# --- fuzz ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(60))
def test_every_search_ends_and_keeps_the_invariants(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def pick(*values: Any) -> Any:
        return values[int(torch.randint(len(values), (), generator=generator))]

    sample = pick(False, True)
    extra = {}
    if sample:
        extra = {
            "temperature": pick(0.05, 1.0, 20.0),
            "top_k": pick(0, 1, 3),
            "top_p": pick(0.1, 0.9, 1.0),
        }
    beam_size = pick(1, 2, 3, 7)
    options = DecodingOptions(
        beam_size=beam_size,
        num_captions=pick(1, beam_size),
        max_length=pick(1, 2, 6, 11),
        length_penalty=pick(0, 0.5, 1.0, 3.0),
        no_repeat_ngram=pick(0, 1, 2, 3),
        sample=sample,
        seed=seed,
        **extra,
    )
    logits = tables(pick(1, 7), pick(1, 3, 8), options.max_length, seed, pick(0.0, 1.0, 30.0))
    if pick(False, True):
        logits = logits.round()  # many ties
    if pick(False, True):
        holes = torch.rand(logits.shape, generator=generator) < 0.3
        logits[..., 4:].masked_fill_(holes[..., 4:], -math.inf)
        logits[..., EOS].masked_fill_(holes[..., EOS], -math.inf)
        logits[:, 0, BOS, 4] = 0.0
    banned = [4] if logits.shape[-1] > 5 and pick(False, True) else []
    if banned:
        logits[:, 0, BOS, 5] = 0.0
    for found in decode_table(logits, options, [*SPECIAL, *banned]):
        assert 1 <= len(found) <= options.num_captions
        assert len(found) == options.num_captions or not sample
        assert not any(set(banned) & set(h.ids) for h in found)
        check_invariants(found, options)


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        DecodingOptions(beam_size=1, max_length=4),
        DecodingOptions(beam_size=3, max_length=4),
        DecodingOptions(sample=True, max_length=4),
        DecodingOptions(sample=True, top_k=3, top_p=0.5, max_length=4),
    ],
)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_is_reported(options: DecodingOptions, bad: float) -> None:
    logits = tables(images=3, words=5, max_length=4, seed=0)
    logits[..., EOS] = -9.0
    logits[1, 2, :, PAD] = bad  # even at a forbidden word it spoils the whole distribution
    with pytest.raises(CaptionerError, match=r"word 3 are not numbers.*float32"):
        decode_table(logits, options)


@pytest.mark.parametrize(
    ("forbidden", "message"),
    [([PAD, EOS], "eos=2.*leave it out"), ([PAD, 9], "from 2 to 9|from 0 to 9"), ([-1], "from -1")],
)
def test_ids_outside_the_vocabulary_are_reported(forbidden: list[int], message: str) -> None:
    logits = tables(images=1, words=5, max_length=2, seed=0)
    with pytest.raises(ValueError, match=message):
        decode_table(logits, DecodingOptions(max_length=2), forbidden)


def test_streams_are_one_per_image() -> None:
    logits = tables(images=2, words=3, max_length=2, seed=0)
    with pytest.raises(ValueError, match="streams has 3 numbers for 2 images"):
        decode_table(logits, DecodingOptions(sample=True, max_length=2), streams=[0, 1, 2])


def test_no_images_give_no_captions() -> None:
    assert decode_table(torch.zeros(0, 3, 6, 6), DecodingOptions(max_length=2)) == []
