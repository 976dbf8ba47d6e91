"""Parquet tables of captions, with the names of images or the images themselves in them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from captioner.data.entries import Entries
from captioner.data.fields import NAME_FIELDS, add_record, text_fields
from captioner.data.samples import NO_IMAGES, WITHOUT_CAPTION, Count, Sample, captions_in
from captioner.data.shards import shard_split, shards_of
from captioner.data.tables import folder_of_names
from captioner.data.tars import is_archive
from captioner.data.unpacking import unpack_image
from captioner.errors import CaptionerError
from captioner.files.stores import open_file

_ROWS = 64  # read at once, with their images
IMAGE_FIELDS = ("image", "img", "jpg", "png")
"""Columns of images: bytes, or bytes with a path as on the Hub."""


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
    columns = set(columns_of(file))
    return bool(columns.intersection((*NAME_FIELDS, *IMAGE_FIELDS)) and text_fields(columns))


def read_parquet(files: list[Path], entries: Entries) -> None:
    """Read the tables; images in them are unpacked into the cache.

    Raises:
        CaptionerError: pyarrow is not installed, a table is broken, or a row is (named).
    """
    for file in files:
        split = shard_split(file, entries.base)
        folder = folder_of_names(file, entries.base) if file.stem == "metadata" else ""
        for number, row in enumerate(parquet_rows(file), 1):
            where = f"{file}, row {number}"
            image = next((row[field] for field in IMAGE_FIELDS if field in row), None)
            if (name := _embedded(row, image, split, entries)) is not None:
                add_record({**row, NAME_FIELDS[0]: name}, where, entries, split=split)
            elif (name := name_of(row, image)) is not None:
                record = {**row, NAME_FIELDS[0]: name}
                add_record(record, where, entries, folder=folder, split=split)
            else:
                entries.count("row{s} without an image left out", where)


def table_samples(address: str, first: int, count: Count) -> Iterator[Sample]:
    """The rows of a table that have captions, in their order.

    Args:
        address: a path, or an address of `captioner.files.stores`.
        first: place of the first one whose image is wanted; where that is `NO_IMAGES`, their column
            is not read.
        count: of what is left out.

    Raises:
        CaptionerError: pyarrow is not installed, or the table cannot be read or has no images.
        captioner.files.stores.StoreUnreachable: the store does not answer.
    """
    columns = columns_of(address)
    texts = text_fields(columns)
    field = next((field for field in IMAGE_FIELDS if columns.get(field)), None)
    if field is None or not texts:
        raise CaptionerError(
            f"{address}: there is no column {' or '.join(IMAGE_FIELDS)} with the bytes of images, "
            "and one with captions beside it"
        )
    wanted = set(texts) if first == NO_IMAGES else {*texts, *NAME_FIELDS, field}
    for number, row in enumerate(parquet_rows(address, wanted), 1):
        where = f"row {number}"
        if not (captions := captions_in(row)):
            count(WITHOUT_CAPTION, f"{address}, {where}")
            continue
        image = row.get(field)
        yield Sample(name_of(row, image) or where, captions, bytes_of(image))


def columns_of(file: str | Path) -> dict[str, bool]:
    """The columns of a table, in lower case, and whether each holds bytes.

    Raises:
        CaptionerError: pyarrow is not installed, or the table cannot be read.
    """
    with _opened(file) as table:
        return {
            field.name.strip().lower(): _holds_bytes(field.type) for field in table.schema_arrow
        }


def _holds_bytes(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return any(_holds_bytes(field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def parquet_rows(
    file: str | Path, wanted: Collection[str] | None = None, size: int = _ROWS
) -> Iterator[dict[str, Any]]:
    """The rows of a table, their columns in lower case.

    Args:
        file: a path, or an address of `captioner.files.stores`.
        wanted: the columns to read, in lower case; None reads all.
        size: rows that are read at once.

    Raises:
        CaptionerError: pyarrow is not installed, or the table cannot be read.
        captioner.files.stores.StoreUnreachable: the store does not answer.
    """
    with _opened(file) as table:
        names = {name: name.strip().lower() for name in table.schema_arrow.names}
        read = None if wanted is None else [name for name in names if names[name] in wanted]
        for batch in table.iter_batches(batch_size=size, columns=read):
            for row in batch.to_pylist():
                yield {names[name]: cell for name, cell in row.items()}


@contextmanager
def _opened(file: str | Path) -> Iterator[Any]:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise CaptionerError(
            f'{file}: Parquet needs pyarrow: pip install "captioner[parquet]"'
        ) from error
    try:
        with open_file(str(file)) as stream, ParquetFile(stream) as table:
            yield table
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise CaptionerError(f"{file}: cannot be read as Parquet: {error}") from error


def _embedded(
    row: dict[str, Any], image: object, split: str | None, entries: Entries
) -> str | None:
    """Unpack the image of a row and give its name; None if the row has none."""
    if (data := bytes_of(image)) is None:
        return None
    if (name := name_of(row, image)) is None:
        # Rows with the same content are about one image.
        content = blake2b(data, digest_size=8).hexdigest()
        name = f"{row.get('split') or split or 'image'}/{content}"
    return entries.embed(name, unpack_image(data, name))


def bytes_of(image: object) -> bytes | None:
    """What a cell holds of an image's file; None for one that only names it, or is empty."""
    data = image.get("bytes") if isinstance(image, dict) else image
    return data if isinstance(data, bytes) and data else None


def name_of(row: dict[str, Any], image: object) -> str | None:
    """What the row calls its image, else the path beside the image's bytes; None if it does not."""
    names = [row.get(field) for field in NAME_FIELDS]
    names += [image.get("path") if isinstance(image, dict) else image]
    return next((name for name in names if isinstance(name, str) and name.strip()), None)
