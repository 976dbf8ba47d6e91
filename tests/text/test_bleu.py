"""BLEU against pycocoevalcap, NLTK and values worked out by hand."""

from __future__ import annotations

import math

import pytest
from nltk.translate.bleu_score import corpus_bleu
from pycocoevalcap.bleu.bleu import Bleu as CocoBleu

from captioner.errors import CaptionerError
from captioner.text.bleu import Bleu
from captioner.text.scores import Scores
from captioner.text.tokenizer import tokenize
from helpers.captions import CANDIDATES, REFERENCES, Texts, flickr8k, joined


def bleu(candidates: dict[str, str], references: Texts, max_n: int = 4) -> list[Scores]:
    scores = Bleu(references, tokenize=tokenize, max_n=max_n).evaluate(candidates)
    assert list(scores) == [f"BLEU-{n + 1}" for n in range(max_n)]
    return list(scores.values())


@pytest.mark.parametrize("max_n", [4, 2])
def test_bleu_equals_pycocoevalcap(corpus: tuple[dict[str, str], Texts], max_n: int) -> None:
    expected, each = CocoBleu(max_n).compute_score(*joined(*corpus), verbose=0)
    scores = bleu(*corpus, max_n=max_n)
    assert [score.corpus for score in scores] == pytest.approx(expected, abs=1e-9)
    for score, values in zip(scores, each, strict=True):
        assert list(score.per_image) == list(corpus[0])
        assert list(score.per_image.values()) == pytest.approx(values, abs=1e-9)


def many() -> tuple[dict[str, str], Texts]:
    """So many captions of at least four words that the guards against 0 are below 1e-11."""
    names = [name for name, text in CANDIDATES.items() if len(tokenize(text)) >= 4]
    numbered = [(f"{number} {name}", name) for number in range(40) for name in names]
    return (
        {number: CANDIDATES[name] for number, name in numbered},
        {number: REFERENCES[name] for number, name in numbered},
    )


@pytest.mark.parametrize("make", [many, flickr8k])
def test_bleu_equals_nltk_where_captions_have_four_words(make) -> None:
    candidates, references = make()
    long = {i: text for i, text in candidates.items() if len(tokenize(text)) >= 4}
    scores = bleu(long, {i: references[i] for i in long})
    words = [[tokenize(text) for text in references[i]] for i in long]
    for n, score in enumerate(scores, 1):
        expected = corpus_bleu(words, list(map(tokenize, long.values())), [1 / n] * n)
        assert score.corpus == pytest.approx(expected, abs=1e-11)


def test_the_score_of_a_caption_is_its_image_s(corpus: tuple[dict[str, str], Texts]) -> None:
    candidates, references = corpus
    scorer = Bleu(references, tokenize=tokenize)
    alone = scorer.score((image_id, tokenize(text)) for image_id, text in candidates.items())
    assert alone == list(scorer.evaluate(candidates)["BLEU-4"].per_image.values())
    with pytest.raises(CaptionerError, match="image 'elsewhere' has no references"):
        scorer.score([("elsewhere", ["a"])])


def test_bleu_by_hand() -> None:
    # The example of Papineni et al. 2002, section 2.1: "the" is clipped to two.
    papineni = bleu(
        {"x": "the the the the the the the"},
        {"x": ["The cat is on the mat.", "There is a cat on the mat."]},
    )
    assert papineni[0].corpus == pytest.approx(2 / 7, abs=1e-6)
    assert papineni[1].corpus == pytest.approx(0, abs=1e-6)
    # Every n-gram right, half as long: only the brevity penalty exp(1 - 4 / 2).
    short = bleu({"x": "a b"}, {"x": ["a b c d"]}, max_n=2)
    assert [score.corpus for score in short] == pytest.approx([math.exp(-1)] * 2, abs=1e-6)
    # References of 2 and 4 words are equally close to 3 words: the shorter counts, no penalty.
    close = bleu({"x": "a b c"}, {"x": ["d d d d", "a b"]}, max_n=2)
    expected = [2 / 3, math.sqrt(2 / 3 * 1 / 2)]
    assert [score.corpus for score in close] == pytest.approx(expected, abs=1e-6)


def test_bleu_of_the_corpus_is_not_the_mean_of_the_images() -> None:
    candidates = {"x": "a b", "y": "c c c c c c"}
    references = {"x": ["a b"], "y": ["c d e f g h"]}
    scores = bleu(candidates, references)[0]
    assert scores.corpus == pytest.approx(3 / 8, abs=1e-6)
    assert scores.per_image == pytest.approx({"x": 1, "y": 1 / 6}, abs=1e-6)
