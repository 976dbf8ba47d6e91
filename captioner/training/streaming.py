"""Batches of images that are read out of archives or tables while training runs.

An epoch is a sequence of images: the shards in random order, each from its beginning to its end.
Every process takes a part of it, and of that every worker a lane, which it reads once and forwards;
between reading and decoding, images wait in a window, out of which they are drawn at random. All of
that follows from the seed, the epoch and the number of processes and workers, so that a resumed run
can tell what it has seen.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler
from tqdm import tqdm

from captioner.data.datasets import Example
from captioner.data.samples import Sample
from captioner.data.streams import Stream
from captioner.data.tars import MAX_BYTES
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.images.reading import ImageError, read_image
from captioner.images.transform import ImageTransform
from captioner.text.tokenizer import Tokenizer
from captioner.training.batches import Batch, LazyLoader, RandomView, caption_ids, collate

SHOWN_IMAGES = 10
"""So many images that cannot be read are named; the others are only counted."""
_TRIES = 1000  # images, to find one that can be read

Item: TypeAlias = tuple[Tensor, list[list[int]], int, int]
"""An image with its captions, as `collate` takes it."""


Read: TypeAlias = "tuple[Batch, list[str]] | CaptionerError"
"""A batch, with a line for each image that is left out; or what ends the training.

