"""Where data sets of several files keep them, and what their names say of splits."""

from __future__ import annotations

import os
from pathlib import Path

from captioner.data.entries import split_in_name
from captioner.data.text_files import files_of


def shards_of(root: Path, pattern: str) -> list[Path]:
    """The files in the folder; else in its `data`; else in the folders in it or in `data`."""
    for folders in ((root,), (root / "data",), (*_folders(root), *_folders(root / "data"))):
        if files := [file for folder in folders for file in files_of(folder, pattern)]:
            return files
    return []


def shard_split(file: Path, base: Path) -> str | None:
    """The split that the name of a file, or of its folder inside `base`, stands for."""
    above = file.parent.name if file.parent != base else ""
    return split_in_name(file.stem) or split_in_name(above)


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(Path(e) for e in entries if e.is_dir() and not e.name.startswith("."))
