"""Which images are held out where data has no dev split: the same in training and in scoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from captioner.data.datasets import ALL, CaptionData, canonical_split


def hold_out(
    sets: Mapping[str, CaptionData], dev_fraction: float, *, prefixed: bool = False
) -> dict[str, CaptionData]:
    """Hold out images of each set as `dev`, unless one of the sets has a dev split already.

    Args:
        sets: what each set is called -> its images.
        dev_fraction: about this share of the images, or where there is a train split of that.
        prefixed: whether images are called ``SET/IMAGE``; which ones are held out depends on their
            own names alone, so that a set is split in one way by itself and among others.

    Raises:
        CaptionerError: a set would have no image in one of the two splits.
    """
    if any("dev" in data.splits for data in sets.values()):
        return dict(sets)
    return {
        name: data.with_random_split(dev_fraction, prefix=f"{name}/" if prefixed else "")
        for name, data in sets.items()
    }


def with_split(
    sets: Sequence[CaptionData], split: str, dev_fraction: float
) -> tuple[list[CaptionData], list[CaptionData]]:
    """The sets with the split that is asked for, which is made where training makes it too.

    Args:
        sets: the data, one or several sets that are used together.
        split: its name.
        dev_fraction: as for `hold_out`.

    Returns:
        The sets, and those among them whose images are held out.

    Raises:
        CaptionerError: a set would have no image in one of the two splits.
    """
    wanted = canonical_split(split)
    has_it = wanted == ALL or any(wanted in data.splits for data in sets)
    can_be_made = all(not data.splits or "train" in data.splits for data in sets)
    if has_it or wanted not in ("dev", "train") or not can_be_made:
        return list(sets), []
    held = hold_out({str(number): data for number, data in enumerate(sets)}, dev_fraction)
    pairs = zip(sets, held.values(), strict=True)
    return list(held.values()), [new for old, new in pairs if new is not old]
