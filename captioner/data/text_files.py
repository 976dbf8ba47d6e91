"""Annotation files as text: what is broken in one is an error that names the file and the line."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captioner.errors import CaptionerError

LIST_OF_OBJECTS = re.compile(r"\s*\[\s*\{")
"""How a JSON file begins that is a list of objects, not one object."""
_SAMPLE_BYTES = 4096


def only_one(files: list[Path], fmt: str) -> Path:
    """The only file; CaptionerError lists them if there are several."""
    if len(files) > 1:
        raise CaptionerError(
            f"{files[0].parent}: several files could be the {fmt} captions: "
            f"{', '.join(f.name for f in files)}; give the path of the one you mean"
        )
    return files[0]


def read_text(file: Path) -> str:
    """The file as text: UTF-8 or UTF-16; a byte order mark is not part of it.

    Raises:
        CaptionerError: it cannot be read, or is not such a text; names the line and the remedy.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise CaptionerError(f"{file}: cannot be read: {error}") from error
    return decode_text(data, file)


def decode_text(data: bytes, place: object) -> str:
    """The same for what lies in a file at `place`."""
    encoding = _encoding(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8-sig":
            raise CaptionerError(
                f"{place}: begins as {encoding.upper()} text, but is broken at byte {error.start}; "
                "save it as UTF-8"
            ) from error
        line = error.object.count(b"\n", 0, error.start) + 1
        raise CaptionerError(
            f"{place}, line {line}: byte 0x{error.object[error.start]:02x} is not UTF-8 text; "
            f"save the file as UTF-8 (for example: iconv -f latin1 -t utf-8)"
        ) from error


def _encoding(data: bytes) -> str:
    """By the byte order mark, or by where bytes of zero are; UTF-8 if there is neither."""
    # The marks of UTF-32 begin as those of UTF-16 do.
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if len(data) > 1 and (data[0] == 0) != (data[1] == 0):
        return "utf-16-le" if data[1] == 0 else "utf-16-be"
    # Whatever it begins with: in UTF-16 each digit, blank and line end has such a byte.
    begin = data[:_SAMPLE_BYTES]
    first, second = (begin[place::2].count(0) for place in (0, 1))
    if max(first, second) * 20 > len(begin) and min(first, second) * 3 <= max(first, second):
        return "utf-16-le" if second > first else "utf-16-be"
    return "utf-8-sig"


def text_lines(file: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line) of the lines that are not blank."""
    # str.splitlines would also cut at characters that may stand inside a caption (U+2028, U+0085).
    text = read_text(file)
    for number, line in enumerate(text.split("\n" if "\n" in text else "\r"), 1):
        if line.strip():
            yield number, line.rstrip("\r")


def beginning(file: Path, size_bytes: int = 4096) -> str:
    """The first part of the text, whatever is broken in it; empty if the file cannot be read."""
    try:
        with file.open("rb") as stream:
            data = stream.read(size_bytes)
    except OSError:
        return ""
    return data.decode(_encoding(data), "replace")


def first_line(file: Path) -> str:
    """The first line, stripped; empty if the file cannot be read."""
    return beginning(file).partition("\n")[0].strip()


def read_json(file: Path) -> Any:
    """What the file holds; CaptionerError if it is not JSON."""
    try:
        return json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise CaptionerError(f"{file}: not valid JSON: {error}") from error


def csv_rows(file: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line number where the row begins, cells) of the rows that are not empty."""
    reader = csv.reader(io.StringIO(read_text(file), newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        raise CaptionerError(f"{file}, line {start}: not valid CSV: {error}") from error


def files_of(folder: Path, pattern: str) -> list[Path]:
    """Files of the folder whose name matches the pattern, sorted; hidden ones left out."""
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.glob(pattern) if f.is_file() and not f.name.startswith("."))


def checked_records(
    place: object, data: Any, key: str, *fields: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, record) of the list `key` in `data`, each checked to be an object with `fields`."""
    records = data.get(key) if isinstance(data, dict) else None
    if not isinstance(records, list):
        raise CaptionerError(f'{place}: there is no list "{key}"')
    for index, record in enumerate(records):
        where = f"{place}, {key}[{index}]"
        for field in fields:
            if not isinstance(record, dict) or field not in record:
                raise CaptionerError(f'{where}: there is no "{field}"')
        yield where, record
