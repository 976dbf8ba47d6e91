from __future__ import annotations

from captioner.data.datasets import canonical_split


def test_canonical_split() -> None:
    names = [
        "train",
        "training",
        "restval",
        "dev",
        "val",
        "valid",
        "test",
        "testing",
        "eval",
        " Mine ",
    ]
    assert [canonical_split(n) for n in names] == [
        *("train", "train", "train", "dev", "dev", "dev", "test", "test", "test", "mine")
    ]
