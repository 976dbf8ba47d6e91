"""What the header of a JPEG XL image says (ISO/IEC 18181-1, annex D; 18181-2, boxes).

Its decoder gives the size together with the pixels, which is too late for a limit, and does not say
that it passed over all frames of an animation but the last.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from captioner.files.boxes import LARGEST_FILE, Boxes

_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
_PREVIEW_EIGHTS = ((16, 0), (32, 0), (1, 5), (33, 9))  # the smallest side, and bits to add to it
_PREVIEW = ((1, 6), (65, 8), (321, 10), (1345, 12))
_SIGNATURE = b"\xff\x0a"
_CODESTREAM = {b"jxlc": 0, b"jxlp": 4}  # boxes with it: all, or a part after its number of 4 bytes
_NEEDED = 32  # bytes, after the signature: more than the three sizes of a header have


@dataclass(frozen=True, slots=True)
class JxlHeader:
    """What is needed of it.

    Attributes:
        size: (width, height), in pixels.
        is_animated: whether its frames are shown one after the other.
    """

    size: tuple[int, int]
    is_animated: bool


def jxl_header(data: bytes) -> JxlHeader | None:
    """The header; None if the data end before the size is said.

    Args:
        data: a whole file, a bare codestream or in boxes.
    """
    start = _codestream(data)
    if start is None or start[:2] != _SIGNATURE:
        return None
    bits = _Bits(start[2:].ljust(_NEEDED, b"\0"))
    return JxlHeader(_size(bits, _side), _is_animated(bits))


def _is_animated(bits: _Bits) -> bool:
    """Of the fields behind the size, as far as the one that says it."""
    is_plain = bits.take(1)
    if is_plain or not bits.take(1):
        return False
    bits.take(3)  # the orientation
    if bits.take(1):  # the size at which it is shown
        _size(bits, _side)
    if bits.take(1):
        _size(bits, _preview_side)
    return bits.take(1) == 1


def _size(bits: _Bits, side: Callable[[_Bits, bool], int]) -> tuple[int, int]:
    in_eights = bits.take(1) == 1
    height = side(bits, in_eights)
    ratio = bits.take(3)
    if ratio == 0:
        return side(bits, in_eights), height
    wide, high = _RATIOS[ratio]
    return height * wide // high, height


def _side(bits: _Bits, in_eights: bool) -> int:
    if in_eights:
        return 8 * (1 + bits.take(5))
    return 1 + bits.take((9, 13, 18, 30)[bits.take(2)])


def _preview_side(bits: _Bits, in_eights: bool) -> int:
    steps = _PREVIEW_EIGHTS if in_eights else _PREVIEW
    smallest, count = steps[bits.take(2)]
    return (8 if in_eights else 1) * (smallest + bits.take(count))


class _Bits:
    """Numbers of some bits, the lowest first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        found = self._value & ((1 << count) - 1)
        self._value >>= count
        return found


def _codestream(data: bytes) -> bytes | None:
    """The beginning of the codestream."""
    if data[:2] == _SIGNATURE:
        return data[: 2 + _NEEDED]
    boxes = Boxes(io.BytesIO(data))
    with suppress(struct.error):  # the data end within the head of a box
        for box in boxes.between(0, LARGEST_FILE):
            if box.kind in _CODESTREAM:
                number = _CODESTREAM[box.kind]
                return boxes.content(box, number + 2 + _NEEDED)[number:]
    return None
