"""Text that is safe to show: on one line, on a terminal, in a spreadsheet."""

from __future__ import annotations

import re
from pathlib import Path

# Control characters, line separators, the marks that reverse the writing direction (a terminal
# would show another name than the file has) and halves of surrogate pairs.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escaped(text: str) -> str:
    r"""The text as one line that is safe to show: a tab becomes ``\t``, an escape ``\x1b``."""
    return _UNSAFE.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def shown(path: str | Path) -> str:
    """A path as messages show it, on one line."""
    return escaped(str(path))


def encode_text(text: str, encoding: str = "utf-8") -> bytes:
    r"""The text as bytes; what no encoding holds is shown escaped (``\udcfc``): valid in JSON."""
    return text.encode(encoding, "backslashreplace")


# What steers a terminal, line ends and tabs aside.
_STEERING = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def without_steering(text: str) -> str:
    r"""The text for a terminal: what would steer it becomes ``\u001b``, the same text in JSON."""
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


# Letters that run from right to left (Unicode's blocks of them), the marks between them aside.
_RIGHT_TO_LEFT = re.compile(
    "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]"
)


def isolated(text: str) -> str:
    """A field of a line for a terminal: `escaped`, and with Arabic or Hebrew in it on its own.

    Marks that are not shown (U+2068 and U+2069, Unicode's UAX #9) keep a terminal from moving what
    stands before and behind such a field to its other side.
    """
    text = escaped(text)
    return f"\u2068{text}\u2069" if _RIGHT_TO_LEFT.search(text) else text


# OWASP's "CSV Injection", full-width forms included.
_FORMULA_STARTS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


def safe_cell(value: object) -> object:
    """The value of a CSV cell, with a leading ``'`` if a spreadsheet would run it as a formula.

    So has one that has such a quote already: `plain_cell` distinguishes them.
    """
    if isinstance(value, str) and value.lstrip("'").startswith(_FORMULA_STARTS):
        return "'" + value
    return value


def plain_cell(cell: str) -> str:
    """The text of a CSV cell that `safe_cell` wrote: without the quote that it puts before some."""
    if cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA_STARTS):
        return cell[1:]
    return cell
