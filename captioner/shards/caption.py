"""Caption one shard: the work that an engine does wherever it likes."""

from __future__ import annotations

import tempfile
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from captioner.captioning.caption_run import job_batches
from captioner.captioning.job import CaptionJob
from captioner.captioning.run import even_size
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.finding import SourceFile
from captioner.files.stores import is_address, publish, reached
from captioner.files.writing import make_folder, temporary_of
from captioner.images.ahead import iterate_ahead
from captioner.model.caption_model import CaptionModel
from captioner.shards.formats import FORMATS, CannotWrite, Captioned
from captioner.shards.reading import read_shard
from captioner.shards.tasks import FILES, ShardReport, ShardTask


def caption_shard(task: ShardTask, model: CaptionModel) -> ShardReport:
    """Caption the images of a shard, and publish its output as a whole.

    The result depends on the task and the model alone: a shard that is captioned twice, even at
    the same time, has the same bytes. A store that does not answer is waited for, then the shard is
    captioned from its beginning.

    Args:
        task: the shard.
        model: the captioner, loaded from the file that the task names.

    Returns:
        What became of it; an image that cannot be read is counted and no failure of the shard.

    Raises:
        CannotWrite: the output cannot be written.
        CaptionerError: the model is another one.
    """
    if model.sha256 != task.model_sha256:
        raise CaptionerError(
            f"shard {task.name}: the worker has another model ({model.sha256[:12]}) than the job "
            f"({task.model_sha256[:12]}): give all machines the same model file"
        )
    start_s = time.monotonic()
    counts: Counter[str] = Counter()
    error = None
    try:
        counts = reached(lambda: _caption(task, model))
    except CannotWrite:
        raise
    except Exception as problem:  # Whatever it is, it costs this shard alone.
        text = str(problem) if isinstance(problem, CaptionerError) else _described(problem)
        error = text
    return ShardReport(task, counts, error, time.monotonic() - start_s)


def _caption(task: ShardTask, model: CaptionModel) -> Counter[str]:
    counts: Counter[str] = Counter()
    with _part(task) as part:
        with closing(_captioned(task, model, counts)) as captioned:
            FORMATS[task.format].write(part, captioned, task)
        with _naming_output():
            reached(lambda: publish(part, task.output))
    return counts


def _captioned(
    task: ShardTask, model: CaptionModel, counts: Counter[str]
) -> Generator[Captioned, None, None]:
    """The records of the shard's images, in their order, with the files."""
    job = _with_own_samples(task)
    ahead: deque[SourceFile] = deque()  # of which the records are still to come

    def numbered(files: Iterator[SourceFile]) -> Iterator[tuple[int, SourceFile]]:
        for place, file in enumerate(files):
            ahead.append(file)
            yield place, file

    found = read_shard(task)
    if is_address(task.address):  # The network and the model work at the same time.
        found = iterate_ahead(found, job.batch_size)
    # Where the number of images is known, the last batch need not be filled up with so many zeros.
    size = even_size(len(task.files), job.batch_size) if task.kind == FILES else job.batch_size
    with (
        closing(found) as files,
        closing(job_batches(job, model, numbered(files), size, fixed_shape=True)) as batches,
    ):
        for batch in batches:
            for record in batch:
                counts[record.status] += 1
                yield job.to_dict(record), ahead.popleft()


def _with_own_samples(task: ShardTask) -> CaptionJob:
    """The job with a seed for this shard: samples are drawn by an image's place in it."""
    job = task.job
    if not job.decoding.sample:
        return job
    digest = blake2b(f"{job.decoding.seed} {task.name}".encode(), digest_size=4).digest()
    return replace(job, decoding=replace(job.decoding, seed=int.from_bytes(digest)))


@contextmanager
def _part(task: ShardTask) -> Iterator[Path]:
    """A name for the unfinished output that no other process has; nothing is left behind."""
    with _naming_output():
        if task.parts is not None:
            make_folder(Path(task.parts))
            part = temporary_of(Path(task.parts, "part"))
        else:
            folder = tempfile.TemporaryDirectory(prefix="captioner-")
            part = Path(folder.name, "part")
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)
        if task.parts is None:
            folder.cleanup()


@contextmanager
def _naming_output() -> Iterator[None]:
    try:
        yield
    except CaptionerError as error:
        raise CannotWrite(str(error)) from None


def _described(problem: Exception) -> str:
    text = " ".join(str(problem).split())
    return shown(f"{type(problem).__name__}: {text}" if text else type(problem).__name__)
