"""Options of decoding are checked in full when they are made."""

from __future__ import annotations

import math
from typing import Any

import pytest

from captioner.decoding.options import DecodingOptions


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beam_size": 0}, "beam_size=0: give a whole number of at least 1"),
        ({"beam_size": 2.5}, "beam_size=2.5: give a whole number of at least 1"),
        ({"beam_size": True}, "beam_size=True: give a whole number of at least 1"),
        ({"num_captions": 0}, "num_captions=0: give a whole number of at least 1"),
        (
            {"beam_size": 3, "num_captions": 4},
            "num_captions=4: beam search gives at most beam_size=3; raise beam_size or set "
            "sample=True",
        ),
        ({"max_length": 0}, "max_length=0: give a whole number of at least 1"),
        ({"length_penalty": -0.1}, "length_penalty=-0.1: give a number from 0 to 10"),
        ({"length_penalty": math.nan}, "length_penalty=nan: give a number from 0 to 10"),
        ({"length_penalty": "1"}, "length_penalty='1': give a number from 0 to 10"),
        (
            {"sample": True, "temperature": 0.0},
            "temperature=0.0: give a number above 0 and at most 1e+06",
        ),
        (
            {"temperature": 0.7},
            "temperature=0.7 works on sampling only: set sample=True or leave it out",
        ),
        ({"top_k": 5}, "top_k=5 works on sampling only: set sample=True or leave it out"),
        ({"sample": True, "top_k": -1}, "top_k=-1: give a whole number of at least 0"),
        ({"sample": True, "top_p": 0}, "top_p=0: give a number above 0 and at most 1"),
        ({"sample": True, "top_p": 1.1}, "top_p=1.1: give a number above 0 and at most 1"),
        ({"seed": -1}, "seed=-1: give a whole number of at least 0"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram=-1: give a whole number of at least 0"),
        (
            {"banned_words": "dog"},
            "banned_words='dog': give a list of words, such as ['blurry']",
        ),
        (
            {"banned_words": ("dog", "")},
            "banned_words=('dog', ''): give a list of words, such as ['blurry']",
        ),
    ],
)
def test_bad_options_say_name_value_and_remedy(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        DecodingOptions(**values)
    assert str(error.value) == message


def test_options_are_hashable_whatever_the_list_type() -> None:
    options = DecodingOptions(banned_words=["a", "b"])  # type: ignore[arg-type]
    assert options == DecodingOptions(banned_words=("a", "b"))
    assert hash(options) == hash(DecodingOptions(banned_words=("a", "b")))
    assert DecodingOptions() == DecodingOptions(
        beam_size=3,
        num_captions=1,
        max_length=20,
        length_penalty=0.7,
        sample=False,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        seed=0,
        no_repeat_ngram=2,
        banned_words=(),
    )
