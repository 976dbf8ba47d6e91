"""What a folder is searched for, by the names of its files."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

from captioner.files.recognising import ICLOUD


@dataclass(frozen=True, slots=True)
class FileKind:
    """What a folder is searched for.

    Attributes:
        noun: in messages: ``image``, ``video``.
        suffixes: in lower case, with the dot.
        supported: the suffixes of files that can be read, as messages list them.
        later: suffixes that came after the others, in groups. Of files with one stem those of an
            earlier group have the shorter names of outputs (`captioner.files.naming`).
        doubles: suffixes of files that are passed over where another one of the kind has the same
            stem: the raw photo beside its JPEG.
    """

    noun: str
    suffixes: frozenset[str]
    supported: str
    later: tuple[frozenset[str], ...] = ()
    doubles: frozenset[str] = frozenset()

    def lists(self, name: str) -> bool:
        """Whether a file of this name is listed in a folder, if it is not a double."""
        return suffix_of(name) in self.suffixes

    def age(self, name: str) -> int:
        """The number of its suffix's group: 0 for the oldest."""
        suffix = suffix_of(name)
        return next((i for i, group in enumerate(self.later, start=1) if suffix in group), 0)

    def is_double(self, name: str) -> bool:
        """Whether a file of this name is a double where another one has its stem."""
        return suffix_of(name) in self.doubles

    def passed_over(self, names: Collection[str]) -> frozenset[str]:
        """Those of a folder's files that are passed over as doubles."""
        doubles = [name for name in names if self.is_double(name)]
        if not doubles:
            return frozenset()
        singles = (name for name in names if not self.is_double(name))
        taken = {_stem(name) for name in singles if FileKind.lists(self, name)}
        return frozenset(name for name in doubles if _stem(name) in taken)

    def lists_hidden(self, name: str) -> bool:
        """Whether a file of this name is listed although its name begins with a dot."""
        return False


class OtherFiles(FileKind):
    """The files that are not listed of a kind."""

    def lists(self, name: str) -> bool:
        """Whether it is not of this kind, or perhaps a double."""
        # By name and not by super(): a dataclass with slots is another class than it began as.
        return not FileKind.lists(self, name) or self.is_double(name)

    def passed_over(self, names: Collection[str]) -> frozenset[str]:
        """Which of the possible doubles are not doubles."""
        doubles = FileKind.passed_over(self, names)
        return frozenset(name for name in names if self.is_double(name) and name not in doubles)

    def lists_hidden(self, name: str) -> bool:
        """The placeholders of iCloud."""
        return name.endswith(ICLOUD)


def suffix_of(name: str) -> str:
    """The suffix of a file's name, in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()


def _stem(name: str) -> str:
    return os.path.splitext(name)[0].casefold()  # as Windows and macOS compare them
