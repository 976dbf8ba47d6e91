"""How texts of any script are laid out: their width, their direction, and where lines may end.

A Chinese character is as wide as two Latin letters and a line may end after most of them, marks
above Arabic letters have no width, and Arabic and Hebrew run from right to left.
"""

from __future__ import annotations

import unicodedata

_RIGHT_TO_LEFT_MARK = "\u200f"

# Closing marks that Unicode does not class as such, with the small kana and the sound marks of
# Japanese: no line begins with one (UAX #14, classes CL, EX, IS, NS and CJ).
_NOT_FIRST = frozenset(
    "!%),.:;?]}¢°·‐–—’”…‰、。々〜ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮー・！％，．：；？～"
)
_NOT_LAST = frozenset("$([{£¥‘“＄￡￥")


def display_width(text: str) -> int:
    """The columns that a text takes on a terminal, and by which lines are compared elsewhere."""
    from wcwidth import width  # Here: its tables take time, and few commands need them.

    return width(text, control_codes="ignore")


def is_wide(text: str) -> bool:
    """Whether most of a text's characters, blanks aside, take two columns, as Chinese ones do."""
    chars = [each for each in text if not each.isspace()]
    return 2 * sum(map(_is_wide, chars)) > len(chars)


def is_right_to_left(text: str) -> bool:
    """Whether more of a text's letters run from right to left than from left to right."""
    kinds = [unicodedata.bidirectional(each) for each in text]
    return sum(kind in ("R", "AL") for kind in kinds) > kinds.count("L")


def with_direction_marks(line: str) -> str:
    """A line of a right-to-left text that is shown as one whatever surrounds it.

    Players take the direction of a line from its first letter (WebVTT, section 5.1) or take every
    line for left-to-right: a number or a Latin word at its start and a full stop at its end would
    then change sides. U+200F, which is not shown, keeps them; a line without them stays as it is.
    """
    strong = [kind for kind in map(unicodedata.bidirectional, line) if kind in ("L", "R", "AL")]
    if strong and strong[0] == "L" or _is_neutral(line[:1]):
        line = _RIGHT_TO_LEFT_MARK + line
    return line + _RIGHT_TO_LEFT_MARK if _is_neutral(line[-1:]) else line


def pieces(text: str) -> list[str]:
    """The parts between which a line may end, joined they are the text.

    Words, each but the first with the blanks before it; where characters are wide, each by itself
    with the marks that stay beside it: ``一只狗，`` is ``一 只 狗，`` (after UAX #14).
    """
    from wcwidth import iter_graphemes

    parts: list[str] = []
    for cluster in iter_graphemes(text):
        if parts and not _may_break(parts[-1], cluster):
            parts[-1] += cluster
        else:
            parts.append(cluster)
    return parts


def wrap(text: str, columns: int) -> list[list[str]]:
    """The lines of a text, each as its `pieces`, filled one after the other.

    A piece that is wider than a line is cut wherever the line is full. The blanks at the start of a
    line are part of its first piece and not counted.

    Args:
        text: on one line.
        columns: that a line has at most; at least two.
    """
    assert columns >= 2, "the room for one character of any script"
    lines: list[list[str]] = [[]]
    room = columns
    for piece in pieces(text.strip()):
        while True:
            bare = piece.lstrip()
            taken = display_width(piece if lines[-1] else bare)
            if taken <= room:
                lines[-1].append(piece)
                room -= taken
                break
            if display_width(bare) > columns:
                head, rest = _cut(piece if lines[-1] else bare, room)
                if head.strip():
                    lines[-1].append(head)
                    piece = rest
            lines.append([])
            room = columns
    return [line for line in lines if line]


def _may_break(before: str, cluster: str) -> bool:
    """Whether a line may end between a piece and the character after it."""
    if cluster.isspace():
        return not before[-1].isspace()
    if before.isspace():
        return False  # Blanks go with what follows them.
    if before[-1] in _NOT_LAST or unicodedata.category(before[-1]) in ("Ps", "Pi"):
        return False
    if cluster[0] in _NOT_FIRST or unicodedata.category(cluster[0]) in ("Pe", "Pf"):
        return False
    return _is_wide(before[-1]) or _is_wide(cluster[0])


def _cut(piece: str, columns: int) -> tuple[str, str]:
    """As much of a piece as fits, and the rest."""
    from wcwidth import iter_graphemes

    head, rest = "", list(iter_graphemes(piece))
    while rest and display_width(head + rest[0]) <= columns:
        head += rest.pop(0)
    return head, "".join(rest)


def _is_wide(char: str) -> bool:
    return unicodedata.east_asian_width(char) in ("W", "F")


def _is_neutral(char: str) -> bool:
    return char != "" and unicodedata.bidirectional(char) not in ("L", "R", "AL", "NSM")
