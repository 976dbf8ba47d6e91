"""The size of a JPEG XL image, from its header (ISO/IEC 18181-1, SizeHeader; 18181-2, boxes).

Its decoder gives the size together with the pixels, which is too late for a limit.
"""

from __future__ import annotations

import struct

_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
_SIGNATURE = b"\xff\x0a"
_NEEDED = 16  # bytes: a header has 9 at most, after its signature


def jxl_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels; None if the data end before they are said.

    Args:
        data: a whole file, a bare codestream or in boxes.
    """
    start = _codestream(data)
    if start is None or start[:2] != _SIGNATURE:
        return None
    bits = _Bits(start[2:].ljust(_NEEDED, b"\0"))
    in_eights = bits.take(1) == 1
    height = _side(bits, in_eights)
    ratio = bits.take(3)
    if ratio == 0:
        return _side(bits, in_eights), height
    wide, high = _RATIOS[ratio]
    return height * wide // high, height


def _side(bits: _Bits, in_eights: bool) -> int:
    if in_eights:
        return 8 * (1 + bits.take(5))
    return 1 + bits.take((9, 13, 18, 30)[bits.take(2)])


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
    place = 0
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        head = 8
        if size == 1:
            if place + 16 > len(data):
                return None
            (size,) = struct.unpack_from(">Q", data, place + 8)
            head = 16
        if kind == b"jxlc":
            return data[place + head : place + head + 2 + _NEEDED]
        if kind == b"jxlp":  # a part of it, after its number
            return data[place + head + 4 : place + head + 6 + _NEEDED]
        if size < head:
            return None
        place += size
    return None
