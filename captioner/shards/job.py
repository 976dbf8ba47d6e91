"""A job over shards, checked before any work. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields

from captioner.files.stores import is_address
from captioner.options import check_options, option
from captioner.shards.work import FORMATS, Work


@dataclass(frozen=True)
class ShardOptions:
    """How inputs become shards.

    Attributes:
        shard_size: images of a shard, where the inputs are images or lists of them; an archive or
            a table is one shard, however many images are in it.
        column: of a list of images, with their paths or addresses; empty: one that is called as
            such columns are.
    """

    shard_size: int = option(
        1000, "images in a shard, where the input is not shards already", metavar="N", minimum=1
    )
    column: str = option(
        "",
        "column of a list with the paths or URLs of images",
        metavar="NAME",
        default_text="url, path, file_name, image ...",
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class VideoShardOptions(ShardOptions):
    """The same for videos, each of which takes as long as hundreds of images.

    Attributes:
        shard_size: videos of a shard.
        column: of a list of videos.
    """

    shard_size: int = option(20, "videos in a shard", metavar="N", minimum=1)
    column: str = option(
        "",
        "column of a list with the paths or URLs of videos",
        metavar="NAME",
        default_text="url, path, file_name, video ...",
    )


ENGINES = ("local", "ray")


@dataclass(frozen=True)
class EngineOptions:
    """Where the work on shards is done.

    Attributes:
        engine: ``local``: one after the other in this process. ``ray``: on the workers of a Ray
            cluster.
        address: of the cluster's head, or ``auto`` for the one of this machine; empty: that of the
            variable RAY_ADDRESS, else a cluster of this machine alone, for the time of the job.
        num_workers: each works on one shard at a time; None: one for each GPU that they use, else
            for each processor of the cluster.
        gpus_per_worker: 1 where the workers run on GPUs.
    """

    engine: str = option("local", "where the work on shards is done", choices=ENGINES)
    address: str = option(
        "",
        "HOST:PORT of the Ray cluster, or auto",
        metavar="ADDRESS",
        default_text="RAY_ADDRESS, else this machine",
    )
    num_workers: int | None = option(
        None,
        "workers of the Ray cluster",
        kind=int,
        metavar="N",
        minimum=1,
        default_text="one for each GPU or processor",
    )
    gpus_per_worker: int = option(0, "GPUs of each worker", metavar="N", minimum=0, maximum=1)

    def __post_init__(self) -> None:
        check_options(self)
        if self.engine == "local":
            for field in fields(self):
                if (value := getattr(self, field.name)) != field.default:
                    raise ValueError(f"{field.name}={value!r}: is for engine=ray only")


@dataclass(frozen=True)
class ShardJob:
    """What is to be done.

    Attributes:
        work: what is done with which files.
        output: folder or address below which every shard gets a file.
        format: of the files, one of `captioner.shards.work.Work.formats`.
        options: how inputs become shards.
    """

    work: Work
    output: str
    format: str = FORMATS[0]
    options: ShardOptions = ShardOptions()

    def __post_init__(self) -> None:
        formats = self.work.formats
        if self.format not in formats:
            raise ValueError(f"format={self.format!r}: choose from {', '.join(formats)}")
        if not self.output.rstrip("/") or (is_address(self.output) and self.output.endswith(":/")):
            raise ValueError(f"output={self.output!r}: name a folder, or an address in a bucket")

    @property
    def folder(self) -> str:
        """The output, without a slash at its end."""
        return self.output.rstrip("/")
