"""How the samples of a TIFF file lie in it (TIFF 6.0; technical notes 1 to 3)."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

from captioner.images.limits import MAX_PROFILE_BYTES, directory

MAX_SAMPLES = 8
MAX_VALUES = 1 << 20  # of one tag
ORIENTATION_TAG = 0x0112

_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # whole numbers, as `struct` calls them
_INFLATED = (5, 8, 32773, 32946, 34925, 50000)  # LZW, deflate, PackBits, deflate, LZMA, Zstandard
_COLOURS = {0: 1, 1: 1, 2: 3, 5: 4}  # photometric interpretation -> samples: grey, RGB, CMYK
UNSIGNED, SIGNED, FLOATING = 1, 2, 3
_SWAPPED = ((16, SIGNED), (32, SIGNED), (32, FLOATING))


@dataclass(frozen=True, slots=True)
class Layout:
    """How the samples of one image lie in a file; `read_samples` can read all that are made.

    Attributes:
        order: of bytes, as `struct` calls it.
        size: (width, height), in pixels.
        bits: of a sample.
        kind: 1 unsigned, 2 signed, 3 floating.
        samples: of a pixel.
        colours: as many of them are colours: 1 grey, 3 RGB, 4 CMYK.
        alpha: what the sample behind the colours is: 0 no alpha, 1 alpha that the colours have
            been multiplied by, 2 alpha.
        white_is_zero: whether the greatest value of grey is black.
        planar: whether each sample has strips or tiles of its own.
        compression: TIFF's number of it, 1 for none.
        predictor: 1 none, 2 differences, 3 differences of the bytes of floating numbers.
        fill_order: 2 for bytes whose lowest bit is the first.
        tiled: whether the parts are tiles.
        part: (width, height) of a strip or tile.
        offsets: where the parts are.
        lengths: how many bytes each has; empty where nothing is compressed.
        orientation: as in EXIF.
        profile: the ICC profile, if there is one that is not too long.
    """

    order: str
    size: tuple[int, int]
    bits: int
    kind: int
    samples: int
    colours: int
    alpha: int
    white_is_zero: bool
    planar: bool
    compression: int
    predictor: int
    fill_order: int
    tiled: bool
    part: tuple[int, int]
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]
    orientation: int
    profile: bytes | None

    @property
    def is_misread_by_pillow(self) -> bool:
        """Whether Pillow would give other pixels without an error (seen with Pillow 13)."""
        is_grey = self.colours == 1
        is_unsigned = self.kind == UNSIGNED
        return (
            # Planes are read as bytes, and those of alpha as something else.
            (self.planar and (self.bits > 8 or self.alpha > 0))
            or (is_grey and self.alpha == 1)  # not converted any further
            or (is_grey and self.white_is_zero and self.bits > 8)  # a negative
            or (is_grey and is_unsigned and 8 < self.bits < 16)  # nearly black
            or (is_grey and is_unsigned and self.bits == 32)  # the lighter half negative
            or (self.kind == SIGNED and self.bits == 8)  # -1 is white
            # Inflated, they are in the machine's order of bytes, and Pillow goes by the file's.
            or (self.order == ">" and self.compression != 1 and (self.bits, self.kind) in _SWAPPED)
        )

    @property
    def mode(self) -> str:
        """Of the Pillow image that `read_samples` makes."""
        if self.colours == 4:
            return "CMYK"
        return {1: "L", 3: "RGB"}[self.colours] + ("A" if self.alpha else "")

    @property
    def part_samples(self) -> int:
        """Samples of a pixel in one part."""
        return 1 if self.planar else self.samples


def layout_of(file: IO[bytes]) -> Layout | None:
    """How the first image of a file is laid out; None if it is not a TIFF that can be read here.

    Args:
        file: any file, at its beginning.
    """
    found = directory(file)
    if found is None:
        return None
    values = _Values(file, *found)
    try:
        return _layout(values)
    except (KeyError, ValueError, struct.error):
        return None


class _Values:
    """The numbers of a directory, which are looked up when they are asked for."""

    def __init__(
        self, file: IO[bytes], order: str, entries: Mapping[int, tuple[int, int, bytes]]
    ) -> None:
        self.order = order
        self._file = file
        self._entries = entries

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def all(self, tag: int) -> tuple[int, ...]:
        kind, count, _ = self._entries[tag]
        if not 0 < count <= MAX_VALUES:
            raise ValueError("no or too many values")
        layout = struct.Struct(f"{self.order}{count}{_TYPES[kind]}")
        return layout.unpack(self._data(tag, layout.size))

    def one(self, tag: int, default: int | None = None) -> int:
        if tag not in self._entries and default is not None:
            return default
        return self.all(tag)[0]

    def same(self, tag: int, default: int) -> int:
        """The value that all samples have."""
        found = set(self.all(tag)) if tag in self._entries else {default}
        if len(found) != 1:
            raise ValueError("samples of different kinds")
        return found.pop()

    def profile(self) -> bytes | None:
        if 34675 not in self._entries or self._entries[34675][1] > MAX_PROFILE_BYTES:
            return None
        return self._data(34675, self._entries[34675][1])

    def _data(self, tag: int, size: int) -> bytes:
        field = self._entries[tag][2]
        if size <= len(field):
            return field[:size]
        (place,) = struct.unpack(self.order + ("Q" if len(field) == 8 else "I"), field)
        if place >= 2**63:
            raise ValueError("no such place")
        self._file.seek(place)
        return self._file.read(size)


def _layout(values: _Values) -> Layout:
    photometric, samples = values.one(262, 0), values.one(277, 1)
    colours = _COLOURS[photometric]
    kind = {4: UNSIGNED}.get(values.same(339, 1), values.same(339, 1))  # 4: not said
    tiled = 324 in values
    width, height = values.one(256), values.one(257)
    rows = min(values.one(278, height), height)
    part = (values.one(322), values.one(323)) if tiled else (width, rows)
    compression = values.one(259, 1)
    layout = Layout(
        order=values.order,
        size=(width, height),
        bits=values.same(258, 1),
        kind=kind,
        samples=samples,
        colours=colours,
        alpha=_alpha(values, colours, samples - colours),
        white_is_zero=photometric == 0,
        planar=values.one(284, 1) == 2 and samples > 1,
        compression=compression,
        predictor=values.one(317, 1) if compression != 1 else 1,
        fill_order=values.one(266, 1),
        tiled=tiled,
        part=part,
        offsets=values.all(324 if tiled else 273),
        lengths=values.all(325 if tiled else 279) if compression != 1 else (),
        orientation=values.one(ORIENTATION_TAG, 1),
        profile=values.profile(),
    )
    _check(layout)
    if colours == 4 and values.one(332, 1) != 1:
        raise ValueError("inks that are not CMYK")
    return layout


def _alpha(values: _Values, colours: int, extra: int) -> int:
    if extra < 0 or (colours == 1 and extra > 1):
        raise ValueError("other samples than colours and alpha")
    if extra == 0 or colours == 4:
        return 0
    if 338 not in values:
        return 2 if (colours, extra) == (3, 1) else 0  # as Pillow takes RGB of four samples
    first = values.all(338)[0]
    return first if first in (1, 2) else 0


def _check(layout: Layout) -> None:
    """Refuse with ValueError what `read_samples` cannot read."""
    bits = {UNSIGNED: (*range(1, 17), 32, 64), SIGNED: (8, 16, 32, 64), FLOATING: (16, 32, 64)}
    known = (
        min(*layout.size, *layout.part) > 0
        and layout.bits in bits.get(layout.kind, ())
        and layout.samples <= MAX_SAMPLES
        and layout.compression in (1, *_INFLATED)
        and layout.fill_order in (1, 2)
    )
    whole = layout.bits in (8, 16, 32, 64)
    predictors = {1: True, 2: whole, 3: layout.kind == FLOATING}
    if not known or not predictors.get(layout.predictor, False):
        raise ValueError("not known here")
    parts = math.prod(grid_of(layout)) * (layout.samples if layout.planar else 1)
    there = len(layout.offsets)
    if there < parts or (layout.compression != 1 and len(layout.lengths) < parts):
        raise ValueError("too few strips or tiles")


def grid_of(layout: Layout) -> tuple[int, int]:
    """How many parts lie side by side, and one above the other."""
    return -(-layout.size[0] // layout.part[0]), -(-layout.size[1] // layout.part[1])
