"""What the header of JPEG XL says, of headers made bit by bit."""

from __future__ import annotations

import pytest

from captioner.images.jxl_header import JxlHeader, jxl_header

SIZE = (0, 1), (0, 2), (39, 9), (0, 3), (0, 2), (49, 9)  # 50 x 40 in no eights, without a ratio
EIGHTS = (1, 1), (4, 5), (1, 3)  # 40 high, as wide
PREVIEW = (0, 1), (1, 2), (9, 8), (1, 3)  # 74 high, as wide
PREVIEW_EIGHTS = (1, 1), (3, 2), (9, 9), (1, 3)


def header(*fields: tuple[int, int]) -> bytes:
    """Of pairs of a value and its number of bits."""
    value, place = 0, 0
    for number, bits in fields:
        value |= number << place
        place += bits
    return b"\xff\x0a" + value.to_bytes(40, "little")


# Fields behind the size: default values, other fields, orientation, size to show, preview, frames.
METADATA = {
    "default values": ([(1, 1)], False),
    "no other fields": ([(0, 1), (0, 1), (0xFF, 8)], False),
    "an orientation": ([(0, 1), (1, 1), (7, 3), (0, 1), (0, 1), (0, 1), (0xFF, 8)], False),
    "frames": ([(0, 1), (1, 1), (0, 3), (0, 1), (0, 1), (1, 1)], True),
    "a size and frames": ([(0, 1), (1, 1), (0, 3), (1, 1), *EIGHTS, (0, 1), (1, 1)], True),
    "a size": ([(0, 1), (1, 1), (0, 3), (1, 1), *SIZE, (0, 1), (0, 1), (0xFF, 8)], False),
    "a preview": ([(0, 1), (1, 1), (0, 3), (0, 1), (1, 1), *PREVIEW, (0, 1), (0xFF, 8)], False),
    "both": (
        [(0, 1), (1, 1), (0, 3), (1, 1), *SIZE, (1, 1), *PREVIEW_EIGHTS, (1, 1)],
        True,
    ),
}


@pytest.mark.parametrize("case", METADATA)
def test_size_and_frames(case: str) -> None:
    fields, is_animated = METADATA[case]
    assert jxl_header(header(*SIZE, *fields)) == JxlHeader((50, 40), is_animated)
    assert jxl_header(header(*EIGHTS, *fields)) == JxlHeader((40, 40), is_animated)


def test_no_header() -> None:
    for data in (b"", b"\xff", b"\xff\x0b\0\0", b"\0\0\0\x0cJXL \r\n\x87\n", b"\0\0\0\1jxlc"):
        assert jxl_header(data) is None
