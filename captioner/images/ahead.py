"""Read many files in threads, some of them ahead."""

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


def read_ahead(
    read: Callable[[T], R], files: Iterable[T], workers: int, ahead: int
) -> Generator[R, None, None]:
    """Apply `read` in threads, at most `ahead` files ahead of what was taken; keeps the order."""
    if workers == 0:
        yield from map(read, files)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="captioner-read")
    waiting: deque[Future[R]] = deque()
    try:
        for file in files:
            waiting.append(pool.submit(read, file))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
