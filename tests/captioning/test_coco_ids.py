from __future__ import annotations

from pathlib import Path

import pytest

from captioner.captioning.coco_ids import CocoIds, choose_coco_ids
from captioner.data.datasets import Example
from captioner.errors import CaptionerError


def examples(*names: str, ids: tuple[int | str | None, ...] = ()) -> list[Example]:
    given = ids or (None,) * len(names)
    pairs = zip(names, given, strict=True)
    return [Example(name, Path(name), ("A dog.",), "dev", each) for name, each in pairs]


@pytest.mark.parametrize(
    ("names", "given", "expected"),
    [
        (("7.jpg", "x.jpg"), (391895, 3), (391895, 3)),
        (("7.jpg", "x.jpg"), ("a", 3), ("a", 3)),
        (("val/COCO_val2014_000000000007.jpg", "0012.png"), (), (7, 12)),
        # Some ids are not enough: one rule for all.
        (("7.jpg", "8.jpg"), (391895, None), (7, 8)),
    ],
)
def test_ids_of_the_annotations_or_the_names(
    names: tuple[str, ...], given: tuple[int | str | None, ...], expected: tuple[int | str, ...]
) -> None:
    ids = choose_coco_ids(examples(*names, ids=given))
    assert ids == CocoIds(dict(zip(names, expected, strict=True)))


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("a.png", "7.jpg"), "the name a.png is not a number"),
        (("20240131.jpg", "7_1.jpg"), "the name 7_1.jpg is not a number"),
        (("train/7.jpg", "8.jpg", "val/7.jpg"), "train/7.jpg and val/7.jpg have the same number 7"),
        (("7.jpg", "007.jpg"), "7.jpg and 007.jpg have the same number 7"),
        (("COCO_val2014_000000000007.jpg", "7.png"), "COCO_val2014_000000000007.jpg and 7.png ha"),
    ],
)
def test_images_are_numbered_where_nothing_tells_them_apart(
    names: tuple[str, ...], reason: str
) -> None:
    ids = choose_coco_ids(examples(*names))
    assert ids.by_name == {name: number for number, name in enumerate(names, 1)}
    assert ids.numbered and ids.reason.startswith(reason)


def test_two_images_with_one_id_are_named() -> None:
    with pytest.raises(CaptionerError, match=r"train/a.jpg and val/b.jpg have the same id 3 .*"):
        choose_coco_ids(examples("train/a.jpg", "c.jpg", "val/b.jpg", ids=(3, 4, 3)))
