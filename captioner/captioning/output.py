"""The outputs of a caption job, and how each is made whole again from the job's journal.

A file of lines (TSV, JSONL, CSV) grows with the work. COCO's JSON is one list, which appears when
the work is complete. Text files and XMP sidecars are written one by one.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import IO, ClassVar
from zlib import crc32

from captioner.captioning.formats import WRITERS
from captioner.captioning.sidecars import SidecarWriter, XmpWriter
from captioner.captioning.writers import LineWriter
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.finding import SourceFile
from captioner.files.journal import (
    Checksum,
    Entry,
    Journal,
    Key,
    adopt,
    journal_beside,
    next_journal,
    part_of,
    write_at,
)
from captioner.files.writing import (
    cannot_read,
    cannot_write,
    check_folder,
    check_no_folder,
    exists,
    part_beside,
    replace_bytes,
    replace_file,
    why_no_name,
)

TORN_BYTES = 1 << 20  # What lies behind the last whole line is no longer than that.


class Output(ABC):
    """Where the captions go.

    Attributes:
        name: of the output, for messages.
        state: the journal's file.
        holds_all: whether it is one file, which holds the records of all images.
    """

    holds_all: ClassVar[bool] = True

    def __init__(self, name: str, state: Path) -> None:
        self.name = name
        self.state = state

    @abstractmethod
    def check_place(self) -> None:
        """Refuse an output that cannot be written, before anything is touched.

        Raises:
            CaptionerError: names it, the reason and the remedy.
        """

    @abstractmethod
    def is_there(self) -> bool:
        """Whether there is something that a job without a journal would replace."""

    def is_late(self, journal: Journal) -> bool:
        """Whether the output is not there because the work is not complete."""
        return False

    @abstractmethod
    def what_is_replaced(self) -> Checksum | bool | None:
        """By what it is known, later on, that what is there may be replaced."""

    def check(  # noqa: B027
        self, file: SourceFile, entry: Entry | None, is_done: bool, may_replace: bool
    ) -> None:
        """Refuse, before any work, what stands in the way of one image's caption.

        Args:
            file: the image.
            entry: what is known of it.
            is_done: whether it will not be captioned.
            may_replace: whether sidecars of other origin may be replaced, if any may.

        Raises:
            CaptionerError: names what is in the way and the remedy.
        """

    def why_not(self, file: SourceFile) -> str | None:
        """Why the output has no place for one image, which is that image's error; mostly None."""
        return None

    @abstractmethod
    def settle(self) -> None:
        """Before the journal is read: end what was interrupted while the journal was replaced."""

    @abstractmethod
    def restore(self, journal: Journal, keep: bool) -> None:
        """Make the output what the journal says.

        Args:
            journal: of this output.
            keep: leave what was changed by hand as it is, and add to it.

        Raises:
            CaptionerError: it was changed by hand, or cannot be read or written.
        """

    def mend(self, file: SourceFile, entry: Entry) -> None:  # noqa: B027
        """Write what is missing of a finished image."""

    def make_room(self, known: Sequence[Entry]) -> None:  # noqa: B027
        """Remove what was written of images that are done again, before the journal is told."""

    @abstractmethod
    def add(self, entries: Sequence[Entry], before: Sequence[Entry | None]) -> None:
        """Write what the journal has just been given.

        Args:
            entries: of the journal.
            before: what was known of each image until then.
        """

    @abstractmethod
    def finish(self, journal: Journal, keys: Sequence[Key]) -> None:
        """Complete the output: these images, in this order."""


def make_output(format: str, output: Path | None, base: Path, xmp_name: str) -> Output:
    """The output of a format of `captioner.captioning.formats.WRITERS`.

    Args:
        format: its name.
        output: the file, or the folder for sidecars; None for sidecars beside the images.
        base: the folder that holds all images.
        xmp_name: one of `captioner.captioning.sidecars.XMP_NAMINGS`.
    """
    if format == XmpWriter.format:
        return _Sidecars(XmpWriter(output, naming=xmp_name), base)
    if format == SidecarWriter.format:
        return _Sidecars(SidecarWriter(output), base)
    assert output is not None, "only sidecars have a place of their own"
    return (_Lines if format in ("tsv", "jsonl", "csv") else _List)(output, format)


