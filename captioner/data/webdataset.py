"""WebDataset archives: tar files in which an image and its captions have one name."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from captioner.data.entries import Entries
from captioner.data.shards import shard_split, shards_of
from captioner.data.tables import TEXT_FIELDS, add_record
from captioner.data.text_files import decode_text
from captioner.data.unpacking import unpack_image
from captioner.errors import CaptionerError

_IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "ppm")
_TEXTS = ("txt", "caption", "json")  # the first that is there counts


def find_tars(root: Path) -> list[Path]:
    """The archives in the folder or the folders in it, or the file itself if it is one."""
    if root.is_file():
        return [root] if root.suffix.lower() == ".tar" else []
    return shards_of(root, "*.tar")


def read_tars(files: list[Path], entries: Entries) -> None:
    """Read the archives; their images are unpacked into the cache.

    Raises:
        CaptionerError: an archive is broken, or what it says of an image is (named).
    """
    for file in files:
        split = shard_split(file, entries.base)
        for key, members in _samples(file):
            image = next((suffix for suffix in _IMAGES if suffix in members), None)
            text = next((suffix for suffix in _TEXTS if suffix in members), None)
            where = f"{file}, {key}"
            if image is None or text is None:
                what = "an image" if image is None else "a caption"
                entries.count(f"sample{{s}} without {what} left out", where)
                continue
            name = f"{key}.{image}"
            name = entries.embed(name, unpack_image(members[image], name))
            record = _record(members[text], text, f"{where}.{text}")
            add_record({**record, "file_name": name}, where, entries, split=split)


def _samples(file: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(name, content by suffix) of the files that stand together under one name."""
    try:
        with tarfile.open(file, "r:") as archive:
            # A sparse member may announce any size.
            members = (m for m in archive if m.isreg() and not m.issparse() and _is_ours(m.name))
            for key, group in groupby(members, lambda member: _parts(member.name)[0]):
                content = {}
                for member in group:
                    stream = archive.extractfile(member)
                    assert stream is not None
                    content[_parts(member.name)[1]] = stream.read()
                yield key, content
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise CaptionerError(f"{file}: cannot be read as a tar archive: {error}") from error


def _parts(name: str) -> tuple[str, str]:
    """`sub/7.jpg` -> `sub/7`, `jpg`: a name ends at the first dot after the last slash."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    key, _, suffix = base.partition(".")
    return folder + slash + key, suffix.lower()


def _is_ours(name: str) -> bool:
    key, suffix = _parts(name)
    return key.rpartition("/")[2] != "" and suffix in (*_IMAGES, *_TEXTS)


def _record(data: bytes, suffix: str, where: str) -> dict[str, object]:
    text = decode_text(data, where)
    if suffix != "json":
        return {"text": [line for line in text.split("\n") if line.strip()]}
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CaptionerError(f"{where}: not valid JSON: {error}") from error
    if isinstance(record, list):
        return {"text": record}
    if not isinstance(record, dict):
        raise CaptionerError(f'{where}: not an object like {{"caption": ...}}')
    return {
        field: record[field] for field in (*TEXT_FIELDS, "split", "image_id") if field in record
    }
