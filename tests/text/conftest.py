"""Captions to score, and a lexicon."""

from __future__ import annotations

import pytest

from captioner.text.lexicon import Lexicon
from captioner.text.lexicon_builder import build_lexicon
from helpers.captions import CANDIDATES, REFERENCES, Texts, flickr8k
from helpers.lexicons import CAPTIONS, WORDS


@pytest.fixture(params=["written here", "flickr8k"], scope="module")
def corpus(request: pytest.FixtureRequest) -> tuple[dict[str, str], Texts]:
    """Captions of the same images: candidates and references."""
    return (CANDIDATES, REFERENCES) if request.param == "written here" else flickr8k()


@pytest.fixture(scope="session")
def lexicon() -> Lexicon:
    """Of the words of ``CAPTIONS``."""
    return build_lexicon(WORDS, CAPTIONS)
