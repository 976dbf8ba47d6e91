"""Images with a text file of the same name beside each."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from captioner.data.entries import Entries, split_of_word
from captioner.data.image_index import composed
from captioner.data.text_files import text_lines

_SIDECAR_IMAGES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"),
    *(".heic", ".heif", ".hif", ".jxl", ".ppm", ".pgm", ".jp2"),
)


def _walk(root: Path) -> Iterator[tuple[Path, list[str], dict[str, str]]]:
    """(folder, images, .txt files by composed name) of each folder, sorted, none hidden."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(d for d in subfolders if not d.startswith((".", "__MACOSX")))
        names = sorted(n for n in names if not n.startswith("."))
        images = [n for n in names if n.lower().endswith(_SIDECAR_IMAGES)]
        yield Path(folder), images, {composed(n): n for n in names if n.endswith(".txt")}


def _own_sidecars(image: str) -> tuple[str, str]:
    name = composed(image)
    return name + ".txt", posixpath.splitext(name)[0] + ".txt"


def find_sidecar(root: Path) -> list[Path]:
    """The folder itself, if an image in it has a text file beside it."""
    for _, images, texts in _walk(root):
        if any(not texts.keys().isdisjoint(_own_sidecars(image)) for image in images):
            return [root]
    return []


def read_sidecar(files: list[Path], entries: Entries) -> None:
    """Read the text files beside the images of the folder `files[0]`; a line is a caption."""
    for folder, images, texts in _walk(files[0]):
        inside = folder.relative_to(files[0])
        split = split_of_word(inside.parts[0]) if inside.parts else None
        full = {image for image in images if _own_sidecars(image)[0] in texts}
        stems = Counter(_own_sidecars(image)[1] for image in images if image not in full)
        for image in images:
            where = str(folder / image)
            sidecar = _own_sidecars(image)[0 if image in full else 1]
            if sidecar not in texts:
                entries.count("image{s} without a .txt beside it left out", where)
            elif image not in full and stems[sidecar] > 1:
                # a.jpg and a.png: nobody can say whose captions a.txt holds; a.jpg.txt is clear.
                entries.count("image{s} that share one .txt with another image left out", where)
            else:
                # An empty file stands for an empty caption, so that the image is counted.
                file = folder / texts[sidecar]
                for number, line in list(text_lines(file)) or [(1, "")]:
                    at = f"{file}, line {number}"
                    name = entries.add((inside / image).as_posix(), line, at)
                    entries.assign(name, split, where)
