"""What the values of a traced CNN are of the maps (B, C, h, w) that its graph has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class UnknownLayer(Exception):
    """Graphs cannot describe the network or a part of it."""


class Map(NamedTuple):
    """A value of the graph; ``last``: the network has its channels last, (B, h, w, C)."""

    value: int
    last: bool = False


class Pieces(NamedTuple):
    """A map that was cut: the first channel and the end of each piece."""

    value: int
    ends: tuple[tuple[int, int], ...]


class Grouped(NamedTuple):
    """A map with its channels as (groups, C / groups); ``swapped``: the other way round."""

    value: int
    groups: int
    swapped: bool = False


class Channel(NamedTuple):
    """One channel of a map, (B, h, w)."""

    value: int
    channel: int


class Weights(NamedTuple):
    """A parameter that the network reads itself."""

    name: str


def not_known(what: str) -> Any:
    """Raise UnknownLayer, where an expression is due."""
    raise UnknownLayer(what)


def with_channels_first(read: Any) -> Map:
    """The map that it is.

    Raises:
        UnknownLayer: it is not a map, or has its channels last.
    """
    if not isinstance(read, Map) or read.last:
        raise UnknownLayer("it reads no map, or one with the channels last")
    return read


def permuted(read: Any, dims: Sequence[int]) -> Map:
    """A map whose channels go to the other side.

    Raises:
        UnknownLayer: its axes are put into another order.
    """
    if not isinstance(read, Map) or tuple(dims) != ((0, 3, 1, 2) if read.last else (0, 2, 3, 1)):
        raise UnknownLayer(f"permute {dims}")
    return read._replace(last=not read.last)


def ends_of(sizes: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Begin and end of pieces of these sizes."""
    ends = [sum(sizes[:place]) for place in range(len(sizes) + 1)]
    return tuple(zip(ends, ends[1:], strict=False))


def whole(value: Any) -> Any:
    """Factors as whole numbers."""
    found = tuple(map(int, value)) if isinstance(value, tuple) else int(value)
    return found if found == value else not_known(f"a factor of {value}")


def pair(value: Any) -> tuple[int, int]:
    """(height, width) of a number or a pair."""
    if isinstance(value, int):
        return value, value
    first, second = value if len(value) == 2 else (value[0], value[0])
    return first, second
