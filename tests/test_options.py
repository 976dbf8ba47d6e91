"""Options that are described once, as a dataclass checks them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from captioner.options import Description

WORDS = "give a list of words, such as ['blurry']"


@pytest.mark.parametrize(
    ("description", "allowed", "refused", "remedy"),
    [
        (Description(int, minimum=1), [1, 10**9], [0, 1.0, True, "1", None],
         "give a whole number of at least 1"),
        (Description(int, minimum=1, maximum=3), [1, 3], [0, 4], "give a whole number from 1 to 3"),
        (Description(float, minimum=0), [0, 0.0, math.inf], [-1e-9, math.nan, "0", False],
         "give a number of at least 0"),
        (Description(float, above=0, maximum=1), [1e-9, 1], [0, 1.1, math.nan],
         "give a number above 0 and at most 1"),
        (Description(float, above=0, below=1), [1e-9, 0.5], [0, 1, math.nan],
         "give a number between 0 and 1"),
        (Description(float, above=0), [5, math.inf], [0, -1], "give a number above 0"),
        (Description(str), ["", "a"], [1, None, ("a",)], "give a text"),
        (Description(str, choices=("a", "b")), ["a"], ["", "c", 1], "choose from a, b"),
        (Description(bool), [True, False], [0, 1, "yes", None], "give True or False"),
        (Description(tuple), [(), ("a", "b"), ["a"]], ["a", ("",), (1,), None, {"a"}], WORDS),
        (Description(tuple, choices=("a", "b")), [(), ("b", "a")], [("c",), "a"],
         "choose from a, b"),
    ],
)  # fmt: skip
def test_what_is_allowed(
    description: Description, allowed: list[Any], refused: list[Any], remedy: str
) -> None:
    assert all(map(description.allows, allowed))
    assert not any(map(description.allows, refused))
    assert description.remedy == remedy
