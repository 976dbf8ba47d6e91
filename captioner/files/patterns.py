"""Patterns for several files: ``{00000..01234}`` is counted and not searched for, ``*`` is."""

from __future__ import annotations

import glob
import math
import os
import re
from collections.abc import Iterator, Sequence

from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.stores import is_address, matching, reached

_GROUP = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def addresses_of(path: str) -> Iterator[str]:
    """The files that one path or address, perhaps a pattern, stands for, in their order.

    Raises:
        CaptionerError: a pattern with wildcards matches nothing.
    """
    if not is_pattern(path):
        yield path
    elif has_braces(path):
        yield from braced(path)
    else:
        found = reached(lambda: matching(path))
        if not found:
            raise CaptionerError(f"{shown(path)} matches nothing: check the path")
        yield from found


def is_pattern(path: str) -> bool:
    """Whether it stands for several files, and is not the very name of one on this machine."""
    return (has_braces(path) or glob.has_magic(path)) and not _is_literal(path)


def count_of(path: str) -> int | None:
    """How many files it stands for, where that needs no search."""
    if not is_pattern(path):
        return 1
    return count_braced(path) if has_braces(path) else None


def has_braces(pattern: str) -> bool:
    """Whether a pattern has a range or a list in braces."""
    return any(".." in group or "," in group for group in _GROUP.findall(pattern))


def count_braced(pattern: str) -> int:
    """How many names a pattern stands for."""
    return math.prod(len(part) for part in _parts(pattern))


def braced(pattern: str) -> Iterator[str]:
    """The names, lazily, in their order, as a shell expands them; numbers keep leading zeros.

    Raises:
        CaptionerError: a range is empty, or braces hold something else; raised by the call itself.
    """
    return _expanded("", _parts(pattern))


def _expanded(before: str, parts: Sequence[Sequence[str]]) -> Iterator[str]:
    # Not by itertools.product, which holds all of every part.
    if not parts:
        yield before
        return
    for text in parts[0]:
        yield from _expanded(before + text, parts[1:])


class _Numbers(Sequence[str]):
    """A range of numbers as texts, of one length where zeros stand before them."""

    def __init__(self, first: str, last: str) -> None:
        self._range = range(int(first), int(last) + 1)
        is_padded = any(len(text) > 1 and text.startswith("0") for text in (first, last))
        self._length = max(len(first), len(last)) if is_padded else 0

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        return f"{self._range[index]:0{self._length}d}"


def _parts(pattern: str) -> list[Sequence[str]]:
    """What may stand in each place of the pattern."""
    parts: list[Sequence[str]] = []
    for number, text in enumerate(_GROUP.split(pattern)):
        parts.append([text] if number % 2 == 0 else _alternatives(text, pattern))
    return parts


def _alternatives(text: str, pattern: str) -> Sequence[str]:
    if (found := _RANGE.fullmatch(text)) is not None:
        numbers = _Numbers(found[1], found[2])
        if len(numbers) == 0:
            raise CaptionerError(
                f"{shown(pattern)}: {{{text}}} is an empty range: put the smaller number first"
            )
        return numbers
    if "," in text:
        return text.split(",")
    raise CaptionerError(
        f"{shown(pattern)}: {{{text}}} is not a range or a list: write {{00000..00099}} or {{a,b}}"
    )


def _is_literal(path: str) -> bool:
    """Whether something local has this very name."""
    return not is_address(path) and os.path.exists(path)
