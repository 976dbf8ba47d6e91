"""A metadata file that people wrote and that stays as it is: rows are added at its end."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Never

from captioner.captioning.file_output import FileOutput, LinesOutput
from captioner.captioning.tables import TABLES, Table
from captioner.errors import CaptionerError
from captioner.files.finding import SourceFile, printable
from captioner.files.journal import Checksum, Entry, Journal
from captioner.files.writing import cannot_read, is_blank

TABLE = "missing_only"
"""The setting by which a journal says that it is of such a file."""


class TableOutput(LinesOutput):
    """Rows after what people wrote. Images whose name has a caption there are left alone.

    Images that fail get no row, and are tried again by the next run.

    Args:
        output: the file.
        table: what was there before the first row was added.
        base: the folder that holds all images of the job.
        is_resumed: whether the file is what its journal says.
    """

    holds_others: ClassVar[bool] = True

    def __init__(self, output: Path, table: Table, base: Path, is_resumed: bool = False) -> None:
        super().__init__(output, _no_writer)
        self.is_resumed = is_resumed
        self._table = table
        self._root = table.root(base)

    def named(self, file: SourceFile) -> SourceFile:
        """The image with the name that it has in this file."""
        path = Path(os.path.realpath(file.path.parent), file.path.name)
        if self._table.has_full_paths:
            return replace(file, name=printable(os.path.abspath(file.path)))
        if not path.is_relative_to(self._root):
            return file
        return replace(file, name=printable(path.relative_to(self._root)))

    def has_caption(self, file: SourceFile) -> bool:
        """See `Output.has_caption`; of an image that is named as `named` does it."""
        return self._table.has_caption(file.name)

    def restore(self, journal: Journal, keep: bool) -> None:
        """See `Output.restore`."""
        if journal.kept is None:
            journal.mark_kept(self._checksum())
        super().restore(journal, keep=False)

    def _pieces(self, entries: Iterable[Entry]) -> Iterator[bytes]:
        yield b""  # The header is part of what was there.
        for entry in entries:
            yield self._table.line(entry.record)


def find_table(output: FileOutput, format: str, base: Path) -> TableOutput | None:
    """The output that leaves a file as it is and adds rows to it.

    Args:
        output: the file; what was interrupted in its journal is ended by this.
        format: its format's name.
        base: the folder that holds all images of the job.

    Returns:
        None if the file is not there, is empty, or is captioner's own and unchanged.

    Raises:
        CaptionerError: it cannot be read, or rows cannot be added to files of this format.
    """
    if not output.is_there() or is_blank(output.path):
        return None
    if output.state.exists():
        with output.open_journal() as journal:
            is_table = TABLE in journal.about.get("settings", {})
            if not is_table and journal.kept is None and output.is_as_written(journal):
                return None
            if is_table and journal.kept is not None:
                before = _read(output, journal.kept)
                if before is not None:
                    table = TableOutput(output.path, _table(output, format, before), base, True)
                    if table.is_as_written(journal):
                        return table
    whole = _read(output, None)
    assert whole is not None, "only a part can be another one"
    return TableOutput(output.path, _table(output, format, whole), base)


def _read(output: FileOutput, kept: Checksum | None) -> bytes | None:
    """What a file holds, or its first part; None if that is another part by now."""
    try:
        if kept is None:
            return output.path.read_bytes()
        if Checksum.of(output.path, kept.size_bytes) != kept:
            return None
        with output.path.open("rb") as file:
            return file.read(kept.size_bytes)
    except OSError as error:
        raise cannot_read(output.path, error) from None


def _table(output: FileOutput, format: str, data: bytes) -> Table:
    if format not in TABLES:
        raise CaptionerError(
            f"output {output.name} holds what captioner has not written, or what was changed "
            f"since: --missing-only adds to files of {' and '.join(TABLES)}, not to {format}"
        )
    return TABLES[format](output.path, data)


def _no_writer() -> Never:
    raise AssertionError("the rows look as the table says")
