"""The shards of a job, listed lazily: memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from itertools import chain, islice
from pathlib import PurePosixPath
from typing import Any

from captioner.data.tars import is_archive
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.kinds import suffix_of
from captioner.files.patterns import addresses_of, count_of
from captioner.files.stores import is_address, is_on_web, joined, local_path, names_in, reached
from captioner.shards.inputs import (
    LIST,
    absolute,
    base_of,
    first_of,
    kind_of,
    shard_name,
)
from captioner.shards.job import ShardJob
from captioner.shards.lists import read_list
from captioner.shards.tasks import FILES, PARQUET, TAR, ShardTask
from captioner.shards.work import Work

STATE = ".captioner"
"""The hidden folder in the output, with what is known of the job."""


class ShardPlan:
    """Which shards a job has.

    Args:
        job: what is to be done.
        model_sha256: of the model's file.

    Attributes:
        total: how many shards these are; None where only the work itself will tell.
        kind: of the inputs, as `captioner.shards.inputs.kind_of` says it.

    Raises:
        CaptionerError: an input cannot be read, or leads to nothing.
    """

    def __init__(self, job: ShardJob, model_sha256: str) -> None:
        self._job = job
        self._sha256 = model_sha256
        self._paths = job.work.paths
        place = local_path(job.folder)
        # Workers may have another current folder.
        self._folder = job.folder if place is None else absolute(str(place))
        self._parts = None if place is None else joined(self._folder, f"{STATE}/parts")
        self.kind = kind_of(self._paths, job.work.kinds)
        if self.kind != FILES:
            for path in self._paths:
                first_of(path)
        self.total = self._count()

    @property
    def is_numbered(self) -> bool:
        """Whether shards are called by their number and what is in them, and not by the input."""
        return self.kind in (FILES, LIST)

    def describe(self) -> dict[str, Any]:
        """What decides which shard has which name, JSON primitives."""
        options = self._job.options
        if not self.is_numbered:
            return {"kind": self.kind, "base": base_of(self._paths)}
        about: dict[str, Any] = {
            "kind": self.kind,
            "paths": [absolute(path) for path in self._paths],
            "shard_size": options.shard_size,
        }
        if self.kind == LIST:
            return {**about, "column": options.column or None}
        return {**about, **self._job.work.describe_search()}

    def tasks(self) -> Iterator[ShardTask]:
        """All shards, in their order.

        Raises:
            CaptionerError: a list or a folder cannot be read.
        """
        if self.is_numbered:
            return self._numbered(self._files())
        return self._named()

    def _count(self) -> int | None:
        if not self.is_numbered:
            counts = [count_of(path) for path in self._paths]
            found = (
                sum(1 for _ in addresses_of(path)) if count is None else count
                for path, count in zip(self._paths, counts, strict=True)
            )
            return sum(found)
        if self.kind == FILES and not any(map(is_address, self._paths)):
            # As for one file: what is there is counted before the work.
            return -(-sum(1 for _ in self._files()) // self._job.options.shard_size)
        return None

    def _named(self) -> Iterator[ShardTask]:
        base, last = base_of(self._paths), None
        for address in chain.from_iterable(map(addresses_of, self._paths)):
            name = shard_name(address, base)
            if name == last:
                raise CaptionerError(
                    f"two shards are called {shown(name)} (one is {shown(address)}): rename one"
                )
            last = name
            yield self._task(name, self.kind, address)

    def _numbered(self, files: Iterator[tuple[str, str]]) -> Iterator[ShardTask]:
        number = 0
        work, first = self._job.work, next(files, None)
        if first is None:
            raise CaptionerError(f"{shown(self._paths[0])}: there are no {work.noun}s in it")
        files, kind = chain([first], files), _kind_of_row(first[0], work.kinds)
        size = self._job.options.shard_size if kind == FILES else 1
        while group := tuple(islice(files, size)):
            digest = blake2b(digest_size=4)
            for _, name in group:
                digest.update(name.encode("utf-8", "surrogatepass") + b"\0")
            name = f"{number:06d}-{digest.hexdigest()}"
            if kind == FILES:
                yield replace(self._task(name, FILES, ""), files=group)
            else:
                yield self._task(name, kind, group[0][0])
            number += 1

    def _files(self) -> Iterator[tuple[str, str]]:
        """Path or address, and name, of each file, or of each shard in a list."""
        if self.kind == LIST:
            column = self._job.options.column.strip().lower()
            columns = (column,) if column else self._job.work.columns
            for file in chain.from_iterable(map(addresses_of, self._paths)):
                yield from read_list(file, columns)
        elif any(map(is_address, self._paths)):
            yield from _remote_files(self._job.work)
        else:
            for found in self._job.work.find():
                yield absolute(str(found.path)), found.name

    def _task(self, name: str, kind: str, address: str) -> ShardTask:
        job = self._job
        return ShardTask(
            name=name,
            kind=kind,
            address=absolute(address) if address else "",
            output=joined(self._folder, f"{name}.{job.format}"),
            format=job.format,
            work=job.work,
            model_sha256=self._sha256,
            parts=self._parts,
        )


def _names_in(folder: str) -> list[str]:
    return [*names_in(folder)]


def _kind_of_row(address: str, kinds: Container[str]) -> str:
    is_table = suffix_of(address) == ".parquet"
    kind = TAR if is_archive(PurePosixPath(address)) else PARQUET if is_table else FILES
    return kind if kind in kinds else FILES


def _remote_files(work: Work) -> Iterator[tuple[str, str]]:
    base = base_of(work.paths)
    for path in work.paths:
        suffixes = work.suffixes(path)
        for address in addresses_of(path):
            if suffix_of(address) in suffixes or is_on_web(address):
                yield address, absolute(address).removeprefix(base).lstrip("/")
                continue
            for name in sorted(reached(partial(_names_in, address))):
                if suffix_of(name) in suffixes:
                    found = joined(address.rstrip("/"), name)
                    yield found, absolute(found).removeprefix(base).lstrip("/")
