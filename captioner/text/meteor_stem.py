"""METEOR-stem: words and stems that a caption shares with people's captions, and their order.

It is METEOR's formula without synonyms and paraphrases, and needs neither Java nor data. Its
numbers are not those of METEOR 1.5, which papers print, and the two never share a name.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from captioner.text.scores import ImageMetric


class MeteorStem(ImageMetric[list[list[str]]]):
    """METEOR of exact matches and equal stems, 0 to 1 (Banerjee and Lavie 2005), by NLTK.

    Stems are Porter's (1980). The best score over the references counts. alpha is .9, beta 3,
    gamma .5, NLTK's values; METEOR 1.5 has others, tuned for English.
    """

    name = "METEOR-stem"

    def _prepare(self, references: list[list[str]]) -> list[list[str]]:
        return references

    def _score(self, words: Sequence[str], references: list[list[str]]) -> float:
        from nltk.translate.meteor_score import meteor_score

        return float(
            meteor_score(references, list(words), stemmer=_stemmer(), wordnet=_NoSynonyms())
        )


class _NoSynonyms:
    """Stands for WordNet, which NLTK would have to download."""

    def synsets(self, word: str) -> tuple[()]:
        return ()


class _CachedStemmer:
    """Porter's stemmer; captions have few words, which come again and again."""

    def __init__(self, stemmer: Any) -> None:
        self.stem = cache(stemmer.stem)


@cache
def _stemmer() -> _CachedStemmer:
    from nltk.stem.porter import PorterStemmer

    return _CachedStemmer(PorterStemmer())
