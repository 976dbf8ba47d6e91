"""Lists of images, videos or shards: CSV, JSONL or Parquet with a column of paths or addresses."""

from __future__ import annotations

import csv
import io
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence

from captioner.captioning.tables import json_rows
from captioner.data.parquet import columns_of, parquet_rows
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.kinds import suffix_of
from captioner.files.stores import is_address, open_file
from captioner.files.writing import cannot_read

COLUMNS = ("url", "urls", "path", "file_path", "file")
"""Of lists of whatever; there are others, which say of what (`captioner.shards.work.Work`)."""

_ROWS = 10_000  # of a Parquet list, read at once


def read_list(file: str, columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The path or address, and the text in the cell, of each row, lazily and in pieces.

    Paths are relative to the folder of the list.

    Args:
        file: path or address of the list.
        columns: in lower case, of which the first that there is is taken.

    Raises:
        CaptionerError: the list cannot be read, or has no such column; it is named.
        captioner.files.stores.StoreUnreachable: the store does not answer.
    """
    folder = posixpath.dirname(file) if is_address(file) else os.path.dirname(file)
    for where, cell in _READERS[suffix_of(file)](file, columns):
        if not isinstance(cell, str) or not cell.strip() or "\0" in cell:
            raise CaptionerError(f"{where}: {cell!r} is not a path or an address")
        if is_address(cell) or not folder:
            yield cell, cell
        else:
            join = posixpath.join if is_address(folder) else os.path.join
            yield join(folder, cell), cell


Cells = Iterator[tuple[str, object]]


def _csv_cells(file: str, wanted: Sequence[str]) -> Cells:
    with _text(file) as text:
        head = text.readline()
        delimiter = max(",;\t", key=head.count)
        headings = next(csv.reader([head], delimiter=delimiter), [])
        columns = [each.strip().lower() for each in headings]
        place = columns.index(_column(file, columns, wanted))
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            for row in reader:
                if any(cell.strip() for cell in row):
                    where = f"{shown(file)}, line {reader.line_num + 1}"
                    yield where, row[place] if place < len(row) else None
        except csv.Error as error:
            line = reader.line_num + 1
            raise CaptionerError(f"{shown(file)}, line {line}: not valid CSV: {error}") from None


def _jsonl_cells(file: str, wanted: Sequence[str]) -> Cells:
    column = ""

    def place(number: int) -> str:
        return f"{shown(file)}, line {number}"

    def refuse(number: int, what: str) -> CaptionerError:
        return CaptionerError(f"{place(number)}: {what}")

    with _text(file) as text:
        for number, row in json_rows(text, refuse):
            cells = {name.strip().lower(): cell for name, cell in row.items()}
            column = column or _column(file, cells, wanted)
            yield place(number), cells.get(column)


def _parquet_cells(file: str, wanted: Sequence[str]) -> Cells:
    column = _column(file, columns_of(file), wanted)
    for number, row in enumerate(parquet_rows(file, {column}, _ROWS), 1):
        yield f"{shown(file)}, row {number}", row[column]


_READERS: dict[str, Callable[[str, Sequence[str]], Cells]] = {
    ".csv": _csv_cells,
    ".tsv": _csv_cells,
    ".jsonl": _jsonl_cells,
    ".ndjson": _jsonl_cells,
    ".parquet": _parquet_cells,
}
SUFFIXES = frozenset(_READERS)
"""Of lists; a Parquet file may also be a table with the images in it."""


def _column(file: str, columns: Iterable[str], wanted: Sequence[str]) -> str:
    there = list(columns)
    found = next((each for each in wanted if each in there), None)
    if found is None:
        what = " or ".join(map(repr, wanted))
        raise CaptionerError(
            f"{shown(file)}: there is no column {what} among {', '.join(there)}: name one with "
            "--column"
        )
    return found


class _text:
    """A file as text, with what is wrong with it as an error that names it."""

    def __init__(self, file: str) -> None:
        self._file = file

    def __enter__(self) -> io.TextIOWrapper:
        try:
            stream = open_file(self._file)
        except OSError as error:
            raise cannot_read(self._file, error) from None
        self._text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        return self._text

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._text.close()
        if isinstance(error, UnicodeDecodeError):
            raise CaptionerError(f"{shown(self._file)}: is not UTF-8 text") from None
