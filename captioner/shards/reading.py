"""The images of one shard, in its order, whatever it is."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from captioner.data.fields import NAME_FIELDS
from captioner.data.parquet import IMAGE_FIELDS, bytes_of, name_of, parquet_rows
from captioner.data.tars import Member, tar_members
from captioner.errors import CaptionerError
from captioner.files.finding import SourceFile, why_unreadable
from captioner.files.kinds import suffix_of
from captioner.files.stores import StoreUnreachable, is_on_web, local_path, read_file
from captioner.images.kinds import IMAGES
from captioner.images.reading import MAX_BYTES, ImageError
from captioner.shards.tasks import FILES, PARQUET, TAR, ShardTask

Files: TypeAlias = Generator[SourceFile, None, None]


def read_shard(task: ShardTask) -> Files:
    """The images of a shard, lazily.

    Raises:
        CaptionerError: it cannot be read.
        captioner.files.stores.StoreUnreachable: a store does not answer; raised too by what
            loads an image.
    """
    return _READERS[task.kind](task)


def _in_tar(task: ShardTask) -> Files:
    for member in tar_members(task.address, _is_image):
        yield _source(member.name.removeprefix("./"), _content_of(member))


def _is_image(name: str) -> bool:
    base = PurePosixPath(name).name
    return not base.startswith(".") and suffix_of(base) in IMAGES.suffixes


def _content_of(member: Member) -> Callable[[], bytes]:
    if member.size_bytes > MAX_BYTES:
        return partial(_refuse, f"{member.size_bytes} bytes are too many (limit {MAX_BYTES})")
    return partial(_same, member.read())


def _in_parquet(task: ShardTask) -> Files:
    has_image = False
    for number, row in enumerate(parquet_rows(task.address, {*IMAGE_FIELDS, *NAME_FIELDS})):
        field = next((field for field in IMAGE_FIELDS if field in row), None)
        if field is None:
            break
        has_image = True
        image = row.pop(field)
        data = bytes_of(image)
        # As on the Hub, the path beside the bytes is the name; else another column may say it.
        own = image.get("path") if isinstance(image, dict) else None
        name = own or name_of(row, None) or f"{number:08d}"
        load = partial(_refuse, "the row has no image") if data is None else partial(_same, data)
        yield _source(name, load)
    if not has_image:
        raise CaptionerError(
            f"{task.address}: there is no row with an image in {' or '.join(IMAGE_FIELDS)}"
        )


def _in_files(task: ShardTask) -> Files:
    for address, name in task.files:
        path = local_path(address)
        if path is not None and task.format != TAR:
            yield SourceFile(path, name)
        else:  # In an archive what was read is written again.
            yield SourceFile(path or Path(name), name, load=cache(partial(_load, address)))


_READERS: dict[str, Callable[[ShardTask], Files]] = {
    TAR: _in_tar,
    PARQUET: _in_parquet,
    FILES: _in_files,
}


def _source(name: str, load: Callable[[], bytes]) -> SourceFile:
    return SourceFile(Path(name), name, load=load)


def _same(data: bytes) -> bytes:
    return data


def _refuse(reason: str) -> bytes:
    raise ImageError(reason)


def _load(address: str) -> bytes:
    """What lies at an address; where that is nothing to read, it is this image's error."""
    path = local_path(address)
    try:
        if path is not None and (problem := why_unreadable(path)):
            raise ImageError(problem)
        return read_file(address, MAX_BYTES + 1)
    except FileNotFoundError:
        raise ImageError("file not found") from None
    except PermissionError:
        raise ImageError("permission denied") from None
    except StoreUnreachable as error:
        if not is_on_web(address):
            raise
        # Of the web's servers, some are gone for good.
        raise ImageError(f"cannot be fetched ({error.reason})") from None
    except OSError as error:
        raise ImageError(f"cannot be fetched ({error})") from None
