"""Words as the Penn Treebank has them: what papers on captions are scored with, nearly.

The scores in papers come from coco-caption (arXiv:1504.00325), which splits text with Stanford's
PTBTokenizer, a Java program, and removes punctuation. This is NLTK's tokenizer by the same rules,
with the same punctuation removed; docs/evaluation.md says how often the two differ.
"""

from __future__ import annotations

from functools import cache
from typing import Any

PTB_RULE = "nltk-ptb-1"

PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--"]
    + ["...", ";"]
)
"""The list of coco-caption, which is not all punctuation: brackets stay."""


def ptb_tokenize(text: str) -> list[str]:
    """Split ``text`` into words, in lower case, without :data:`PUNCTUATION`."""
    words = _nltk_tokenizer().tokenize(text, convert_parentheses=True)
    # Lower case first, as there: "-LRB-" in the list never matches "-lrb-", and brackets stay.
    return [word for word in map(str.lower, words) if word not in PUNCTUATION]


@cache
def _nltk_tokenizer() -> Any:
    from nltk.tokenize import NLTKWordTokenizer

    return NLTKWordTokenizer()
