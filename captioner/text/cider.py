"""CIDEr-D: how many informative words and phrases a caption shares with people's captions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from captioner.text.scores import (
    MAX_N,
    ImageMetric,
    NGram,
    References,
    Tokenize,
    check_references,
    ngram_counts,
)

SIGMA = 6.0  # words


@dataclass(frozen=True)
class DocumentFrequency:
    """In how many images' references each n-gram occurs, out of how many images."""

    counts: Mapping[NGram, int]
    images: int

    @classmethod
    def from_references(cls, references: References, tokenize: Tokenize) -> DocumentFrequency:
        """Count over the references of the given images.

        Raises:
            CaptionerError: there are no references, or an image has none.
        """
        check_references(references)
        counts: Counter[NGram] = Counter()
        for captions in references.values():
            counts.update({ngram for text in captions for ngram in ngram_counts(tokenize(text))})
        return cls(counts, len(references))

    def idf(self, ngram: NGram) -> float:
        """Return log(images / images with the n-gram); an unseen n-gram counts as seen once."""
        return math.log(self.images / max(1, self.counts.get(ngram, 0)))


# One image: n-gram -> its (reference index, count) pairs; for each reference and n, one over the
# norm of its tf-idf vector; the length of each reference.
_References = tuple[dict[NGram, tuple[tuple[int, int], ...]], list[list[float]], list[int]]


class CiderD(ImageMetric[_References]):
    """CIDEr-D, 0 to 10, which pycocoevalcap calls "CIDEr".

    Vedantam et al. 2015 (arXiv:1411.5726), Eq. 1 for the tf-idf weights g and the CIDEr-D equation:
    10 / C * sum over the C references r of exp(-(length difference)^2 / (2 sigma^2)) *
    min(g(c), g(r)) . g(r) / (|g(c)| |g(r)|), averaged over n-grams of 1 to 4 words; no stemming.

    For rewards with an end-of-sentence word (self-critical training), let ``tokenize`` append it,
    here and in the document frequency, and end the candidates with it.

    Args:
        references: image id -> its captions.
        tokenize: raw caption -> words.
        document_frequency: that of the training split for rewards; by default of ``references``,
            as evaluation has it. With a single image all weights, and so all scores, are zero.
    """

    name = "CIDEr-D"

    def __init__(
        self,
        references: References,
        *,
        tokenize: Tokenize,
        document_frequency: DocumentFrequency | None = None,
    ) -> None:
        self.document_frequency = document_frequency or DocumentFrequency.from_references(
            references, tokenize
        )
        # The same few patterns of counts, and n-grams, come again and again: shared to save memory.
        self._shared: dict[Any, Any] = {}
        super().__init__(references, tokenize=tokenize)
        del self._shared

    def _prepare(self, references: list[list[str]]) -> _References:
        counts: dict[NGram, tuple[tuple[int, int], ...]] = {}
        scales: list[list[float]] = []
        shared = self._shared
        for index, words in enumerate(references):
            squares = [0.0] * MAX_N
            for ngram, count in ngram_counts(words).items():
                squares[len(ngram) - 1] += (count * self.document_frequency.idf(ngram)) ** 2
                pattern = (*counts.get(ngram, ()), (index, count))
                counts[shared.setdefault(ngram, ngram)] = shared.setdefault(pattern, pattern)
            scales.append(_scales(squares))
        return counts, scales, [len(words) for words in references]

    def _score(self, words: Sequence[str], references: _References) -> float:
        counts, all_scales, lengths = references
        squares = [0.0] * MAX_N
        dots = [[0.0] * MAX_N for _ in lengths]
        for ngram, count in ngram_counts(words).items():
            idf, n = self.document_frequency.idf(ngram), len(ngram) - 1
            squares[n] += (count * idf) ** 2
            for index, reference_count in counts.get(ngram, ()):
                dots[index][n] += min(count, reference_count) * reference_count * idf * idf
        own_scales, total = _scales(squares), 0.0
        for dot, scales, length in zip(dots, all_scales, lengths, strict=True):
            penalty = math.exp(-((len(words) - length) ** 2) / (2 * SIGMA**2))
            total += penalty * sum(map(math.prod, zip(dot, scales, own_scales, strict=True)))
        return 10 * total / (MAX_N * len(lengths))


def _scales(squares: Iterable[float]) -> list[float]:
    return [1 / math.sqrt(square) if square > 0 else 0.0 for square in squares]
