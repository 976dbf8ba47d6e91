"""One file with the captions of all images, and how it is made whole again from the job's journal.

A file of lines (TSV, JSONL, CSV) grows with the work. COCO's JSON is one list, which appears when
the work is complete.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import IO
from zlib import crc32

from captioner.captioning.output import Output
from captioner.captioning.writers import LineWriter
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.finding import SourceFile, printable
from captioner.files.journal import Checksum, Entry, Journal, Key, journal_beside
from captioner.files.store import part_of
from captioner.files.writing import (
    cannot_read,
    cannot_write,
    check_folder,
    check_no_folder,
    is_blank,
    replace_bytes,
    write_at,
)

TORN_BYTES = 1 << 20  # Longer data after the last whole line was not left by an interrupted run.


class FileOutput(Output):
    """One file with the records of all images.

    Args:
        output: the file.
        make_writer: gives a new writer of its format, whose pieces the file is made of.
    """

    def __init__(self, output: Path, make_writer: Callable[[], LineWriter]) -> None:
        # Behind links: two links to a file are one output, and a link stays one.
        self.path = Path(os.path.realpath(output))
        super().__init__(shown(output), journal_beside(self.path))
        self._make_writer = make_writer
        self._inode: tuple[int, int] | None = None

    def check_place(self) -> None:
        """See `Output.check_place`."""
        check_no_folder(self.path)
        check_folder(self.path.parent)
        self._inode = _inode(self.path)

    def name_by_path(self, file: SourceFile) -> str:
        """The path from the folder of the output; see `Output.name_by_path`."""
        path = os.path.abspath(file.path)
        try:
            return printable(os.path.relpath(path, self.path.parent))
        except ValueError:  # On Windows, another drive.
            return printable(path)

    @property
    def verdicts(self) -> tuple[Path, str]:
        """See `Output.verdicts`."""
        return self.path.parent, self.path.name

    def is_there(self) -> bool:
        """See `Output.is_there`."""
        return self.path.exists()

    def what_is_replaced(self) -> Checksum | bool | None:
        """See `Output.what_is_replaced`."""
        return self._checksum() if self.is_there() else None

    def hand_made(self, files: Iterable[SourceFile], journal: Journal | None) -> Iterator[str]:
        """See `Output.hand_made`."""
        if self.is_there() and not is_blank(self.path):
            is_ours = journal is not None and journal.kept is None
            if not (is_ours and journal is not None and self.is_as_written(journal)):
                yield self.name

    @abstractmethod
    def is_as_written(self, journal: Journal) -> bool:
        """Whether the file, which is there, is what its journal says, and nobody changed it.

        A line that was cut short is nobody's change.
        """

    def check(self, file: SourceFile, entry: Entry | None, is_done: bool) -> None:
        """See `Output.check`."""
        if self._inode is not None and _inode(file.path) == self._inode:
            raise CaptionerError(
                f"output {self.name} is one of the images to caption: name another file"
            )

    def _pieces(self, entries: Iterable[Entry]) -> Iterator[bytes]:
        return self._make_writer().pieces((entry.record, Path(entry.path)) for entry in entries)

    def _checksum(self, size_bytes: int | None = None) -> Checksum:
        try:
            return Checksum.of(self.path, size_bytes)
        except OSError as error:
            raise cannot_read(f"output {self.name}", error) from None

    def _rewrite(self, journal: Journal, keys: Iterable[Key]) -> None:
        """Put another file in its place, and let the journal be of that one."""
        journal.prepare(keys)
        replace_bytes(self.path, self._pieces(journal.pending()), part_of(self.state))
        journal.promote()

    def recover(self, journal: Journal) -> None:
        """See `Output.recover`."""
        # What is pending counts if its output is there.
        if not journal.has_pending:
            return
        if self.is_there() and self._consists_of(self._pieces(journal.pending())):
            journal.promote()
        else:
            journal.drop_pending()

    def _consists_of(self, pieces: Iterable[bytes]) -> bool:
        size, crc = 0, 0
        for piece in pieces:
            size, crc = size + len(piece), crc32(piece, crc)
        return self._checksum() == Checksum(size, crc)

    def _changed(self, append: bool) -> CaptionerError:
        keep = "--append keeps it as it is and adds images that are not yet in it, "
        return CaptionerError(
            f"output {self.name} was changed since captioner wrote it: "
            f"{keep if append else ''}--overwrite replaces it; or name another --output"
        )


class LinesOutput(FileOutput):
    """A file that grows line by line."""

    def __init__(self, output: Path, make_writer: Callable[[], LineWriter]) -> None:
        super().__init__(output, make_writer)
        self._end = 0
        self._stream: IO[bytes] | None = None

    def restore(self, journal: Journal, keep: bool) -> None:
        """See `Output.restore`."""
        is_new = not len(journal) and isinstance(journal.replaces, Checksum) and self.is_there()
        try:
            if is_new and journal.replaces == self._checksum():
                os.truncate(self.path, 0)  # If it is another file by now, it was changed.
            with self.path.open("a+b") as file:
                missing = self._unwritten(file, journal)
                if missing is None:
                    self._keep(journal, keep)
                for data in _joined(missing or ()):
                    self._put(data)
        except OSError as error:
            raise cannot_write(self.name, error) from None

    def is_as_written(self, journal: Journal) -> bool:
        """See `FileOutput.is_as_written`."""
        try:
            if not len(journal) and journal.replaces == self._checksum():
                return False  # It was about to be replaced.
            with self.path.open("rb") as file:
                return self._unwritten(file, journal) is not None
        except OSError as error:
            raise cannot_read(self.name, error) from None

    def _unwritten(self, file: IO[bytes], journal: Journal) -> Iterator[bytes] | None:
        """Compare the file with what it should hold; gives what is missing at its end.

        None if somebody has changed it.
        """
        pieces = self._pieces(journal.streamed())
        self._end = 0
        if journal.kept is not None:
            next(pieces)  # the header is part of what is kept
            self._end = journal.kept.size_bytes
            if self._checksum(self._end) != journal.kept:
                return None
        file.seek(self._end)
        for piece in pieces:
            here = file.read(len(piece))
            if here == piece:
                self._end += len(piece)
                continue
            if self._is_torn(here + file.read(TORN_BYTES), piece, journal):
                return chain([piece], pieces)
            return None
        behind = file.read(TORN_BYTES)
        if not behind:
            return iter(())
        if self._is_torn(behind, b"", journal):
            return iter([b""])  # cuts it off
        return None

    @staticmethod
    def _is_torn(rest: bytes, expected: bytes, journal: Journal) -> bool:
        """Whether the file ends in a line of captioner's that was cut short."""
        if len(rest) >= TORN_BYTES:
            return False
        rest = rest.rstrip(b"\0")  # blocks that were given to the file and never written
        return expected.startswith(rest) or (not journal.is_complete and b"\n" not in rest)

    def _keep(self, journal: Journal, keep: bool) -> None:
        if not keep:
            raise self._changed(append=True)
        there = self._checksum()
        self._end = there.size_bytes
        with self.path.open("rb") as file:
            file.seek(max(0, self._end - 1))
            is_whole = file.read() in (b"\n", b"")
        if not is_whole:
            self._put(b"\n")
            there = self._checksum()
        journal.mark_kept(there)

    def add(self, entries: Sequence[Entry], before: Sequence[Entry | None]) -> None:
        """See `Output.add`."""
        # One that is done again has its line already: the file is rewritten at the end.
        new = [entry for entry, known in zip(entries, before, strict=True) if known is None]
        self._put(b"".join(islice(self._pieces(new), 1, None)))

    def _put(self, data: bytes) -> None:
        try:
            if self._stream is None:
                self._stream = self.path.open("r+b", buffering=0)
        except OSError as error:
            raise cannot_write(self.name, error) from None
        write_at(self._stream, self._end, data, Path(self.name))
        self._end += len(data)

    def finish(self, journal: Journal, keys: Sequence[Key]) -> None:
        """See `Output.finish`."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.close()
        if journal.kept is None and (journal.has_redone or not journal.has_order(keys)):
            self._rewrite(journal, keys)
        elif not journal.is_complete:
            journal.mark_complete()


class ListOutput(FileOutput):
    """COCO's JSON: a list, which is not there before it is complete."""

    def is_as_written(self, journal: Journal) -> bool:
        """See `FileOutput.is_as_written`."""
        return journal.was_complete and self._consists_of(self._pieces(journal.published()))

    def is_late(self, journal: Journal) -> bool:
        """See `Output.is_late`."""
        return not journal.is_complete

    def restore(self, journal: Journal, keep: bool) -> None:
        """See `Output.restore`."""
        if not self.is_there():
            return
        is_replaced = not journal.was_complete and self._checksum() == journal.replaces
        if not (is_replaced or self.is_as_written(journal)):
            raise self._changed(append=False)

    def add(self, entries: Sequence[Entry], before: Sequence[Entry | None]) -> None:
        """See `Output.add`."""
        pass

    def finish(self, journal: Journal, keys: Sequence[Key]) -> None:
        """See `Output.finish`."""
        if not (journal.is_complete and journal.has_order(keys) and self.is_there()):
            self._rewrite(journal, keys)


def _inode(path: Path) -> tuple[int, int] | None:
    """By what a file is the same under another name; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same in larger pieces: each costs a wait for the disk."""
    waiting, size, is_any = [], 0, False
    for piece in pieces:
        waiting.append(piece)
        size, is_any = size + len(piece), True
        if size >= 1 << 20:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting or is_any:
        yield b"".join(waiting)
