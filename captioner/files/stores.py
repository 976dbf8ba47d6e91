"""Files on any file system: local paths, and addresses such as ``s3://bucket/key`` by fsspec.

fsspec and what it needs for a kind of address are imported where the first such address is met
(the extra ``remote``). A store that does not answer raises :class:`StoreUnreachable`, which is
nobody's mistake: `reached` waits for it.
"""

from __future__ import annotations

import errno
import glob
import io
import os
import posixpath
import re
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.writing import cannot_read, create_file, make_folder, rename_file

T = TypeVar("T")

REMOTE = 'pip install "captioner[remote]"'
"""How to read and write addresses."""

BLOCK_BYTES = 8 << 20
"""Of a remote file, read at once."""

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_WEB = ("http", "https")
_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # the last one again and again

# The names of errors that say that nobody answers, of whatever client; their modules are not
# imported for that.
_NO_ANSWER = frozenset(
    {
        "ConnectionError",  # the built-in one, botocore's and that of requests
        "TimeoutError",
        "HTTPClientError",  # botocore: closed connections, timeouts of reading
        "IncompleteReadError",
        "ResponseParserError",
        "ClientConnectionError",  # aiohttp, as the next one
        "ClientPayloadError",
        "FSTimeoutError",  # fsspec
        "TransportError",  # google-auth
        "ServiceRequestError",  # Azure, as the next one
        "ServiceResponseError",
    }
)
_NOT_NOW = frozenset(
    {
        errno.EBUSY,  # s3fs makes it of HTTP 503
        getattr(errno, "EREMOTEIO", errno.EIO),  # and this of 500
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
    }
)


class StoreUnreachable(Exception):
    """A store does not answer, or not now.

    Attributes:
        store: its address, without what is in it.
        reason: in a few words.
    """

    def __init__(self, store: str, reason: str) -> None:
        """Keep both, also through pickle."""
        super().__init__(store, reason)
        self.store = store
        self.reason = reason

    def __str__(self) -> str:
        """What cannot be reached, and why."""
        return f"{self.store} cannot be reached: {self.reason}"


def is_address(text: str) -> bool:
    """Whether it names a file on a file system of fsspec, and is not a path."""
    return _ADDRESS.match(text) is not None


def is_on_web(text: str) -> bool:
    """Whether it is an address of the web, where any server may be gone for good."""
    found = _ADDRESS.match(text)
    return found is not None and found[1].lower() in _WEB


def local_path(address: str) -> Path | None:
    """The path of a local file, also of a ``file://`` address; None for a remote one."""
    if address.lower().startswith("file://"):
        return Path(address[len("file://") :])
    return None if is_address(address) else Path(address)


def store_of(address: str) -> str:
    """The part of an address that says which store it is in; empty for a path."""
    kind, mark, rest = address.partition("://")
    return f"{kind}://{rest.partition('/')[0]}" if mark else ""


def joined(folder: str, name: str) -> str:
    """The address of a file in a folder, or the path of a local one."""
    return posixpath.join(folder, name) if is_address(folder) else os.path.join(folder, name)


def check_store(address: str) -> None:
    """Refuse an address of a kind that cannot be read, or whose store does not answer.

    Raises:
        CaptionerError: names the address and the remedy.
    """
    if local_path(address) is not None:
        return
    files, path = _file_system(address)
    try:
        _asked(address, lambda: files.exists(path))
    except StoreUnreachable as error:
        raise CaptionerError(
            f"{error}; check the address and the network, and for another server than Amazon's "
            "the environment variable AWS_ENDPOINT_URL"
        ) from None
    except OSError as error:
        raise cannot_read(address, error) from None


