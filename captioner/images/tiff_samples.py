"""TIFF files whose samples Pillow reads wrongly or not at all (TIFF 6.0; technical notes 1 to 3).

Pillow has a pixel mode for most of what photos are kept in. The rest is read here: any number of
bits up to 16, 32 and 64, integers and floating numbers, in planes of their own or not, with an
alpha channel or without, where white is 0 and where it is not. Strips and tiles are still inflated
by Pillow's libtiff, one at a time, each as if it were a grey image of bytes.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from PIL import Image, TiffImagePlugin

from captioner.images.tiff_layout import (
    FLOATING,
    ORIENTATION_TAG,
    SIGNED,
    UNSIGNED,
    Layout,
    grid_of,
)

MAX_PART_BYTES = 1_000_000_000
"""Of one strip or tile when it is inflated: it is in memory as a whole."""

SMALL_PART_BYTES = 16_000_000
"""A tile may always be so large; a larger one may not be much larger than its image."""

_BLOCK = 1 << 20  # samples that are turned into numbers at once
Array = np.ndarray[Any, Any]


def read_samples(file: IO[bytes], layout: Layout) -> Image.Image:
    """Decode an image to 8 bits.

    Unsigned samples of up to 16 bits are scaled by their greatest possible value. Others are taken
    to range to 255, 65535 or (floating) 1, whichever is the first to hold all values; with none
    they are stretched from their smallest to their largest value.

    Args:
        file: the file of the layout.
        layout: from `layout_of`.

    Returns:
        An image of mode L, LA, RGB, RGBA or CMYK, with its profile as ``info["icc_profile"]`` and
        the orientation in its EXIF data.

    Raises:
        EOFError: the file is cut short.
        OSError, ValueError: it is damaged.
    """
    scale = _scale(file, layout)
    image = Image.new(layout.mode, layout.size)
    bands = list(image.split()) if layout.planar else []
    for plane, corner, values in _blocks(file, layout):
        if layout.planar:
            if plane < len(bands):
                levels = scale.alpha(values) if plane == layout.colours else scale.colour(values)
                bands[plane].paste(Image.fromarray(levels[..., 0]), corner)
            continue
        levels = scale.colour(values[..., : layout.colours])
        if layout.alpha:
            alpha = scale.alpha(values[..., layout.colours :][..., :1])
            levels = np.concatenate([levels, alpha], axis=-1)
        image.paste(_image(levels, layout.mode), corner)
    if bands:
        image = Image.merge(layout.mode, bands)
    if layout.alpha == 1:
        image = _divided_by_alpha(image)
    if layout.profile is not None:
        image.info["icc_profile"] = layout.profile
    image.getexif()[ORIENTATION_TAG] = layout.orientation
    return image


def _image(levels: Array, mode: str) -> Image.Image:
    height, width, _ = levels.shape
    return Image.frombuffer(mode, (width, height), np.ascontiguousarray(levels), "raw", mode, 0, 1)


def _divided_by_alpha(image: Image.Image) -> Image.Image:
    result = Image.new(image.mode, image.size)
    rows = max(1, _BLOCK // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        values = np.asarray(strip).astype(np.float32)
        alpha = np.maximum(values[..., -1:], 1)
        values[..., :-1] = np.minimum(np.rint(values[..., :-1] * 255 / alpha), 255)
        result.paste(_image(values.astype(np.uint8), image.mode), (0, top))
    return result


def _blocks(file: IO[bytes], layout: Layout) -> Iterator[tuple[int, tuple[int, int], Array]]:
    """All samples in blocks: plane, left upper corner, values (rows, width, samples)."""
    across, down = grid_of(layout)
    width, height = layout.size
    for number in range(across * down * (layout.samples if layout.planar else 1)):
        plane, place = divmod(number, across * down)
        left, top = place % across * layout.part[0], place // across * layout.part[1]
        rows = layout.part[1] if layout.tiled else min(layout.part[1], height - top)
        for first, values in _part(file, layout, number, rows):
            inside = values[: max(0, height - top - first), : width - left]
            if inside.size:
                yield plane, (left, top + first), inside


def _part(file: IO[bytes], layout: Layout, number: int, rows: int) -> Iterator[tuple[int, Array]]:
    """The values of a strip or tile, in blocks of rows, each with the number of its first row."""
    row_bytes = -(-layout.part[0] * layout.part_samples * layout.bits // 8)
    _check_part(layout, rows * row_bytes)
    step = max(1, _BLOCK // (layout.part[0] * layout.part_samples))
    inflated = None
    if layout.compression != 1:
        inflated = _inflated(file, layout, number, (row_bytes, rows))
    else:
        file.seek(min(layout.offsets[number], 2**62))
    for first in range(0, rows, step):
        count = min(step, rows - first)
        if inflated is not None:
            lines = inflated[first : first + count]
        else:
            data = file.read(count * row_bytes)
            if len(data) < count * row_bytes:
                raise EOFError
            lines = np.frombuffer(data, np.uint8).reshape(count, row_bytes)
            if layout.fill_order == 2:
                lines = _REVERSED[lines]
        yield first, _numbers(lines, layout)


def _check_part(layout: Layout, size_bytes: int) -> None:
    width, height = layout.size
    image_bytes = width * height * layout.part_samples * layout.bits // 8
    most = MAX_PART_BYTES if layout.compression != 1 else 2**62
    if layout.tiled:
        most = min(most, max(SMALL_PART_BYTES, 2 * image_bytes))
    if size_bytes > most:
        raise ValueError(f"a strip or tile of {size_bytes} bytes")


def _inflated(file: IO[bytes], layout: Layout, number: int, size: tuple[int, int]) -> Array:
    """The bytes (rows, bytes of a row) of a compressed part; `size` is (bytes of a row, rows)."""
    file.seek(min(layout.offsets[number], 2**62))
    data = file.read(min(layout.lengths[number], MAX_PART_BYTES))
    if not data:
        raise EOFError
    # Four bytes to a pixel: Pillow refuses too many pixels, which these are not.
    samples = 4 if size[0] % 4 == 0 else 1
    entries = {
        256: size[0] // samples, 257: size[1], 258: 8, 259: layout.compression,
        262: 5 if samples == 4 else 1, 266: layout.fill_order, 273: 8 + 2 + 12 * 10 + 4,
        277: samples, 278: size[1], 279: len(data),
    }  # fmt: skip
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + fields + bytes(4)
    with TiffImagePlugin.TiffImageFile(io.BytesIO(head + data)) as part:
        return np.asarray(part).reshape(size[1], size[0])


_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1])


# --- numbers -------------------------------------------------------------------------------


def _numbers(lines: Array, layout: Layout) -> Array:
    """Bytes of rows (rows, bytes) -> values (rows, width, samples in a part)."""
    shape = (len(lines), layout.part[0], layout.part_samples)
    if layout.predictor == 3:
        return _from_byte_planes(lines, layout, shape)
    if layout.bits not in (8, 16, 32, 64):
        return _unpacked(lines, layout.bits, shape)
    letter = {UNSIGNED: "u", SIGNED: "i", FLOATING: "f"}[layout.kind]
    size = layout.bits // 8
    if layout.predictor == 2:
        # The differences are of whole numbers, also where these stand for floating ones.
        whole = np.ascontiguousarray(lines).view(f"{layout.order}u{size}").reshape(shape)
        summed = np.cumsum(whole, axis=1, dtype=f"u{size}")
        return summed.view(f"{letter}{size}")
    return np.ascontiguousarray(lines).view(f"{layout.order}{letter}{size}").reshape(shape)


def _unpacked(lines: Array, bits: int, shape: tuple[int, int, int]) -> Array:
    """Samples that do not fill bytes; every row begins with a new byte."""
    rows, width, samples = shape
    flags = np.unpackbits(lines, axis=1)[:, : width * samples * bits]
    flags = flags.reshape(rows, width * samples, bits)
    values = np.zeros(flags.shape[:2], np.uint16)
    for place in range(bits):
        values = (values << 1) | flags[..., place]
    return values.reshape(shape)


def _from_byte_planes(lines: Array, layout: Layout, shape: tuple[int, int, int]) -> Array:
    """Technical note 3: the highest bytes of a row's numbers, the next ones, all as differences."""
    rows, width, samples = shape
    size = layout.bits // 8
    steps = lines.reshape(rows, -1, samples)
    summed = np.cumsum(steps, axis=1, dtype=np.uint8).reshape(rows, size, width * samples)
    numbers = np.ascontiguousarray(summed.transpose(0, 2, 1))
    return numbers.view(f">f{size}").reshape(shape)


