"""The memory of every job that can be interrupted: records in one hidden SQLite file.

Records are only added, a batch in one transaction: when `Store.add` returns they have reached the
disk, and whatever ends the process, a batch is there as a whole or not at all. SQLite keeps a
second file, with ``-journal`` after the name, from the first batch until the store is closed. After
a kill the next run undoes with it what was unfinished, and removes it.

A job holds a lock of its own (`captioner.files.resume.locked`), so SQLite asks the file system for
none and works where there are none. Names and records are JSON in ASCII, which holds
every name, also those that are not valid Unicode.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.writing import cannot_read, cannot_write, rename_file, sync_file

SECOND_SUFFIX = "-journal"
"""What SQLite adds to a store's name for its second file."""

_MOST_PATH_BYTES = 512 - len(SECOND_SUFFIX)  # SQLite opens no file whose absolute path is longer.
# With `nolock` alone it asks for one where a killed run has left a second file.
WITHOUT_LOCKS = "nolock=1" if sys.platform == "win32" else "nolock=1&vfs=unix-none"
"""For `database_address`: the file system is asked for no lock, as some have none."""
_VERSION = 1
_TABLES = """
    CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE records (id INTEGER PRIMARY KEY, name TEXT NOT NULL, record TEXT NOT NULL);
"""
_SET = "INSERT OR REPLACE INTO about VALUES (?, ?)"
_ADD = "INSERT OR REPLACE INTO records VALUES (?, ?, ?)"
_DAMAGED = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

Row = tuple[str, Mapping[str, Any]]
"""A name, and the record under it in JSON primitives."""


@dataclass(frozen=True)
class StoreKind:
    """What a store is for.

    Attributes:
        schema: says in the file what its records mean.
        remedy: what to do about a damaged one, in the words of the command line.
        is_cache: whether all of it can be made again: nothing waits for the disk then, and a power
            cut may damage it.
    """

    schema: str
    remedy: str
    is_cache: bool = False


class DamagedStore(CaptionerError):
    """A store that cannot be read, and will not be after another try."""


