"""Tar archives, compressed or not, read once from their beginning to their end."""

from __future__ import annotations

import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import IO, Self, cast

from captioner.errors import CaptionerError
from captioner.files.stores import open_file

MAX_BYTES = 512_000_000
"""Of one file in an archive, as for images beside it: compressed, a small one may hold any size."""

_ARCHIVE = re.compile(r"\.(tar(\.(gz|bz2|xz|zst|zstd))?|tgz|tbz2?|txz|tzst)", re.IGNORECASE)
_COMPRESSED = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zst"}
"""First bytes -> how the file is compressed, as `tarfile` calls it."""


@dataclass(frozen=True)
class Member:
    """A regular file in an archive, to be read before the next one is asked for.

    Attributes:
        name: with the folders that it is in.
        size_bytes: of it.
        read: gives what it holds.
    """

    name: str
    size_bytes: int
    read: Callable[[], bytes]


def archive_stem(name: str) -> str:
    """The name of an archive without the suffixes that say that it is one."""
    return re.sub(_ARCHIVE.pattern + "$", "", name, flags=re.IGNORECASE)


def is_archive(file: Path | PurePosixPath) -> bool:
    """Whether the file's name is that of a tar archive, compressed or not."""
    return _ARCHIVE.fullmatch("".join(file.suffixes[-2:])) is not None or (
        _ARCHIVE.fullmatch(file.suffix) is not None
    )


def tar_members(file: str | Path, wanted: Callable[[str], bool]) -> Iterator[Member]:
    """The regular files in an archive whose names are wanted, in their order.

    Args:
        file: a path, or an address of `captioner.files.stores`.
        wanted: says it of a name.

    Raises:
        CaptionerError: the archive is broken or cannot be read; it is named.
        captioner.files.stores.StoreUnreachable: the store does not answer.
    """
    with _refusing(file), open_file(str(file)) as stream, _opened(file, stream) as archive:
        # A sparse member may announce any size.
        for member in archive:
            if member.isreg() and not member.issparse() and wanted(member.name):
                content = archive.extractfile(member)
                assert content is not None
                yield Member(member.name, member.size, partial(_read, file, content))
            archive.members = []  # type: ignore[attr-defined]  # `tarfile` would keep them all


def _read(file: str | Path, content: IO[bytes]) -> bytes:
    with _refusing(file):
        return content.read()


@contextmanager
def _refusing(file: str | Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, OSError, ValueError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise CaptionerError(f"{file}: cannot be read as a tar archive: {error}") from error


class _Info(tarfile.TarInfo):
    """A file in an archive; where its header is broken, `tarfile` would take it for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.InvalidHeaderError as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"a header is broken: {error}") from error


@contextmanager
def _opened(file: str | Path, stream: IO[bytes]) -> Iterator[tarfile.TarFile]:
    """The archive in a stream; by its first bytes, not by its name."""
    head = cast(io.BufferedReader, stream).peek(6)[:6]
    kind = next((kind for begin, kind in _COMPRESSED.items() if head.startswith(begin)), "")
    if kind != "zst" or "zst" in tarfile.TarFile.OPEN_METH:  # from Python 3.14 on
        with tarfile.open(fileobj=stream, mode=f"r|{kind}", tarinfo=_Info) as archive:  # type: ignore[call-overload]
            yield archive
        return
    if find_spec("pyarrow") is None:
        raise CaptionerError(
            f"{file}: tar archives compressed with zstd need pyarrow or Python 3.14: pip install "
            f'"captioner[parquet]", or unpack it: zstd -d {PurePosixPath(str(file)).name}'
        )
    import pyarrow

    with (
        pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, "r"), "zstd") as content,
        tarfile.open(fileobj=content, mode="r|", tarinfo=_Info) as archive,
    ):
        yield archive
