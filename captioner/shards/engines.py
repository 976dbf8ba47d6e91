"""Where shards are done: an engine takes tasks and gives reports; this one is this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

from captioner.model.caption_model import CaptionModel
from captioner.shards.tasks import TRIES, ShardReport, ShardTask
from captioner.shards.worker import run_shard


class Engine(Protocol):
    """Chooses where `captioner.shards.worker.run_shard` runs, and nothing else."""

    @property
    def workers(self) -> int:
        """How many shards can be worked on now."""

    def run(self, tasks: Iterable[ShardTask]) -> Iterator[ShardReport]:
        """Do shards; a report for each of them, in the order in which they end.

        Tasks are taken from the iterator only when there is somebody to work on them. A shard
        that failed is tried again, `TRIES` times in all; only the last report is given.

        Raises:
            CaptionerError: nothing can be done at all, such as where the output cannot be written.
        """


class LocalEngine:
    """One shard after the other, in this process.

    Args:
        model: the captioner, loaded from a file.
    """

    workers = 1

    def __init__(self, model: CaptionModel) -> None:
        self._model = model

    def run(self, tasks: Iterable[ShardTask]) -> Iterator[ShardReport]:
        """See `Engine.run`."""
        for task in tasks:
            tries = 1
            while (report := run_shard(task, self._model)).error and tries < TRIES:
                tries += 1
            yield replace(report, tries=tries)
