"""How many samples the shards of a stream have, and their words: counted once, then remembered."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tqdm import tqdm

from captioner.data.entries import LeftOut
from captioner.data.samples import NO_IMAGES
from captioner.data.streams import Stream, find_shards, read_shard
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.stores import is_address, reached, size_of
from captioner.files.writing import replace_bytes

MAX_TEXTS = 100_000
"""Images whose captions are kept, to learn words from; COCO has as many."""

_SAVE_EVERY_S = 60.0
_ASKED_AT_ONCE = 16  # a store, for the sizes of shards
_VERSION = 1  # of what counts as a sample


@dataclass
class _Index:
    """What is known of the first shards, in the order in which they are counted."""

    counts: list[int] = field(default_factory=list)
    captions: list[tuple[str, ...]] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)


def open_stream(
    root: str, format: str, cache_dir: Path, *, progress: bool = True
) -> tuple[Stream, tuple[str, ...]]:
    """A stream whose samples are counted: now, or in an earlier run.

    Tar archives are read once for that, without decoding images; of tables, the captions alone.

    Args:
        root: a pattern or an address that names the shards.
        format: `auto`, `webdataset` or `parquet`.
        cache_dir: where counts are kept, by the names and sizes of the shards.
        progress: whether to show a bar.

    Returns:
        The stream, and a sentence for each kind of sample that is left out.

    Raises:
        CaptionerError: there is no such shard, no sample in any, or one cannot be read.
    """
    format, shards = find_shards(root, format)
    path = cache_dir / "streams" / f"{_identity(format, shards)}.json.gz"
    # In random order, so that the captions that are kept come from everywhere.
    order = random.Random(0).sample(range(len(shards)), len(shards))
    index = _load(path) or _Index()
    if len(index.counts) < len(shards):
        _count([shards[place] for place in order], format, index, path, progress)
    if not any(index.counts):
        kinds = "".join(f"; {text}" for text in index.left_out.warnings())
        raise CaptionerError(f"{shown(root)}: there is no image with a caption in it{kinds}")
    counts = [0] * len(shards)
    for place, count in zip(order, index.counts, strict=True):
        counts[place] = count
    return Stream(root, format, shards, counts, index.captions), index.left_out.warnings()


def _identity(format: str, shards: Sequence[str]) -> str:
    """Differs where a shard has another name or size."""
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as askers:
        sizes = reached(lambda: list(askers.map(size_of, shards)))
    names = [shard if is_address(shard) else os.path.abspath(shard) for shard in shards]
    known = json.dumps([_VERSION, format, names, sizes])
    return hashlib.blake2b(known.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _count(shards: Sequence[str], format: str, index: _Index, path: Path, progress: bool) -> None:
    """Count the shards that the index lacks, and keep it while that lasts."""
    saved = time.monotonic()
    bar = tqdm(
        total=len(shards),
        initial=len(index.counts),
        desc="counting images",
        unit="shard",
        disable=None if progress else True,
    )
    with bar:
        for shard in shards[len(index.counts) :]:
            room = MAX_TEXTS - len(index.captions)
            count, captions, left_out = reached(partial(_count_shard, shard, format, room))
            index.counts.append(count)
            index.captions += captions
            index.left_out.add_counts(left_out)
            bar.update()
            if time.monotonic() - saved > _SAVE_EVERY_S:
                _save(path, index)
                saved = time.monotonic()
    _save(path, index)


def _count_shard(
    address: str, format: str, room: int
) -> tuple[int, list[tuple[str, ...]], LeftOut]:
    """Samples of a shard, the captions of the first `room` of them, and what is left out."""
    count, captions, left_out = 0, list[tuple[str, ...]](), LeftOut()
    try:
        for sample in read_shard(address, format, NO_IMAGES, left_out.count):
            count += 1
            if len(captions) < room:
                captions.append(sample.captions)
    except CaptionerError as error:
        if not count:
            raise
        left_out.count("shard{s} read up to where broken", str(error))
    return count, captions, left_out


def _load(path: Path) -> _Index | None:
    """What an earlier run has counted, perhaps not to its end; None if nothing is there."""
    try:
        found = json.loads(gzip.decompress(path.read_bytes()))
        left_out = LeftOut()
        for what, (number, first) in found["left_out"].items():
            left_out.count(what, first, number)
        return _Index(list(found["counts"]), [tuple(each) for each in found["captions"]], left_out)
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise CaptionerError(
            f"{shown(path)}: cannot be read ({error}); delete it, and the images are counted again"
        ) from error


def _save(path: Path, index: _Index) -> None:
    kept = {
        "counts": index.counts,
        "captions": index.captions,
        "left_out": index.left_out.counts,
    }
    replace_bytes(path, [gzip.compress(json.dumps(kept).encode(), mtime=0)])
