"""Which shards are finished, by their names in the output, eight bytes for each."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable

from captioner.files.journal import key_of


class Finished:
    """The names of finished shards.

    Args:
        names: of the files in the output, relative to it.
        suffix: of finished shards, with its dot; other files are not looked at.
    """

    def __init__(self, names: Iterable[str], suffix: str) -> None:
        stems = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
        keys, numbers = array("Q"), array("Q")
        for stem in stems:
            keys.append(key_of(stem))
            numbers.append(key_of(_number(stem)))
        self._keys = array("Q", sorted(keys))
        self._numbers = array("Q", sorted(numbers))

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, name: str) -> bool:
        return _has(self._keys, key_of(name))

    def has_other(self, name: str) -> bool:
        """Whether the number in a name (``000012-ab12cd34``) is that of another finished shard."""
        return name not in self and _has(self._numbers, key_of(_number(name)))


def _number(name: str) -> str:
    return name.partition("-")[0]


def _has(keys: array[int], key: int) -> bool:
    place = bisect_left(keys, key)
    return place < len(keys) and keys[place] == key
