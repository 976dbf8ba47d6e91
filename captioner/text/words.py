"""Text to words and back: one rule for training captions, references and metrics.

The rule, whose version is ``TOKENIZER_RULE``:

1. *Unicode.* NFKC; invisible format characters (soft hyphens, direction marks, variation
   selectors) and enclosing marks are removed; a zero-width joiner or non-joiner stays inside a
   word, as Persian and Indic spelling need it; a zero-width space separates words.
2. *Case.* Lower case, without regard to language: "ß" stays, and both "İ" and "I" become "i".
3. *Words* are runs of letters, marks and digits. A single hyphen, apostrophe or Catalan middle
   dot inside a word belongs to it: "t-shirt", "don't", "l'homme", "col·lega". Every kind of
   apostrophe and hyphen is the same one; an em dash or "--" separates words.
4. *Possessives.* A final "'s" is a word of its own, whether "man's" or "man 's" was written (so is
   that of "it's"). The apostrophe of "dogs'" is dropped.
5. *Numbers* keep inner points and commas: "3.5", "1,000". A vulgar fraction is two numbers:
   "3½" gives "3", "1", "2".
6. *All other punctuation and symbols* are dropped: "U.S." gives "u", "s", and "<eos>" gives
   "eos", so no caption can contain a special word.
7. *Scripts written without spaces* (Han, Hiragana, Katakana, Thai, Lao, Khmer, Myanmar) give one
   word per letter with its marks, and no dictionary is needed. Hangul and all other scripts are
   split at spaces and punctuation.

For every text, ``tokenize(detokenize(tokenize(text))) == tokenize(text)``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import regex

TOKENIZER_RULE = "captioner-words-1"
POSSESSIVE = "'s"

# NFKC turns the acute accent into a space and a mark, so this one has to go first.
_BEFORE_NFKC = str.maketrans({"\u00b4": "'"})
_TO_ASCII = str.maketrans(
    dict.fromkeys("`\u2018\u2019\u201b\u2032\u02bc\u05f3", "'")
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-")
    | dict.fromkeys("\u2014\u2015", "--")
)
_INVISIBLE = regex.compile(r"(?V1)[[\p{Default_Ignorable_Code_Point}\p{Me}]--[\u200b-\u200d]]+")
_SECOND_DOTS = regex.compile("i\u0307+")
_BEFORE_FRACTION = regex.compile(r"(?<=\p{Nd})(?=[\u00bc-\u00be\u2150-\u215f\u2189])")

_SCRIPTS = ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar")
# Script extensions, not scripts: the Japanese length mark is "common" and belongs to kana.
_SPACELESS = (
    r"[[\p{L}\p{Nl}]&&[" + "".join(rf"\p{{Script_Extensions={name}}}" for name in _SCRIPTS) + "]]"
)
_SPACED = rf"[[\p{{L}}\p{{N}}]--{_SPACELESS}]"
_JOINERS = r"[\u200c\u200d]*"
_RUN = rf"{_SPACED}(?:{_JOINERS}[{_SPACED}\p{{M}}])*+"
_FINAL_S = rf"'s(?!{_JOINERS}[{_SPACED}\p{{M}}])(?![-·]{_SPACED})"
_WORD = regex.compile(
    rf"(?V1){_RUN}(?:(?!{_FINAL_S})(?:[-'·]|(?<=\p{{Nd}})[.,٫٬](?=\p{{Nd}})){_RUN})*"
    rf"|{_FINAL_S}"
    rf"|{_SPACELESS}(?:{_JOINERS}\p{{M}})*"
)
_SPACELESS_WORD = regex.compile(rf"(?V1){_SPACELESS}")


def _normalise(text: str, keep_case: bool = False) -> str:
    text = _INVISIBLE.sub("", text.translate(_BEFORE_NFKC))
    text = unicodedata.normalize("NFKC", _BEFORE_FRACTION.sub(" ", text))
    if keep_case:
        return text.translate(_TO_ASCII)
    # Lower case turns "İ" into "i" and a second dot, and lets some marks compose again.
    text = _SECOND_DOTS.sub("i", text.translate(_TO_ASCII).lower())
    return unicodedata.normalize("NFKC", text)


def _is_plain(text: str) -> bool:
    """Whether it is one word of ASCII letters, as most of a vocabulary are: they need no rules."""
    return text.isascii() and text.isalpha()


def tokenize(text: str) -> list[str]:
    """Split ``text`` into words by the rule above; a text without words gives an empty list."""
    if _is_plain(text):
        return [text.lower()]
    words: list[str] = _WORD.findall(_normalise(text))
    return words


def tokenize_with_case(text: str) -> list[str]:
    """Split ``text`` as :func:`tokenize` does, with capitals as they are written."""
    if _is_plain(text):
        return [text]
    words: list[str] = _WORD.findall(_normalise(text, keep_case=True))
    return words


def detokenize(words: Iterable[str]) -> str:
    """Join words for people to read: ``["the", "man", "'s", "hat"]`` gives "the man's hat".

    Words of scripts written without spaces are joined without them.
    """
    parts: list[str] = []
    after_spaceless = False
    for word in words:
        spaceless = _SPACELESS_WORD.match(word) is not None
        if parts and word != POSSESSIVE and not (spaceless and after_spaceless):
            parts.append(" ")
        parts.append(word)
        after_spaceless = spaceless
    return "".join(parts)


def join_chinese(words: Iterable[str]) -> str:
    """Join words with a blank only between two of scripts that are written with blanks."""
    text = ""
    for word in words:
        spaced = text and not _SPACELESS_WORD.match(text[-1]) and not _SPACELESS_WORD.match(word)
        text += f" {word}" if spaced else word
    return text
