"""Which images move: GIF, animated WebP and APNG. Nothing is decoded."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import IO

SUFFIXES = frozenset({".gif", ".webp", ".png", ".apng"})
"""Of images that may move."""

MAX_PARTS = 100_000
"""Parts of a file that are looked at for a second frame."""


def is_animated(path: Path) -> bool:
    """Whether an image file has more than one frame; its first bytes say what it is."""
    with suppress(OSError), path.open("rb") as file:
        start = file.read(12)
        if start.startswith((b"GIF87a", b"GIF89a")):
            return _gif_moves(file)
        if start.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png_moves(file)
        if is_webp(start):
            return _webp_moves(file)
    return False


def is_webp(start: bytes) -> bool:
    """Whether the first twelve bytes are those of a WebP file."""
    return start[:4] == b"RIFF" and start[8:12] == b"WEBP"


def _gif_moves(file: IO[bytes]) -> bool:
    """GIF89a, sections 18 to 27: after the global colours come blocks; those of "," are images."""
    file.seek(10)
    flags, _, _ = file.read(3).ljust(3, b"\0")
    file.seek(_gif_colours(flags), 1)
    images = 0
    for _ in range(MAX_PARTS):
        kind = file.read(1)
        if kind == b"!":
            file.seek(1, 1)
        elif kind == b",":
            images += 1
            if images > 1:
                return True
            place = file.read(9).ljust(9, b"\0")
            file.seek(_gif_colours(place[8]) + 1, 1)
        else:
            return False
        while size := int.from_bytes(file.read(1), "big"):
            file.seek(size, 1)
    return False


def _gif_colours(flags: int) -> int:
    """Bytes of a table of colours."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _png_moves(file: IO[bytes]) -> bool:
    """The chunk acTL, before the first data of the image, says how many frames there are."""
    file.seek(8)
    for _ in range(MAX_PARTS):
        head = file.read(8)
        if len(head) < 8 or head[4:] in (b"IDAT", b"IEND"):
            return False
        if head[4:] == b"acTL":
            return int.from_bytes(file.read(4), "big") > 1
        file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False


def _webp_moves(file: IO[bytes]) -> bool:
    """Each frame of an animation is a chunk ANMF."""
    frames = 0
    for _ in range(MAX_PARTS):
        head = file.read(8)
        if len(head) < 8:
            return False
        frames += head[:4] == b"ANMF"
        if frames > 1:
            return True
        size = int.from_bytes(head[4:], "little")
        file.seek(size + size % 2, 1)
    return False
