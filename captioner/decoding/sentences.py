"""Sentences with blanks, as they are written. Loads no torch."""

from __future__ import annotations

import re
from collections.abc import Callable

from captioner.errors import CaptionerError
from captioner.text.tokenizer import tokenize

_BLANK = re.compile("_+")
_TOUCHED = re.compile(r"\w*[^\W_]-?_+\w*|_+-?[^\W_]\w*")


def parse_blanks(
    sentence: str, tokenize: Callable[[str], list[str]] = tokenize
) -> tuple[str | None, ...]:
    """The words of a sentence with blanks, None for each blank.

    A blank is a run of underscores that touches no letter or digit, and stands for one word. The
    rest is tokenised as captions are.

    Args:
        sentence: such as "a ___ dog".
        tokenize: of the model's language.

    Raises:
        CaptionerError: there is no blank, or one is a part of a word.
    """
    touched = _TOUCHED.search(sentence)
    if touched is not None:
        raise CaptionerError(
            f"sentence {sentence!r}: {touched.group()!r} is not a whole word; a blank stands for "
            "one word, with spaces around it: 'a ___ dog'"
        )
    pieces = _BLANK.split(sentence)
    if len(pieces) == 1:
        raise CaptionerError(
            f"sentence {sentence!r}: there is no blank in it; write ___ for a word to be found, "
            "and the sentence after the images"
        )
    words: list[str | None] = list(tokenize(pieces[0]))
    for piece in pieces[1:]:
        words += [None, *tokenize(piece)]
    return tuple(words)
