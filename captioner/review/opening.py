"""Which captions a path means: a file with all of them, or a folder of files for each image."""

from __future__ import annotations

import os
from pathlib import Path

from captioner.captioning.sidecars import XmpWriter
from captioner.data.sidecars import SIDECAR_SUFFIXES
from captioner.data.text_files import files_of
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.finding import find_files
from captioner.files.naming import sidecar_journal, sidecar_suffixes
from captioner.images.kinds import IMAGES
from captioner.review.captions import Captions
from captioner.review.tables import TABLES
from captioner.review.texts import open_texts


def open_captions(path: Path, images: Path | None = None, suffix: str | None = None) -> Captions:
    """Open the captions to review.

    Args:
        path: a JSONL or CSV file; or a folder with one of them, or with files for each image.
        images: the folder of the images, where a file of captions does not lie beside them.
        suffix: of the files for each image, where a folder could mean several things.

    Raises:
        CaptionerError: there are none, more than one thing could be meant, or they cannot be read;
            names the remedy.
    """
    if not path.exists():
        raise CaptionerError(f"{shown(path)} does not exist: give a folder or a file of captions")
    if images is not None and not images.is_dir():
        raise CaptionerError(f"--images {shown(images)} is not a folder: give that of the images")
    if path.is_file():
        return _open_file(path, images, suffix)
    if suffix is not None:
        return open_texts(path, suffix)
    files = [file for each in TABLES for file in files_of(path, f"*{each}")]
    suffixes = _suffixes(path)
    if len(files) + len(suffixes) > 1:
        found = ", ".join([*(shown(file.name) for file in files), *(f"*{x}" for x in suffixes)])
        raise CaptionerError(
            f"{shown(path)} holds several kinds of captions ({found}): name the file, or the files "
            "of the images with --sidecar-suffix"
        )
    if files:
        return _open_file(files[0], images, None)
    if not suffixes:
        raise CaptionerError(
            f"{shown(path)} holds no captions: `captioner caption {shown(path)} --output "
            "captions.jsonl` makes some; looked for .jsonl and .csv there, and for .txt, .caption "
            "and .xmp beside the images"
        )
    return open_texts(path, suffixes[0])


def _open_file(path: Path, images: Path | None, suffix: str | None) -> Captions:
    if suffix is not None:
        raise CaptionerError("--sidecar-suffix is for a folder with files for each image")
    kind = TABLES.get(path.suffix.lower())
    if kind is None:
        raise CaptionerError(
            f"{shown(path)}: review takes {', '.join(TABLES)}, and folders with a file for each "
            "image"
        )
    return kind(path, images)


def _suffixes(folder: Path) -> list[str]:
    """The suffixes of the files for each image that lie in a folder."""
    known = [*SIDECAR_SUFFIXES, XmpWriter.suffix]
    found = [each for each in known if (folder / sidecar_journal(each)).is_file()]
    found += [each for each in sidecar_suffixes(folder) if each not in known]
    if found:
        return found
    try:
        images = [file.path for file in find_files(folder, IMAGES)]
    except CaptionerError:  # There are none.
        return []
    return [each for each in known if any(_has_own(image, each) for image in images)]


def _has_own(image: Path, suffix: str) -> bool:
    stem = os.path.splitext(image.name)[0]
    return any(
        image.with_name(name).is_file() for name in (f"{stem}{suffix}", f"{image.name}{suffix}")
    )
