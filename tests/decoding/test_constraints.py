"""Captions that begin with given words and contain given words, against listing them all."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from captioner.cli import entry as cli
from captioner.decoding.constraints import find_constraints
from captioner.decoding.hypotheses import Hypothesis
from captioner.decoding.options import DecodingOptions, describe_decoding
from captioner.errors import CaptionerError
from captioner.model.caption_model import CaptionModel
from captioner.model.shipped import load_model
from captioner.text.tokenizer import Tokenizer, tokenize
from helpers.step_functions import (
    BOS,
    EOS,
    SPECIAL,
    Recurrent,
    chain_log_probs,
    decode_table,
    repeats,
    tables,
)

EXAMPLES = Path(__file__).parents[2] / "data" / "examples"


def every_caption(
    logits: Tensor, options: DecodingOptions, prompt: tuple[int, ...], required: set[int]
) -> list[tuple[float, tuple[int, ...]]]:
    """All captions of one image that keep to the constraints, best first."""
    found = []
    for length in range(1, options.max_length + 1):
        for ids in itertools.product(range(4, logits.shape[-1]), repeat=length):
            behind = [  # of n-grams inside the prompt nobody asks
                n for n in range(len(prompt), length) if repeats_at(ids, n, options.no_repeat_ngram)
            ]
            if ids[: len(prompt)] == prompt and required <= set(ids) and not behind:
                log_prob = sum(chain_log_probs(logits, [*ids, EOS]))
                found.append((log_prob / (length + 1) ** options.length_penalty, ids))
    return sorted(found, reverse=True)


def repeats_at(ids: tuple[int, ...], place: int, n: int) -> bool:
    """Whether the word at this place ends an n-gram that was there before."""
    if n == 0 or place + 1 < n:
        return False
    grams = [ids[i : i + n] for i in range(place + 2 - n)]
    return grams[-1] in grams[:-1]


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("ngram", [0, 1, 2])
@pytest.mark.parametrize(
    ("prompt", "required"),
    [
        ((), (5,)),
        ((), (6, 4)),
        ((), (6, 4, 5)),
        ((5,), ()),
        ((5, 5), ()),
        ((4, 6, 4, 6), ()),
        ((5,), (4,)),
        ((5, 5), (4, 6)),
    ],
)
def test_wide_search_finds_the_best_of_all_captions_that_keep_to_the_words(
    prompt: tuple[int, ...], required: tuple[int, ...], ngram: int, length_penalty: float
) -> None:
    logits = tables(images=3, words=3, max_length=4, seed=ngram)
    options = DecodingOptions(
        beam_size=120,
        num_captions=12,
        max_length=4,
        length_penalty=length_penalty,
        no_repeat_ngram=ngram,
    )
    found = decode_table(logits, options, prompt=prompt, required=required)
    for image, captions in enumerate(found):
        expected = every_caption(logits[image], options, prompt, set(required))[:12]
        assert len(expected) > 0
        assert [h.ids for h in captions] == [ids for _, ids in expected]
        assert [h.score for h in captions] == pytest.approx([s for s, _ in expected], abs=1e-5)
        assert all(h.finished for h in captions)


def plain_banks(
    logits: Tensor, options: DecodingOptions, required: set[int]
) -> list[tuple[float, list[int]]]:
    """The documented search for one image, in Python lists, without the early stop."""
    rows = logits.double().log_softmax(-1).tolist()
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    finished = []
    for t in range(options.max_length + 1):
        banks: dict[int, list[tuple[float, list[int]]]] = {}
        for total, ids in beams:
            row = rows[t][ids[-1] if ids else BOS]
            for word in [EOS, *range(4, len(row))]:
                said = len(required & {*ids, word})
                complete = said == len(required)
                allowed = complete and t > 0 if word == EOS else t < options.max_length
                if allowed and not repeats([*ids, word], options.no_repeat_ngram):
                    banks.setdefault(said, []).append((total + row[word], [*ids, word]))
        kept = [
            e
            for bank in banks.values()
            for e in sorted(bank, key=lambda e: -e[0])[: options.beam_size]
        ]
        beams = [e for e in kept if e[1][-1] != EOS]
        finished += [
            (total / (t + 1) ** options.length_penalty, ids[:-1])
            for total, ids in kept
            if ids[-1] == EOS
        ]
    return sorted(finished, key=lambda e: -e[0])[: options.num_captions]


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize(("beam_size", "num_captions", "ngram"), [(1, 1, 0), (2, 1, 2), (4, 3, 1)])
@pytest.mark.parametrize("required", [(7,), (4, 9), (5, 6, 8)])
def test_narrow_banks_equal_a_plain_search_without_early_stop(
    required: tuple[int, ...], beam_size: int, num_captions: int, ngram: int, length_penalty: float
) -> None:
    logits = tables(images=20, words=6, max_length=6, seed=beam_size)
    options = DecodingOptions(
        beam_size=beam_size,
        num_captions=num_captions,
        max_length=6,
        no_repeat_ngram=ngram,
        length_penalty=length_penalty,
    )
    for image, found in enumerate(decode_table(logits, options, required=required)):
        expected = plain_banks(logits[image], options, set(required))
        assert [list(h.ids) for h in found] == [ids for _, ids in expected]
        assert [h.score for h in found] == pytest.approx([s for s, _ in expected], abs=1e-5)


@pytest.mark.parametrize("fixed_shape", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_words_are_said_and_scored_as_the_recurrence_scores_them(
    seed: int, fixed_shape: bool
) -> None:
    model = Recurrent(seed)
    features = torch.randn(5, 5, generator=torch.Generator().manual_seed(seed))
    options = DecodingOptions(beam_size=2, num_captions=2, max_length=7)
    extra: dict[str, Any] = {"prompt": (6, 6), "required": (9, 12), "fixed_shape": fixed_shape}
    together: list[list[Hypothesis]] = model.decode(features, options, **extra)
    for image, found in enumerate(together):
        for h in found:
            assert h.ids[:2] == (6, 6) and {9, 12} <= set(h.ids) and len(h.ids) <= 7
            assert list(h.log_probs) == pytest.approx(model.rescore(features[image], h), abs=1e-5)
        alone = model.decode(features[image, None], options, **extra)[0]
        assert [h.ids for h in alone] == [h.ids for h in found]


def test_as_many_words_as_a_caption_may_have_are_all_said() -> None:
    logits = tables(images=4, words=4, max_length=4, seed=3, spread=9.0)
    options = DecodingOptions(beam_size=1, max_length=4)
    for (found,) in decode_table(logits, options, required=(4, 5, 6, 7)):
        assert sorted(found.ids) == [4, 5, 6, 7]
    for (found,) in decode_table(logits, options, prompt=(7, 4, 4, 7)):
        assert found.ids == (7, 4, 4, 7) and found.finished


def test_samples_go_on_from_the_prompt_with_the_right_frequencies() -> None:
    logits = tables(images=1, words=3, max_length=3, seed=5)
    options = DecodingOptions(sample=True, num_captions=6000, max_length=3, no_repeat_ngram=0)
    (found,) = decode_table(logits, options, prompt=(5,))
    assert {h.ids[0] for h in found} == {5}
    assert all(
        h.log_prob == pytest.approx(sum(chain_log_probs(logits[0], [*h.ids, EOS])), abs=1e-4)
        for h in found
        if h.finished
    )
    after = logits[0, 1, 5].clone()
    after[list(SPECIAL)] = -math.inf
    for word, expected in enumerate(after.softmax(-1).tolist()):
        drawn = sum((h.ids[1] if len(h.ids) > 1 else EOS) == word for h in found) / 6000
        assert drawn == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 6000) ** 0.5)


def test_what_the_model_rules_out_is_said() -> None:
    logits = tables(images=2, words=3, max_length=3, seed=0)
    logits[..., 5] = -math.inf
    with pytest.raises(CaptionerError, match="no caption is possible.*word 2 of the prompt"):
        decode_table(logits, DecodingOptions(max_length=3), prompt=(4, 5))
    with pytest.raises(CaptionerError, match="no caption is possible.*require fewer words"):
        decode_table(logits, DecodingOptions(max_length=3), required=(5,))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"prompt": (EOS,)}, "forbidden or eos: \\[2\\]"),
        ({"required": (0,)}, "forbidden or eos: \\[0\\]"),
        ({"required": (4, 4)}, "an id twice"),
        ({"required": (4,), "prompt": (4,)}, "one of the prompt"),
        ({"required": (4,), "prompt": (5, 5, 5)}, "4 words are given.*max_length=3"),
        ({"prompt": (99,)}, "prompt has the id 99"),
        ({"required": (99,)}, "ids go from 0 to 99"),
    ],
)
def test_ids_that_contradict_are_refused(extra: dict[str, Any], message: str) -> None:
    logits = tables(images=1, words=3, max_length=3, seed=0)
    with pytest.raises(ValueError, match=message):
        decode_table(logits, DecodingOptions(max_length=3), **extra)


# --- options -------------------------------------------------------------------------------

WORDS = Tokenizer(tokenize("a dog dogs runs in the snow"))


def test_words_become_ids() -> None:
    options = DecodingOptions(
        prompt="A dog", must_include=("Snow", "snow", "dog", "runs"), banned_words=("in", "zebra")
    )
    found = find_constraints(options, WORDS)
    assert found.prompt == (4, 5)
    assert found.required == (10, 7)
    assert found.forbidden == (0, 1, 3, 8, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"prompt": "a dogg"},
            "prompt 'a dogg': the word 'dogg' is not in the model's vocabulary of 7 words; it has "
            "'dog', 'dogs'",
        ),
        (
            {"must_include": ("zzz",)},
            "words to include: the word 'zzz' is not in the model's vocabulary of 7 words; use "
            "another word",
        ),
        ({"prompt": "?!"}, "prompt '?!': it has no letter; give the first words"),
        (
            {"must_include": ("the dog",)},
            "word to include 'the dog': it is 2 words (the, dog); give single words",
        ),
        (
            {"must_include": ("Dog",), "banned_words": ("dog",)},
            "the word 'dog' is both requested and banned; choose one",
        ),
        (
            {"prompt": "a dog", "banned_words": ("a",)},
            "the word 'a' is both requested and banned; choose one",
        ),
        (
            {"prompt": "a dog", "must_include": ("a", "snow"), "max_length": 2},
            "3 words are to be said (a dog snow), and a caption has at most 2; raise max_length, "
            "or give fewer",
        ),
    ],
)
def test_words_that_cannot_be_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CaptionerError) as error:
        find_constraints(DecodingOptions(**values), WORDS)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": " "}, "prompt=' ': give the first words"),
        ({"must_include": "dog"}, "must_include='dog': give a list of words"),
        ({"must_include": ("dog",), "sample": True}, "must_include=.*works on the search only"),
    ],
)
def test_options_are_checked_when_made(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecodingOptions(**values)


def test_jobs_without_words_are_described_as_before() -> None:
    plain = describe_decoding(DecodingOptions())
    assert "prompt" not in plain and "must_include" not in plain
    both = describe_decoding(DecodingOptions(prompt="a", must_include=("b",)))
    assert both == {**plain, "prompt": "a", "must_include": ["b"]}
    assert json.loads(json.dumps(both)) == both


# --- the shipped model ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> CaptionModel:
    return load_model(device="cpu")


def caption(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, str], str]:
    code = cli.main(["caption", *arguments, "--device", "cpu", "--quiet"])
    captured = capsys.readouterr()
    lines = [line.split("\t") for line in captured.out.splitlines()]
    return code, {os.path.basename(path): text for path, text in lines}, captured.err


def test_the_examples_with_a_prompt_and_with_words(capsys: pytest.CaptureFixture[str]) -> None:
    code, texts, _ = caption(capsys, str(EXAMPLES), "--prompt", "Two dogs")
    assert code == 0 and len(texts) == 8
    assert all(re.match("two dogs [a-z]", text) for text in texts.values())
    words = ["--must-include", "dog", "--must-include", "grass", "--ban", "standing"]
    code, texts, _ = caption(
        capsys, str(EXAMPLES), *words, "--prompt", "a man", "--max-length", "9"
    )
    assert code == 0 and len(texts) == 8
    for text in texts.values():
        said = re.split("[ ']", text)  # "a dog's"
        assert said[:2] == ["a", "man"] and {"dog", "grass"} <= set(said) and len(said) <= 9
        assert "standing" not in said


def test_a_word_that_is_said_anyway_changes_nothing(shipped: CaptionModel) -> None:
    image = [EXAMPLES / "raccoon.jpg"]
    free = shipped.caption(image)[0].candidates[0]
    word = free.words[-1]
    for options in (
        dataclasses.replace(shipped.decoding, must_include=(word,)),
        dataclasses.replace(shipped.decoding, prompt=" ".join(free.words[:3])),
    ):
        bound = shipped.caption(image, options)[0]
        assert bound.candidates[0].words == free.words
        assert bound.candidates[0].log_prob == pytest.approx(free.log_prob, abs=1e-4)
        assert bound.calibrated is None and bound.confidence == bound.candidates[0].confidence


def test_refused_before_any_work(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output = tmp_path / "out" / "captions.jsonl"
    photo = str(EXAMPLES / "cat.jpg")
    for words, message in (
        (["--prompt", "two zebbras"], "the word 'zebbras' is not in the model's vocabulary"),
        (["--must-include", "dog", "--ban", "dog"], "both requested and banned"),
        (["--must-include", "dog", "--sample"], "works on the search only"),
        (["--prompt", "a dog", "--tags"], "tags: they are read from captions that the model chose"),
    ):
        code, texts, err = caption(capsys, photo, "--output", str(output), *words)
        assert (code, texts) == (2, {}) and message in err
        assert not output.parent.exists()


def test_a_job_with_other_words_does_not_go_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    output = tmp_path / "captions.jsonl"
    job = (str(EXAMPLES / "cat.jpg"), "--output", str(output), "--prompt", "two dogs")
    assert caption(capsys, *job)[0] == 0
    before = output.read_bytes()
    assert json.loads(before)["text"].startswith("two dogs ")
    assert caption(capsys, *job)[0] == 0
    code, _, err = caption(capsys, *job[:-1], "two men")
    assert code == 2 and "--prompt: two dogs there, two men now" in err
    assert output.read_bytes() == before


def test_the_prompt_is_scored_like_any_words(shipped: CaptionModel) -> None:
    options = DecodingOptions(prompt="a brown dog", beam_size=4, num_captions=2)
    longer = dataclasses.replace(options, must_include=("water", "brown"))
    for chosen in (options, longer):
        result = shipped.caption([EXAMPLES / "stairs.jpg"], chosen)[0]
        first = {candidate.word_probs[:3] for candidate in result.candidates}
        assert len(first) == 1
        best = result.candidates[0]
        assert math.log(math.prod(best.word_probs)) == pytest.approx(best.log_prob, abs=1e-4)
