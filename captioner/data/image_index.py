"""Where the images are that annotations name."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

from captioner.errors import CaptionerError


class ImageIndex:
    """Answers "is this image there?" from one listing per folder, not one call per image."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders = folders
        self._listings: dict[str, frozenset[str]] = {}

    def locate(self, name: str) -> Path | None:
        """The path of the image; None if it is in none of the folders."""
        for folder in self.folders:
            parent, base = posixpath.split(posixpath.join(folder.as_posix(), name))
            if base in self._listing(parent):
                return folder / name
        return None

    def _listing(self, folder: str) -> frozenset[str]:
        if folder not in self._listings:
            try:
                with os.scandir(folder) as entries:
                    self._listings[folder] = frozenset(e.name for e in entries if e.is_file())
            except (FileNotFoundError, NotADirectoryError):
                self._listings[folder] = frozenset()
            except (OSError, ValueError) as error:
                raise CaptionerError(f"{folder}: cannot list the image folder: {error}") from error
        return self._listings[folder]
