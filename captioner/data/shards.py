"""Where data sets of several files keep them, and what their names say of splits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from captioner.data.entries import split_in_name, split_of_word


def shards_of(root: Path, fits: Callable[[Path], bool]) -> list[Path]:
    """The files that fit in the folder; else in its `data`; else in all folders below it."""
    for files in (_files(root), _files(root / "data"), _files_below(root)):
        if found := [file for file in files if fits(file)]:
            return found
    return []


def shard_split(file: Path, base: Path) -> str | None:
    """The split that the name of a file, or of the nearest folder inside `base`, stands for."""
    *above, parent = ("", *(file.parent.relative_to(base).parts if base in file.parents else ()))
    # Further up only the whole name counts: "my-test-set" may hold anything.
    whole = (split_of_word(name.removeprefix("split=")) for name in reversed(above))
    found = (split_in_name(file.name), split_in_name(parent), *whole)
    return next(filter(None, found), None)


def _files(folder: Path) -> list[Path]:
    return next(([Path(folder, n) for n in names] for _, _, names in _walk(folder)), [])


def _files_below(root: Path) -> Iterator[Path]:
    """The files in the folders inside, hidden ones left out, sorted."""
    for folder, _, names in _walk(root):
        yield from (Path(folder, name) for name in names)


def _walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk`, sorted and without hidden names; a folder that cannot be listed is empty."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(d for d in folders if not d.startswith((".", "__MACOSX")))
        yield folder, folders, sorted(n for n in files if not n.startswith("."))
