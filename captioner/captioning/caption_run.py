"""What one run of a caption job can do, whatever its output; `run` and `passing_run` do it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from captioner.captioning.alternatives import (
    alternatives_of,
    foremost,
    languages_of,
    tag_names,
)
from captioner.captioning.batches import CaptionRecord, caption_batches, check_caption_options
from captioner.captioning.embedding import Embedder, NotEmbedded
from captioner.captioning.formats import check_language_count
from captioner.captioning.job import CaptionJob
from captioner.files.finding import SourceFile
from captioner.files.resume import Fingerprint
from captioner.images.kinds import find_images
from captioner.model.caption_model import CaptionModel


class CaptionRun(ABC):
    """One run of a job, a context manager; leaving it on an error keeps what is finished.

    Attributes:
        total: the images of the job, None if they have not been counted.
        done: those that an earlier run has finished.
        kept: those that had a caption of other origin, and keep it.
    """

    def __init__(self, job: CaptionJob, model: CaptionModel) -> None:
        self.job = job
        self.model = model
        self.total: int | None = None
        self.done = 0
        self._embedder = Embedder() if job.embed else None
        self._languages = languages_of(model)
        self.kept = 0

    @abstractmethod
    def __enter__(self) -> Self:
        """Check everything and open the output.

        Raises:
            CaptionerError: the output is another job's, is in use or cannot be written. Nothing
                has been changed then.
        """

    @abstractmethod
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the output."""

    @abstractmethod
    def records(self) -> Generator[CaptionRecord, None, None]:
        """Caption what is not finished; yields a record when it is on its way to the output.

        Raises:
            CaptionerError: the output cannot be written, a folder of images is gone, or the
                options do not suit the model. Finished work is saved.
        """

    def embed_finished(self) -> Iterator[tuple[Path, str | None]]:
        """Embed what an earlier run has captioned and not embedded.

        Yields:
            The path of an image, and None or the reason why it does not hold its caption.
        """
        return iter(())

    @property
    @abstractmethod
    def resume_hint(self) -> str:
        """What to say after an interruption; empty if there is nothing to resume."""

    def _embed(
        self, record: CaptionRecord, captioned: Fingerprint
    ) -> tuple[CaptionRecord, Fingerprint]:
        """Embed a caption, if there is one and that is wanted; the file may be another then."""
        written = self.job.to_dict(record)
        text = foremost(written)
        if self._embedder is None or text is None:
            return record, captioned
        tags, others = tag_names(written), alternatives_of(written)
        try:
            now = self._embedder.embed(record.path, text, tags, captioned, others)
        except NotEmbedded as error:
            return replace(record, embedded=False, embed_error=str(error)), captioned
        return replace(record, embedded=True), now

    def _check_options(self) -> None:
        check_language_count(self.job.format, len(self._languages))
        check_job_options(self.job, self.model)

    def _files(self) -> Iterator[SourceFile]:
        """The images of the job, in their order."""
        return find_images(self.job.paths, self.job.exclude, self.job.raw)

    def _batches(
        self, numbered_files: Iterator[tuple[int, SourceFile]], batch_size: int, fixed_shape: bool
    ) -> Generator[list[CaptionRecord], None, None]:
        return job_batches(self.job, self.model, numbered_files, batch_size, fixed_shape)


def check_job_options(job: CaptionJob, model: CaptionModel) -> None:
    """See `captioner.captioning.batches.check_caption_options`."""
    check_caption_options(
        model,
        job.decoding,
        job.batch_size,
        job.workers,
        job.min_confidence,
        job.min_tag_confidence,
    )


def job_batches(
    job: CaptionJob,
    model: CaptionModel,
    numbered_files: Iterable[tuple[int, SourceFile]],
    batch_size: int,
    fixed_shape: bool,
) -> Generator[list[CaptionRecord], None, None]:
    """Caption files as a job says, a folder's or a shard's; see `caption_batches`."""
    return caption_batches(
        model,
        numbered_files,
        job.decoding,
        batch_size=batch_size,
        workers=job.workers,
        min_confidence=job.min_confidence,
        min_tag_confidence=job.min_tag_confidence,
        partial_images=job.partial_images,
        fixed_shape=fixed_shape,
    )
