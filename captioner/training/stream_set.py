"""A training split that is streamed, and the images that validate it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_info

from captioner.data.datasets import CaptionData
from captioner.data.sources import DataSource, load_source
from captioner.data.stream_index import open_stream
from captioner.data.streams import Stream, is_streamed, unpack_stream
from captioner.errors import CaptionerError
from captioner.images.transform import ImageTransform
from captioner.text.tokenizer import Tokenizer
from captioner.training.batches import RandomView
from captioner.training.streaming import Share, StreamedBatches, StreamLoader


@dataclass(frozen=True)
class StreamSet:
    """The options of a streamed training split; see `CaptionDataModule` for each.

    Args:
        root: a pattern or an address that names the shards.
        format: theirs.
        batch_size: images in a batch of each process.
        workers: processes that read.
        shuffle_window: images among which a worker draws the next one.
        seed: of the order.
    """

    root: str
    format: str
    batch_size: int
    workers: int
    shuffle_window: int
    seed: int

    def open(self, cache_dir: Path, *, progress: bool) -> Stream:
        """The stream, whose samples are counted if they have not been yet.

        Raises:
            CaptionerError: a shard is missing or cannot be read.
        """
        stream, warnings = open_stream(self.root, self.format, cache_dir, progress=progress)
        for warning in warnings:
            rank_zero_info(f"{self.root}: {warning}")
        rank_zero_info(
            f"{self.root}: {stream.format} data, streamed from {len(stream.shards)} "
            f"shard{'s' * (len(stream.shards) > 1)}, images: train {stream.images}"
        )
        return stream

    def loader(
        self,
        stream: Stream,
        tokenizer: Tokenizer,
        transform: ImageTransform,
        *,
        max_words: int,
        view: RandomView | None,
        trainer: Trainer | None,
    ) -> StreamLoader:
        """The batches of this process; for the arguments see `StreamedBatches`."""
        share = Share(
            stream.images,
            self.batch_size,
            lanes=max(1, self.workers),
            rank=trainer.global_rank if trainer else 0,
            processes=trainer.world_size if trainer else 1,
        )
        batches = StreamedBatches(
            stream,
            share,
            tokenizer,
            transform,
            max_words=max_words,
            view=view,
            window=self.shuffle_window,
            seed=self.seed,
        )
        return StreamLoader(batches, lambda: batches_seen(trainer), self.workers)

    @property
    def order(self) -> dict[str, Any]:
        """Options that the order of the images follows from, beside the seed."""
        names = ("batch_size", "workers", "shuffle_window")
        return {name: getattr(self, name) for name in names}

    def check_resumed(self, before: Mapping[str, Any]) -> None:
        """Refuse to resume a run whose images came in another order.

        Args:
            before: `order` of that run.

        Raises:
            CaptionerError: an option differs.
        """
        for name, value in self.order.items():
            if before.get(name, value) != value:
                raise CaptionerError(
                    f"data.{name}={value}: the order of the images follows from it; resume with "
                    f"--data.{name} {before[name]}, or start a new run with model.init_from"
                )


def batches_seen(trainer: Trainer | None) -> int:
    """Training batches of this process that the epoch has had, not 0 if resumed within it."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready if trainer else 0


def check_stream(
    val_root: str | None,
    objective: str,
    views: int,
    **others: object,
) -> DataSource:
    """The source that validates a stream; refuses what does not go with one.

    Args:
        val_root: where the source is.
        objective: of the training.
        views: that are to be kept of each image.
        others: options of `data` by their names that say how other data is read.

    Raises:
        CaptionerError: there is no such source, or an option does not go with a stream.
    """
    for name, given in others.items():
        if given:
            raise CaptionerError(f"data.{name}={given}: does not go with a data.root that streams")
    if views:
        raise CaptionerError(
            f"data.views={views}: nothing of a stream is kept in the cache; use 0, or unpack the "
            "set into a folder"
        )
    if objective != "cross_entropy":
        raise CaptionerError(
            f"model.objective={objective}: needs all captions in memory, where a stream has some; "
            "use cross_entropy, or unpack the set into a folder"
        )
    if val_root is None:
        raise CaptionerError(
            "data.val_root is missing: a stream holds out no images; name those to validate with: "
            "a folder, a file or other shards"
        )
    return DataSource(val_root, Path(val_root).expanduser().resolve().name or "data")


def load_validation(source: DataSource) -> CaptionData:
    """The images that validate a training on a stream.

    Raises:
        CaptionerError: they cannot be read.
    """
    streamed = is_streamed(source.root)
    data = unpack_stream(source.root) if streamed else load_source(source, prefix=False)
    if not data.splits:
        data = replace(data, examples=tuple(replace(e, split="dev") for e in data.examples))
    return data
