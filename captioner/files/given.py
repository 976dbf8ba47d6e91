"""Files as callers of the library give them: paths, folders and patterns, or a list of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from captioner.errors import CaptionerError
from captioner.files.finding import SourceFile

Files: TypeAlias = str | Path | Iterable[str | Path | SourceFile]
"""A path, a folder, a pattern, several of them, or files that were found already."""


def files_of(
    given: Files, find: Callable[[Sequence[str | Path]], Iterator[SourceFile]]
) -> Iterator[SourceFile]:
    """The files, lazily where they are given as such; see `captioner.files.finding.find_files`.

    Args:
        given: what the caller gave. An empty list is no files. An iterator is not touched before
            the first file is asked for; where that is a path, all of it is searched for then.
        find: finds the files of one kind.

    Raises:
        CaptionerError: a path leads to no file; something else was given.
    """
    if isinstance(given, (str, Path)):
        return find([given])
    try:
        rest = iter(given)
    except TypeError:
        raise CaptionerError(
            f"{given!r:.80} is not a path: give files, folders or patterns"
        ) from None
    found = _files_in(rest, find)
    return found if rest is given else _begun(found)


def _files_in(
    given: Iterator[str | Path | SourceFile],
    find: Callable[[Sequence[str | Path]], Iterator[SourceFile]],
) -> Iterator[SourceFile]:
    for first in given:
        if isinstance(first, SourceFile):
            yield first
        else:
            yield from find([first, *given])  # type: ignore[list-item]


def _begun(files: Iterator[SourceFile]) -> Iterator[SourceFile]:
    """The same, looked for now: what cannot be found is an error before any work."""
    first = next(files, None)
    return iter(()) if first is None else chain([first], files)
