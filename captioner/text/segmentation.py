"""How the texts of each language become words, beyond the rule that all share.

The rule of `captioner.text.words` lowers capitals and splits Chinese into characters. A language
may do more: German keeps the capitals of its nouns, Arabic drops the marks that few people write,
Chinese puts characters together to words.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from typing import ClassVar

import regex

from captioner.errors import CaptionerError
from captioner.text.languages import primary_of
from captioner.text.words import TOKENIZER_RULE, tokenize, tokenize_with_case


class Segmentation:
    """The shared rule and nothing else: English, French, Chinese by characters.

    Args:
        known: the vocabulary, for those that need it to split a text.

    Attributes:
        rule: its name with its version, which a model file keeps.
    """

    rule: ClassVar[str] = TOKENIZER_RULE

    def __init__(self, known: Collection[str] = ()) -> None:
        self.known = known

    def tokenize(self, text: str) -> list[str]:
        """Split a text into words, known or not."""
        return tokenize(text)

    @classmethod
    def is_word(cls, word: str) -> bool:
        """Whether a vocabulary may hold this."""
        return tokenize(word) == [word]

    @classmethod
    def vocabulary(cls, captions: Sequence[str], min_count: int) -> list[str]:
        """The words that occur ``min_count`` times, the most frequent first.

        Words with the same count are in code point order.
        """
        segmentation = cls()
        return _most_frequent((segmentation.tokenize(text) for text in captions), min_count)

    @classmethod
    def spelling(cls, words: Sequence[str], captions: Sequence[str]) -> dict[str, str]:
        """How words are written where that is not how the rule has them."""
        return {}


class GermanSegmentation(Segmentation):
    """The shared rule, which lowers capitals, and the capitals that people write words with.

    People capitalise the first word of a sentence, and many write without capitals at all: only
    words within captions that have a capital there count.
    """

    @classmethod
    def spelling(cls, words: Sequence[str], captions: Sequence[str]) -> dict[str, str]:
        """The form of each word that most people write, where it has capitals."""
        forms: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for text in captions:
            written, plain = tokenize_with_case(text)[1:], tokenize(text)[1:]
            if len(written) == len(plain) and _has_some_capitals(written):
                for form, word in zip(written, plain, strict=True):
                    forms[word][form] += 1
        most = {
            word: max(forms[word], key=lambda form: (forms[word][form], form))
            for word in words
            if word in forms
        }
        return {
            word: form
            for word, form in most.items()
            if form != word and tokenize(form) == [word] and tokenize_with_case(form) == [form]
        }


class ArabicSegmentation(Segmentation):
    """The shared rule on texts without vowel marks and without lengthening strokes."""

    rule: ClassVar[str] = "captioner-arabic-1"

    def tokenize(self, text: str) -> list[str]:
        """Split a text into words without marks."""
        return tokenize(without_arabic_marks(text))

    @classmethod
    def is_word(cls, word: str) -> bool:
        """Whether it is one word, without marks."""
        return cls().tokenize(word) == [word]


class ChineseSegmentation(Segmentation):
    """Words of the vocabulary, the longest that fits, and single characters between them.

    Which words there are is found with rjieba when a vocabulary is built; to split a text by it,
    nothing but the vocabulary is needed.
    """

    rule: ClassVar[str] = "captioner-chinese-1"

    def __init__(self, known: Collection[str] = ()) -> None:
        super().__init__(known)
        self._longest = max(map(len, known), default=1)

    def tokenize(self, text: str) -> list[str]:
        """Split a text into words of the vocabulary and characters."""
        parts, words, first = tokenize(text), [], 0
        while first < len(parts):
            last = min(len(parts), first + self._longest)
            while last > first + 1 and "".join(parts[first:last]) not in self.known:
                last -= 1
            words.append("".join(parts[first:last]))
            first = last
        return words

    @classmethod
    def is_word(cls, word: str) -> bool:
        """Whether it is one or several characters, with nothing between them."""
        return word != "" and "".join(tokenize(word)) == word

    @classmethod
    def vocabulary(cls, captions: Sequence[str], min_count: int) -> list[str]:
        """The words of rjieba that occur ``min_count`` times, and characters that are left over.

        Raises:
            CaptionerError: rjieba is not installed.
        """
        cut = _load_rjieba()
        split = (["".join(tokenize(word)) for word in cut(text)] for text in captions)
        words = [word for word in _most_frequent(split, min_count) if word]
        segmentation = cls(set(words))
        return _most_frequent((segmentation.tokenize(text) for text in captions), min_count)


SEGMENTATIONS: dict[str, tuple[str, type[Segmentation]]] = {
    "de": ("words", GermanSegmentation),
    "ar": ("words", ArabicSegmentation),
    "zh": ("words", ChineseSegmentation),
}
"""Of the languages that have one of their own; all others have the shared rule, by words."""

_ARABIC_MARKS = regex.compile("[\u0640\u064b-\u0652\u0670]")
_ARABIC_FORMS = str.maketrans("\u0622\u0623\u0625\u0671\u0649", "\u0627\u0627\u0627\u0627\u064a")


def choose_segmentation(language: str, by: str | None = None) -> type[Segmentation]:
    """How texts of a language become words.

    Args:
        language: a BCP 47 tag.
        by: ``words`` or ``characters``; None for the language's own way.

    Raises:
        CaptionerError: it cannot be split so.
    """
    own, kind = SEGMENTATIONS.get(primary_of(language), ("words", Segmentation))
    if by in (None, own):
        return kind
    if by == "characters" and primary_of(language) == "zh":
        return Segmentation
    raise CaptionerError(
        f"segmentation {by!r}: captions in {language!r} are split by words"
        + (", or by characters" if language.startswith("zh") else "")
    )


def find_segmentation(rule: object) -> type[Segmentation]:
    """The segmentation that a vocabulary was made with.

    Raises:
        CaptionerError: this version has no such rule.
    """
    kinds = (Segmentation, ArabicSegmentation, ChineseSegmentation)
    found = next((kind for kind in kinds if kind.rule == rule), None)
    if found is None:
        raise CaptionerError(
            f"tokenizer: the vocabulary was made with the rule {rule!r:.60}, and this version has "
            f"{', '.join(repr(kind.rule) for kind in kinds)}; use the version that made it, or "
            "train again"
        )
    return found


def without_arabic_marks(text: str) -> str:
    """A text without vowel marks (harakat) and lengthening strokes (tatweel)."""
    plain: str = _ARABIC_MARKS.sub("", text)
    return plain


def scoring_rule(language: str) -> str:
    """The name of how captions in a language are split to be scored, with its version."""
    return "captioner-arabic-score-1" if primary_of(language) == "ar" else TOKENIZER_RULE


def tokenize_to_score(text: str, language: str) -> list[str]:
    """Split a caption in order to compare it with others.

    The shared rule: without capitals, and Chinese by characters, so that scores do not depend on
    anybody's idea of a word. In Arabic, marks are left out, the forms of alef are one letter, and
    so are final yeh and alef maqsura, which people write one for the other.
    """
    if primary_of(language) == "ar":
        return tokenize(without_arabic_marks(text).translate(_ARABIC_FORMS))
    return tokenize(text)


def _has_some_capitals(words: Sequence[str]) -> bool:
    capitals = sum(word[:1].isupper() for word in words)
    return 0 < capitals < len(words)


def _most_frequent(texts: Iterable[Iterable[str]], min_count: int) -> list[str]:
    counts = Counter(word for words in texts for word in words)
    kept = [word for word, count in counts.items() if count >= min_count]
    return sorted(kept, key=lambda word: (-counts[word], word))


@cache
def _load_rjieba() -> Callable[[str], list[str]]:
    try:
        from rjieba import cut
    except ModuleNotFoundError as error:
        raise CaptionerError(
            "words of Chinese captions are found with rjieba, which is not installed; "
            'pip install "captioner[train]", or split them by characters'
        ) from error
    found: Callable[[str], list[str]] = cut
    return found
