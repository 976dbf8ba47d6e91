"""Files written whole or not at all, and the errors that name them."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO
from zlib import crc32

from captioner.errors import CaptionerError
from captioner.files.escaping import encode_text, shown

_MOST_BLANK_BYTES = 4096  # A longer file was not left behind by `touch`.


def cannot_write(path: str | Path, error: OSError) -> CaptionerError:
    """The error to raise for one of the system's."""
    reason = (error.strerror or str(error)).lower()
    return CaptionerError(f"{shown(path)} cannot be written: {reason}")


def cannot_read(path: str | Path, error: OSError) -> CaptionerError:
    """The error to raise for one of the system's."""
    reason = (error.strerror or str(error)).lower()
    return CaptionerError(f"{shown(path)} cannot be read: {reason}")


def exists(path: Path) -> bool:
    """Whether something has this name.

    Raises:
        CaptionerError: nothing can have it: it is too long.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise cannot_write(path, error) from None
    return True


def is_blank(path: Path) -> bool:
    """Whether a file holds nothing but white space; False for what cannot be read."""
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BLANK_BYTES:
            return False
        return not path.read_text(encoding="utf-8-sig").strip()
    except (OSError, ValueError):
        return False


def why_no_name(path: Path) -> str | None:
    """Why a file cannot have this name, or None if it can: it is too long for its file system."""
    try:
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return f"{shown(path.name)} cannot be written: {(error.strerror or '').lower()}"
    return None


def part_beside(path: Path) -> Path:
    """A temporary name in the folder of a file: short, however long the file's own is.

    It is the same in every run, so that a file left by a killed run is written over.
    """
    return path.with_name(f".captioner-{crc32(os.fsencode(path.name)):08x}.part")


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/captioner``, by default ``~/.cache/captioner``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "captioner"


def keep_matplotlib_in_cache() -> None:
    """Before matplotlib is imported, by whatever library: its list of fonts goes where ours are."""
    os.environ.setdefault("MPLCONFIGDIR", str(default_cache_dir() / "matplotlib"))


def check_no_folder(path: Path) -> None:
    """Refuse an output file that is a folder, or whose name nothing can have.

    Raises:
        CaptionerError: names it.
    """
    if exists(path) and path.is_dir():
        raise CaptionerError(f"output {shown(path)} is a folder: name a file in it")


def check_folder(folder: Path) -> None:
    """Refuse a folder, there or to be created, in which no file can be created.

    Raises:
        CaptionerError: names the folder and the reason.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent  # It will be created: what counts is where.
    if not folder.is_dir():
        raise CaptionerError(f"{shown(folder)} is not a folder: files cannot be written below it")
    effective = os.access in os.supports_effective_ids
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=effective):
        raise CaptionerError(f"folder {shown(folder)} cannot be written: permission denied")


def make_folder(folder: Path) -> None:
    """Create a folder and those above it; one that is there is left as it is.

    Raises:
        CaptionerError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise CaptionerError(
            f"folder {shown(folder)} cannot be created: a file has its name"
        ) from None
    except OSError as error:
        raise cannot_write(folder, error) from None


def replace_file(path: Path, text: str, temporary: Path | None = None) -> None:
    """Write a whole text file (UTF-8) under a temporary name, then rename it.

    After a power cut the file is the old one or the new one, never a part.

    Args:
        path: the file.
        text: what it shall hold.
        temporary: the temporary name, in the same folder; by default one that no other process
            has.

    Raises:
        CaptionerError: it cannot be written; a file that was there is as it was.
    """
    replace_bytes(path, [encode_text(text)], temporary)


def replace_bytes(path: Path, pieces: Iterable[bytes], temporary: Path | None = None) -> None:
    """Write a whole file, given piece by piece, as `replace_file` does."""
    temporary = temporary or temporary_of(path)
    try:
        with create_file(temporary, path) as stream:
            for piece in pieces:
                stream.write(piece)
            sync_file(stream, path)
    except BaseException as error:
        with suppress(OSError):  # where its folder is none, there is nothing to remove
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from None
        raise
    rename_file(temporary, path)


def sync_file(stream: IO[bytes], named: str | Path) -> None:
    """Have what was written reach the disk, where it is one: a pipe or a device has none.

    Raises:
        CaptionerError: it does not; names the file.
    """
    try:
        stream.flush()
        os.fsync(stream.fileno())
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise cannot_write(named, error) from None


def write_at(file: IO[bytes], offset: int, data: bytes, named: Path) -> None:
    """Write at the end of what is valid; what lies after is cut off. It has reached the disk then.

    By place and not by appending: interrupted and called again, it writes nothing twice.

    Args:
        file: opened without a buffer.
        offset: where.
        data: what.
        named: the file's name in messages.

    Raises:
        CaptionerError: it cannot be written.
    """
    try:
        file.truncate(offset)
        file.seek(offset)
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise cannot_write(named, error) from None
    sync_file(file, named)


def create_file(path: Path, named: Path) -> IO[bytes]:
    """Create a file and its folder, or empty it.

    Raises:
        CaptionerError: it cannot be written; the message names ``named``.
    """
    make_folder(path.parent)
    try:
        return open(path, "wb")
    except OSError as error:
        raise cannot_write(named, error) from None


def temporary_of(path: Path) -> Path:
    """A name for the unfinished file that no other process has."""
    # In the folder of the final file, behind links, so that renaming is one step and a link
    # stays one; hidden, so that no search lists it.
    folder = Path(os.path.realpath(path)).parent
    return folder / f".captioner-{os.getpid()}-{secrets.token_hex(4)}.tmp"


def rename_file(temporary: Path, final: Path) -> None:
    """Give a finished file its name, in the place of what had it.

    Raises:
        CaptionerError: it cannot have it; the finished file is gone.
    """
    try:
        os.replace(temporary, os.path.realpath(final))
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise cannot_write(final, error) from None
