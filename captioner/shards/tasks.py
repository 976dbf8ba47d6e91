"""What an engine runs: a task is one shard of a job, a report says what became of it.

Both can be pickled, and a task is all that a worker needs to know beside the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from captioner.captioning.job import CaptionJob

TAR, PARQUET, FILES = "tar", "parquet", "files"

TRIES = 3
"""How often a shard is tried until it is given up, each time on another worker if there is one."""


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard to caption.

    Attributes:
        name: of the shard, without a suffix: what its output is called below the job's folder.
        kind: `TAR`, `PARQUET` (with the images in it) or `FILES`.
        address: of the archive or table, a path or an address of fsspec; empty for `FILES`.
        files: path or address, and name in the records, of each image of `FILES`.
        output: path or address of the finished shard.
        format: of the output, a key of `captioner.shards.formats.FORMATS`.
        parts: local folder for the unfinished output, on the file system of a local output; None:
            a temporary folder of the system.
        job: how the images are captioned. Its paths, output and format do not count.
        model_sha256: of the model's file; a worker with another one refuses the task.
        languages: of the captions of one image; see
            `captioner.captioning.alternatives.written_languages`.
    """

    name: str
    kind: str
    address: str
    output: str
    format: str
    job: CaptionJob
    model_sha256: str
    files: tuple[tuple[str, str], ...] = ()
    parts: str | None = None
    languages: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """Where its images come from, for messages."""
        return self.address or f"{len(self.files)} images from {self.files[0][0]}"


@dataclass(frozen=True)
class ShardReport:
    """What became of a shard.

    Attributes:
        task: the shard.
        counts: of its images: ``ok``, ``unsure``, ``failed``.
        error: why the shard has no output, None if it has; it can be tried again then.
        seconds: that it took.
        tries: how often it was tried; the engine counts them.
    """

    task: ShardTask
    counts: Mapping[str, int] = field(default_factory=Counter)
    error: str | None = None
    seconds: float = 0.0
    tries: int = 1

    @property
    def images(self) -> int:
        """The images in it."""
        return sum(self.counts.values())