class Store:
    """Named records in the order in which they were added; a context manager that closes it.

    Attributes:
        path: the file.
        about: what makes the records, JSON primitives.
        last: the number of the newest record; the first one has 1.
    """

    def __init__(self, path: Path, kind: StoreKind, *, only_read: bool = False) -> None:
        """Open a store, which no other process may have open, and undo what is unfinished in it.

        Args:
            path: the file.
            kind: what it must be for.
            only_read: change nothing. Another process may have it open then; what that one is
                writing may be seen, or not, or be in the way.

        Raises:
            DamagedStore: it is damaged or of another kind; names the remedy.
            CaptionerError: it cannot be read or written.
        """
        self.path = path
        self._kind = kind
        self._open(only_read)

    @classmethod
    def create(
        cls,
        path: Path,
        kind: StoreKind,
        about: Mapping[str, Any],
        rows: Iterable[Row] = (),
        marks: Mapping[str, Any] | None = None,
    ) -> Self:
        """Make a store in the place of one that may be there; it appears when it is whole.

        Args:
            path: the file.
            kind: what it is for.
            about: what makes the records, JSON primitives.
            rows: the first records, taken one by one.
            marks: the first marks; read after the rows.

        Raises:
            CaptionerError: it cannot be written; what was there is as it was.
        """
        _build(path, kind, about, _numbered(rows, 1), {} if marks is None else marks)
        _put_in_place(path)
        return cls(path, kind)

    def close(self) -> None:
        """Close it; SQLite removes its second file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- reading ---------------------------------------------------------------------------

    def _open(self, only_read: bool = False) -> None:
        _check_can_open(self.path, self.path, only_read)
        self._db = _connect(self.path, only_read)
        try:
            if not only_read:
                self._make_safe()
            self._values = {key: self._decoded(text) for key, text in self._select("* FROM about")}
            if self._values.get("schema") != self._kind.schema:
                raise self.damaged()
            self.about: dict[str, Any] = self._values["about"]
            ((last,),) = self._select("max(id) FROM records")
            self.last: int = last or 0
        except BaseException as error:
            self._db.close()
            if isinstance(error, sqlite3.Error):
                raise self._problem(error) from None
            raise

    def _make_safe(self) -> None:
        db = self._db
        # The file may be a stranger's.
        for setting in ("trusted_schema=OFF", "cell_size_check=ON"):
            db.execute(f"PRAGMA {setting}")
        # Nobody else comes in between, so that the second file may stay until the end, which saves
        # making and removing it for each transaction.
        safety = "OFF" if self._kind.is_cache else "FULL"
        for setting in ("locking_mode=EXCLUSIVE", "journal_mode=DELETE", f"synchronous={safety}"):
            db.execute(f"PRAGMA {setting}")
        if _second(self.path).exists():
            _undo_unfinished(db)
        if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise self.damaged()

    def mark_of(self, key: str) -> Any:
        """The mark that was last set under this key, None if there is none."""
        return self._values.get(f"mark {key}")

    def names(self) -> Iterator[tuple[int, str]]:
        """The number and the name of each record."""
        for number, name in self._select("id, name FROM records ORDER BY id"):
            yield number, self._decoded(name)

    def rows(self) -> Iterator[Row]:
        """All records with their names."""
        for name, record in self._select("name, record FROM records ORDER BY id"):
            yield self._decoded(name), self._decoded(record)

    def row(self, number: int) -> Row:
        """The name and the record of a number that `names` gave."""
        name, record = self._texts(number)
        return self._decoded(name), self._decoded(record)

    def _texts(self, number: int) -> tuple[str, str]:
        for name, record in self._select("name, record FROM records WHERE id=?", number):
            return name, record
        raise self.damaged()

    def _select(self, what: str, *values: object) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._db.execute(f"SELECT {what}", values)
        except sqlite3.Error as error:
            raise self._problem(error) from None

    def _decoded(self, text: Any) -> Any:
        try:
            return json.loads(text)
        except (ValueError, TypeError):
            raise self.damaged() from None

    # --- writing ---------------------------------------------------------------------------

    def add(self, rows: Sequence[Row]) -> None:
        """Add records; they have reached the disk when this returns.

        Raises:
            CaptionerError: they cannot be written; none of them is there.
        """
        # By number: interrupted and called again, it writes nothing twice.
        with self._transaction():
            self._db.executemany(_ADD, _numbered(rows, self.last + 1))
        self.last += len(rows)

    def mark(self, **marks: Any) -> None:
        """Set marks, JSON primitives; None is as good as none.

        Raises:
            CaptionerError: they cannot be written.
        """
        values = _named(marks)
        with self._transaction():
            self._db.executemany(_SET, _pairs(values))
        self._values |= values

    def fold(self, to: int, **marks: Any) -> None:
        """Put the newest record in the place of an older one, and set marks: all of it or nothing.

        Args:
            to: the number of the older one.
            marks: JSON primitives.

        Raises:
            CaptionerError: it cannot be written.
        """
        values = _named(marks)
        with self._transaction():
            self._db.execute("DELETE FROM records WHERE id=?", (to,))
            self._db.execute("UPDATE records SET id=? WHERE id=?", (to, self.last))
            self._db.executemany(_SET, _pairs(values))
        self._values |= values
        self.last -= 1

    def arrange(self, numbers: Iterable[int], **marks: Any) -> None:
        """Keep these records only, in this order and numbered anew, and these marks only.

        Raises:
            CaptionerError: it cannot be written; all is as it was.
        """
        numbered = ((new, *self._texts(old)) for new, old in enumerate(numbers, start=1))
        _build(self.path, self._kind, self.about, numbered, marks)
        self.close()  # Not everywhere can an open file be replaced.
        _put_in_place(self.path)
        self._open()

    @contextmanager
    def _transaction(self) -> Generator[None, None, None]:
        try:
            self._db.execute("BEGIN")
            yield
            commit(self._db)
        except BaseException as error:
            is_refused = isinstance(error, sqlite3.Error)
            reason = _why_not_written(self.path, error) if is_refused else None
            with suppress(sqlite3.Error):  # If this fails too, the next run does it.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise self._problem(error, reason) from None
            raise

    # --- what goes wrong -------------------------------------------------------------------

    def _problem(self, error: sqlite3.Error, reason: OSError | None = None) -> CaptionerError:
        if _code(error) in _DAMAGED:
            return self.damaged()
        if reason is not None:
            return cannot_write(self.path, reason)
        return cannot_read(self.path, OSError(str(error)))

    def damaged(self) -> DamagedStore:
        """The error to raise for a record that is not what it should be."""
        return DamagedStore(f"{shown(self.path)} is damaged; {self._kind.remedy}")


def temporary_path(path: Path) -> Path:
    """The temporary name of a store and of the output that it is beside.

    It is the same in every run, so that a file left by a killed run is written over.
    """
    return path.with_name(f"{path.name}.part")


def commit(db: sqlite3.Connection) -> None:
    """End a transaction; what it wrote has reached the disk then."""
    db.execute("COMMIT")


# --- a whole file --------------------------------------------------------------------------


def _build(
    path: Path,
    kind: StoreKind,
    about: Mapping[str, Any],
    numbered: Iterable[tuple[int, str, str]],
    marks: Mapping[str, Any],
) -> None:
    """Write a whole store under its temporary name."""
    unfinished = temporary_path(path)
    try:
        with unfinished.open("wb"):
            pass  # Made here and not by SQLite, it gets the permissions of every other file.
        _check_can_open(unfinished, path)
        with closing(_connect(unfinished)) as db:
            # It counts when it has its name: no second file, and one wait for the disk.
            for setting in ("journal_mode=OFF", "synchronous=OFF", f"user_version={_VERSION}"):
                db.execute(f"PRAGMA {setting}")
            db.executescript(_TABLES)
            db.execute("BEGIN")
            db.executemany(_ADD, numbered)
            values = {"schema": kind.schema, "about": about, **_named(marks)}
            db.executemany(_SET, _pairs(values))
            commit(db)
        if not kind.is_cache:
            with unfinished.open("r+b") as file:
                sync_file(file, path)
    except BaseException as error:
        is_refused = isinstance(error, sqlite3.Error)
        reason = _why_not_written(path, error) if is_refused else error
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if isinstance(reason, OSError):
            raise cannot_write(path, reason) from None
        raise


def _put_in_place(path: Path) -> None:
    """Give the whole store its name."""
    second = _second(path)
    if second.exists():
        # It would be taken for the new one's: the old one gets what it needs of it, if it can.
        with suppress(sqlite3.Error), closing(_connect(path)) as db:
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
            _undo_unfinished(db)
        second.unlink(missing_ok=True)
    rename_file(temporary_path(path), path)


def database_address(path: Path, how: str) -> str:
    """The URI of a database for SQLite.

    Args:
        path: of its file.
        how: the query of the URI, such as ``mode=ro``.
    """
    inside = path.absolute().as_posix()
    name = quote(os.fsencode(inside if inside.startswith("/") else f"/{inside}"))
    return f"file://{name}?{how}"


def _connect(path: Path, only_read: bool = False) -> sqlite3.Connection:
    how = "mode=ro&immutable=1" if only_read else "mode=rw"
    address = database_address(path, f"{how}&{WITHOUT_LOCKS}")
    return sqlite3.connect(address, uri=True, isolation_level=None)


def _undo_unfinished(db: sqlite3.Connection) -> None:
    # Any reading undoes it; to write is what makes SQLite remove its second file in the end.
    db.execute(f"PRAGMA user_version={_VERSION}")


def _check_can_open(path: Path, named: Path, only_read: bool = False) -> None:
    length = len(os.fsencode(os.path.realpath(path)))
    if length > _MOST_PATH_BYTES:
        raise CaptionerError(
            f"{shown(named)} cannot be used: its path has {length} bytes, and SQLite takes "
            f"{_MOST_PATH_BYTES} at most; choose an output in a folder with a shorter path"
        )
    try:
        with path.open("rb" if only_read else "r+b"):
            pass
    except OSError as error:
        raise (cannot_read if only_read else cannot_write)(named, error) from None


def _why_not_written(path: Path, error: BaseException) -> OSError:
    """SQLite does not say why the system refuses: see what it says about another file."""
    probe = path.with_name(f"{path.name}.why")
    try:
        with probe.open("wb") as file:
            file.seek(path.stat().st_size if path.exists() else 0)
            file.write(bytes(1 << 16))
            file.flush()
            os.fsync(file.fileno())
    except OSError as reason:
        return reason
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    is_full = _code(error) == sqlite3.SQLITE_FULL
    return OSError(ENOSPC, os.strerror(ENOSPC)) if is_full else OSError(str(error))


def _second(path: Path) -> Path:
    return path.with_name(f"{path.name}{SECOND_SUFFIX}")


def _code(error: BaseException) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # The higher bits tell more of the same.


def _numbered(rows: Iterable[Row], first: int) -> Iterator[tuple[int, str, str]]:
    for number, (name, record) in enumerate(rows, start=first):
        yield number, _encoded(name), _encoded(record)


def _named(marks: Mapping[str, Any]) -> dict[str, Any]:
    return {f"mark {key}": value for key, value in marks.items()}


def _pairs(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    return ((key, _encoded(value)) for key, value in values.items())


def _encoded(value: Any) -> str:
    return json.dumps(value, allow_nan=False)
