"""Progress bars on standard error, where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Record = TypeVar("Record")


@contextmanager
def image_bar(total: int, quiet: bool, label: str | None = None) -> Iterator[Callable[[], object]]:
    """A bar over a number of images; gives the function that counts an image as done."""
    from tqdm import tqdm

    hidden = quiet or not sys.stderr.isatty()
    with tqdm(total=total, desc=label, unit=" images", file=sys.stderr, disable=hidden) as bar:
        yield bar.update


def with_progress(
    records: Iterable[Record],
    quiet: bool,
    *,
    to_stdout: bool,
    total: int | None = None,
    done: int = 0,
) -> Iterable[Record]:
    """The records of images, counted by a bar.

    Args:
        records: one for each image that is still to do.
        quiet: show no bar.
        to_stdout: whether records are written to standard output: lines and a bar on the same
            terminal would overwrite each other.
        total: number of images, if it is known.
        done: how many of them were done before.
    """
    if quiet or not sys.stderr.isatty() or (to_stdout and sys.stdout.isatty()):
        return records
    from tqdm import tqdm

    bar: Iterable[Record] = tqdm(
        records, unit=" images", file=sys.stderr, total=total, initial=done
    )
    return bar
