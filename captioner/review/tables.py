"""Captions in one file, JSONL or CSV: one row for each image, as captioner or people wrote it.

A file that a caption job made is written again by that job's own rules. In any other file the bytes
of all rows but the changed one stay as they are.
"""

from __future__ import annotations

import csv
import io
import json
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, cast

from captioner.captioning.file_output import LinesOutput
from captioner.captioning.formats import make_writer
from captioner.captioning.tables import json_rows
from captioner.captioning.writers import CsvWriter, LineWriter
from captioner.data.entries import IMAGE_FOLDERS
from captioner.data.fields import NAME_FIELDS, TEXT_FIELDS
from captioner.errors import CaptionerError
from captioner.files.escaping import encode_text, plain_cell, safe_cell, shown
from captioner.files.writing import cannot_read, part_beside, replace_bytes
from captioner.review.captions import Captions, Item, names_of_tags, share_of
from captioner.review.job_memory import JobMemory, path_of
from captioner.text.languages import DEFAULT_LANGUAGE

Row = Mapping[str, Any]
Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Row:
    """A row, where it stands, and the columns of its name and its text."""

    place: int  # in the pieces of the file
    line: int  # for messages
    values: Row
    name_column: str
    text_column: str

    @property
    def name(self) -> str:
        return str(self.values[self.name_column])

    @property
    def text(self) -> str | None:
        text = self.values[self.text_column]
        return text if isinstance(text, str) and text.strip() else None


class Table(Captions):
    """The rows of one file.

    Args:
        path: of the file.
        images: the folder of the images; None finds them as the job's memory says, and otherwise
            beside the file.

    Raises:
        CaptionerError: it cannot be read, or is not such a table; names the line.
    """

    format: str
    follows: ClassVar[frozenset[str]] = frozenset()
    """Columns that change with the text."""
    _pieces: list[str]

    def __init__(self, path: Path, images: Path | None = None) -> None:
        self.path = Path(os.path.realpath(path))
        self.folder = self.path.parent
        self.key = self.path.name
        self.title = shown(path.name)
        self._images = images
        self._read()
        output = LinesOutput(self.path, self._make_writer)
        self._memory = JobMemory(output.state, output)
        self._sources = {entry.name: path_of(entry) for entry in self._memory.entries()}
        self._make_items()

    def refresh(self, name: str) -> Item | None:
        """See `Captions.refresh`."""
        if self._stamp != _stamp(self.path):
            self._read()
            self._memory.reopen()
            self._make_items()
        return self._items.get(name)

    def write(self, name: str, text: str | None) -> None:
        """See `Captions.write`."""
        row = self._rows[name]
        values = {**row.values, row.text_column: text}
        pieces = [*self._pieces]
        is_written = False

        def write(record: Mapping[str, Any] | None) -> None:
            nonlocal is_written
            is_written = True
            values.update((key, record[key]) for key in self.follows & values.keys() if record)
            pieces[row.place] = self._encoded(row, values)
            replace_bytes(self.path, map(encode_text, pieces), part_beside(self.path))

        self._memory.change_file(name, text, len(self._rows), write)
        if not is_written:  # The job's own rules put the whole file into order.
            self._read()
            self._make_items()
            return
        self._pieces = pieces
        self._rows[name] = replace(row, values=values)
        self._items[name] = self._item(self._rows[name])
        self._stamp = _stamp(self.path)

    # --- reading -----------------------------------------------------------------------------

    def _read(self) -> None:
        self._stamp = _stamp(self.path)
        try:
            text = self.path.read_bytes().decode("utf-8")
        except OSError as error:
            raise cannot_read(self.path, error) from None
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise self._refuse(line, "is not UTF-8 text") from None
        self._bom = "\ufeff" if text.startswith("\ufeff") else ""
        self._pieces, rows = self._parse(text.removeprefix("\ufeff"))
        if self._bom:
            self._pieces.insert(0, self._bom)
        self._rows: dict[str, _Row] = {}
        for place, line, values in rows:
            row = self._row(place + bool(self._bom), line, values)
            other = self._rows.setdefault(row.name, row)
            if other is not row:
                raise self._refuse(
                    line, f"has a second caption of {shown(row.name)}, after line {other.line}"
                )
        if not self._rows:
            raise CaptionerError(
                f"{shown(self.path)} holds no captions: `captioner caption PHOTOS --output "
                "captions.jsonl` makes such a file"
            )

    @abstractmethod
    def _parse(self, text: str) -> tuple[list[str], list[tuple[int, int, Row]]]:
        """The file in pieces; of each row the place among them, its line and its values."""

    @abstractmethod
    def _encoded(self, row: _Row, values: Row) -> str:
        """A row as it is written, with its end."""

    def _end_of(self, row: _Row) -> str:
        """How its line ends: the last one may have no end."""
        line = self._pieces[row.place]
        return line[len(line.rstrip("\r\n")) :]

    def _row(self, place: int, line: int, values: Row) -> _Row:
        name_column = next((field for field in NAME_FIELDS if field in values), "")
        if not isinstance(values.get(name_column), str) or not values[name_column].strip():
            raise self._refuse(line, f"has no image name in {' or '.join(NAME_FIELDS)}")
        text_column = next((field for field in TEXT_FIELDS if field in values), "")
        if not text_column:
            raise self._refuse(line, f"has no caption in {' or '.join(TEXT_FIELDS)}")
        if not isinstance(values[text_column], str | None):
            raise self._refuse(line, f"has a {text_column} that is not one text")
        return _Row(place, line, values, name_column, text_column)

    def _refuse(self, line: int, what: str) -> CaptionerError:
        return CaptionerError(
            f"{shown(self.path)}: line {line} {what}; review takes a file with one image and one "
            "caption in every row, as `captioner caption` writes it"
        )

    # --- images ------------------------------------------------------------------------------

    def _make_items(self) -> None:
        self._folders = [self._images] if self._images is not None else self._usual_folders()
        self._items = {name: self._item(row) for name, row in self._rows.items()}

    def _usual_folders(self) -> list[Path]:
        own = [self.folder / name for name in IMAGE_FOLDERS]
        return [self.folder, *(folder for folder in own if folder.is_dir())]

    def _item(self, row: _Row) -> Item:
        error = row.values.get("error")
        problem = error if isinstance(error, str) and error else None
        path = None if problem else self._path(row.name)
        if path is None and problem is None:
            problem = "its name leads out of the folder of the images, or no file can have it"
        return Item(
            row.name,
            path,
            row.text,
            share_of(_number(row.values.get("confidence"))),
            names_of_tags(row.values.get("tags")),
            problem,
            _language(row.values.get("language")),
        )

    def _path(self, name: str) -> Path | None:
        known = None if self._images is not None else self._sources.get(name)
        if known is not None and known.is_file():
            return known
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts or "\0" in name or not inside.parts:
            return None
        try:
            os.fsencode(name)
        except UnicodeEncodeError:
            return None
        paths = [folder.joinpath(*inside.parts) for folder in self._folders]
        return next((path for path in paths if path.is_file()), known or paths[0])

    def _make_writer(self) -> LineWriter:
        writer = make_writer(self.format, csv_bom=bool(self._bom), languages=self._languages)
        return cast(LineWriter, writer)

    @property
    def _languages(self) -> Sequence[str]:
        """Those that the columns of a job's file name, the first one first."""
        return ()


