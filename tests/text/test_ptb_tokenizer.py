"""The tokenizer of papers: by hand, and against Stanford's where Java is installed."""

from __future__ import annotations

import pytest
from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS, PTBTokenizer

from captioner.text.ptb_tokenizer import PUNCTUATION, ptb_tokenize
from helpers.captions import REFERENCES

CASES = {
    "A dog's ball, red -- isn't it?": ["a", "dog", "'s", "ball", "red", "is", "n't", "it"],
    "a T-shirt (blue)": ["a", "t-shirt", "-lrb-", "blue", "-rrb-"],
    'he says "hello" ...': ["he", "says", "hello"],
    "3.5 of 1,000; it cannot": ["3.5", "of", "1,000", "it", "can", "not"],
    "": [],
    " . ": [],
}


@pytest.mark.parametrize(("text", "words"), CASES.items())
def test_words_by_hand(text: str, words: list[str]) -> None:
    assert ptb_tokenize(text) == words


def test_the_punctuation_is_that_of_coco_caption() -> None:
    assert set(PUNCTUATIONS) == PUNCTUATION


@pytest.mark.usefixtures("java")
def test_words_are_those_of_stanford_s_tokenizer() -> None:
    texts = [*filter(None, CASES), *(text for texts in REFERENCES.values() for text in texts)]
    found = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(texts)})
    expected = {text: found[i][0].split() for i, text in enumerate(texts)}
    assert {text: ptb_tokenize(text) for text in texts} == expected