class _File(Output):
    """One file with the records of all images."""

    def __init__(self, output: Path, format: str) -> None:
        # Behind links: two links to a file are one output, and a link stays one.
        self._path = Path(os.path.realpath(output))
        super().__init__(shown(output), journal_beside(self._path))
        self._format = format
        self._inode: tuple[int, int] | None = None

    def check_place(self) -> None:
        check_no_folder(self._path)
        check_folder(self._path.parent)
        self._inode = _inode(self._path)

    def is_there(self) -> bool:
        return self._path.exists()

    def what_is_replaced(self) -> Checksum | bool | None:
        return self._checksum() if self.is_there() else None

    def check(
        self, file: SourceFile, entry: Entry | None, is_done: bool, may_replace: bool
    ) -> None:
        if self._inode is not None and _inode(file.path) == self._inode:
            raise CaptionerError(
                f"output {self.name} is one of the images to caption: name another file"
            )

    def _pieces(self, entries: Iterable[Entry]) -> Iterator[bytes]:
        writer = WRITERS[self._format]()
        assert isinstance(writer, LineWriter)
        return writer.pieces((entry.record, Path(entry.path)) for entry in entries)

    def _checksum(self, size_bytes: int | None = None) -> Checksum:
        try:
            return Checksum.of(self._path, size_bytes)
        except OSError as error:
            raise cannot_read(f"output {self.name}", error) from None

    def _rewrite(self, journal: Journal, keys: Iterable[Key]) -> None:
        """Put another file in its place, and the journal of that one in the journal's."""
        with journal.write_new(keys) as new:
            replace_bytes(self._path, self._pieces(new.published()), part_of(self.state))
        journal.close()  # Not everywhere can an open file be replaced.
        adopt(self.state)

    def settle(self) -> None:
        # The next journal counts if its output is there.
        waiting = next_journal(self.state)
        if not waiting.exists():
            return
        with Journal(waiting) as new:
            rewritten = self.is_there() and self._is_made_of(self._pieces(new.published()))
        if rewritten:
            adopt(self.state)
        else:
            waiting.unlink()

    def _is_made_of(self, pieces: Iterable[bytes]) -> bool:
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


class _Lines(_File):
    """A file that grows line by line."""

    def __init__(self, output: Path, format: str) -> None:
        super().__init__(output, format)
        self._end = 0
        self._stream: IO[bytes] | None = None

    def restore(self, journal: Journal, keep: bool) -> None:
        is_new = not len(journal) and isinstance(journal.replaces, Checksum) and self.is_there()
        try:
            if is_new and journal.replaces == self._checksum():
                os.truncate(self._path, 0)  # If it is another file by now, it was changed.
            with self._path.open("a+b") as file:
                for data in _joined(self._unwritten(file, journal, keep)):
                    self._put(data)
        except OSError as error:
            raise cannot_write(self.name, error) from None

    def _unwritten(self, file: IO[bytes], journal: Journal, keep: bool) -> Iterator[bytes]:
        """Compare the file with what it should hold; gives what is missing at its end."""
        pieces = self._pieces(journal.streamed())
        self._end = 0
        if journal.kept is not None:
            next(pieces)  # the header is part of what is kept
            self._end = journal.kept.size_bytes
            if self._checksum(self._end) != journal.kept:
                return self._kept(journal, keep)
        file.seek(self._end)
        for piece in pieces:
            here = file.read(len(piece))
            if here == piece:
                self._end += len(piece)
                continue
            if self._is_torn(here + file.read(TORN_BYTES), piece, journal):
                return chain([piece], pieces)
            return self._kept(journal, keep)
        behind = file.read(TORN_BYTES)
        if not behind:
            return iter(())
        if self._is_torn(behind, b"", journal):
            return iter([b""])  # cuts it off
        return self._kept(journal, keep)

    @staticmethod
    def _is_torn(rest: bytes, expected: bytes, journal: Journal) -> bool:
        """Whether the end of the file is a line of ours that was cut short, and nobody's work."""
        if len(rest) >= TORN_BYTES:
            return False
        rest = rest.rstrip(b"\0")  # blocks that were given to the file and never written
        return expected.startswith(rest) or (not journal.is_complete and b"\n" not in rest)

    def _kept(self, journal: Journal, keep: bool) -> Iterator[bytes]:
        if not keep:
            raise self._changed(append=True)
        there = self._checksum()
        self._end = there.size_bytes
        with self._path.open("rb") as file:
            file.seek(max(0, self._end - 1))
            is_whole = file.read() in (b"\n", b"")
        if not is_whole:
            self._put(b"\n")
            there = self._checksum()
        journal.mark_kept(there)
        return iter(())

    def add(self, entries: Sequence[Entry], before: Sequence[Entry | None]) -> None:
        # One that is done again has its line already: the file is rewritten at the end.
        new = [entry for entry, known in zip(entries, before, strict=True) if known is None]
        self._put(b"".join(islice(self._pieces(new), 1, None)))

    def _put(self, data: bytes) -> None:
        try:
            if self._stream is None:
                self._stream = self._path.open("r+b", buffering=0)
        except OSError as error:
            raise cannot_write(self.name, error) from None
        write_at(self._stream, self._end, data, Path(self.name))
        self._end += len(data)

    def finish(self, journal: Journal, keys: Sequence[Key]) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.close()
        if journal.kept is None and (journal.has_redone or not journal.has_order(keys)):
            self._rewrite(journal, keys)
        elif not journal.is_complete:
            journal.mark_complete()


