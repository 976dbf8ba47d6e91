"""The work of `captioner caption` on shards."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from captioner.captioning.alternatives import languages_of
from captioner.captioning.job import CaptionJob
from captioner.data.fields import NAME_FIELDS
from captioner.files.finding import SourceFile
from captioner.files.stores import is_address
from captioner.images.ahead import iterate_ahead
from captioner.images.kinds import IMAGES, find_images
from captioner.shards.lists import COLUMNS
from captioner.shards.tasks import FILES, PARQUET, TAR, ShardTask
from captioner.shards.work import FORMATS, Done, Work, as_text

if TYPE_CHECKING:
    from captioner.model.caption_model import CaptionModel


@dataclass(frozen=True)
class CaptionWork(Work):
    """Caption images.

    Attributes:
        job: how images are captioned, and the inputs (`CaptionJob.paths`): archives, tables with
            images in them, lists of images, or images, folders and patterns. Its output and format
            do not count.
    """

    job: CaptionJob

    noun = "image"
    done = "captioned"
    command = "caption"
    kinds = frozenset({TAR, PARQUET, FILES})
    columns = (*COLUMNS, *NAME_FIELDS)
    formats = FORMATS

    @property
    def paths(self) -> tuple[str, ...]:
        """See `Work.paths`."""
        return self.job.paths

    def find(self) -> Iterator[SourceFile]:
        """See `Work.find`."""
        return find_images(self.job.paths, self.job.exclude, self.job.raw)

    def suffixes(self, path: str) -> Collection[str]:
        """See `Work.suffixes`."""
        return IMAGES.suffixes

    def describe_search(self) -> dict[str, Any]:
        """See `Work.describe_search`."""
        return {"exclude": list(self.job.exclude), "raw": self.job.raw}

    def check(self, model: CaptionModel) -> None:
        """See `Work.check`."""
        from captioner.captioning.caption_run import check_job_options

        check_job_options(self.job, model)

    def describe(self, model: CaptionModel) -> dict[str, Any]:
        """See `Work.describe`."""
        from captioner.captioning.run import describe_settings

        return describe_settings(self.job, model)

    def records(self, task: ShardTask, model: CaptionModel) -> Generator[Done, None, None]:
        """See `Work.records`."""
        from captioner.captioning.caption_run import job_batches
        from captioner.captioning.run import even_size
        from captioner.shards.reading import read_shard

        job = self._with_own_samples(task)
        ahead: deque[SourceFile] = deque()  # of which the records are still to come

        def numbered(files: Iterator[SourceFile]) -> Iterator[tuple[int, SourceFile]]:
            for place, file in enumerate(files):
                ahead.append(file)
                yield place, file

        found = read_shard(task)
        if is_address(task.address):  # The network and the model work at the same time.
            found = iterate_ahead(found, job.batch_size)
        # Where the number of images is known, the last batch need not be filled up with so many
        # zeros.
        size = even_size(len(task.files), job.batch_size) if task.kind == FILES else job.batch_size
        with (
            closing(found) as files,
            closing(job_batches(job, model, numbered(files), size, fixed_shape=True)) as batches,
        ):
            for batch in batches:
                for record in batch:
                    yield Done(job.to_dict(record), record.status, ahead.popleft())

    def _with_own_samples(self, task: ShardTask) -> CaptionJob:
        """The job with a seed for this shard: samples are drawn by an image's place in it."""
        job = self.job
        if not job.decoding.sample:
            return job
        digest = blake2b(f"{job.decoding.seed} {task.name}".encode(), digest_size=4).digest()
        return replace(job, decoding=replace(job.decoding, seed=int.from_bytes(digest)))

    def schema(self, model: CaptionModel) -> Any:
        """See `Work.schema`; the columns are the fields of JSONL."""
        import pyarrow as pa

        job = self.job
        result = {"text": pa.string(), "confidence": pa.float64(), "calibrated": pa.bool_()}
        if job.candidates:
            word = pa.struct({"word": pa.string(), "prob": pa.float64()})
            numbers = {"log_prob": pa.float64(), "avg_logprob": pa.float64()}
            result["candidates"] = pa.list_(
                pa.struct({"text": pa.string(), **numbers, "words": pa.list_(word)})
            )
        columns = {"file_name": pa.string(), **result}
        if job.min_tag_confidence is not None:
            texts = {"name": pa.string(), "type": pa.string()}
            columns["tags"] = pa.list_(pa.struct({**texts, "confidence": pa.float64()}))
        languages = languages_of(model)
        if languages:
            columns["language"] = pa.string()
        if len(languages) > 1:
            columns["other_languages"] = pa.list_(pa.struct({"language": pa.string(), **result}))
        if job.partial_images:
            columns["partial"] = pa.bool_()
        columns["error"] = pa.string()
        return pa.schema(columns)

    def row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """See `Work.row`."""
        row: dict[str, Any] = {name: as_text(value) for name, value in record.items()}
        if "other_languages" in row:
            others = row["other_languages"].items()
            row["other_languages"] = [{"language": name, **self.row(each)} for name, each in others]
        if "candidates" in row:
            row["candidates"] = [
                {**each, "words": [{"word": word, "prob": prob} for word, prob in each["words"]]}
                for each in row["candidates"]
            ]
        return row
