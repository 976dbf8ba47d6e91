"""Text to words to ids and back: one rule for training captions, references and metrics.

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
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import regex

from captioner.errors import CaptionerError

TOKENIZER_RULE = "captioner-words-1"
PAD_ID, BOS_ID, EOS_ID, UNK_ID = 0, 1, 2, 3
SPECIAL_WORDS = ("<pad>", "<bos>", "<eos>", "<unk>")  # the word at index i has id i
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


def _normalise(text: str) -> str:
    text = _INVISIBLE.sub("", text.translate(_BEFORE_NFKC))
    text = unicodedata.normalize("NFKC", _BEFORE_FRACTION.sub(" ", text))
    # Lower case turns "İ" into "i" and a second dot, and lets some marks compose again.
    text = _SECOND_DOTS.sub("i", text.translate(_TO_ASCII).lower())
    return unicodedata.normalize("NFKC", text)


def tokenize(text: str) -> list[str]:
    """Split ``text`` into words by the rule above; a text without words gives an empty list."""
    words: list[str] = _WORD.findall(_normalise(text))
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


class Tokenizer:
    """A vocabulary: words to ids and back, after the rule of this module.

    Ids 0 to 3 are the special words (padding, begin, end, unknown); the vocabulary starts at 4.

    Args:
        words: the vocabulary without special words, in the order of their ids.

    Raises:
        CaptionerError: a word is not a string, is listed twice, or is not one word of ``tokenize``.
    """

    words: tuple[str, ...]

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._ids: dict[str, int] = {}
        for word in self.words:
            if not isinstance(word, str) or tokenize(word) != [word]:
                raise CaptionerError(
                    f"tokenizer: {word!r} is not one word of the rule {TOKENIZER_RULE!r}; "
                    "build the vocabulary with Tokenizer.build"
                )
            if word in self._ids:
                raise CaptionerError(
                    f"tokenizer: the word {word!r} is listed twice; remove one of the two"
                )
            self._ids[word] = len(SPECIAL_WORDS) + len(self._ids)

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 5) -> Tokenizer:
        """Take every word that occurs at least ``min_count`` times, the most frequent first.

        Words with the same count are in code point order.

        Raises:
            CaptionerError: ``min_count`` is below 1, or no word occurs that often.
        """
        if min_count < 1:
            raise CaptionerError(f"min_count is {min_count}; it must be at least 1")
        counts = Counter(word for caption in captions for word in tokenize(caption))
        kept = [word for word, count in counts.items() if count >= min_count]
        if not kept:
            raise CaptionerError(
                f"min_count is {min_count}, and none of the {len(counts)} words in the captions "
                "occurs that often; lower it or give more captions"
            )
        return cls(sorted(kept, key=lambda word: (-counts[word], word)))

    def __len__(self) -> int:
        """Return V, the number of ids with the special ones."""
        return len(SPECIAL_WORDS) + len(self.words)

    def __eq__(self, other: object) -> bool:
        return self.words == other.words if isinstance(other, Tokenizer) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.words)

    def __repr__(self) -> str:
        return f"Tokenizer({len(self.words)} words)"

    def id_of(self, word: str) -> int:
        """Return the id of ``word``, or ``UNK_ID``; special words have no id here."""
        return self._ids.get(word, UNK_ID)

    def word_of(self, word_id: int) -> str:
        """Return the word of an id; the special ids give "<pad>", "<bos>", "<eos>", "<unk>".

        Raises:
            CaptionerError: the id is negative or not below ``len(self)``.
        """
        if not 0 <= word_id < len(self):
            raise CaptionerError(f"word id {word_id} is not one of the ids 0 to {len(self) - 1}")
        special = len(SPECIAL_WORDS)
        return SPECIAL_WORDS[word_id] if word_id < special else self.words[word_id - special]

    def encode(self, text: str) -> list[int]:
        """Return the ids of the words of ``text``, unknown ones as ``UNK_ID``; no begin, no end."""
        return [self.id_of(word) for word in tokenize(text)]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Return the words up to the first ``EOS_ID``, without padding and begin.

        Raises:
            CaptionerError: an id is outside the vocabulary.
        """
        words: list[str] = []
        for word_id in ids:
            if word_id == EOS_ID:
                break
            if word_id not in (PAD_ID, BOS_ID):
                words.append(self.word_of(int(word_id)))
        return words

    def to_dict(self) -> dict[str, Any]:
        """Return JSON primitives from which ``from_dict`` makes an equal tokenizer."""
        return {"rule": TOKENIZER_RULE, "words": list(self.words)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Tokenizer:
        """Make the tokenizer that ``to_dict`` described.

        Raises:
            CaptionerError: another rule's vocabulary, or a damaged one.
        """
        if not isinstance(data, dict):
            raise CaptionerError(
                f"tokenizer: expected a table with 'rule' and 'words', not {type(data).__name__}"
            )
        if data.get("rule") != TOKENIZER_RULE:
            raise CaptionerError(
                f"tokenizer: the vocabulary was made with the rule {data.get('rule')!r}, and this "
                f"version has {TOKENIZER_RULE!r}; use the version that made it, or train again"
            )
        words = data.get("words")
        if not isinstance(words, list):
            raise CaptionerError(
                f"tokenizer: 'words' must be a list of strings, not {type(words).__name__}; "
                "the file is damaged, get it again"
            )
        return cls(words)
