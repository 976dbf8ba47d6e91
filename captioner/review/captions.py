"""Captions under review, wherever they live: what the page needs of them, and how one is changed.

`captioner.review.tables` has those of one file, `captioner.review.texts` those with a file for each
image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from captioner.captioning.affixes import Affixes
from captioner.review.job_memory import JobMemory


@dataclass(frozen=True, slots=True)
class Item:
    """An image and its caption.

    Attributes:
        name: what the captions call the image; each name occurs once.
        path: where the image is; None where it cannot, or may not, be looked at.
        text: the caption; None if there is none.
        confidence: of the caption that captioner made, in [0, 1]; None where it is not known.
        tags: names of the tags, surest first.
        problem: why its caption cannot be changed; None if it can.
        language: of the caption, a BCP 47 tag; None where it is not known, or English alone.
    """

    name: str
    path: Path | None
    text: str | None
    confidence: float | None = None
    tags: tuple[str, ...] = ()
    problem: str | None = None
    language: str | None = None


class Captions(ABC):
    """Where the captions live. One process at a time changes them, one change at a time.

    Attributes:
        folder: beside which the verdicts are kept.
        key: `captioner.files.verdicts.Verdict.captions`.
        title: for people.
    """

    folder: Path
    key: str
    title: str
    _memory: JobMemory
    _items: dict[str, Item]

    @property
    def affixes(self) -> Affixes:
        """What stands around each caption that captioner makes."""
        return self._memory.affixes

    @property
    def language(self) -> str | None:
        """Of the captions, as far as it is known; see `Item`."""
        languages = (item.language for item in self._items.values())
        return next((language for language in languages if language is not None), None)

    @property
    def items(self) -> Mapping[str, Item]:
        """Name -> image, in their order, as they were when they were last read."""
        return self._items

    @abstractmethod
    def refresh(self, name: str) -> Item | None:
        """Read again what was changed by others; returns the image as it is now, None if gone.

        Raises:
            CaptionerError: the captions cannot be read.
        """

    @abstractmethod
    def write(self, name: str, text: str | None) -> None:
        """Change one caption, on the disk when this returns, and in the job's own memory.

        Raises:
            CaptionerError: it cannot be written; the caption is as it was.
        """

    def close(self) -> None:
        """Let others change the captions."""
        self._memory.close()


def share_of(value: object) -> float | None:
    """A confidence out of a record; None for what is not one."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value <= 1 else None  # type: ignore[operator,arg-type]


def names_of_tags(value: object) -> tuple[str, ...]:
    """The names of the tags out of a record; none for what is not a list of them."""
    tags: Sequence[object] = value if isinstance(value, list) else ()
    names = (tag.get("name") if isinstance(tag, dict) else tag for tag in tags)
    return tuple(name for name in names if isinstance(name, str))
