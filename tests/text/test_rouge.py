"""ROUGE-L against pycocoevalcap and values worked out by hand."""

from __future__ import annotations

import pytest
from pycocoevalcap.rouge.rouge import Rouge

from captioner.text.rouge import RougeL
from captioner.text.scores import Scores
from captioner.text.tokenizer import tokenize
from helpers.captions import Texts, joined


def rouge_l(candidates: dict[str, str], references: Texts) -> Scores:
    return RougeL(references, tokenize=tokenize).evaluate(candidates)["ROUGE-L"]


def test_rouge_l_equals_pycocoevalcap(corpus: tuple[dict[str, str], Texts]) -> None:
    expected, each = Rouge().compute_score(*joined(*corpus))
    scores = rouge_l(*corpus)
    assert scores.corpus == pytest.approx(expected, abs=1e-9)
    assert list(scores.per_image) == list(corpus[0])
    assert list(scores.per_image.values()) == pytest.approx(list(each), abs=1e-9)


def test_rouge_l_by_hand() -> None:
    candidates = {"lin": "police kill the gunman", "short": "a b", "two": "a b x", "none": "x"}
    references = {
        "lin": ["police killed the gunman"],  # Lin 2004: 3 of 4 words in order
        "short": ["a b c d"],  # precision 1, recall 1/2
        "two": ["a b c d", "x"],  # precision 2/3 from the first, recall 1 from the second
        "none": ["a"],
    }
    scores = rouge_l(candidates, references)
    assert scores.per_image == pytest.approx(
        {
            "lin": 0.75,
            "short": 2.44 * 0.5 / (0.5 + 1.44),
            "two": 2.44 * (2 / 3) / (1 + 1.44 * 2 / 3),
            "none": 0.0,
        }
    )
    assert scores.corpus == pytest.approx(sum(scores.per_image.values()) / 4)
