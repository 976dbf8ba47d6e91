"""What people said of captions: a hidden SQLite file beside the captions, a row for each verdict.

The table ``verdicts`` has these columns; `Verdict` says what is in them::

    id INTEGER  captions TEXT  image TEXT  path TEXT  verdict TEXT
    before TEXT  after TEXT  time TEXT  state TEXT

Of the rows of an image the last one counts, whose ``state`` is ``saved``. A row is written as
``saving`` before the captions change and becomes ``saved`` afterwards; to undo it, it becomes
``undoing`` and is deleted afterwards. Whatever ends the process, the next one finds what it was
about and completes it. SQLite, because both are steps that happen whole or not at all, and because
every language reads it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from captioner.errors import CaptionerError
from captioner.files.escaping import encode_text, shown
from captioner.files.store import WITHOUT_LOCKS, database_address

FILE_NAME = ".captioner-review.sqlite"

ACCEPTED, CORRECTED, REJECTED = "accepted", "corrected", "rejected"

_SAVING, _SAVED, _UNDOING = "saving", "saved", "undoing"
_VERSION = 1
_COLUMNS = "id, captions, image, path, verdict, before, after, time"
_TABLE = f"""
CREATE TABLE verdicts (
    id INTEGER PRIMARY KEY,
    captions TEXT NOT NULL,
    image TEXT NOT NULL,
    path TEXT NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('{ACCEPTED}', '{CORRECTED}', '{REJECTED}')),
    before TEXT,
    after TEXT,
    time TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('{_SAVING}', '{_SAVED}', '{_UNDOING}'))
)
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was said of one caption.

    Attributes:
        captions: where the caption lives, in the folder of the verdicts: the name of a file, or
            ``*`` and the suffix of the files that belong to one image each.
        image: what the captions call the image.
        path: where the image is, relative to the folder of the verdicts where that is possible,
            with forward slashes.
        verdict: `ACCEPTED`, `CORRECTED` or `REJECTED`.
        before: the caption before; None if there was none.
        after: the caption afterwards: the same for `ACCEPTED`, None for `REJECTED`.
        time: when, UTC, as ISO 8601 writes it.
        number: of its row; 0 before it has one.
    """

    captions: str
    image: str
    path: str
    verdict: str
    before: str | None
    after: str | None
    time: str
    number: int = 0


def stored_path(path: Path, folder: Path) -> str:
    """A path as verdicts in a folder hold it."""
    real, base = os.path.realpath(path), os.path.realpath(folder)
    with suppress(ValueError):  # on another drive of Windows
        real = os.path.relpath(real, base)
    return valid(real.replace(os.sep, "/"))


def valid(text: str) -> str:
    r"""The text as SQLite holds it: a half of a surrogate pair becomes ``\udce4``."""
    return encode_text(text).decode("utf-8")


class VerdictStore:
    """The verdicts on the captions of one file, or on the files of one suffix. Close it at the end.

    Args:
        folder: of the captions; the file is created with the first verdict.
        captions: see `Verdict.captions`.

    Raises:
        CaptionerError: the file cannot be opened, or is something else.
    """

    def __init__(self, folder: Path, captions: str) -> None:
        self.path = folder / FILE_NAME
        self._captions = valid(captions)
        self._database: sqlite3.Connection | None = None
        if self.path.exists():
            self._open()

    def close(self) -> None:
        """Close the file."""
        if self._database is not None:
            self._database.close()

    def latest(self) -> dict[str, Verdict]:
        """Image -> the verdict that counts."""
        return {each.image: each for each in self._rows(_SAVED)}

    def last(self) -> Verdict | None:
        """The one that was given last."""
        return next(self._rows(_SAVED, "ORDER BY id DESC LIMIT 1"), None)

    def interrupted(self) -> tuple[list[Verdict], list[Verdict]]:
        """What the last process was about when it ended: verdicts to save, and those to undo."""
        return list(self._rows(_SAVING)), list(self._rows(_UNDOING))

    def begin(self, verdict: Verdict) -> Verdict:
        """Write a verdict down before the captions are changed; returns it with its number."""
        self._open()
        assert self._database is not None
        names = ("captions", "image", "path", "verdict", "before", "after", "time")
        values = [getattr(verdict, name) for name in names]
        with self._writing() as database:
            row = database.execute(
                f"INSERT INTO verdicts ({', '.join(names)}, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [*(None if value is None else valid(value) for value in values), _SAVING],
            )
        return replace(verdict, number=row.lastrowid or 0)

    def complete(self, verdict: Verdict) -> None:
        """The captions are changed."""
        self._set(verdict, _SAVED)

    def begin_undo(self, verdict: Verdict) -> None:
        """Write down that a verdict is to be undone, before the captions are changed."""
        self._set(verdict, _UNDOING)

    def remove(self, verdict: Verdict) -> None:
        """The verdict is undone, or was never carried out."""
        with self._writing() as database:
            database.execute("DELETE FROM verdicts WHERE id = ?", [verdict.number])

    def _set(self, verdict: Verdict, state: str) -> None:
        with self._writing() as database:
            database.execute("UPDATE verdicts SET state = ? WHERE id = ?", [state, verdict.number])

    def _rows(self, state: str, order: str = "ORDER BY id") -> Iterator[Verdict]:
        if self._database is None:
            return iter(())
        with _naming(self.path):
            found = self._database.execute(
                f"SELECT {_COLUMNS} FROM verdicts WHERE captions = ? AND state = ? {order}",
                [self._captions, state],
            )
            return iter([_verdict(row) for row in found])

    def _open(self) -> None:
        if self._database is not None:
            return
        with _naming(self.path):
            self._database = _connect(self.path, "rwc")
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                with self._database:
                    self._database.execute("BEGIN IMMEDIATE")
                    self._database.execute(_TABLE)
                    self._database.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise _not_ours(self.path)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        assert self._database is not None, "what has a number was written by this store"
        with _naming(self.path), self._database:
            yield self._database


def read_verdicts(path: Path) -> list[Verdict]:
    """The verdicts that count, in the order in which they were given; one for each image's path.

    Args:
        path: of the file.

    Raises:
        CaptionerError: it cannot be read.
    """
    with _naming(path), closing(_connect(path, "rw")) as database:
        rows = database.execute(
            f"SELECT {_COLUMNS} FROM verdicts WHERE state = ? ORDER BY id", [_SAVED]
        )
        latest: dict[str, Verdict] = {}
        for verdict in map(_verdict, rows):
            latest.pop(verdict.path, None)
            latest[verdict.path] = verdict
    return list(latest.values())


def count_verdicts(folder: Path, captions: str) -> int:
    """How many captions of a file, or of the files of a suffix, were looked at by people."""
    if not (folder / FILE_NAME).exists():
        return 0
    with closing(VerdictStore(folder, captions)) as store:
        return len(store.latest())


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    try:
        return _tried(database_address(path, f"mode={mode}"))
    except sqlite3.OperationalError:
        # Some file systems have no locks: NFS without its daemon, FUSE, drives in the cloud. Who
        # writes here holds a lock of captioner's own, where there can be any.
        return _tried(database_address(path, f"mode={mode}&{WITHOUT_LOCKS}"))


def _tried(address: str) -> sqlite3.Connection:
    database = sqlite3.connect(address, timeout=2, uri=True)
    try:
        database.execute("PRAGMA synchronous = FULL")
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        database.close()
        raise
    return database


def _verdict(row: tuple[int, str, str, str, str, str | None, str | None, str]) -> Verdict:
    return Verdict(*row[1:], number=row[0])


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in the errors of SQLite."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise CaptionerError(f"{shown(path)} cannot be used: {error}") from None
        raise _not_ours(path) from None


def _not_ours(path: Path) -> CaptionerError:
    return CaptionerError(
        f"{shown(path)} is damaged, or was written by another version of captioner: move it away "
        "to begin without verdicts"
    )
