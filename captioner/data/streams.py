"""Sets of archives or tables that are read while training runs, and need not fit a disk."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, islice
from pathlib import Path, PurePosixPath

from captioner.data.datasets import CaptionData, Example
from captioner.data.entries import LeftOut
from captioner.data.parquet import table_samples
from captioner.data.samples import Count, Sample
from captioner.data.tars import is_archive
from captioner.data.unpacking import unpack_image
from captioner.data.webdataset import tar_samples
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.kinds import suffix_of
from captioner.files.patterns import addresses_of, is_pattern
from captioner.files.stores import check_store, is_address, reached, retried

_READERS: dict[str, Callable[[str, int, Count], Iterator[Sample]]] = {
    "webdataset": tar_samples,
    "parquet": table_samples,
}
"""Name of a format -> its reader."""


@dataclass(frozen=True)
class Stream:
    """A set whose shards are read again in every epoch, and never kept.

    Attributes:
        root: the pattern or address that names the shards.
        format: `webdataset` or `parquet`.
        shards: paths or addresses of archives or tables.
        counts: how many samples each has.
        captions: those of each sample of some shards, to learn words from.
    """

    root: str
    format: str
    shards: Sequence[str]
    counts: Sequence[int]
    captions: Sequence[tuple[str, ...]]

    @property
    def images(self) -> int:
        """How many samples there are."""
        return sum(self.counts)

    @property
    def name(self) -> str:
        """What it is called: the folder that the shards are in."""
        return PurePosixPath(self.root).parent.name or "data"

    @property
    def firsts(self) -> list[int]:
        """The place of each shard's first sample in the set; the last item is their number."""
        return [0, *accumulate(self.counts)]

    def samples(self, shard: int, first: int, last: int) -> Iterator[Sample]:
        """The samples of a shard from place `first` to before `last`.

        A store that does not answer is waited for.

        Raises:
            CaptionerError: the shard cannot be read, or has fewer samples than were counted.
        """
        address, place = self.shards[shard], first

        def without(done: int) -> Iterator[Sample]:
            samples = read_shard(address, self.format, first + done, _ignore)
            return islice(samples, first + done, last)

        for sample in retried(without):
            yield sample
            place += 1
        if place < last:
            raise CaptionerError(
                f"{shown(address)}: has fewer samples with captions than were counted ({place}, "
                f"and not {self.counts[shard]}): give a changed shard another name"
            )


def is_streamed(root: str) -> bool:
    """Whether it names shards, not what is looked for in a folder: a pattern or an address."""
    return is_address(root) or is_pattern(os.path.expanduser(root))


def find_shards(root: str, format: str = "auto") -> tuple[str, list[str]]:
    """The format, and the shards that a pattern or an address stands for, in their order.

    Args:
        root: the pattern or address.
        format: the one that is expected; `auto`: the names of the shards say it.

    Raises:
        CaptionerError: there are none, they are of several formats or of another one, or the store
            does not answer.
    """
    check_store(root)
    shards = list(addresses_of(os.path.expanduser(root)))
    found = {_format_of(shard): shard for shard in shards}
    if len(found) > 1:
        one, other, *_ = found.values()
        raise CaptionerError(
            f"{shown(root)}: {shown(one)} and {shown(other)} are of two formats; name shards of one"
        )
    (only,) = found
    if format not in ("auto", only):
        raise CaptionerError(
            f"data.format={format}: what {shown(root)} names is {only}; leave the format out"
        )
    return only, shards


def _format_of(shard: str) -> str:
    if is_archive(PurePosixPath(shard)):
        return "webdataset"
    if suffix_of(shard) == ".parquet":
        return "parquet"
    raise CaptionerError(
        f"{shown(shard)}: patterns and addresses name tar archives or Parquet tables; give a "
        "folder or a file on this machine for any other format"
    )


def read_shard(address: str, format: str, first: int, count: Count) -> Iterator[Sample]:
    """The samples of a shard that have captions; see `tar_samples` and `table_samples`."""
    return _READERS[format](address, first, count)


def unpack_stream(root: str) -> CaptionData:
    """A small set, all its images unpacked into the cache; it validates the training on another.

    Raises:
        CaptionerError: there are no such shards, or one cannot be read.
    """
    format, shards = find_shards(root)
    left_out, twins = LeftOut(), Counter[str]()
    examples = []
    for shard in shards:
        found, counted = reached(partial(_unpack_shard, shard, format))
        left_out.add_counts(counted)
        for example in found:
            twins[example.image_id] += 1
            if (number := twins[example.image_id]) > 1:
                example = replace(example, image_id=f"{example.image_id}#{number}")
            examples.append(example)
    if not examples:
        raise CaptionerError(f"{shown(root)}: there is no image with a caption in it")
    return CaptionData(format, Path(root), tuple(examples), left_out.warnings())


def _unpack_shard(address: str, format: str) -> tuple[list[Example], LeftOut]:
    found, left_out = [], LeftOut()
    for sample in read_shard(address, format, 0, left_out.count):
        if sample.image is None:
            left_out.count("sample{s} without an image left out", f"{address}, {sample.name}")
        else:
            path = unpack_image(sample.image, sample.name)
            found.append(Example(sample.name, path, sample.captions))
    return found, left_out


def _ignore(what: str, example: str) -> None:
    """What is left out was counted once, with the samples."""
