"""Work in threads keeps its order, its bound and its errors in their place."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from captioner.images.ahead import map_ahead


def numbers(count: int, taken: list[int]) -> Iterator[int]:
    for number in range(count):
        taken.append(number)
        yield number


def names() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("captioner-test")]


@pytest.mark.parametrize(("threads", "ahead", "taken_first"), [(0, 5, 1), (1, 5, 6), (4, 2, 3)])
def test_results_keep_the_order_and_items_are_taken_as_needed(
    threads: int, ahead: int, taken_first: int
) -> None:
    taken: list[int] = []
    found = map_ahead(lambda number: number**2, numbers(20, taken), threads, ahead, "test")
    assert next(found) == 0
    assert len(taken) == taken_first
    assert list(found) == [number**2 for number in range(1, 20)]
    assert names() == []


@pytest.mark.parametrize("threads", [0, 2])
def test_what_came_before_an_error_is_yielded_first(threads: int) -> None:
    def breaking() -> Iterator[int]:
        yield from range(3)
        raise OSError("gone")

    found = map_ahead(lambda number: number, breaking(), threads, 10, "test")
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="gone"):
        next(found)
    assert names() == []


def test_closing_ends_the_threads_and_drops_what_waits() -> None:
    begun: list[int] = []
    may_end = threading.Event()
    later = threading.Timer(0.3, may_end.set)  # while closing waits for the item that is begun

    def slow(number: int) -> int:
        begun.append(number)
        if number:
            may_end.wait(5)
        return number

    found = map_ahead(slow, range(100), 1, 50, "test")
    assert next(found) == 0
    later.start()
    found.close()
    later.join()
    assert len(begun) <= 2
    assert names() == []
