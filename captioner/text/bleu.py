"""BLEU: how many runs of one to four words a caption shares with people's captions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from captioner.text.scores import (
    MAX_N,
    Candidates,
    ImageMetric,
    NGram,
    References,
    Scores,
    Tokenize,
    check_candidates,
    ngram_counts,
)

# pycocoevalcap's guards against division by zero; they show in the scores of short captions.
_TINY, _SMALL = 1e-15, 1e-9

# One image: the most that any of its references has of each n-gram, and the references' lengths.
_References = tuple[Counter[NGram], list[int]]


class Bleu(ImageMetric[_References]):
    """BLEU-1 to BLEU-``max_n``, 0 to 1 (Papineni et al. 2002, section 2.3).

    Clipped n-gram precision with the brevity penalty exp(1 - r / c), r the sum of the closest
    reference lengths. Not smoothed, but for pycocoevalcap's constants. The score of a single
    caption is BLEU-``max_n``: 0 without a common run of that many words.

    Args:
        references: image id -> its captions.
        tokenize: raw caption -> words.
        max_n: words of the longest n-grams.
    """

    def __init__(self, references: References, *, tokenize: Tokenize, max_n: int = MAX_N) -> None:
        self.max_n = max_n
        super().__init__(references, tokenize=tokenize)

    def evaluate(self, candidates: Candidates) -> dict[str, Scores]:
        """Score one caption of every image; BLEU of the corpus is not the mean of the images'."""
        check_candidates(candidates, self.references)
        rows = [
            self._counts(self.tokenize(text), self._of(image_id))
            for image_id, text in candidates.items()
        ]
        corpus = _bleu([sum(column) for column in zip(*rows, strict=True)])
        each = dict(zip(candidates, map(_bleu, rows), strict=True))
        return {
            f"BLEU-{n + 1}": Scores(corpus[n], {i: scores[n] for i, scores in each.items()})
            for n in range(self.max_n)
        }

    def _prepare(self, references: list[list[str]]) -> _References:
        most: Counter[NGram] = Counter()
        for reference in references:
            most |= ngram_counts(reference, self.max_n)
        return most, [len(reference) for reference in references]

    def _score(self, words: Sequence[str], references: _References) -> float:
        return _bleu(self._counts(words, references))[-1]

    def _counts(self, words: Sequence[str], references: _References) -> list[int]:
        """What BLEU adds up: length, reference length, ``max_n`` matches, ``max_n`` attempts."""
        most, lengths = references
        matched = [0] * self.max_n
        for ngram, count in ngram_counts(words, self.max_n).items():
            matched[len(ngram) - 1] += min(count, most[ngram])
        length = len(words)
        # Of two equally close reference lengths the shorter.
        reference_length = min((abs(each - length), each) for each in lengths)[1]
        attempts = (max(0, length - n) for n in range(self.max_n))
        return [length, reference_length, *matched, *attempts]


def _bleu(counts: Sequence[int]) -> tuple[float, ...]:
    """BLEU-1 and so on from the counts of one image, or their sums over images."""
    length, reference_length, *ngrams = counts
    max_n = len(ngrams) // 2
    ratio = (length + _TINY) / (reference_length + _SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    product, scores = 1.0, []
    for n, (matched, attempts) in enumerate(zip(ngrams[:max_n], ngrams[max_n:], strict=True), 1):
        product *= (matched + _TINY) / (attempts + _SMALL)
        scores.append(penalty * product ** (1 / n))
    return tuple(scores)
