from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from captioner.data.datasets import CaptionData, Example
from captioner.data.holdout import hold_out, with_split
from captioner.errors import CaptionerError


def numbered(count: int, *splits: str | None, name: str = "set") -> CaptionData:
    examples = tuple(
        Example(f"{i}.jpg", Path(f"{i}.jpg"), ("A dog.",), split)
        for split in splits or (None,)
        for i in range(count)
    )
    return CaptionData("jsonl", Path(name), examples)


def names(data: CaptionData, split: str) -> list[str]:
    return [example.image_id for example in data.split(split)]


DEV = ["0.jpg", "31.jpg", "34.jpg"]


def test_which_images_are_held_out() -> None:
    # Fixed for good: otherwise a model is scored on images that it was trained on.
    (data,), held_out = with_split([numbered(40)], "val", 0.1)
    assert names(data, "dev") == DEV
    assert held_out == [data]
    assert hold_out({"set": numbered(40)}, 0.1) == {"set": data}
    (rest,), _ = with_split([numbered(40)], "train", 0.1)
    assert rest == data
    (other,), _ = with_split([numbered(40)], "dev", 0.2)
    assert set(DEV) < set(names(other, "dev"))


def test_a_set_is_split_in_one_way_by_itself_and_among_others() -> None:
    one, two = numbered(40, name="one"), numbered(30, name="two")
    prefixed = {
        data.name: replace(
            data,
            examples=tuple(replace(e, image_id=f"{data.name}/{e.image_id}") for e in data.examples),
        )
        for data in (one, two)
    }
    found = hold_out(prefixed, 0.1, prefixed=True)
    assert names(found["one"], "dev") == [f"one/{name}" for name in DEV]
    sets, held_out = with_split([one, two], "dev", 0.1)
    assert [names(data, "dev") for data in sets] == [DEV, DEV[:1]]
    assert held_out == sets


@pytest.mark.parametrize(
    ("splits", "asked"),
    [
        ((None,), "all"),
        ((None,), "test"),
        (("train", "dev"), "dev"),
        (("train", "test"), "test"),
        (("train", "test"), "train"),
        (("test",), "dev"),
        (("fold1", "fold2"), "dev"),
    ],
)
def test_nothing_is_held_out(splits: tuple[str | None, ...], asked: str) -> None:
    data = numbered(40, *splits)
    assert with_split([data], asked, 0.1) == ([data], [])


def test_a_dev_split_of_one_set_serves_for_all() -> None:
    sets = [numbered(40), numbered(3, "dev")]
    assert with_split(sets, "dev", 0.1) == (sets, [])


def test_dev_is_taken_from_train() -> None:
    (data,), _ = with_split([numbered(40, "train", "test")], "dev", 0.1)
    assert data.splits == {"train": 37, "dev": 3, "test": 40}


def test_too_few_images() -> None:
    with pytest.raises(CaptionerError, match=r"dev_fraction 0.1 leaves .*'dev': 1"):
        with_split([numbered(1)], "dev", 0.1)


def test_all_is_every_image_of_whatever_split() -> None:
    assert len(numbered(5, "train", None, "test").split("all")) == 15
