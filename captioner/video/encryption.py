"""Whether a file says that its video is encrypted, by its bytes: FFmpeg does not always tell."""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from pathlib import Path
from typing import IO

from captioner.files.boxes import LARGEST_FILE, Boxes

PROTECTED = ("encv", "drmi")
"""What MP4 calls encrypted video: that of ISO/IEC 23001-7, and Apple's."""

_HEAD_BYTES = 256 * 1024
_MOST_INDEX_BYTES = 64 * 1024 * 1024

_MATROSKA_OR_ASF = re.compile(
    # Matroska's ContentEncryption with its algorithm, and ASF's two objects of that name.
    rb"\x50\x35.{1,12}\x47\xe1|\xfb\xb3\x11\x22\x23\xbd\xd2\x11\xb4\xb7\x00\xa0\xc9\x55\xfc\x6e"
    rb"|\x14\xe6\x8a\x29\x22\x26\x17\x4c\xb9\x35\xda\xe0\x7e\xe9\x28\x9c",
    re.DOTALL,
)
_MP4 = re.compile(rb"stsd.{12}(?:%s)" % "|".join(PROTECTED).encode(), re.DOTALL)


def says_it_is_encrypted(path: Path) -> bool:
    """Whether a file that cannot be decoded says that it is encrypted."""
    with suppress(OSError), path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if _MATROSKA_OR_ASF.search(head) or _is_scrambled(head):
            return True
        return head[4:8] in (b"ftyp", b"moov", b"wide") and _MP4.search(_index(file)) is not None
    return False


def _index(file: IO[bytes]) -> bytes:
    """The content of the box ``moov`` of an MP4 file, empty if there is none."""
    boxes = Boxes(file)
    with suppress(struct.error):  # the file ends within the head of a box
        for box in boxes.between(0, LARGEST_FILE):
            if box.kind == b"moov":
                return boxes.content(box, _MOST_INDEX_BYTES)
    return b""


def _is_scrambled(head: bytes) -> bool:
    """Whether many packets of a transport stream (ISO/IEC 13818-1, 2.4.3.2) need a key."""
    for size, start in ((188, 0), (192, 4), (204, 0)):
        packets = [head[place : place + 4] for place in range(start, len(head) - 3, size)]
        if len(packets) >= 5 and all(packet[0] == 0x47 for packet in packets):
            return 4 * sum(packet[3] >= 0x80 for packet in packets) >= len(packets)
    return False
