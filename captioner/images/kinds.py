"""Find image files, by their suffixes in a folder, and say which of them need an extra.

HEIC, JPEG XL and raw photos are read by libraries that come with an extra of captioner. None of
them is imported here: whether one is installed is all that is looked up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from captioner.files.finding import SourceFile, find_files
from captioner.files.kinds import FileKind
from captioner.files.recognising import (
    HEIC_SUFFIXES,
    JPEG_XL_SUFFIXES,
    PILLOW_SUFFIXES,
    RAW,
    RAW_SUFFIXES,
    READ,
    VIDEO,
    why_no_image_or_video,
)

HEIC, JPEG_XL = "HEIC", "JPEG XL"


@dataclass(frozen=True, slots=True)
class Extra:
    """A kind of image that captioner reads with an extra of its own.

    Attributes:
        kind: as `captioner.files.recognising` calls it.
        name: of the extra.
        module: that it brings.
        suffixes: of the files, in lower case, with the dot.
        note: on what is installed, for messages; mostly empty.
    """

    kind: str
    name: str
    module: str
    suffixes: frozenset[str]
    note: str = ""

    @property
    def is_installed(self) -> bool:
        """Whether what the extra brings is there."""
        return is_installed(self.module)

    @property
    def remedy(self) -> str:
        """How to read such files."""
        return f"pip install 'captioner[{self.name}]'{self.note}"


EXTRAS: Mapping[str, Extra] = {
    extra.kind: extra
    for extra in (
        Extra(HEIC, "heif", "pi_heif", HEIC_SUFFIXES),
        Extra(JPEG_XL, "jxl", "pillow_jxl", JPEG_XL_SUFFIXES, " (its licence is the GPL-3)"),
        # Files called .raw are of any kind; they are read when they are named.
        Extra(RAW, "raw", "rawpy", RAW_SUFFIXES - {".raw"}),
    )
}

_READ_SUFFIXES = " ".join(PILLOW_SUFFIXES)
READ_SUFFIXES = frozenset(PILLOW_SUFFIXES)
"""Of images that need no extra."""

REPORTED_SUFFIXES = HEIC_SUFFIXES
"""Listed in any case, so that a folder of phone photos is reported and not passed over."""

RAW_CHOICES = ("alone", "all", "none")
"""Which raw photos a folder is searched for: those that stand alone, all or none."""

IMAGES = FileKind(
    "image",
    READ_SUFFIXES | frozenset().union(*(extra.suffixes for extra in EXTRAS.values())),
    _READ_SUFFIXES,
    later=(EXTRAS[HEIC].suffixes, EXTRAS[JPEG_XL].suffixes, EXTRAS[RAW].suffixes),
)
"""All that can be read with all extras. What outputs are called does not depend on the extras."""


def find_images(
    paths: str | Path | Sequence[str | Path],
    exclude: Sequence[str] | None = (),
    raw: str = "alone",
) -> Iterator[SourceFile]:
    """List image files lazily; see `captioner.files.finding.find_files`, also for the errors.

    Args:
        paths: files, folders and patterns.
        exclude: see there.
        raw: which raw photos a folder is searched for, one of `RAW_CHOICES`. Those that are named
            themselves are always listed.
    """
    return find_files(paths, images_to_find(raw), exclude)


def why_not_read(kind: str | None) -> str:
    """Why a file that Pillow does not know is not read, in a few words.

    Args:
        kind: as `captioner.files.recognising` calls it; None if nobody knows it.
    """
    if kind is None or kind in READ or kind in EXTRAS:
        return "not an image Pillow can read"
    if kind == VIDEO:
        return "a video and not an image: `captioner tag` reads videos"
    return why_no_image_or_video(kind, "image") or f"{kind} is not supported: convert it to JPEG"


@cache
def is_installed(module: str) -> bool:
    """Whether a module could be imported."""
    return find_spec(module) is not None


def images_to_find(raw: str = "alone") -> FileKind:
    """What folders are searched for: images that can be read with the extras that are installed.

    Args:
        raw: one of `RAW_CHOICES`.

    Raises:
        ValueError: for another value.
    """
    if raw not in RAW_CHOICES:
        raise ValueError(f"raw={raw!r}: choose from {', '.join(RAW_CHOICES)}")
    wanted = [extra for extra in EXTRAS.values() if extra.kind != RAW or raw != "none"]
    installed = [extra for extra in wanted if extra.is_installed]
    takes_raw = EXTRAS[RAW] in installed
    return FileKind(
        "image",
        (READ_SUFFIXES | REPORTED_SUFFIXES).union(*(extra.suffixes for extra in installed)),
        " ".join([_READ_SUFFIXES, *map(_shown, installed)]),
        doubles=EXTRAS[RAW].suffixes if takes_raw and raw == "alone" else frozenset(),
    )


def notes_on_others(raw: str = "alone") -> dict[str, str]:
    """How the kinds of files that a folder is not searched for would be read.

    Args:
        raw: which raw photos it was searched for.
    """
    notes = {extra.kind: extra.remedy for extra in EXTRAS.values() if not extra.is_installed}
    if RAW not in notes and raw != "all":
        which = "those beside another image" if raw == "alone" else "them"
        notes[RAW] = f"--raw all takes {which}"
    return notes


def _shown(extra: Extra) -> str:
    return "and raw photos" if extra.kind == RAW else " ".join(sorted(extra.suffixes))
