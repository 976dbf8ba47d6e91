"""A vocabulary: words to ids and back, and the words to the text that people read.

How a text becomes words is the rule of `captioner.text.words`, with what
`captioner.text.segmentation` adds to it for a language.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from captioner.errors import CaptionerError, damaged
from captioner.text.languages import DEFAULT_LANGUAGE, language_of
from captioner.text.segmentation import Segmentation, choose_segmentation, find_segmentation
from captioner.text.words import (
    POSSESSIVE,
    TOKENIZER_RULE,
    detokenize,
    join_chinese,
    tokenize,
    tokenize_with_case,
)

__all__ = [
    "BOS_ID",
    "EOS_ID",
    "PAD_ID",
    "POSSESSIVE",
    "SPECIAL_WORDS",
    "TOKENIZER_RULE",
    "UNK_ID",
    "Tokenizer",
    "detokenize",
    "tokenize",
]

PAD_ID, BOS_ID, EOS_ID, UNK_ID = 0, 1, 2, 3
SPECIAL_WORDS = ("<pad>", "<bos>", "<eos>", "<unk>")  # the word at index i has id i


class Tokenizer:
    """A vocabulary of one language: words to ids and back.

    Ids 0 to 3 are the special words (padding, begin, end, unknown); the vocabulary starts at 4.

    Args:
        words: the vocabulary without special words, in the order of their ids.
        language: of the words, a BCP 47 tag.
        segmentation: how texts become words; the language's own otherwise.
        spelling: how words are written in a text, where that is not how the rule has them: the
            capitals of German nouns.

    Raises:
        CaptionerError: a word is not a string, is listed twice, or is not one word of the
            segmentation, or a spelling is not one of a word.
    """

    words: tuple[str, ...]

    def __init__(
        self,
        words: Sequence[str],
        language: str = DEFAULT_LANGUAGE,
        segmentation: type[Segmentation] | None = None,
        spelling: Mapping[str, str] | None = None,
    ) -> None:
        self.words = tuple(words)
        self.language = language_of(language).tag
        kind = segmentation or choose_segmentation(language)
        self.spelling = dict(spelling or {})
        self._ids: dict[str, int] = {}
        for word in self.words:
            if not isinstance(word, str) or not kind.is_word(word):
                raise CaptionerError(
                    f"tokenizer: {word!r} is not one word of the rule {kind.rule!r}; "
                    "build the vocabulary with Tokenizer.build"
                )
            if word in self._ids:
                raise CaptionerError(
                    f"tokenizer: the word {word!r} is listed twice; remove one of the two"
                )
            self._ids[word] = len(SPECIAL_WORDS) + len(self._ids)
        for word, written in self.spelling.items():
            if word not in self._ids or not _is_spelling(word, written):
                raise CaptionerError(
                    f"tokenizer: {written!r:.60} is not a spelling of a word of the vocabulary"
                )
        self.segmentation = kind(self._ids)

    @classmethod
    def build(
        cls,
        captions: Iterable[str],
        min_count: int = 5,
        language: str = DEFAULT_LANGUAGE,
        segmentation: str | None = None,
    ) -> Tokenizer:
        """Take every word that occurs at least ``min_count`` times, the most frequent first.

        Words with the same count are in code point order.

        Args:
            captions: raw texts.
            min_count: see above.
            language: theirs.
            segmentation: ``words`` or ``characters``; None for the language's own.

        Raises:
            CaptionerError: ``min_count`` is below 1, no word occurs that often, or the language
                cannot be split so.
        """
        if min_count < 1:
            raise CaptionerError(f"min_count is {min_count}; it must be at least 1")
        kind = choose_segmentation(language, segmentation)
        texts = list(captions)
        words = kind.vocabulary(texts, min_count)
        if not words:
            count = len(kind.vocabulary(texts, 1))
            raise CaptionerError(
                f"min_count is {min_count}, and none of the {count} words in the captions occurs "
                "that often; lower it or give more captions"
            )
        return cls(words, language, kind, kind.spelling(words, texts))

    def __len__(self) -> int:
        """Return V, the number of ids with the special ones."""
        return len(SPECIAL_WORDS) + len(self.words)

    def __eq__(self, other: object) -> bool:
        return self.to_dict() == other.to_dict() if isinstance(other, Tokenizer) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.words)

    def __repr__(self) -> str:
        return f"Tokenizer({len(self.words)} words)"

    def tokenize(self, text: str) -> list[str]:
        """Split ``text`` into words, known or not; a text without words gives an empty list."""
        return self.segmentation.tokenize(text)

    def written(self, word: str) -> str:
        """How a word is written within a text."""
        return self.spelling.get(word, word)

    def detokenize(self, words: Iterable[str]) -> str:
        """Join words for people to read, as the language writes them."""
        written = map(self.written, words)
        return join_chinese(written) if self.language == "zh" else detokenize(written)

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
        return [self.id_of(word) for word in self.tokenize(text)]

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
        about: dict[str, Any] = {"rule": self.segmentation.rule, "words": list(self.words)}
        if self.language != DEFAULT_LANGUAGE:
            about["language"] = self.language
        if self.spelling:
            about["spelling"] = dict(sorted(self.spelling.items()))
        return about

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
        kind = find_segmentation(data.get("rule"))
        words, spelling = data.get("words"), data.get("spelling", {})
        if not isinstance(words, list):
            raise damaged(
                "tokenizer", f"'words' must be a list of strings, not {type(words).__name__}"
            )
        if not isinstance(spelling, dict):
            raise damaged("tokenizer", f"'spelling' must be a table, not {type(spelling).__name__}")
        return cls(words, data.get("language", DEFAULT_LANGUAGE), kind, spelling)


def _is_spelling(word: str, written: object) -> bool:
    """Whether a text with ``written`` in it has this word there, and nothing else."""
    return (
        isinstance(written, str)
        and tokenize(written) == [word]
        and tokenize_with_case(written) == [written]
    )
