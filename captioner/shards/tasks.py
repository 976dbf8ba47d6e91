"""What an engine runs: a task is one shard of a job, a report says what became of it.

Both can be pickled, and a task is all that a worker needs to know beside the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from captioner.shards.work import Work

TAR, PARQUET, FILES = "tar", "parquet", "files"

TRIES = 3
"""How often a shard is tried until it is given up, each time on another worker if there is one."""


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard to do.

    Attributes:
        name: of the shard, without a suffix: what its output is called below the job's folder.
        kind: `TAR`, `PARQUET` (with the images in it) or `FILES`.
        address: of the archive or table, a path or an address of fsspec; empty for `FILES`.
        files: path or address, and name in the records, of each file of `FILES`.
        output: path or address of the finished shard.
        format: of the output, a key of `captioner.shards.formats.FORMATS`.
        parts: local folder for the unfinished output, on the file system of a local output; None:
            a temporary folder of the system.
        work: what is done with the files. Its paths do not count.
        model_sha256: of the model's file; a worker with another one refuses the task.
    """

    name: str
    kind: str
    address: str
    output: str
    format: str
    work: Work
    model_sha256: str
    files: tuple[tuple[str, str], ...] = ()
    parts: str | None = None

    @property
    def source(self) -> str:
        """Where its files come from, for messages."""
        return self.address or f"{len(self.files)} {self.work.noun}s from {self.files[0][0]}"


@dataclass(frozen=True)
class ShardReport:
    """What became of a shard.

    Attributes:
        task: the shard.
        counts: of its files, by `captioner.shards.work.Done.status`.
        error: why the shard has no output, None if it has; it can be tried again then.
        seconds: that it took.
        tries: how often it was tried; the engine counts them.
    """

    task: ShardTask
    counts: Mapping[str, int] = field(default_factory=Counter)
    error: str | None = None
    seconds: float = 0.0
    tries: int = 1
