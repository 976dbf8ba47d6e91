"""One row or object of an annotation file -> an image with its captions, whatever it calls them."""

from __future__ import annotations

import ast
import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any

from captioner.data.entries import Entries, split_of_word
from captioner.errors import CaptionerError

NAME_FIELDS = (
    *("file_name", "filename", "image", "image_path", "image_name"),
    "image_file_name",  # of the Hub, where rows have several files
)
TEXT_FIELDS = ("text", "captions", "caption")
OTHER_TEXT_FIELDS = ("sentences", "sentences_raw", "sentences.raw", "raw", "txt")
"""Fields of captions, too, where a record has none of the others: the first that is there."""

_NUMBERED_TEXT = re.compile(r"caption_?[0-9]+")
_ABOVE_SPLITS = ("data", "images")


def has_fields(names: Iterable[str]) -> bool:
    """Whether records with these fields name an image and have captions."""
    fields = {name.strip().lower() for name in names}
    return bool(fields.intersection(NAME_FIELDS) and text_fields(fields))


def text_fields(names: Iterable[str]) -> list[str]:
    """Those of these fields, in lower case, that have captions."""
    fields = list(names)
    found = [field for field in TEXT_FIELDS if field in fields]
    found += filter(_NUMBERED_TEXT.fullmatch, fields)
    return found or [field for field in OTHER_TEXT_FIELDS if field in fields][:1]


def texts_in(value: object) -> list[object]:
    """The captions in a field: a text, a list, or what the Hub makes of COCO's `sentences`.

    A text that is a list as JSON or Python writes it is that list. No caption stands for an empty
    one, so that its image is counted.
    """
    if isinstance(value, Mapping) and "raw" in value:
        return texts_in(value["raw"])
    if isinstance(value, str):
        value = _unquoted(value)
    if not isinstance(value, list):
        return [value]
    found = (each["raw"] if isinstance(each, Mapping) and "raw" in each else each for each in value)
    return list(found) or [""]


def _unquoted(text: str) -> str | list[str]:
    """The list that a cell of a table holds as text, as JSON or `str` writes it; else the text."""
    if not re.match(r"\s*\[\s*[\"'].*\]\s*$", text, re.DOTALL):
        return text
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list) and all(isinstance(each, str) for each in found):
            return found
    return text


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
    record = {field.strip().lower(): value for field, value in record.items()}
    texts = [record[field] for field in text_fields(record)]
    names = [record[field] for field in NAME_FIELDS if field in record]
    if names and isinstance(folder_of := record.get("filepath"), str):
        # Karpathy's: "filepath": "val2014", "filename": "a.jpg".
        joined = posixpath.join(folder_of, str(names[0]))
        if entries.index.locate(posixpath.join(folder, joined)) is not None:
            names[0] = joined
    for found, fields in ((names, NAME_FIELDS), (texts, TEXT_FIELDS)):
        if not found:
            raise CaptionerError(f"{where}: there is no field {' or '.join(map(repr, fields))}")
    for number, text in enumerate(texts):
        for place, caption in enumerate(texts_in(text)):
            each = None if key is None else (key, number, place)
            name = entries.add(names[0], caption, where, each, folder)
    given = str(record.get("image_id", record.get("cocoid")))
    if given.isdecimal():
        entries.identify(name, int(given))
    if "split" not in record and split is None:
        split = split_in_path(name)
    entries.assign(name, record.get("split") or split, where)


def split_in_path(name: str) -> str | None:
    """The split that the top folder of an image stands for, as on the Hub.

    That is the one below `data` or `images` where it is in one of these.
    """
    folders = name.split("/")[:-1]
    while folders and folders[0].lower() in _ABOVE_SPLITS:
        del folders[0]
    return split_of_word(folders[0]) if folders else None