class _List(_File):
    """COCO's JSON: a list, which is not there before it is complete."""

    def is_late(self, journal: Journal) -> bool:
        return not journal.is_complete

    def restore(self, journal: Journal, keep: bool) -> None:
        if not self.is_there():
            return
        if journal.was_complete:
            as_it_was = self._is_made_of(self._pieces(journal.published()))
        else:
            as_it_was = self._checksum() == journal.replaces
        if not as_it_was:
            raise self._changed(append=False)

    def add(self, entries: Sequence[Entry], before: Sequence[Entry | None]) -> None:
        pass

    def finish(self, journal: Journal, keys: Sequence[Key]) -> None:
        if not (journal.is_complete and journal.has_order(keys) and self.is_there()):
            self._rewrite(journal, keys)


class _Sidecars(Output):
    """A file for each image: text or XMP."""

    holds_all = False

    def __init__(self, writer: SidecarWriter, base: Path) -> None:
        output = writer.output
        folder = base if output is None else output
        name = f"the {writer.what} beside the images" if output is None else shown(output)
        super().__init__(name, folder / writer.journal)
        self._writer = writer
        self._folder = folder
        self._checked: Path | None = None

    def check_place(self) -> None:
        check_folder(self._folder)

    def is_there(self) -> bool:
        return False  # Other files may lie there: each image's own is looked at.

    def what_is_replaced(self) -> Checksum | bool | None:
        return True

    def check(
        self, file: SourceFile, entry: Entry | None, is_done: bool, may_replace: bool
    ) -> None:
        writer = self._writer
        if file.path.suffix.lower() == writer.suffix:
            raise CaptionerError(
                f"{shown(file.path)} is to be captioned, and has the suffix of the {writer.what}: "
                "rename it, or choose another --format"
            )
        target = writer.target(file.path, file.name)
        if why_no_name(target) is not None:
            return  # That one will fail, and it alone.
        if target.parent != self._checked:
            check_folder(target.parent)
            self._checked = target.parent
        if is_done or not exists(target) or (entry is not None and self._is_ours(target, entry)):
            return
        if not writer.may_replace(target):
            raise writer.foreign(target)
        if not may_replace:
            raise CaptionerError(
                f"{shown(target)} exists, and this job has not made it: --overwrite replaces the "
                f"{writer.what} of these images"
            )

    def why_not(self, file: SourceFile) -> str | None:
        return why_no_name(self._writer.target(file.path, file.name))

    def settle(self) -> None:
        next_journal(self.state).unlink(missing_ok=True)

    def restore(self, journal: Journal, keep: bool) -> None:
        pass  # Image by image: see `mend`.

    def mend(self, file: SourceFile, entry: Entry) -> None:
        target = self._writer.target(file.path, file.name)
        if entry.record["text"] is not None and not exists(target):
            self._write(target, entry)

    def make_room(self, known: Sequence[Entry]) -> None:
        # First: once the journal knows better, only what is missing is written.
        for entry in known:
            target = self._writer.target(Path(entry.path), entry.name)
            if self._is_ours(target, entry):
                try:
                    target.unlink()
                except OSError as error:
                    raise cannot_write(target, error) from None

    def add(self, entries: Sequence[Entry], before: Sequence[Entry | None]) -> None:
        for entry in entries:
            if entry.record["text"] is not None:
                self._write(self._writer.target(Path(entry.path), entry.name), entry)

    def _write(self, target: Path, entry: Entry) -> None:
        # Looked at again: a photo program may have made it since the job was checked.
        if exists(target) and not self._writer.may_replace(target):
            raise self._writer.foreign(target)
        replace_file(target, self._writer.text(entry.record), part_beside(target))

    def _is_ours(self, target: Path, entry: Entry) -> bool:
        """Whether a file holds what was written there, and not what somebody made of it."""
        if entry.record["text"] is None:
            return False
        try:
            return target.read_text(encoding="utf-8") == self._writer.text(entry.record)
        except (OSError, ValueError):
            return False

    def finish(self, journal: Journal, keys: Sequence[Key]) -> None:
        if journal.has_redone:
            journal.write_new(journal.keys).close()
            journal.close()
            adopt(self.state)
        elif not journal.is_complete:
            journal.mark_complete()


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
