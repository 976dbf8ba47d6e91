"""Patterns that are counted and not searched for."""

from __future__ import annotations

import tracemalloc
from itertools import islice

import pytest

from captioner.errors import CaptionerError
from captioner.files.patterns import braced, count_braced, has_braces


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("{8..11}.tar", ["8.tar", "9.tar", "10.tar", "11.tar"]),
        ("{08..11}.tar", ["08.tar", "09.tar", "10.tar", "11.tar"]),
        ("{0..1}/{a,b}", ["0/a", "0/b", "1/a", "1/b"]),
        ("x{,y}", ["x", "xy"]),
    ],
)
def test_patterns_are_expanded_as_by_a_shell(pattern, names) -> None:
    assert list(braced(pattern)) == names
    assert count_braced(pattern) == len(names)
    assert has_braces(pattern) == ("{" in pattern)


@pytest.mark.parametrize("pattern", ["{2..1}", "{a}", "{1..b}"])
def test_what_is_not_a_range_is_refused(pattern) -> None:
    with pytest.raises(CaptionerError) as caught:
        braced(pattern)
    assert str(caught.value).startswith(pattern)


def test_names_take_no_memory() -> None:
    tracemalloc.start()
    names = braced("shards/{000000..999999}.tar")
    assert sum(1 for _ in islice(names, 20_000)) == 20_000
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 100_000
