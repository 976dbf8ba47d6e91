"""The ids by which COCO's tools know images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from captioner.errors import CaptionerError

if TYPE_CHECKING:
    from captioner.data.datasets import Example


@dataclass(frozen=True)
class CocoIds:
    """One id for each image.

    Attributes:
        by_name: the image's name in the data set -> its id, different for each.
        numbered: whether the images are numbered because neither the annotations nor the names
            have an id for each.
        reason: why, naming an image without or two with one number; empty if not.
    """

    by_name: dict[str, int | str]
    numbered: bool = False
    reason: str = ""


def choose_coco_ids(examples: Sequence[Example]) -> CocoIds:
    """Choose the ids of COCO's result file: by one rule for all images.

    They are those of the annotations if these give one to each image; else the numbers that the
    names are (``7.jpg``, ``COCO_val2014_000000000007.jpg``), if all are and no two are the same;
    else 1, 2, 3 ... in the order of the images.

    Args:
        examples: the images; their names are different.

    Raises:
        CaptionerError: the annotations give two images the same id; names both.
    """
    given = {example.image_id: example.given_id for example in examples}
    known = {name: each for name, each in given.items() if each is not None}
    if len(known) == len(given):
        if twice := _same(known):
            raise CaptionerError(
                f"COCO results: the images {twice[0]} and {twice[1]} have the same id "
                f"{known[twice[0]]!r} in the annotations; give each its own, or leave out "
                "--coco-results"
            )
        return CocoIds(known)
    numbers: dict[str, int | str] = {}
    for name in given:
        number = coco_number(name)
        if number is None:
            return _numbered(given, f"the name {name} is not a number")
        numbers[name] = number
    if twice := _same(numbers):
        reason = f"{twice[0]} and {twice[1]} have the same number {numbers[twice[0]]}"
        return _numbered(given, reason)
    return CocoIds(numbers)


def coco_number(file_name: str) -> int | None:
    """The number that COCO's tools see in a file's name, in whatever folder it lies; else None.

    ``7.jpg`` and ``COCO_val2014_000000000007.jpg`` are 7.
    """
    found = re.fullmatch(r"(?:COCO_.+_)?([0-9]+)", PurePosixPath(file_name).stem)
    return int(found[1]) if found else None


class NumberIds:
    """Ids by the images' names, one by one: numbers, and the whole name of an image without one.

    An image whose number another has already goes by its name.
    """

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self.clashes: list[tuple[str, str]] = []
        """(image with the number, image that goes by its name instead)."""

    def id_of(self, file_name: str) -> int | str:
        """The id of an image; the same for the same name."""
        number = coco_number(file_name)
        if number is None:
            return file_name
        first = self._names.setdefault(number, file_name)
        if first == file_name:
            return number
        self.clashes.append((first, file_name))
        return file_name


def _same(ids: dict[str, int | str]) -> tuple[str, str] | None:
    first: dict[int | str, str] = {}
    for name, each in ids.items():
        if first.setdefault(each, name) != name:
            return first[each], name
    return None


def _numbered(names: dict[str, int | str | None], reason: str) -> CocoIds:
    return CocoIds({name: number for number, name in enumerate(names, 1)}, True, reason)
