"""A file that can be read for so long and so often: what no decoder below asks itself.

A few kilobytes can keep a decoder busy for hours: directories whose entries all lead to the same
data, endless lists of empty parts, a picture drawn anew in every one of ten thousand scans. All of
them read while they work, so that is where they are stopped.
"""

from __future__ import annotations

import io
import time
from pathlib import Path


class TooMuchWork(Exception):
    """Reading went on for too long; the message says how."""


class LimitedFile(io.BufferedReader):
    """A regular file, open for reading, whose reader has to come to an end.

    Args:
        path: the file.
        max_seconds: processor time that the reading thread may take from here on. Not time on the
            clock: neither a slow disk nor other work on the machine spends it.
        max_readings: how often, on average, each byte may be read.

    Raises:
        OSError: it cannot be opened.
        TooMuchWork: from `read`, beyond one of the limits.
    """

    def __init__(self, path: Path, max_seconds: float, max_readings: int) -> None:
        super().__init__(io.FileIO(path))
        self._max_seconds = max_seconds
        self._ends_s = time.thread_time() + max_seconds
        # A short file is read as a whole for its format alone, once by every decoder.
        self._bytes_left = max_readings * (path.stat().st_size + 65_536)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file does."""
        if time.thread_time() > self._ends_s:
            raise TooMuchWork(f"more than {self._max_seconds:g} s")
        if self._bytes_left < 0:
            raise TooMuchWork("the same bytes are read again and again")
        data = super().read(size)
        self._bytes_left -= len(data)
        return data
