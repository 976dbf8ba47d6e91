"""Options that are described once: for the checks of a dataclass, and for the command line.

An option is a field of a frozen dataclass, made by `option` with its default, bounds and help.
`check_options` checks the values by it, `captioner.cli.options.add_options` makes arguments of it.
Loads nothing heavy, so that `--help` answers at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

T = TypeVar("T")

_DESCRIPTION = "option"


@dataclass(frozen=True)
class Description:
    """What there is to know of an option besides its name and its default.

    Attributes:
        kind: the type of its value: int, float, bool, str, or tuple for several words.
        help: a line for the command line, without the default.
        metavar: what the value is called there.
        flag: what the option is called there, if not by the name of its field.
        default_text: what the help calls the default, if not by its value; empty leaves it out.
        choices: the only values, or the only words of a tuple.
        minimum: the smallest number.
        above: all numbers are greater than this.
        maximum: the greatest number.
        below: all numbers are less than this.
    """

    kind: type
    help: str = ""
    metavar: str | None = None
    flag: str | None = None
    default_text: str | None = None
    choices: tuple[str, ...] = ()
    minimum: float = -math.inf
    above: float | None = None
    maximum: float = math.inf
    below: float | None = None

    def allows(self, value: object) -> bool:
        """Whether an option may have this value; None is not asked for here."""
        if self.kind in (int, float):
            numbers = int if self.kind is int else int | float
            if not isinstance(value, numbers) or isinstance(value, bool):
                return False
            is_above = self.above is None or value > self.above
            is_below = self.below is None or value < self.below
            # NaN is in no range.
            return is_above and is_below and self.minimum <= value <= self.maximum
        if self.kind is tuple:
            if not isinstance(value, Sequence) or isinstance(value, str):
                return False
            return all(map(self._is_word, value))
        return isinstance(value, self.kind) and (not self.choices or value in self.choices)

    def _is_word(self, value: object) -> bool:
        return isinstance(value, str) and value != "" and value in (self.choices or (value,))

    @property
    def remedy(self) -> str:
        """What to give instead of a value that is not allowed."""
        if self.choices:
            return f"choose from {', '.join(self.choices)}"
        if self.kind not in (int, float):
            words = "give a list of words, such as ['blurry']"
            return {bool: "give True or False", str: "give a text"}.get(self.kind, words)
        number = "give a whole number" if self.kind is int else "give a number"
        if self.above is not None and self.below is not None:
            return f"{number} between {self.above:g} and {self.below:g}"
        if self.above is not None:
            most = "" if self.maximum == math.inf else f" and at most {self.maximum:g}"
            return f"{number} above {self.above:g}{most}"
        if self.maximum == math.inf:
            return f"{number} of at least {self.minimum:g}"
        return f"{number} from {self.minimum:g} to {self.maximum:g}"


def option(default: T, help: str = "", *, kind: type | None = None, **about: Any) -> T:
    """A field of a frozen dataclass of options.

    Args:
        default: its value if none is given. None allows None beside the values of ``kind``.
        help: see `Description`.
        kind: the type of its value; that of the default otherwise.
        about: the other attributes of `Description`.
    """
    description = Description(kind or type(default), help, **about)
    # As `dataclasses.field` does: the type is that of the value, for the sake of the class's users.
    made: T = field(default=default, metadata={_DESCRIPTION: description})
    return made


def described(kind: type) -> dict[str, tuple[Description, Any]]:
    """The options of a dataclass: by the name of the field, its description and its default."""
    return {
        each.name: (each.metadata[_DESCRIPTION], each.default)
        for each in fields(kind)
        if _DESCRIPTION in each.metadata
    }


def check_options(options: object) -> None:
    """Check each option of a dataclass by its description.

    Raises:
        ValueError: gives the name and value of the first that is not allowed, and the remedy.
    """
    for name, (description, default) in described(type(options)).items():
        value = getattr(options, name)
        if not (value is None and default is None) and not description.allows(value):
            raise ValueError(f"{name}={value!r}: {description.remedy}")
