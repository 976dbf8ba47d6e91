"""WebDataset archives: tar files in which an image and its captions have one name."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from captioner.data.entries import Entries
from captioner.data.fields import add_record, text_fields
from captioner.data.samples import WITHOUT_CAPTION, Count, Sample, captions_in
from captioner.data.shards import shard_split, shards_of
from captioner.data.tars import MAX_BYTES, is_archive, tar_members
from captioner.data.text_files import decode_text
from captioner.data.unpacking import unpack_image
from captioner.errors import CaptionerError

_IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "ppm")
_TEXTS = ("txt", "caption", "json")  # the first that is there counts


def find_tars(root: Path) -> list[Path]:
    """The archives in the folder or the folders in it, or the file itself if it is one."""
    if root.is_file():
        return [root] if is_archive(root) else []
    return shards_of(root, is_archive)


def read_tars(files: list[Path], entries: Entries) -> None:
    """Read the archives; their images are unpacked into the cache.

    Raises:
        CaptionerError: an archive is broken, or what it says of an image is (named).
    """
    for file in files:
        split = shard_split(file, entries.base)
        for key, members in _samples(file):
            image, text = _suffix_of(_IMAGES, members), _suffix_of(_TEXTS, members)
            where = f"{file}, {key}"
            if image is None or text is None:
                what = "an image" if image is None else "a caption"
                entries.count(f"sample{{s}} without {what} left out", where)
                continue
            name = f"{key}.{image}"
            name = entries.embed(name, unpack_image(members[image], name))
            record = _record(members[text], _kind(text), f"{where}.{text}")
            add_record({**record, "file_name": name}, where, entries, split=split)


def tar_samples(address: str, first: int, count: Count) -> Iterator[Sample]:
    """The samples of an archive that have captions, in their order.

    Args:
        address: a path, or an address of `captioner.files.stores`.
        first: place of the first one whose image is read.
        count: of what is left out.

    Raises:
        CaptionerError: the archive is broken, or cannot be read.
        captioner.files.stores.StoreUnreachable: the store does not answer.
    """
    place = 0
    members = tar_members(address, _is_ours)
    for key, group in itertools.groupby(members, lambda member: _parts(member.name)[0]):
        content: dict[str, bytes | None] = {}
        for member in group:
            suffix = _parts(member.name)[1]
            is_read = place >= first or _kind(suffix) in _TEXTS
            content[suffix] = member.read() if is_read and member.size_bytes <= MAX_BYTES else None
        image, text = _suffix_of(_IMAGES, content), _suffix_of(_TEXTS, content)
        where = f"{address}, {key}"
        if image is None:
            count("sample{s} without an image left out", where)
        elif captions := _captions_of(content, text, where, count):
            yield Sample(f"{key}.{image}", captions, content[image])
            place += 1


def _captions_of(
    content: Mapping[str, bytes | None], text: str | None, where: str, count: Count
) -> tuple[str, ...]:
    """The captions in one of the members; where there are none, that is counted."""
    captions: tuple[str, ...] = ()
    if text is not None:
        try:
            captions = captions_in(_record(content[text] or b"", _kind(text), f"{where}.{text}"))
        except CaptionerError as error:
            count("sample{s} left out because a caption cannot be read", str(error))
            return ()
    if not captions:
        count(WITHOUT_CAPTION, where)
    return captions


def _samples(file: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(name, content by suffix) of the files that stand together under one name."""
    members = tar_members(file, _is_ours)
    for key, group in itertools.groupby(members, lambda member: _parts(member.name)[0]):
        content = {}
        for member in group:
            if member.size_bytes > MAX_BYTES:
                raise CaptionerError(
                    f"{file}, {member.name}: {member.size_bytes} bytes are too many (limit "
                    f"{MAX_BYTES}); take it out of the archive"
                )
            content[_parts(member.name)[1]] = member.read()
        yield key, content


def _suffix_of(kinds: Sequence[str], members: Collection[str]) -> str | None:
    """The member that is of the first kind, by its whole suffix or else by the end of it."""
    whole = (kind for kind in kinds if kind in members)
    ends = (suffix for kind in kinds for suffix in members if _kind(suffix) == kind)
    return next(itertools.chain(whole, ends), None)


def _kind(suffix: str) -> str:
    """`caption.txt` -> `txt`."""
    return suffix.rpartition(".")[2]


def _parts(name: str) -> tuple[str, str]:
    """`sub/7.jpg` -> `sub/7`, `jpg`: a name ends at the first dot after the last slash."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    key, _, suffix = base.partition(".")
    return folder + slash + key, suffix.lower()


def _is_ours(name: str) -> bool:
    key, suffix = _parts(name)
    return key.rpartition("/")[2] != "" and _kind(suffix) in (*_IMAGES, *_TEXTS)


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
    record = {field.strip().lower(): value for field, value in record.items()}
    kept = (*text_fields(record), "split", "image_id", "cocoid")
    return {field: record[field] for field in kept if field in record}