An error that is raised in a worker would come with a traceback.
"""


class Placed(NamedTuple):
    """A sample, its place in the set, and the shard that it is in."""

    place: int
    shard: str
    sample: Sample


def windowed(positions: Iterable[int], window: int, draw: random.Random) -> Iterator[int]:
    """The positions in an order that looks ahead by no more than the window."""
    held: list[int] = []
    for position in positions:
        held.append(position)
        if len(held) >= window:
            chosen = draw.randrange(len(held))
            held[chosen], held[-1] = held[-1], held[chosen]
            yield held.pop()
    draw.shuffle(held)
    yield from held


@dataclass(frozen=True)
class Share:
    """The part of an epoch's sequence that one process reads, and how it is cut.

    All processes have the same number of batches, which differ by one image at most; each worker
    has every nth batch, and reads those images that lie together.

    Args:
        images: in an epoch, of all processes.
        batch_size: most images in a batch.
        lanes: number of workers.
        rank: number of this process.
        processes: how many there are.

    Raises:
        CaptionerError: there are fewer images than processes.
    """

    images: int
    batch_size: int
    lanes: int = 1
    rank: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        if self.images < self.processes:
            raise CaptionerError(
                f"data.root: {self.images} images are too few for {self.processes} processes"
            )

    @property
    def first(self) -> int:
        """The position where this process begins."""
        return self.images * self.rank // self.processes

    @property
    def last(self) -> int:
        """The position before which it ends."""
        return self.images * (self.rank + 1) // self.processes

    @property
    def batches(self) -> int:
        """How many an epoch has, in each process."""
        most = -(-self.images // self.processes)
        return -(-most // self.batch_size)

    def lane(self, number: int) -> tuple[int, int]:
        """The first batch of a worker, and the one after its last, in the order of the sequence."""
        counts = [len(range(each, self.batches, self.lanes)) for each in range(number + 1)]
        return sum(counts[:-1]), sum(counts)

    def begin(self, batch: int) -> int:
        """The position where a batch begins, by its place in the order of the sequence."""
        # Rounded up, so that the first one has an image in any case.
        return self.first - (self.first - self.last) * batch // self.batches


class StreamedBatches(Dataset[Read]):
    """The batches of a process, each with a line for every image in it that cannot be read.

    An item is asked for by (epoch, number). Asked for one after the other, those of a lane cost
    one reading; any other takes reading from where it may be. Such a batch has images alone that
    can be read; where none can, it has one of another batch, and says that it is repeated.

    Args:
        stream: where the images are.
        share: what this process has of them.
        tokenizer: turns words into ids.
        transform: how an image becomes the encoder's input.
        max_words: longer captions are cut.
        view: draws random views; None for the whole image.
        window: images among which the next one is drawn.
        seed: of the whole run.
    """

    def __init__(
        self,
        stream: Stream,
        share: Share,
        tokenizer: Tokenizer,
        transform: ImageTransform,
        *,
        max_words: int,
        view: RandomView | None,
        window: int,
        seed: int,
    ) -> None:
        self.stream, self.share = stream, share
        self.tokenizer, self.transform, self.max_words = tokenizer, transform, max_words
        self.view, self.window, self.seed = view, window, seed
        self._firsts = stream.firsts
        self._lane: Iterator[Placed] = iter(())
        self._next: tuple[int, int] | None = None
        """Epoch and number of the batch that comes next in the lane."""

    def __len__(self) -> int:
        return self.share.batches

    def __getitem__(self, key: tuple[int, int]) -> Read:
        try:
            return self._batch(*key)
        except CaptionerError as error:
            return error

    def _batch(self, epoch: int, number: int) -> tuple[Batch, list[str]]:
        begin, (first, last) = self.share.begin, self.share.lane(number % self.share.lanes)
        place = first + number // self.share.lanes
        if self._next != (epoch, number):
            seen = begin(place) - begin(first)
            self._lane = self._in_window(epoch, begin(first), begin(last), seen)
        chosen = islice(self._lane, begin(place + 1) - begin(place))
        self._next = (epoch, number + self.share.lanes)
        bad: list[str] = []
        items = list(self._readable(epoch, chosen, bad))
        return collate(items or [self._repeated(epoch)]), bad

    def _in_window(self, epoch: int, first: int, last: int, seen: int) -> Iterator[Placed]:
        """The samples of a lane from the first to before the last position, but those seen."""
        order = windowed(
            range(first, last), self.window, random.Random(f"{self.seed}/{epoch}/{first}")
        )
        wanted = bytearray(b"\1") * (last - first)
        for position in islice(order, seen):
            wanted[position - first] = 0
        found = self._in_sequence(epoch, first, wanted)
        held: dict[int, Placed] = {}
        for position in order:
            while position not in held:
                at, placed = next(found)
                held[at] = placed
            yield held.pop(position)

    def _in_sequence(
        self, epoch: int, first: int, wanted: bytearray
    ) -> Iterator[tuple[int, Placed]]:
        """The wanted samples from a position on, in the order in which they are read."""
        last = first + len(wanted)
        end = 0
        for shard in self._shards(epoch):
            begin, end = end, end + self.stream.counts[shard]
            found = wanted.find(1, max(0, begin - first), max(0, end - first))
            if found < 0:
                continue
            start = first + found
            samples = self.stream.samples(shard, start - begin, min(last, end) - begin)
            for position, sample in enumerate(samples, start):
                if wanted[position - first]:
                    place = self._firsts[shard] + position - begin
                    yield position, Placed(place, self.stream.shards[shard], sample)

    def _shards(self, epoch: int) -> list[int]:
        """The order of the shards in an epoch."""
        draw = random.Random(f"{self.seed}/{epoch}/shards")
        count = len(self.stream.shards)
        return draw.sample(range(count), count)

    def _readable(self, epoch: int, found: Iterable[Placed], bad: list[str]) -> Iterator[Item]:
        """Those that can be read; the others are named in `bad`."""
        for placed in found:
            try:
                yield self._item(epoch, placed)
            except ImageError as error:
                bad.append(f"{placed.shard}, {placed.sample.name}: {error.reason}")

    def _repeated(self, epoch: int) -> Item:
        """An image of this process, whose index says that it is repeated."""
        share, bad = self.share, list[str]()
        wanted = bytearray(b"\1") * (share.last - share.first)
        found = (placed for _, placed in self._in_sequence(epoch, share.first, wanted))
        for image, ids, place, style in self._readable(epoch, islice(found, _TRIES), bad):
            return image, ids, -1 - place, style
        raise CaptionerError(f"data.root: none of {len(bad)} images can be read ({shown(bad[0])})")

    def _item(self, epoch: int, placed: Placed) -> Item:
        sample = placed.sample
        if sample.image is None:
            raise ImageError(f"there is no image, or one of more than {MAX_BYTES} bytes")
        path = Path(sample.name)
        image = read_image(path, min_side=self.transform.min_side, data=sample.image)
        if self.view is not None:
            image = self.view(image, Example(sample.name, path, sample.captions), epoch)
        ids = [caption_ids(self.tokenizer, text, self.max_words) for text in sample.captions]
        return self.transform(image), ids, placed.place, 0


class BatchNumbers(DistributedSampler[tuple[int, int]]):
    """Pairs (epoch, number of a batch).

    Args:
        count: of batches in an epoch.
        start: asked at the beginning of an epoch for the number of batches to leave out.
    """

    def __init__(self, count: int, start: Callable[[], int]) -> None:
        # What each process has is settled: Lightning would put one that divides in its place.
        super().__init__(cast(Any, range(count)), 1, 0, shuffle=False)
        self.count, self.start = count, start

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(self.epoch, number) for number in range(self.start(), self.count)])


class StreamLoader(LazyLoader):
    """Batches of a stream; what cannot be read is reported where the progress is shown.

    Args:
        batches: those of this process.
        start: asked at the beginning of an epoch for the number of batches to leave out.
        workers: processes that read; as many as the batches have lanes, or 0.
    """

    def __init__(self, batches: StreamedBatches, start: Callable[[], int], workers: int) -> None:
        super().__init__(
            batches,
            batch_size=None,
            sampler=BatchNumbers(len(batches), start),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
        self._known: set[str] = set()

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Batches of one epoch."""
        count = 0
        for read in cast(Iterable[Read], super().__iter__()):
            if isinstance(read, CaptionerError):
                raise read
            batch, bad = read
            count += len(bad)
            for line in bad:
                if line not in self._known and len(self._known) < SHOWN_IMAGES:
                    self._known.add(line)
                    _say(f"{line}; left out")
            yield batch
        if count:
            _say(f"{count} image{'s' * (count > 1)} of this epoch cannot be read and were left out")


def _say(line: str) -> None:
    tqdm.write(f"captioner: {shown(line)}", file=sys.stderr)
