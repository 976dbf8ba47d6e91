"""What people accepted and corrected in `captioner review`, as captions to learn from."""

from __future__ import annotations

from pathlib import Path

from captioner.data.entries import Entries
from captioner.files.verdicts import FILE_NAME, read_verdicts


def find_verdicts(root: Path) -> list[Path]:
    """The file of the verdicts, itself or in a folder."""
    file = root if root.is_file() else root / FILE_NAME
    return [file] if file.name == FILE_NAME and file.is_file() else []


def read_verdict_files(files: list[Path], entries: Entries) -> None:
    """Read the captions that people accepted or wrote; those they rejected are counted.

    Images are called by their paths, relative to the folder of the verdicts.

    Raises:
        CaptionerError: the file cannot be read.
    """
    for file in files:
        for verdict in read_verdicts(file):
            where = f"{file}, verdict {verdict.number}"
            if verdict.after is None:
                entries.count("rejected caption{s} left out", verdict.path)
            else:
                entries.add(verdict.path, verdict.after, where)