class _Scale:
    """Values to levels from 0 to 255, by a table."""

    def __init__(self, layout: Layout) -> None:
        top = 2**layout.bits - 1
        values = np.arange(top + 1)
        exact = np.rint(values * (255 / top)).astype(np.uint8)
        self._alpha = exact
        # Of colours the high byte, as Pillow takes it where it reads 16 bits itself.
        is_deep = layout.colours > 1 and layout.bits == 16
        self._colour = (values >> 8).astype(np.uint8) if is_deep else exact
        if layout.white_is_zero:
            self._colour = 255 - self._colour

    def colour(self, values: Array) -> Array:
        levels: Array = self._colour[values]
        return levels

    def alpha(self, values: Array) -> Array:
        levels: Array = self._alpha[values]
        return levels


class _RangeScale(_Scale):
    """The same for numbers that no table lists, by the range of the colours."""

    def __init__(self, layout: Layout, low: float, high: float) -> None:
        tops = [1.0, 255.0, 65535.0] if layout.kind == FLOATING else [255.0, 65535.0]
        top = next((top for top in tops if low >= 0 and high <= top), None)
        self._low = low
        self._range = (low, high) if top is None else (0.0, top)
        self._white_is_zero = layout.white_is_zero
        tops_of_kinds = {UNSIGNED: 2.0**layout.bits - 1, SIGNED: 2.0 ** (layout.bits - 1) - 1}
        self._opaque = tops_of_kinds.get(layout.kind, 1.0)

    def colour(self, values: Array) -> Array:
        levels = _levels(values, self._low, self._range)
        return 255 - levels if self._white_is_zero else levels

    def alpha(self, values: Array) -> Array:
        return _levels(values, 0.0, (0.0, self._opaque))


def _levels(values: Array, instead: float, limits: tuple[float, float]) -> Array:
    wide = values.astype(np.float64)
    wide = np.where(np.isfinite(wide), wide, instead)
    low, high = limits
    scaled = (np.clip(wide, low, high) - low) * (255.0 / ((high - low) or 1.0))
    return np.rint(scaled).astype(np.uint8)


def _scale(file: IO[bytes], layout: Layout) -> _Scale:
    if layout.kind == UNSIGNED and layout.bits <= 16:
        return _Scale(layout)
    low, high = math.inf, -math.inf
    for plane, _, values in _blocks(file, layout):
        if layout.planar and plane >= layout.colours:
            break
        colours = values[..., : layout.colours]
        finite = colours[np.isfinite(colours)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return _RangeScale(layout, *((low, high) if low <= high else (0.0, 0.0)))
