"""Which words of a vocabulary name what an image shows, and by which lemma.

The decoder's vocabulary is closed, so lemma and part of speech are found once, when the vocabulary
is built (`captioner.text.lexicon_builder`). They are kept in the model file: making tags out of
captions needs no tagger, no dictionary and no network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from captioner.errors import damaged
from captioner.text.segmentation import Segmentation
from captioner.text.words import tokenize, tokenize_with_case

LANGUAGE = "en"
TYPES = ("noun", "verb", "adjective")
NO_LEMMA = -1


@dataclass(frozen=True)
class Lemma:
    """What several forms of a word have in common, as a dictionary lists it.

    Attributes:
        name: the lemma: "dog" for "dogs", "run" for "running".
        type: ``noun``, ``verb`` or ``adjective``.
        frequency: share in (0, 1] of the training images that at least one caption describes
            with it.
    """

    name: str
    type: str
    frequency: float

    def __hash__(self) -> int:
        # Hundreds for each image are looked up; a string keeps its hash.
        return hash(self.name)


class Lexicon:
    """The lemma of every vocabulary word that says something about an image.

    Args:
        words: the vocabulary, as in ``Tokenizer.words``.
        lemmas: all lemmas, each once.
        indices: for every word the place of its lemma in ``lemmas``, or ``NO_LEMMA``.
        language: of the words; what stop-list and lemmas are made for.
        segmentation: splits captions into such words; the shared rule otherwise.

    Raises:
        CaptionerError: the parts do not fit together, or a lemma cannot be one.
    """

    def __init__(
        self,
        words: Sequence[str],
        lemmas: Sequence[Lemma],
        indices: Sequence[int],
        language: str = LANGUAGE,
        segmentation: Segmentation | None = None,
    ) -> None:
        self.lemmas = tuple(lemmas)
        self.language = language
        self._segmentation = segmentation or Segmentation()
        self._indices = tuple(indices)
        if len(self._indices) != len(words):
            raise _damaged(f"{len(self._indices)} entries for {len(words)} words")
        if not isinstance(language, str) or not (language.isascii() and language.isalpha()):
            raise _damaged(f"{language!r:.40} is not the name of a language")
        for lemma in self.lemmas:
            _check_lemma(lemma, language)
        if len({(lemma.name, lemma.type) for lemma in self.lemmas}) != len(self.lemmas):
            raise _damaged("a lemma is listed twice")
        for index in self._indices:
            if type(index) is not int or not NO_LEMMA <= index < len(self.lemmas):
                raise _damaged(f"{index!r:.40} is not the place of a lemma")
        self._lemma_of = {
            word: self.lemmas[index]
            for word, index in zip(words, self._indices, strict=True)
            if index != NO_LEMMA
        }

    @property
    def places(self) -> tuple[int, ...]:
        """For each vocabulary word the place of its lemma in ``lemmas``, or ``NO_LEMMA``."""
        return self._indices

    def lemma_of(self, word: str) -> Lemma | None:
        """The lemma of a vocabulary word; None for any word that makes no tag."""
        return self._lemma_of.get(word)

    def lemmas_of(self, words: Iterable[str]) -> set[Lemma]:
        """The lemmas of all words that make a tag."""
        return {lemma for word in words if (lemma := self.lemma_of(word)) is not None}

    def lemmas_in(self, captions: Iterable[str]) -> set[Lemma]:
        """The lemmas that people's captions of one image say."""
        split = self._segmentation.tokenize
        return self.lemmas_of(word for caption in captions for word in split(caption))

    def extended(self, words: Sequence[str], found: Lexicon | None = None) -> Lexicon:
        """This lexicon with further words at the end of the vocabulary; nothing else moves.

        Args:
            words: the whole vocabulary; it begins with the words of this lexicon.
            found: a lexicon of the whole vocabulary, from which the new words get their lemmas;
                without it they have none. Lemmas that are new come last, whatever their frequency.
        """
        lemmas = list(self.lemmas)
        places = {(lemma.name, lemma.type): place for place, lemma in enumerate(lemmas)}
        indices = list(self._indices)
        for word in words[len(indices) :]:
            lemma = None if found is None else found.lemma_of(word)
            if lemma is None:
                indices.append(NO_LEMMA)
                continue
            key = (lemma.name, lemma.type)
            if key not in places:
                places[key] = len(lemmas)
                lemmas.append(lemma)
            indices.append(places[key])
        segmentation = type(self._segmentation)(words)
        return Lexicon(words, lemmas, indices, self.language, segmentation)

    def by_frequency(self, words: Sequence[str]) -> Lexicon:
        """The same lexicon with its most frequent lemmas first; equally frequent ones stay.

        Args:
            words: the vocabulary.
        """
        order = sorted(range(len(self.lemmas)), key=lambda place: -self.lemmas[place].frequency)
        places = {old: new for new, old in enumerate(order)} | {NO_LEMMA: NO_LEMMA}
        lemmas = [self.lemmas[place] for place in order]
        indices = [places[old] for old in self._indices]
        return Lexicon(words, lemmas, indices, self.language, self._segmentation)

    def __len__(self) -> int:
        """Return the number of lemmas."""
        return len(self.lemmas)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Lexicon):
            return NotImplemented
        return (self.language, self.lemmas, self._lemma_of) == (
            other.language,
            other.lemmas,
            other._lemma_of,
        )

    def __hash__(self) -> int:
        return hash((self.language, self.lemmas, self._indices))

    def __repr__(self) -> str:
        return f"Lexicon({len(self)} lemmas of {len(self._lemma_of)} words)"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON primitives from which ``from_dict`` makes an equal lexicon.

        ``lemmas`` holds ``[name, type, frequency]`` of every lemma once, and ``words`` a number for
        each vocabulary word, in the vocabulary's order: a place in ``lemmas``, or -1.
        """
        return {
            "language": self.language,
            "lemmas": [[lemma.name, lemma.type, lemma.frequency] for lemma in self.lemmas],
            "words": list(self._indices),
        }

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, Any],
        words: Sequence[str],
        segmentation: Segmentation | None = None,
    ) -> Lexicon:
        """Make the lexicon that ``to_dict`` described, of the vocabulary ``words``.

        Raises:
            CaptionerError: the description is damaged, or another vocabulary's.
        """
        if not isinstance(data, Mapping):
            raise _damaged(f"a table was expected, not {type(data).__name__}")
        lemmas, indices = data.get("lemmas"), data.get("words")
        if not isinstance(lemmas, list) or not isinstance(indices, list):
            raise _damaged("'lemmas' and 'words' must be lists")
        for entry in lemmas:
            if not isinstance(entry, list) or len(entry) != 3:
                raise _damaged(f"{entry!r:.60} is not [name, type, frequency]")
        found = [Lemma(*entry) for entry in lemmas]
        return cls(words, found, indices, data.get("language", ""), segmentation)


def is_lemma(name: object, language: str) -> bool:
    """Whether a lemma can be called so: one word of the language, in German with its capitals."""
    if not isinstance(name, str) or not name:
        return False
    if language == "zh":
        return "".join(tokenize(name)) == name
    return (tokenize if language == LANGUAGE else tokenize_with_case)(name) == [name]


def _check_lemma(lemma: Lemma, language: str) -> None:
    # The rule of the tokenizer keeps out whatever could not be shown on a screen or in a page.
    if not is_lemma(lemma.name, language):
        raise _damaged(f"{lemma.name!r:.60} is not one word")
    if lemma.type not in TYPES:
        raise _damaged(f"the type of {lemma.name!r} is {lemma.type!r:.40}, not {', '.join(TYPES)}")
    # Comparisons with NaN are false.
    if type(lemma.frequency) not in (int, float) or not 0 < lemma.frequency <= 1:
        raise _damaged(f"the frequency of {lemma.name!r} is {lemma.frequency!r:.40}, not in (0, 1]")


_damaged = partial(damaged, "lexicon")
