"""Do one shard: what an engine runs wherever it likes, whatever the kind of work."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.stores import publish, reached
from captioner.files.writing import make_folder, temporary_of
from captioner.model.caption_model import CaptionModel
from captioner.shards.formats import FORMATS, CannotWrite
from captioner.shards.tasks import ShardReport, ShardTask
from captioner.shards.work import Done


def run_shard(task: ShardTask, model: CaptionModel) -> ShardReport:
    """Do a shard's work, and publish its output as a whole.

    The result depends on the task and the model alone: a shard that is done twice, even at the same
    time, has the same bytes. A store that does not answer is waited for, then the shard is done
    from its beginning.

    Args:
        task: the shard.
        model: the captioner, loaded from the file that the task names.

    Returns:
        What became of it; a file in it that cannot be read is counted and no failure of the shard.

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
        counts = reached(lambda: _run(task, model))
    except CannotWrite:
        raise
    except Exception as problem:  # Whatever it is, it costs this shard alone.
        text = str(problem) if isinstance(problem, CaptionerError) else _described(problem)
        error = text
    return ShardReport(task, counts, error, time.monotonic() - start_s)


def _run(task: ShardTask, model: CaptionModel) -> Counter[str]:
    counts: Counter[str] = Counter()
    with _part(task) as part:
        with closing(task.work.records(task, model)) as done:
            FORMATS[task.format].write(part, _counted(done, counts), task, model)
        with _naming_output():
            reached(lambda: publish(part, task.output))
    return counts


def _counted(done: Iterable[Done], counts: Counter[str]) -> Iterator[Done]:
    for each in done:
        counts[each.status] += 1
        yield each


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
