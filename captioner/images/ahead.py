"""Read many files in threads, some of them ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


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
