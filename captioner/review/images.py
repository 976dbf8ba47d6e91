"""Small and large views of the images under review, made when a page asks for them.

They are new JPEG files without the photo's own data, such as the place where it was taken. What
was made stays in memory as long as there is room.
"""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from pathlib import Path
from threading import BoundedSemaphore, Lock

from captioner.images.reading import ImageError, read_image

SMALL, LARGE = 320, 1600
"""Pixels of the longer side, at most."""

MOST_BYTES = 64 * 1024 * 1024
"""Of all views that stay in memory: some thousands of the small ones."""

_Key = tuple[str, int, int, int]


class Views:
    """Makes views and keeps them; methods may be called from any thread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[_Key, bytes] = OrderedDict()
        self._size_bytes = 0
        self._lock = Lock()
        # Decoded images are large, and more threads than processors only wait for each other.
        self._turns = BoundedSemaphore(max(1, min(4, os.cpu_count() or 1)))

    def view(self, path: Path, side: int) -> bytes:
        """An image as a JPEG file.

        Args:
            path: where it is.
            side: `SMALL` or `LARGE`.

        Raises:
            ImageError: it cannot be read.
        """
        try:
            found = path.stat()
        except OSError as error:
            raise ImageError((error.strerror or str(error)).lower(), path) from None
        key = (os.fspath(path), found.st_mtime_ns, found.st_size, side)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with self._turns:
            data = _jpeg(path, side)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = data
                self._size_bytes += len(data)
            while self._size_bytes > MOST_BYTES and len(self._kept) > 1:
                self._size_bytes -= len(self._kept.popitem(last=False)[1])
        return data


def _jpeg(path: Path, side: int) -> bytes:
    image = read_image(path, min_side=side, may_be_partial=True)
    image.thumbnail((side, side))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80 if side == SMALL else 88)
    return data.getvalue()
