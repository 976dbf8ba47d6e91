"""Tables of captions: JSONL, CSV and lists as LAVIS has them, one file or one for each split."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from captioner.data.entries import TEXT_FOLDERS, Entries, split_in_name, split_of_word
from captioner.data.flickr import flickr_kind
from captioner.data.text_files import (
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

NAME_FIELDS = ("file_name", "filename", "image", "image_path")
TEXT_FIELDS = ("text", "captions", "caption")

_NUMBERED_TEXT = re.compile(r"caption_?[0-9]+")
_LIST = re.compile(r"\s*\[\s*\{")

Records = Callable[[Path], Iterator[tuple[str, dict[str, Any]]]]
_OUR_COLUMNS = frozenset({"file_name", "text", "confidence", "error"})
"""Of a CSV that `captioner caption` wrote; its cells never begin as a formula does."""


def find_table(root: Path, suffix: str) -> list[Path]:
    """`metadata.*`, else one file for each split (`train.*` or `train/metadata.*`), else any.

    All of that in the folder or, as on the Hub, in the folder `data` in it.
    """
    if root.is_file():
        return [root] if root.suffix.lower() == suffix and not flickr_kind(root) else []
    for folder in (root, root / "data"):
        files = [f for f in files_of(folder, "*" + suffix) if not flickr_kind(f)]
        if named := [f for f in files if f.stem == "metadata"]:
            return named
        files = files or sorted(folder.glob("*/metadata" + suffix))
        if files:
            return [f for f in files if _table_split(f, root)] or files
    return []


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


def add_record(
    record: Mapping[str, Any],
    where: str,
    entries: Entries,
    *,
    folder: str = "",
    split: str | None = None,
    key: object = None,
) -> None:
    """Add the captions of one image.

    Args:
        record: a row's fields: the image's name, captions or lists of them, perhaps its split.
        where: the row's place, for messages.
        entries: what they are added to.
        folder: to which the name is relative.
        split: of the whole table; where it has none and no field for it, a folder in the name may
            say it (`train/a.jpg`).
        key: what makes equal captions of two rows two; None: they are one.

    Raises:
        CaptionerError: a field is missing, or has a value that cannot be used.
    """
    texts = [record[f] for f in TEXT_FIELDS if f in record]
    texts += [record[f] for f in record if _NUMBERED_TEXT.fullmatch(f)]
    names = [record[f] for f in NAME_FIELDS if f in record]
    for found, fields in ((names, NAME_FIELDS), (texts, TEXT_FIELDS)):
        if not found:
            raise CaptionerError(f"{where}: there is no field {' or '.join(map(repr, fields))}")
    for number, text in enumerate(texts):
        # An empty list stands for an empty caption, so that the image is counted.
        for place, caption in enumerate((text or [""]) if isinstance(text, list) else [text]):
            each = None if key is None else (key, number, place)
            name = entries.add(names[0], caption, where, each, folder)
    given = record.get("image_id", record.get("cocoid"))
    if str(given).isdecimal():
        entries.identify(name, int(given))
    if "split" not in record and split is None:
        split = _split_in_path(name)
    entries.assign(name, record.get("split") or split, where)


def _split_in_path(name: str) -> str | None:
    """The split that the top folder of an image stands for, as on the Hub."""
    folders = name.split("/")[:-1]
    return split_of_word("/".join(folders[1 if folders[:1] == ["data"] else 0 :][:1]))


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
    """Whether it begins as such a list does; not parsed, for it may be large."""
    begin = beginning(file, 65_536)
    return _LIST.match(begin) is not None and '"image"' in begin and '"caption"' in begin


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