def open_file(address: str) -> IO[bytes]:
    """Open a file to read; a remote one is read in blocks, and can be read at any place.

    Raises:
        OSError: there is no such file, or it may not be read.
        StoreUnreachable: also from reading.
    """
    path = local_path(address)
    if path is not None:
        return path.open("rb")
    files, name = _file_system(address)
    opened = _asked(address, lambda: files.open(name, "rb", block_size=BLOCK_BYTES))
    return cast(IO[bytes], io.BufferedReader(_RemoteFile(opened, address), BLOCK_BYTES))


def read_file(address: str, most_bytes: int) -> bytes:
    """What a file holds, but no more than so many bytes.

    Raises:
        OSError: there is no such file, or it may not be read.
        StoreUnreachable: the store does not answer.
    """
    path = local_path(address)
    if path is not None:
        with path.open("rb") as file:
            return file.read(most_bytes)
    files, name = _file_system(address)

    def download() -> bytes:
        with files.open(name, "rb", block_size=_block_bytes(address)) as stream:
            return cast(bytes, stream.read(most_bytes))

    return _asked(address, download)


def pieces_of(address: str) -> Generator[bytes, None, None]:
    """What a remote file holds, in pieces, from its start to its end.

    Raises:
        OSError: there is no such file, or it may not be read.
        StoreUnreachable: the store does not answer.
    """
    files, name = _file_system(address)
    opened = _asked(address, lambda: files.open(name, "rb", block_size=_block_bytes(address)))
    with closing(opened) as stream:
        while piece := cast(bytes, _asked(address, lambda: stream.read(BLOCK_BYTES))):
            yield piece


def exists(address: str) -> bool:
    """Whether there is such a file or folder.

    Raises:
        OSError: nobody may know.
        StoreUnreachable: the store does not answer.
    """
    path = local_path(address)
    if path is not None:
        return path.exists()
    files, name = _file_system(address)
    files.invalidate_cache()
    return bool(_asked(address, lambda: files.exists(name)))


def size_of(address: str) -> int:
    """The size of a file in bytes.

    Raises:
        CaptionerError: there is no such file.
        OSError: nobody may know.
        StoreUnreachable: the store does not answer.
    """
    path = local_path(address)
    try:
        if path is not None:
            return path.stat().st_size
        files, name = _file_system(address)
        return int(_asked(address, lambda: files.info(name))["size"])
    except FileNotFoundError:
        raise CaptionerError(f"{shown(address)} does not exist: check the path") from None


def names_in(folder: str) -> Iterator[str]:
    """The files in a folder and those below it, relative to it, without hidden ones.

    Raises:
        OSError: the folder may not be listed.
        StoreUnreachable: the store does not answer.
    """
    path = local_path(folder)
    if path is not None:
        yield from _local_names(path)
        return
    files, name = _file_system(folder)
    files.invalidate_cache()
    start = len(name.rstrip("/")) + 1
    try:
        found = _asked(folder, lambda: files.find(name))
    except FileNotFoundError:
        return
    for each in found:
        if not any(part.startswith(".") for part in each[start:].split("/")):
            yield each[start:]


def matching(pattern: str) -> list[str]:
    """The files that match a pattern with wildcards, sorted.

    Raises:
        OSError: a folder may not be listed.
        StoreUnreachable: the store does not answer.
    """
    path = local_path(pattern)
    if path is not None:
        found = glob.glob(os.fspath(path), recursive=True)
        return sorted(each for each in found if os.path.isfile(each))
    files, name = _file_system(pattern)
    files.invalidate_cache()
    kind = pattern.partition("://")[0]
    names = _asked(pattern, lambda: files.glob(name))
    return sorted(each if is_address(each) else f"{kind}://{each}" for each in names)


def publish(file: Path, address: str) -> None:
    """Give a finished local file its place in one step; what had it is replaced.

    A local file is moved, and has to be on the file system of its place; another one is copied.

    Raises:
        CaptionerError: it cannot be written there.
        StoreUnreachable: the store does not answer.
    """
    path = local_path(address)
    if path is not None:
        make_folder(path.parent)
        rename_file(file, path)
        return
    files, name = _file_system(address)
    try:
        # One request, or parts that count when all are there: nobody sees half a file.
        _asked(address, lambda: files.put_file(os.fspath(file), name))
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise CaptionerError(f"{shown(address)} cannot be written: {reason}") from None


