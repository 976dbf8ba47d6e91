"""What the jobs that can be interrupted and resumed have in common.

One process at a time works on an output, input files are identified by size and time of
modification, and results of another model or of other options are not mixed.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from captioner.errors import CaptionerError
from captioner.files.finding import SourceFile, printable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP})
"""Errors of file systems that have no locks: NFS without its daemon, FUSE, drives in the cloud."""


@contextmanager
def locked(path: Path, in_use: str, *, leave: bool = False) -> Generator[None, None, None]:
    """Hold a lock file, which the end of the process releases, however it ends.

    Where the file system has no locks the work continues without one, and a line says so.

    Args:
        path: the lock file, in an existing folder.
        in_use: what to say if another process holds it: names the output and the remedy.
        leave: whether the file stays there afterwards.

    Raises:
        CaptionerError: another process holds it, or it cannot be made.
    """
    with ExitStack() as stack:
        try:
            is_free = acquire(path, stack)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            if error.errno not in NO_LOCKS:
                raise CaptionerError(f"{printable(path)} cannot be written: {reason}") from None
            is_free = True
            say_no_locks(path.parent, reason)
        if not is_free or not path.exists():  # Its last owner removed it while we were opening it.
            raise CaptionerError(in_use)
        try:
            yield
        finally:
            if not leave:
                # While it is held: removed later, it could be the next owner's.
                with suppress(OSError):
                    path.unlink()


def say_no_locks(folder: Path, reason: str) -> None:
    """Say on standard error that nothing keeps two processes apart."""
    line = (
        f"captioner: {printable(folder)} has no file locks ({reason}); continuing without: let no "
        "other captioner write there at the same time"
    )
    tqdm.write(line, file=sys.stderr)


def acquire(path: Path, stack: ExitStack) -> bool:
    """Lock a file until the stack is left; whether no other process has it.

    Raises:
        OSError: it cannot be made or locked.
    """
    if fcntl is None:
        from filelock import FileLock, Timeout  # Here: it takes time, and is needed nowhere else.

        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        stack.callback(lock.release)
        return True
    # Not by FileLock: it takes a file that cannot be made, and on some file systems one that
    # cannot be locked, for one that another process holds.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # Some file systems say the one, some the other.
        return False
    return True


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """By what an input file is known again.

    Attributes:
        path: where it is, absolute, printable.
        size_bytes: None if it could not be looked at.
        modified_ns: its time of modification, in nanoseconds; None if it could not be looked at.
    """

    path: str
    size_bytes: int | None
    modified_ns: int | None

    @classmethod
    def of(cls, file: SourceFile) -> Fingerprint:
        """Look at a file without opening it."""
        path = printable(os.path.abspath(file.path))
        try:
            found = file.path.stat()
        except OSError:
            return cls(path, None, None)
        return cls(path, found.st_size, found.st_mtime_ns)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Fingerprint:
        """What `to_dict` gave; KeyError or TypeError if it was something else."""
        return cls(values["path"], values["size_bytes"], values["modified_ns"])

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives."""
        return {
            "path": self.path,
            "size_bytes": self.size_bytes,
            "modified_ns": self.modified_ns,
        }

    def is_same(self, other: Fingerprint) -> bool:
        """Whether size and time are the same; the path is not looked at: a folder may move."""
        return (self.size_bytes, self.modified_ns) == (other.size_bytes, other.modified_ns)


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two nested settings: ``a.b: 1 there, 2 now``."""
    there, here = _flat(before), _flat(now)
    return [
        f"{key}: {there.get(key)} there, {here.get(key)} now"
        for key in sorted({*there, *here})
        if there.get(key) != here.get(key)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
