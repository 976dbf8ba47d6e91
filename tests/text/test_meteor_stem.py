"""METEOR-stem by hand: equal words, equal stems, their order, and no synonyms."""

from __future__ import annotations

import pytest

from captioner.text.meteor_stem import MeteorStem
from captioner.text.tokenizer import tokenize


def f_mean(precision: float, recall: float) -> float:
    """The harmonic mean in which recall counts nine times as much (alpha .9)."""
    return precision * recall / (0.9 * precision + 0.1 * recall)


@pytest.mark.parametrize(
    ("candidate", "references", "expected"),
    [
        # Four matches in one chunk: the penalty is .5 * (1 / 4) ** 3.
        ("a dog runs fast", ["a dog runs fast"], 1 - 0.5 / 64),
        # "running" and "runs" share a stem.
        ("a dog runs fast", ["a dog running fast"], 1 - 0.5 / 64),
        # Every word, in three chunks.
        ("fast runs a dog", ["a dog runs fast"], 1 - 0.5 * (3 / 4) ** 3),
        # "hound" is a synonym, and counts for nothing; two of three words in two chunks.
        ("a hound runs", ["a dog runs"], f_mean(2 / 3, 2 / 3) * (1 - 0.5)),
        # Two words of four in the reference, one chunk.
        ("a dog", ["a dog runs fast"], f_mean(1, 1 / 2) * (1 - 0.5 / 8)),
        # The better reference counts.
        ("a dog", ["the cat sits", "a dog"], 1 - 0.5 / 8),
        ("a dog", ["zebras"], 0),
        ("", ["a dog"], 0),
        ("a dog", [""], 0),
    ],
)
def test_scores_by_hand(candidate: str, references: list[str], expected: float) -> None:
    scorer = MeteorStem({"x": references}, tokenize=tokenize)
    scores = scorer.evaluate({"x": candidate})["METEOR-stem"]
    assert scores.corpus == pytest.approx(expected, abs=1e-12)
    assert scores.per_image == {"x": scores.corpus}
