"""Images with a text file of the same name beside each."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from captioner.data.entries import Entries
from captioner.data.fields import split_in_path
from captioner.data.image_index import IMAGE_SUFFIXES, composed
from captioner.data.text_files import text_lines
from captioner.files.naming import sidecar_suffixes

SIDECAR_SUFFIXES = (".txt", ".caption")
"""Suffixes of text files beside images; the first one that occurs is used."""


def _walk(root: Path, suffix: str) -> Iterator[tuple[Path, list[str], dict[str, str]]]:
    """(folder, images, text files by composed name) of each folder, sorted, none hidden."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(d for d in subfolders if not d.startswith((".", "__MACOSX")))
        names = sorted(n for n in names if not n.startswith("."))
        images = [n for n in names if n.lower().endswith(IMAGE_SUFFIXES)]
        texts = [n for n in names if n.lower().endswith(suffix.lower())]
        texts.sort(key=lambda name: name.endswith(suffix))  # a.txt counts where a.TXT is beside it
        yield Path(folder), images, {composed(n[: -len(suffix)]) + suffix: n for n in texts}


def _own_sidecars(image: str, suffix: str) -> tuple[str, str]:
    name = composed(image)
    return name + suffix, posixpath.splitext(name)[0] + suffix


def _suffix_in(root: Path, given: str | None) -> str | None:
    """The suffix of the text files that lie beside images, None where there are none."""
    # Text files that captioner wrote are recognised by the journal beside them.
    known = (*SIDECAR_SUFFIXES, *sidecar_suffixes(root)) if given is None else (given,)
    for suffix in known:
        for _, images, texts in _walk(root, suffix):
            own = (_own_sidecars(image, suffix) for image in images)
            if any(not texts.keys().isdisjoint(names) for names in own):
                return suffix
    return None


def find_sidecar(root: Path, suffix: str | None = None) -> list[Path]:
    """The folder itself, if an image in it has a text file of the suffix, or of any, beside it."""
    return [] if _suffix_in(root, suffix) is None else [root]


def read_sidecar(files: list[Path], entries: Entries, suffix: str | None = None) -> None:
    """Read the text files beside the images of the folder `files[0]`; a line is a caption.

    Args:
        files: the folder.
        entries: what they are added to.
        suffix: of the text files; by default that of those that are found.
    """
    suffix = _suffix_in(files[0], suffix) or suffix or SIDECAR_SUFFIXES[0]
    for folder, images, texts in _walk(files[0], suffix):
        inside = folder.relative_to(files[0])
        split = split_in_path(f"{inside.as_posix()}/")
        own = {image: _own_sidecars(image, suffix) for image in images}
        full = {image for image in images if own[image][0] in texts}
        capitals = {name.casefold() for name in texts}
        stems = Counter(own[image][1] for image in images if image not in full)
        for image in images:
            where = str(folder / image)
            sidecar = own[image][0 if image in full else 1]
            if sidecar not in texts:
                lacks = f"without a {suffix} beside it"
                if not capitals.isdisjoint(name.casefold() for name in own[image]):
                    lacks = f"whose {suffix} has its name in other capitals"
                entries.count(f"image{{s}} {lacks} left out", where)
            elif image not in full and stems[sidecar] > 1:
                # a.jpg and a.png: nobody can say whose captions a.txt holds; a.jpg.txt is clear.
                what = f"image{{s}} that share one {suffix} with another image left out"
                entries.count(what, where)
            else:
                # An empty file stands for an empty caption, so that the image is counted.
                file = folder / texts[sidecar]
                for number, line in list(text_lines(file)) or [(1, "")]:
                    at = f"{file}, line {number}"
                    name = entries.add((inside / image).as_posix(), line, at)
                    entries.assign(name, split, where)