def create_local(path: Path) -> IO[bytes]:
    """Create a file that `publish` is to move or copy."""
    return create_file(path, path)


def reached(action: Callable[[], T]) -> T:
    """Do something with stores; while one cannot be reached, wait and do it again.

    Ctrl-C ends the waiting: call it in the main thread.
    """
    failures = 0
    while True:
        try:
            result = action()
        except StoreUnreachable as error:
            if failures == 0:
                _say(f"{error}; waiting for it")
            time.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
            failures += 1
            store = error.store
        else:
            if failures:
                _say(f"{store} can be reached again")
            return result


def retried(items: Callable[[int], Iterator[T]]) -> Iterator[T]:
    """Items that are read out of stores; while one cannot be reached, as `reached` does.

    Args:
        items: gives them without the first so many, which were read before.
    """
    done, rest, end = 0, items(0), object()

    def following() -> T | object:
        nonlocal rest
        try:
            return next(rest, end)
        except StoreUnreachable:
            rest = items(done)
            raise

    while (item := reached(following)) is not end:
        done += 1
        yield cast(T, item)


def is_unreachable(error: BaseException | None) -> bool:
    """Whether an error, or the one behind it, says that a store does not answer, or not now."""
    while error is not None:
        names = {kind.__name__ for kind in type(error).__mro__}
        status = getattr(error, "status", None) or getattr(error, "code", None)
        if names & _NO_ANSWER or getattr(error, "errno", None) in _NOT_NOW:
            return True
        if isinstance(status, int) and (status >= 500 or status == 429):
            return True
        error = error.__cause__
    return False


class _RemoteFile(io.RawIOBase):
    """What fsspec opened, with its errors as those of this module."""

    def __init__(self, opened: Any, address: str) -> None:
        self._opened = opened
        self._address = address

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return int(self._opened.seek(offset, whence))

    def tell(self) -> int:
        return int(self._opened.tell())

    def readinto(self, buffer: Any, /) -> int:
        data = _asked(self._address, lambda: self._opened.read(len(buffer)))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._opened.close()
        super().close()


def _file_system(address: str) -> tuple[Any, str]:
    """The file system of fsspec, and what that calls the file."""
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError:
        raise CaptionerError(f"{shown(address)}: addresses need fsspec: {REMOTE}") from None
    try:
        files, path = url_to_fs(address)
    except ImportError as error:
        kind = address.partition("://")[0]
        remedy = REMOTE if kind in ("s3", "s3a", *_WEB) else str(error)
        raise CaptionerError(f"{shown(address)}: {kind} cannot be read: {remedy}") from None
    except ValueError as error:
        raise CaptionerError(f"{shown(address)} cannot be read: {error}") from None
    return files, path


def _block_bytes(address: str) -> int:
    # Of the web in one request; stores are asked for the size, too: one that is read by a range
    # refuses that of an empty file.
    return 0 if is_on_web(address) else BLOCK_BYTES


def _asked(address: str, action: Callable[[], T]) -> T:
    try:
        return action()
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if is_unreachable(error):
            raise StoreUnreachable(store_of(address), reason) from error
        if isinstance(error, OSError | CaptionerError):
            raise
        # A library's own, such as botocore's where there are no credentials.
        raise OSError(errno.EIO, reason) from error


def _local_names(folder: Path) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(place, folder).replace(os.sep, "/")
        for name in names:
            if not name.startswith("."):
                yield name if below == "." else f"{below}/{name}"


def _say(line: str) -> None:
    from tqdm import tqdm

    tqdm.write(f"captioner: {shown(line)}", file=sys.stderr)
