"""Names that are not those of a tokenizer or a metric."""

from __future__ import annotations

import pytest

from captioner.text.options import ScoringOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokenizer": "java"}, "tokenizer='java': .* captioner, ptb"),
        ({"metrics": ("METEOR", "meteor")}, "'meteor'.: .* METEOR, METEOR-stem, SPICE"),
    ],
)
def test_unknown_names_are_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScoringOptions(**options)
