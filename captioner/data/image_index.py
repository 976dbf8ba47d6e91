"""Where the images are that annotations name."""

from __future__ import annotations

import errno
import os
import posixpath
import unicodedata
from collections.abc import Callable
from pathlib import Path

from captioner.errors import CaptionerError
from captioner.files.recognising import HEIC_SUFFIXES, JPEG_XL_SUFFIXES, PILLOW_SUFFIXES

IMAGE_SUFFIXES = (*PILLOW_SUFFIXES, *HEIC_SUFFIXES, *JPEG_XL_SUFFIXES, ".jp2")
"""Of images in sets of data, among them some that captioner does not read.

No raw photos: each mostly stands beside a JPEG of the same name.
"""


class ImageIndex:
    """Answers "is this image there?" from one listing per folder, not one call per image."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders = folders
        self._listings: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
        self._spelled: dict[tuple[str, bool, Callable[[str], str]], dict[str, str]] = {}

    def locate(self, name: str) -> Path | None:
        """The path of the image; None if it is in none of the folders.

        A file whose name is the same text in another Unicode form counts (macOS decomposes names,
        annotations are mostly composed); one of exactly that name comes first.

        Raises:
            CaptionerError: a folder cannot be listed.
        """
        for folder in self.folders:
            parent, base = posixpath.split(posixpath.join(folder.as_posix(), name))
            if base in self._listing(parent)[0]:
                return folder / name
        return None if name.isascii() else self._compared(name, composed)

    def but_for_case(self, name: str) -> Path | None:
        """An image whose name differs from this one in upper and lower case only, or None."""
        return self._compared(name, _caseless)

    def but_for_suffix(self, name: str) -> Path | None:
        """An image whose name differs from this one in its suffix, and in capitals, or None."""
        return self._compared(name, _stem)

    def _compared(self, name: str, key: Callable[[str], str]) -> Path | None:
        """The first file whose path below a folder has parts with the same keys as `name`."""
        parent, base = posixpath.split(name)
        # What lies above an absolute name need not be readable: only its last part is compared.
        parts = [base] if parent.startswith("/") else [*filter(None, parent.split("/")), base]
        for folder in self.folders:
            place: Path | None = folder / parent if parent.startswith("/") else folder
            for number, part in enumerate(parts, 1):
                if place is not None:
                    place = self._child(place, part, number == len(parts), key)
            if place is not None:
                return place
        return None

    def _child(
        self, place: Path, part: str, is_file: bool, key: Callable[[str], str]
    ) -> Path | None:
        names = self._listing(place.as_posix())[0 if is_file else 1]
        if part in names or part == "..":
            return place / part
        at = (place.as_posix(), is_file, key)
        if at not in self._spelled:
            self._spelled[at] = {key(name): name for name in sorted(names, reverse=True)}
        found = self._spelled[at].get(key(part))
        return None if found is None else place / found

    def _listing(self, folder: str) -> tuple[frozenset[str], frozenset[str]]:
        """The names of the files in the folder, and those of its folders; empty for none."""
        if folder not in self._listings:
            files, folders = [], []
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.is_file():
                            files.append(entry.name)
                        elif entry.is_dir():
                            folders.append(entry.name)
            except ValueError:  # no folder has such a name
                pass
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                    raise CaptionerError(
                        f"{folder}: cannot list the image folder: {error}"
                    ) from error
            self._listings[folder] = frozenset(files), frozenset(folders)
        return self._listings[folder]


def composed(name: str) -> str:
    """The name in Unicode's composed form (NFC), in which equal texts are equal strings."""
    return unicodedata.normalize("NFC", name)


def _caseless(name: str) -> str:
    return composed(composed(name).casefold())


def _stem(name: str) -> str:
    stem, suffix = posixpath.splitext(_caseless(name))
    return stem if suffix in IMAGE_SUFFIXES or not suffix else name
