"""Which shards are finished, by their names in the output, eight bytes for each."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable

import numpy as np

from captioner.files.journal import key_of
from captioner.shards.work import FORMATS


class Finished:
    """The names of finished shards.

    Args:
        names: of the files in the output, relative to it.
        format: of finished shards.

    Attributes:
        has_any: whether there are shards, of whatever format.
    """

    def __init__(self, names: Iterable[str], format: str) -> None:
        self._keys, self._numbers = array("Q"), array("Q")
        self.has_any = False
        for name in names:
            stem, _, suffix = name.rpartition(".")
            self.has_any = self.has_any or suffix in FORMATS
            if suffix == format:
                self._keys.append(key_of(stem))
                self._numbers.append(key_of(_number(stem)))
        for keys in (self._keys, self._numbers):
            np.frombuffer(keys, np.uint64).sort()  # in place, in the memory of the array

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
