"""Captions to score."""

from __future__ import annotations

import pytest

from helpers.captions import CANDIDATES, REFERENCES, Texts, flickr8k


@pytest.fixture(params=["written here", "flickr8k"], scope="module")
def corpus(request: pytest.FixtureRequest) -> tuple[dict[str, str], Texts]:
    """Captions of the same images: candidates and references."""
    return (CANDIDATES, REFERENCES) if request.param == "written here" else flickr8k()
