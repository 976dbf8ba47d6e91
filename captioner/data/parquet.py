"""Parquet tables of captions, with the names of images or the images themselves in them."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from captioner.data.entries import Entries
from captioner.data.fields import NAME_FIELDS, add_record, text_fields
from captioner.data.shards import shard_split, shards_of
from captioner.data.tables import folder_of_names
from captioner.data.unpacking import unpack_image
from captioner.data.webdataset import is_archive
from captioner.errors import CaptionerError

_ROWS = 64  # read at once, with their images
_IMAGE_FIELDS = ("image", "img", "jpg", "png")


def find_parquet(root: Path) -> list[Path]:
    """Tables with a column for images and one for captions; see `shards_of` for the places."""
    if root.is_file():
        return [root] if root.suffix.lower() == ".parquet" else []
    if find_spec("pyarrow") is not None:
        return shards_of(root, _has_captions)
    # Tables beside archives only describe these, as img2dataset writes them.
    return [] if shards_of(root, is_archive) else shards_of(root, _is_table)


def _is_table(file: Path) -> bool:
    return file.suffix.lower() == ".parquet"


def _has_captions(file: Path) -> bool:
    if not _is_table(file):
        return False
    with _open(file) as table:
        columns = {name.strip().lower() for name in table.schema_arrow.names}
    return bool(columns.intersection((*NAME_FIELDS, *_IMAGE_FIELDS)) and text_fields(columns))


def read_parquet(files: list[Path], entries: Entries) -> None:
    """Read the tables; images in them are unpacked into the cache.

    Raises:
        CaptionerError: pyarrow is not installed, a table is broken, or a row is (named).
    """
    for file in files:
        split = shard_split(file, entries.base)
        folder = folder_of_names(file, entries.base) if file.stem == "metadata" else ""
        for number, cells in enumerate(_rows(file), 1):
            where = f"{file}, row {number}"
            row = {column.strip().lower(): cell for column, cell in cells.items()}
            image = next((row[field] for field in _IMAGE_FIELDS if field in row), None)
            if (name := _embedded(row, image, split, entries)) is not None:
                add_record({**row, NAME_FIELDS[0]: name}, where, entries, split=split)
            elif (name := _name_of(row, image)) is not None:
                record = {**row, NAME_FIELDS[0]: name}
                add_record(record, where, entries, folder=folder, split=split)
            else:
                entries.count("row{s} without an image left out", where)


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with _open(file) as table:
        import pyarrow

        try:
            for batch in table.iter_batches(batch_size=_ROWS):
                yield from batch.to_pylist()
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise CaptionerError(f"{file}: cannot be read as Parquet: {error}") from error


def _open(file: Path) -> Any:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise CaptionerError(
            f'{file}: Parquet needs pyarrow: pip install "captioner[parquet]"'
        ) from error
    try:
        return ParquetFile(file)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise CaptionerError(f"{file}: cannot be read as Parquet: {error}") from error


def _embedded(
    row: dict[str, Any], image: object, split: str | None, entries: Entries
) -> str | None:
    """Unpack the image of a row and give its name; None if the row has none."""
    data = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(data, bytes) or not data:
        return None
    if (name := _name_of(row, image)) is None:
        # Rows with the same content are about one image.
        content = blake2b(data, digest_size=8).hexdigest()
        name = f"{row.get('split') or split or 'image'}/{content}"
    return entries.embed(name, unpack_image(data, name))


def _name_of(row: dict[str, Any], image: object) -> str | None:
    """What the row calls its image, else the path beside the image's bytes; None if it does not."""
    names = [row.get(field) for field in NAME_FIELDS]
    names += [image.get("path") if isinstance(image, dict) else image]
    return next((name for name in names if isinstance(name, str) and name.strip()), None)
