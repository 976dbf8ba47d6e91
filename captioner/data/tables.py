"""One's own tables of captions: JSONL and CSV, one file or one for each split."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from captioner.data.entries import Entries, split_of_word
from captioner.data.flickr import flickr_kind
from captioner.data.text_files import csv_rows, files_of, first_line, only_one, text_lines
from captioner.errors import CaptionerError
from captioner.files.escaping import plain_cell

_NAME_FIELDS = ("file_name", "filename", "image")
_TEXT_FIELDS = ("text", "captions", "caption")

Records = Callable[[Path], Iterator[tuple[str, dict[str, Any]]]]
_OUR_COLUMNS = frozenset({"file_name", "text", "confidence", "error"})
"""Of a CSV that `captioner caption` wrote; its cells never begin as a formula does."""


def find_table(root: Path, suffix: str) -> list[Path]:
    """`metadata.*`, else one file for each split (`train.*` or `train/metadata.*`), else any."""
    if root.is_file():
        return [root] if root.suffix.lower() == suffix and not flickr_kind(root) else []
    files = [f for f in files_of(root, "*" + suffix) if not flickr_kind(f)]
    if named := [f for f in files if f.stem == "metadata"]:
        return named
    files = files or sorted(root.glob("*/metadata" + suffix))
    return [f for f in files if _table_split(f, root)] or files


def _table_split(file: Path, base: Path) -> str | None:
    """The split that the name of the file, or of its folder inside `base`, stands for."""
    return split_of_word(file.stem if file.parent == base else file.parent.name)


def read_tables(files: list[Path], entries: Entries, fmt: str, records: Records) -> None:
    """Read one table, or one for each split.

    Args:
        files: the tables.
        entries: what they are added to.
        fmt: how errors call the format.
        records: yields the place and the fields of each row of a table.

    Raises:
        CaptionerError: several tables that are not one for each split, or a broken row (named).
    """
    if len(files) > 1 and not all(_table_split(f, entries.base) for f in files):
        only_one(files, fmt)
    for file in files:
        split = _table_split(file, entries.base)
        # The names in train/metadata.jsonl are relative to train/.
        folder = file.parent.name if split and file.parent != entries.base else ""
        for where, record in records(file):
            _add_record(record, where, folder, split, entries)


def _add_record(
    record: Mapping[str, Any], where: str, folder: str, split: str | None, entries: Entries
) -> None:
    texts = [record[f] for f in _TEXT_FIELDS if f in record]
    names = [record[f] for f in _NAME_FIELDS if f in record]
    for found, fields in ((names, _NAME_FIELDS), (texts, _TEXT_FIELDS)):
        if not found:
            raise CaptionerError(f"{where}: there is no field {' or '.join(map(repr, fields))}")
    for text in texts:
        # An empty list stands for an empty caption, so that the image is counted.
        for caption in (text or [""]) if isinstance(text, list) else [text]:
            name = entries.add(names[0], caption, where, folder=folder)
            entries.assign(name, record.get("split") or split, where)


def jsonl_records(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, record) of each line; CaptionerError names one that is not an object."""
    for number, line in text_lines(file):
        where = f"{file}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CaptionerError(f"{where}: not valid JSON: {error}") from error
        if not isinstance(record, dict):
            raise CaptionerError(f'{where}: not an object like {{"file_name": ..., "text": ...}}')
        yield where, record


def csv_records(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, cells by heading) of each row; CaptionerError names a broken one."""
    head = first_line(file)
    delimiter = max(",;\t", key=head.count)
    header: list[str] = []
    ours = False
    for number, row in csv_rows(file, delimiter):
        where = f"{file}, line {number}"
        if not header:
            header = [cell.strip().lower() for cell in row]
            ours = _OUR_COLUMNS.issubset(header)
            continue
        if len(row) > len(header):
            raise CaptionerError(
                f"{where}: {len(row)} cells under {len(header)} headings; put a caption with "
                f"{delimiter!r} in it into double quotes"
            )
        cells = map(plain_cell, row) if ours else row
        record: dict[str, Any] = dict(zip(header, cells, strict=False))
        if (cell := record.get("captions", "")).startswith('["'):
            try:
                record["captions"] = json.loads(cell)
            except ValueError as error:
                raise CaptionerError(f"{where}: not a JSON list: {cell[:60]!r}") from error
        yield where, record
