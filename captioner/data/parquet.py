"""Parquet tables of captions, with the names of images or the images themselves in them."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from captioner.data.entries import Entries
from captioner.data.shards import shard_split, shards_of
from captioner.data.tables import NAME_FIELDS, TEXT_FIELDS, add_record, folder_of_names
from captioner.data.unpacking import unpack_image
from captioner.errors import CaptionerError

_ROWS = 64  # read at once, with their images
_TEXTS = frozenset(TEXT_FIELDS) | {"caption_0", "caption_1", "caption0", "caption1"}


def find_parquet(root: Path) -> list[Path]:
    """Tables with a column for images and one for captions; see `shards_of` for the places."""
    if root.is_file():
        return [root] if root.suffix.lower() == ".parquet" else []
    files = shards_of(root, "*.parquet")
    if not files:
        return []
    if find_spec("pyarrow") is None:
        # Tables beside archives only describe these, as img2dataset writes them.
        return [] if shards_of(root, "*.tar") else files
    return [file for file in files if _has_captions(file)]


def _has_captions(file: Path) -> bool:
    with _open(file) as table:
        columns = set(table.schema_arrow.names)
    return bool(columns & set(NAME_FIELDS) and columns & _TEXTS)


def read_parquet(files: list[Path], entries: Entries) -> None:
    """Read the tables; images in them are unpacked into the cache.

    Raises:
        CaptionerError: pyarrow is not installed, a table is broken, or a row is (named).
    """
    for file in files:
        split = shard_split(file, entries.base)
        for number, row in enumerate(_rows(file), 1):
            where = f"{file}, row {number}"
            name = _embedded(row, split, entries)
            if name is not None:
                add_record({**row, NAME_FIELDS[0]: name}, where, entries, split=split)
            else:
                folder = folder_of_names(file, entries.base) if file.stem == "metadata" else ""
                add_record(_with_path(row), where, entries, folder=folder, split=split)


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


def _embedded(row: dict[str, Any], split: str | None, entries: Entries) -> str | None:
    """Unpack the image of a row and give its name; None if the row has none."""
    image = row.get("image")
    data = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(data, bytes):
        return None
    names = [row.get(field) for field in NAME_FIELDS]
    if isinstance(image, dict):
        names.append(image.get("path"))
    name = next((n for n in names if isinstance(n, str) and n.strip()), None)
    if name is None:
        # Rows with the same content are about one image.
        content = blake2b(data, digest_size=8).hexdigest()
        name = f"{row.get('split') or split or 'image'}/{content}"
    return entries.embed(name, unpack_image(data, name))


def _with_path(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the path in the place of an image that has nothing else."""
    image = row.get("image")
    return {**row, "image": image.get("path")} if isinstance(image, dict) else row
