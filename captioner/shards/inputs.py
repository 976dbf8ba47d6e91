"""What the inputs of a job are: archives, tables, lists of either, or images."""

from __future__ import annotations

import glob
import os
from collections.abc import Container, Sequence
from pathlib import Path, PurePosixPath

from captioner.data.parquet import IMAGE_FIELDS, columns_of
from captioner.data.tars import archive_stem, is_archive
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.kinds import suffix_of
from captioner.files.patterns import addresses_of, has_braces
from captioner.files.recognising import READ, VIDEO, recognise
from captioner.files.stores import exists, is_address, reached
from captioner.shards.lists import SUFFIXES
from captioner.shards.tasks import FILES, PARQUET, TAR

LIST = "list"
"""The kind of an input that names files or shards; the others are those of tasks."""


def looks_like_shards(path: str, kinds: Container[str]) -> bool:
    """Whether an input is not simply files on this machine, by its name alone.

    Args:
        path: or address.
        kinds: of shards, those that the work can read.
    """
    return is_address(path) or _kind_by_name(path, kinds) != FILES


def kind_of(paths: Sequence[str], kinds: Container[str]) -> str:
    """What the inputs are: `LIST`, or one of ``kinds``. Tables are looked into.

    Args:
        paths: the inputs.
        kinds: of shards, those that the work can read.

    Raises:
        CaptionerError: they are of several kinds, or the first one cannot be read.
    """
    found = {_kind_by_name(path, kinds) for path in paths}
    if len(found) > 1:
        raise CaptionerError(
            f"inputs of several kinds ({', '.join(sorted(found))}): give one kind after the other, "
            "each with an output of its own"
        )
    kind = found.pop()
    if kind == PARQUET and not _holds_images(first_of(paths[0])):
        return LIST
    return kind


def first_of(path: str) -> str:
    """The first file, which is there.

    Raises:
        CaptionerError: there is none.
    """
    first = next(addresses_of(path))
    if not reached(lambda: exists(first)):
        raise CaptionerError(f"{shown(first)} does not exist: check the path")
    return first


def base_of(paths: Sequence[str]) -> str:
    """The deepest folder that holds everything that is given, without a slash at its end."""
    folders = [_fixed_folder(path) for path in paths]
    common = os.path.commonprefix([folder.split("/") for folder in folders])
    return "/".join(common)


def shard_name(address: str, base: str) -> str:
    """What the output of an archive or a table is called: its path in the base, without suffix."""
    inside = absolute(address).removeprefix(base).lstrip("/")
    folder, slash, name = inside.rpartition("/")
    stem = archive_stem(name)
    return folder + slash + (stem if stem != name else name.rpartition(".")[0] or name)


def absolute(path: str) -> str:
    """An address as it is, a path from the root, with forward slashes."""
    return path if is_address(path) else os.path.abspath(path).replace(os.sep, "/")


def _kind_by_name(path: str, kinds: Container[str]) -> str:
    name = PurePosixPath(path)
    if not is_address(path) and (os.path.isdir(path) or recognise(Path(path)) in {*READ, VIDEO}):
        return FILES  # a folder, or an image or a video whatever its name says
    if is_archive(name):
        return TAR if TAR in kinds else FILES
    suffix = suffix_of(path)
    if suffix == ".parquet":
        return PARQUET if PARQUET in kinds else LIST
    return LIST if suffix in SUFFIXES else FILES


def _holds_images(file: str) -> bool:
    columns = reached(lambda: columns_of(file))
    return any(columns.get(field, False) for field in IMAGE_FIELDS)


def _fixed_folder(path: str) -> str:
    """The folder before the first brace or wildcard."""
    parts = absolute(path).split("/")[:-1]
    fixed = (n for n, part in enumerate(parts) if has_braces(part) or glob.has_magic(part))
    return "/".join(parts[: next(fixed, len(parts))])
