"""A metadata file that people wrote: which images have a caption in it, and how a row looks there.

JSONL and CSV with a name and a text in each row, as `captioner.data` reads them. Nothing in such a
file is changed: rows are added after the existing ones, in the file's own columns.
"""

from __future__ import annotations

import csv
import io
import json
import os
import posixpath
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from captioner.captioning.alternatives import flattened
from captioner.data.entries import IMAGE_FOLDERS
from captioner.data.fields import NAME_FIELDS, TEXT_FIELDS
from captioner.data.image_index import composed
from captioner.errors import CaptionerError
from captioner.files.escaping import encode_text, plain_cell, safe_cell, shown

_OUR_COLUMNS = frozenset({"file_name", "text", "confidence", "error"})
_SAMPLE = 200
"""Rows by which it is seen what the names in a table are relative to."""


class Table(ABC):
    """The rows of a file, and rows for it.

    Args:
        path: of the file, for messages and to know what names are relative to.
        data: what it holds.

    Raises:
        CaptionerError: a line cannot be read, or the column of names or of texts is missing; names
            the file, the line and the remedy.
    """

    def __init__(self, path: Path, data: bytes) -> None:
        self._path = path
        self._columns: Sequence[str] = ()
        self._captioned: set[str] = set()
        self._sample: list[str] = []
        self._has_lists = False
        if (kind := _kind_of(data)) is not None:
            raise CaptionerError(
                f"{shown(path)} is {kind}, not text in UTF-8: --missing-only adds rows to JSONL "
                "and CSV. Save it as one of these, and name that with --output"
            )
        try:
            text = data.decode("utf-8").removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise self._refuse(line, "is not UTF-8 text") from None
        self._line_end = "\r\n" if "\r\n" in text else "\n"
        self._ends_in_line_end = text.endswith("\n")
        for number, row in self._rows(text):
            self._take(number, row)
        self._name_column = self._column(NAME_FIELDS)
        self._text_column = self._column(TEXT_FIELDS)

    def has_caption(self, name: str) -> bool:
        """Whether a row of the file has a caption of the image that it calls so."""
        return _same(name) in self._captioned

    @property
    def has_full_paths(self) -> bool:
        """Whether the names in the file are relative to nothing."""
        return bool(self._sample) and all(map(os.path.isabs, self._sample))

    def root(self, base: Path) -> Path:
        """The folder to which the names in the file are relative: where images exist, or its own.

        That may also be the folder above, or the one in which the command is run.

        Args:
            base: the folder that holds all images of a job, to which names in captioner's own
                outputs are relative.
        """
        here, base = (Path(os.path.realpath(path)) for path in (self._path.parent, base))
        folders = [here, *(here / name for name in IMAGE_FOLDERS if (here / name).is_dir()), base]
        folders += [here.parent, Path(os.path.realpath("."))]
        found = [
            sum(os.path.isfile(os.path.join(folder, name)) for name in self._sample)
            for folder in folders
        ]
        if not any(found):
            return here if base.is_relative_to(here) else base
        return folders[found.index(max(found))]

    def line(self, record: Mapping[str, Any]) -> bytes:
        """What a record adds to the file; nothing for one without a caption.

        Where the last line of the file has no end, the new last line has none either.
        """
        if record["text"] is None:
            return b""
        row: dict[str, Any] = dict.fromkeys(self._columns)
        values = {**record, **flattened(record)}
        row |= {column: values[column] for column in row if column in values}
        row[self._name_column] = record["file_name"]
        row[self._text_column] = [record["text"]] if self._has_lists else record["text"]
        line = self._encode(row)
        whole = line + self._line_end if self._ends_in_line_end else self._line_end + line
        return encode_text(whole)

    @abstractmethod
    def _rows(self, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """The number of the line, and the values by column, of each row; sets `_columns`."""

    @abstractmethod
    def _encode(self, row: Mapping[str, Any]) -> str:
        """A line without its end."""

    def _take(self, number: int, row: Mapping[str, Any]) -> None:
        name = next((row[field] for field in NAME_FIELDS if field in row), None)
        if not isinstance(name, str) or not name.strip():
            raise self._refuse(number, f"has no image name in {' or '.join(NAME_FIELDS)}")
        if len(self._sample) < _SAMPLE and "\0" not in name:
            self._sample.append(name)
        texts = [row.get(field) for field in TEXT_FIELDS]
        self._has_lists |= any(isinstance(text, list) for text in texts)
        if any(map(_is_caption, texts)):
            self._captioned |= {_same(name), _same(name.replace("\\", "/"))}

    def _column(self, fields: Sequence[str]) -> str:
        found = next((field for field in fields if field in self._columns), None)
        if found is None:
            raise self._refuse(1, f"has no column {' or '.join(fields)}")
        return found

    def _refuse(self, line: int, what: str) -> CaptionerError:
        return CaptionerError(
            f"{shown(self._path)}, line {line}: {what}; --missing-only can only add to a file that "
            "it can read: correct it, or name another --output"
        )


class JsonlTable(Table):
    """An object on each line."""

    def _rows(self, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
        columns: dict[str, None] = {}
        # str.splitlines would also cut at characters that may stand inside a caption (U+2028).
        for number, row in json_rows(text.split("\n"), self._refuse):
            columns |= dict.fromkeys(row)
            yield number, row
        self._columns = tuple(columns)

    def _encode(self, row: Mapping[str, Any]) -> str:
        return json.dumps(row, ensure_ascii=False, allow_nan=False)


class CsvTable(Table):
    """Cells under headings, with commas, semicolons or tabs between them."""

    def _rows(self, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
        head = text.lstrip().split("\n", 1)[0]
        self._delimiter = max(",;\t", key=head.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=self._delimiter, strict=True)
        start = 1
        try:
            for row in reader:
                if any(cell.strip() for cell in row):
                    yield from self._row(start, row)
                start = reader.line_num + 1
        except csv.Error:
            raise self._refuse(start, "is not valid CSV") from None

    def _row(self, number: int, cells: list[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
        if not self._columns:
            self._columns = tuple(cell.strip().lower() for cell in cells)
            self._is_ours = _OUR_COLUMNS.issubset(self._columns)
            return
        if len(cells) > len(self._columns):
            raise self._refuse(
                number, f"has {len(cells)} cells under {len(self._columns)} headings"
            )
        row: dict[str, Any] = dict(zip(self._columns, cells, strict=False))
        for column, cell in row.items():
            if self._is_ours:
                row[column] = plain_cell(cell)
            if column == "captions" and cell.startswith('["'):
                row[column] = [cell]  # one that is a JSON list
        yield number, row

    def _encode(self, row: Mapping[str, Any]) -> str:
        line = io.StringIO()
        cells = [self._cell(column, row[column]) for column in self._columns]
        csv.writer(line, delimiter=self._delimiter, lineterminator="").writerow(cells)
        return line.getvalue()

    def _cell(self, column: str, value: Any) -> object:
        if isinstance(value, list | dict):
            value = json.dumps(value, ensure_ascii=False, allow_nan=False)
        # A name is found by others only as it is.
        is_raw = column == self._name_column and not self._is_ours
        return value if is_raw else safe_cell(value)


TABLES: dict[str, type[Table]] = {"jsonl": JsonlTable, "csv": CsvTable}
"""Format name -> class, of the formats to which rows can be added."""


def json_rows(
    lines: Iterable[str],
    refuse: Callable[[int, str], CaptionerError],
    parse_constant: Callable[[str], Any] | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects on the lines of a JSONL file with the line numbers, without blank lines.

    Args:
        lines: all of them.
        refuse: makes the error for the number of a line and what is wrong with it.
        parse_constant: see `json.loads`.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=parse_constant)
        except (ValueError, RecursionError):
            raise refuse(number, "is not valid JSON") from None
        if not isinstance(row, dict):
            raise refuse(number, "is not a JSON object")
        yield number, row


def _kind_of(data: bytes) -> str | None:
    """What a file is that is not text, by its first bytes; None if it is not known."""
    known = ((b"PAR1", "Parquet"), (b"ARROW1", "Arrow"), (b"PK\3\4", "an archive or a workbook"))
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    return next((name for start, name in known if data.startswith(start)), None)


def _is_caption(value: object) -> bool:
    if isinstance(value, list):
        return any(map(_is_caption, value))
    return isinstance(value, str) and bool(value.strip())


def _same(name: str) -> str:
    """One spelling of a name: composed Unicode, without needless parts."""
    return composed(posixpath.normpath(name.strip()))
