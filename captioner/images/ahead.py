"""Work in threads, some items ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")


def iterate_ahead(items: Generator[T, None, None], ahead: int) -> Generator[T, None, None]:
    """Take items in a thread of their own, at most so many before they are asked for.

    Closing the generator ends the thread, after the item that is being taken, and closes `items`.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="captioner-ahead")
    end = object()
    waiting = deque(pool.submit(next, items, end) for _ in range(ahead))
    try:
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, items, end))
            yield cast(T, item)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        items.close()


def map_ahead(
    function: Callable[[T], R], items: Iterable[T], threads: int, ahead: int, name: str
) -> Generator[R, None, None]:
    """Apply a function in threads, at most `ahead` items ahead of what was taken; keeps the order.

    What goes wrong with `items` is raised after the results of those that came before. Closing the
    generator ends the threads, after the items that they are at.

    Args:
        function: whose results are yielded.
        items: taken one by one, in the thread that takes the results.
        threads: 0 applies it in the thread that takes the results, when they are taken.
        ahead: results that may wait, those that are being made included.
        name: of the threads, for those who watch the program.
    """
    if threads == 0:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix=f"captioner-{name}")
    waiting: deque[Future[R]] = deque()
    problem: Exception | None = None
    source = iter(items)
    try:
        while True:
            try:
                waiting.append(pool.submit(function, next(source)))
            except StopIteration:
                break
            except Exception as error:
                problem = error
                break
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        if problem is not None:
            raise problem
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
