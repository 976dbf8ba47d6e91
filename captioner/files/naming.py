"""What output files are called, so that a second run finds those of the first."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

from captioner.files.kinds import FileKind


def output_stem(path: Path, kind: FileKind) -> str:
    """What the output files of an input file are called, without their suffix.

    Of several files of the kind with one stem the first by name keeps it, but those whose suffixes
    captioner has read for longer come before the others. The rest, and files without a suffix of
    the kind, go by their full name: ``a`` for ``a.mkv``, ``a.mp4`` for ``a.mp4``. That depends on
    the folder alone and not on which of its files are worked on, so that a second run finds the
    files of the first.
    """
    folder = os.path.abspath(path.parent)
    try:
        changed_ns = os.stat(folder).st_mtime_ns
    except OSError:
        changed_ns = 0
    return _cached_stems(folder, kind, changed_ns).get(path.name, path.name)


@lru_cache(maxsize=1)  # One folder at a time: files come folder by folder.
def _cached_stems(folder: str, kind: FileKind, _changed_ns: int) -> dict[str, str]:
    return output_stems(folder, kind)


def sidecar_journal(suffix: str) -> str:
    """The hidden file that a job keeps in the folder of its text files of a suffix."""
    return ".captions.captioner" if suffix == ".txt" else f".captions{suffix}.captioner"


def sidecar_suffixes(folder: Path) -> list[str]:
    """The suffixes of text files that jobs have written into a folder and those below it."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    found = (re.fullmatch(r"\.captions(\..+)\.captioner", name) for name in names)
    return [match[1] for match in found if match is not None and match[1] != ".xmp"]


def output_stems(folder: str, kind: FileKind) -> dict[str, str]:
    """File name -> stem of its output files, for all files of the kind in a folder."""
    try:
        with os.scandir(folder) as scan:
            names = sorted(entry.name for entry in scan if kind.lists(entry.name))
        names.sort(key=kind.age)
    except OSError:
        return {}
    stems: dict[str, str] = {}
    taken: set[str] = set()
    for short in (True, False):
        for name in names:
            stem = os.path.splitext(name)[0] if short else name
            # Compared as Windows and macOS do, so that the names are the same everywhere.
            if name in stems or (short and stem.casefold() in taken):
                continue
            number = 2
            while stem.casefold() in taken:
                stem, number = f"{name}.{number}", number + 1
            stems[name] = stem
            taken.add(stem.casefold())
    return stems
