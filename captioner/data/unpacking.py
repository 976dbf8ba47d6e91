"""Images that lie inside other files: each becomes a file of its own in the cache."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from pathlib import Path, PurePosixPath

from captioner.errors import CaptionerError
from captioner.files.writing import (
    cannot_write,
    create_file,
    default_cache_dir,
    rename_file,
    temporary_of,
)


def unpack_image(data: bytes, name: str) -> Path:
    """The file in the cache that has this content; it is called by the content's hash.

    Args:
        data: all bytes of the image's file.
        name: what the image is called; the suffix is kept.

    Raises:
        CaptionerError: the file cannot be written.
    """
    digest = hashlib.blake2b(data, digest_size=20).hexdigest()
    suffix = PurePosixPath(name).suffix.lower()
    if not re.fullmatch(r"\.[a-z0-9]{1,5}", suffix):
        suffix = ""
    path = default_cache_dir() / "unpacked" / digest[:2] / (digest[2:] + suffix)
    if not _has_size(path, len(data)):
        try:
            _write(path, data)
        except CaptionerError as error:
            raise CaptionerError(
                f"{error}; images are unpacked there: make room, or name another folder for caches "
                "with XDG_CACHE_HOME"
            ) from None
    return path


def _has_size(path: Path, size_bytes: int) -> bool:
    try:
        return path.stat().st_size == size_bytes
    except OSError:
        return False


def _write(path: Path, data: bytes) -> None:
    # Not synced one by one, which takes longer than the rest: what a power cut leaves short is
    # seen by its size.
    temporary = temporary_of(path)
    try:
        with create_file(temporary, path) as stream:
            stream.write(data)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from None
    rename_file(temporary, path)