class JsonlCaptions(Table):
    """An object on each line."""

    format = "jsonl"
    follows = frozenset({"embed_error"})

    def _parse(self, text: str) -> tuple[list[str], list[tuple[int, int, Row]]]:
        # str.splitlines would also cut at characters that may stand inside a caption (U+2028).
        pieces = [f"{line}\n" for line in text.split("\n")]
        pieces[-1] = pieces[-1][:-1]
        rows = json_rows(pieces, self._refuse, _no_constant)
        return pieces, [(line - 1, line, values) for line, values in rows]

    def _encoded(self, row: _Row, values: Row) -> str:
        end = self._end_of(row)
        return json.dumps(values, ensure_ascii=False, allow_nan=False) + end


class CsvCaptions(Table):
    """Cells under headings, with commas, semicolons or tabs between them."""

    format = "csv"

    def _parse(self, text: str) -> tuple[list[str], list[tuple[int, int, Row]]]:
        lines = list(io.StringIO(text, newline=""))
        head = next(filter(str.strip, lines), "")
        self._delimiter = max(",;\t", key=head.count)
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        pieces: list[str] = []
        rows: list[tuple[int, int, Row]] = []
        self._columns: list[str] = []
        start = 0
        try:
            for cells in reader:
                pieces.append("".join(lines[start : reader.line_num]))
                if any(cell.strip() for cell in cells):
                    rows += self._values(len(pieces) - 1, start + 1, cells)
                start = reader.line_num
        except csv.Error:
            raise self._refuse(start + 1, "is not valid CSV") from None
        return pieces, rows

    def _values(self, place: int, line: int, cells: list[str]) -> Iterator[tuple[int, int, Row]]:
        if not self._columns:
            self._columns = [cell.strip().lower() for cell in cells]
            languages = self._languages
            self._is_ours = self._columns == list(CsvWriter(languages=languages).columns)
            return
        if len(cells) > len(self._columns):
            raise self._refuse(line, f"has {len(cells)} cells under {len(self._columns)} headings")
        # A short row lacks its last cells.
        padded = [*cells, *[""] * (len(self._columns) - len(cells))]
        values: dict[str, str] = dict(zip(self._columns, padded, strict=True))
        for column, cell in values.items():
            if self._is_ours or column in TEXT_FIELDS:
                values[column] = plain_cell(cell)
        yield place, line, values

    @property
    def _languages(self) -> Sequence[str]:
        if "language" not in self._columns:
            return ()
        others = [name for name in self._columns if name.startswith("text_")]
        return (DEFAULT_LANGUAGE, *(name.removeprefix("text_") for name in others))

    def _encoded(self, row: _Row, values: Row) -> str:
        line = io.StringIO()
        cells = [
            safe_cell(value) if self._is_ours or column in TEXT_FIELDS else value
            for column, value in values.items()
        ]
        end = self._end_of(row)
        csv.writer(line, delimiter=self._delimiter, lineterminator=end).writerow(cells)
        return line.getvalue()


TABLES: Mapping[str, Callable[[Path, Path | None], Table]] = {
    ".jsonl": JsonlCaptions,
    ".ndjson": JsonlCaptions,
    ".csv": CsvCaptions,
}
"""Suffix -> class."""


def _language(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> object:
    """A number that a CSV cell holds."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return None


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _stamp(path: Path) -> Stamp | None:
    """Time of change, size and inode of a file, to detect changes; None if it is gone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
