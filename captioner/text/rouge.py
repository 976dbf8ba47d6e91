"""ROUGE-L: how many words a caption shares, in their order, with people's captions."""

from __future__ import annotations

from collections.abc import Sequence

from captioner.text.scores import ImageMetric

BETA = 1.2  # recall counts BETA ** 2 times as much as precision


class RougeL(ImageMetric[list[list[str]]]):
    """ROUGE-L, 0 to 1: F-measure of the longest common subsequence (Lin 2004, Eqs. 2-4).

    The best precision and the best recall over the references are combined, even when they come
    from two references, as pycocoevalcap does.
    """

    name = "ROUGE-L"

    def _prepare(self, references: list[list[str]]) -> list[list[str]]:
        # An empty caption counts as one empty word, as in pycocoevalcap.
        return [words or [""] for words in references]

    def _score(self, words: Sequence[str], references: list[list[str]]) -> float:
        candidate = words or [""]
        pairs = [(_common_subsequence(r, candidate), len(r)) for r in references]
        precision = max(common for common, _ in pairs) / len(candidate)
        recall = max(common / length for common, length in pairs)
        if precision == 0:
            return 0.0
        return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, row by row of the usual table."""
    row = [0] * (len(right) + 1)
    for word in left:
        diagonal = 0
        for column, other in enumerate(right, 1):
            above = row[column]
            row[column] = diagonal + 1 if word == other else max(above, row[column - 1])
            diagonal = above
    return row[-1]
