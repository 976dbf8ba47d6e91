"""Tables of captions: JSONL, CSV and lists as LAVIS has them, one file or one for each split."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from captioner.data.entries import TEXT_FOLDERS, Entries, split_in_name, split_of_word
from captioner.data.fields import NAME_FIELDS, TEXT_FIELDS, add_record, has_fields
from captioner.data.flickr import flickr_kind
from captioner.data.text_files import (
    LIST_OF_OBJECTS,
    beginning,
    csv_rows,
    files_of,
    first_line,
    only_one,
    read_json,
    text_lines,
)
from captioner.errors import CaptionerError
from captioner.files.escaping import plain_cell

_LONGEST_RECORD = 1_000_000
_OUR_RESULT = {"image_id", "caption", "file_name"}
"""Of a COCO results file that `captioner evaluate` wrote: captions by a model."""

Records = Callable[[Path], Iterator[tuple[str, dict[str, Any]]]]
_OUR_COLUMNS = frozenset({"file_name", "text", "confidence", "error"})
"""Of a CSV that `captioner caption` wrote; its cells never begin as a formula does."""


def find_table(root: Path, suffix: str) -> list[Path]:
    """`metadata.*`, else one file for each split (`train.*` or `train/metadata.*`), else any.

    All of that in the folder or, as on the Hub, in the folder `data` in it.
    """
    if root.is_file():
        suffixes = (suffix, ".tsv") if suffix == ".csv" else (suffix,)
        return [root] if root.suffix.lower() in suffixes and not flickr_kind(root) else []
    for folder in (root, root / "data"):
        files = [f for f in files_of(folder, "*" + suffix) if not flickr_kind(f)]
        if named := [f for f in files if f.stem == "metadata"]:
            return named
        files = files or sorted(folder.glob("*/metadata" + suffix)) or _one_in_each(folder, suffix)
        if files:
            return [f for f in files if _table_split(f, root)] or files
    return sorted(root.glob("*/*/metadata" + suffix))


def _one_in_each(folder: Path, suffix: str) -> list[Path]:
    """`train/mine.csv` and `val/mine.csv`: the only table in each folder of a split, or none."""
    folders = [f.parent for f in folder.glob("*/*" + suffix) if split_of_word(f.parent.name)]
    found = [files_of(each, "*" + suffix) for each in sorted(set(folders))]
    return [files[0] for files in found] if all(len(files) == 1 for files in found) else []


def _table_split(file: Path, base: Path) -> str | None:
    """The split that the name of the file, or of its folder inside `base`, stands for."""
    above = file.parent.name if file.parent != base else ""
    return split_of_word(file.stem) or split_of_word(above)


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
        folder = folder_of_names(file, entries.base)
        for where, record in records(file):
            add_record(record, where, entries, folder=folder, split=split)


def folder_of_names(file: Path, base: Path) -> str:
    """To which folder in `base` the names in a table are relative: that of the table."""
    if file.parent == base or file.parent.name in TEXT_FOLDERS:
        return ""
    return file.parent.relative_to(base).as_posix()


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


def find_lists(root: Path) -> list[Path]:
    """JSON files that are lists of objects with an image and a caption, there or in annotations/.

    Of several those whose names say a split, if there are any.
    """
    folders = (root, root / "annotations")
    files = [f for folder in folders for f in files_of(folder, "*.json")]
    files = [f for f in (files if root.is_dir() else [root]) if _is_list(f)]
    return [f for f in files if split_in_name(f.stem)] or files


def _is_list(file: Path) -> bool:
    """Whether its first object is one of such a list; not parsed whole, for it may be large."""
    begin = beginning(file, _LONGEST_RECORD)
    if (match := LIST_OF_OBJECTS.match(begin)) is None:
        return False
    try:
        first, _ = json.JSONDecoder().raw_decode(begin, match.end() - 1)
    except (ValueError, RecursionError):
        return False
    return has_fields(first) and set(first) != _OUR_RESULT


def read_lists(files: list[Path], entries: Entries) -> None:
    """Read JSON lists as LAVIS and BLIP have them; a split is what the name of its file says.

    The files of two splits may name one image: it is then in both, and counted.

    Raises:
        CaptionerError: several files that are not one for each split, or a broken entry (named).
    """
    if len(files) > 1 and not all(split_in_name(f.stem) for f in files):
        only_one(files, "lavis")
    entries.folder_may_lack = True
    for file in files:
        split = split_in_name(file.stem)
        records = read_json(file)
        if not isinstance(records, list):
            raise CaptionerError(f'{file}: not a list like [{{"image": ..., "caption": ...}}]')
        for index, record in enumerate(records):
            where = f"{file}, [{index}]"
            if not isinstance(record, dict):
                raise CaptionerError(
                    f'{where}: not an object like {{"image": ..., "caption": ...}}'
                )
            image = next((record[f] for f in NAME_FIELDS if f in record), None)
            if split is not None and isinstance(image, str):
                record[NAME_FIELDS[0]] = entries.apart(image, split, where)
            # Each caption is somebody's, as in COCO's own files.
            add_record(record, where, entries, split=split, key=(file, index))


def csv_records(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, cells by heading) of each row; CaptionerError names a broken one."""
    head = first_line(file)
    # Excel writes and reads a first line that names the separator.
    named = re.fullmatch(r'"?sep=([,;\t])"?', head, re.IGNORECASE)
    delimiter = named[1] if named else max(",;\t", key=head.count)
    header: list[str] = []
    ours = False
    for number, row in csv_rows(file, delimiter):
        where = f"{file}, line {number}"
        if named and number == 1:
            continue
        if not header:
            header = [cell.strip().lower() for cell in row]
            ours = _OUR_COLUMNS.issubset(header)
            continue
        if len(row) > len(header):
            raise CaptionerError(
                f"{where}: {len(row)} cells under {len(header)} headings; put a caption with "
                f"{delimiter!r} in it into double quotes"
            )
        record: dict[str, Any] = dict(zip(header, row, strict=False))
        for heading, cell in record.items():
            # In another table a name is as it is, and a quotation may begin a text.
            if ours or (heading in TEXT_FIELDS and cell.count("'") == 1):
                record[heading] = plain_cell(cell)
        if (cell := record.get("captions", "")).startswith('["'):
            try:
                record["captions"] = json.loads(cell)
            except ValueError as error:
                raise CaptionerError(f"{where}: not a JSON list: {cell[:60]!r}") from error
        yield where, record
