"""One run of a job over shards: what is checked before it, what is left to do, and its report.

In the output, the hidden folder ``.captioner`` has ``settings.json``, by which another model or
other options are refused, and ``report.json``, the counts of all runs.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.resume import changes, locked
from captioner.files.stores import (
    StoreUnreachable,
    check_store,
    exists,
    is_address,
    joined,
    local_path,
    names_in,
    publish,
    reached,
    read_file,
    store_of,
)
from captioner.files.writing import cannot_read, check_folder, make_folder, replace_file
from captioner.model.caption_model import CaptionModel
from captioner.model.description import describe_model
from captioner.shards.finished import Finished
from captioner.shards.formats import FORMATS
from captioner.shards.job import ShardJob
from captioner.shards.plan import STATE, ShardPlan
from captioner.shards.tasks import ShardReport, ShardTask

SCHEMA = "captioner-shards-1"
REPORT_S = 30.0
"""After so long the report is written again."""

_MOST_BYTES = 100_000_000


class ShardRun:
    """One run, a context manager; an engine does the work.

    >>> with ShardRun(job, model) as run:  # doctest: +SKIP
    ...     for report in LocalEngine(model).run(run.tasks()):
    ...         run.take(report)

    Args:
        job: what is to be done.
        model: the captioner, loaded from a file.
        elsewhere: ``device`` and ``precision`` of an engine that computes with others than this
            model does here.

    Attributes:
        total: how many shards the job has; None where only the work itself will tell.
        before: how many of them earlier runs have finished, as far as the tasks are taken.
        done: how many this run has finished.
        failed: the reports of shards that were given up.
        counts: files by what became of them in this run, `captioner.shards.work.Done.status`.
    """

    def __init__(
        self, job: ShardJob, model: CaptionModel, elsewhere: Mapping[str, str] | None = None
    ) -> None:
        self.job = job
        self.model = model
        self._elsewhere = elsewhere or {}
        self.total: int | None = None
        self.before = 0
        self.done = 0
        self.failed: list[ShardReport] = []
        self.counts: Counter[str] = Counter()
        self._earlier: dict[str, Any] = {}

    def __enter__(self) -> Self:
        """Check everything, and find out what is finished.

        Raises:
            CaptionerError: an input cannot be read, the output cannot be written, is in use or has
                shards of another model, other options or other inputs. Nothing is changed then.
        """
        job = self.job
        FORMATS[job.format].check()
        job.work.check(self.model)
        for address in {store_of(each): each for each in (*job.work.paths, job.folder)}.values():
            check_store(address)
        self._plan = ShardPlan(job, self.model.sha256)
        self.total = self._plan.total
        with ExitStack() as stack:
            self._lock(stack)
            self._finished = reached(lambda: Finished(names_in(job.folder), job.format))
            self._check_settings()
            self._earlier = self._read("report.json")
            self._stack = stack.pop_all()
        self._written_s = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if kind is None:
                self._write_report()
                return
            # Whatever ends the run is what has to be said, and a lost store is not waited for.
            with suppress(CaptionerError, StoreUnreachable):
                self._write_report(patient=False)

    def tasks(self) -> Iterator[ShardTask]:
        """The shards that are not finished, lazily, in their order.

        Raises:
            CaptionerError: the files of a finished shard are others now, or a list or a folder
                cannot be read.
        """
        for task in self._plan.tasks():
            if task.name in self._finished:
                self.before += 1
                continue
            if self._plan.is_numbered and self._finished.has_other(task.name):
                raise CaptionerError(
                    f"{shown(self.job.output)} holds a finished shard {task.name.partition('-')[0]}"
                    f" of other {self.job.work.noun}s: the input has changed since; name another "
                    "--output"
                )
            yield task

    def take(self, report: ShardReport) -> None:
        """Count what became of a shard."""
        if report.error is None:
            self.done += 1
            self.counts += Counter(report.counts)
        else:
            self.failed.append(report)
        if time.monotonic() - self._written_s >= REPORT_S:
            self._write_report()

    @property
    def resume_hint(self) -> str:
        """What to say after an interruption."""
        return "finished shards are saved: run the same command again to resume"

    # --- what is known of the output -------------------------------------------------------

    def _lock(self, stack: ExitStack) -> None:
        """One job at a time in a local folder; what a killed one left there is removed."""
        folder = local_path(self.job.folder)
        if folder is None:
            return
        check_folder(folder)
        state = folder / STATE
        make_folder(state)
        in_use = (
            f"{shown(folder)} is in use by another `captioner {self.job.work.command}`; wait for "
            "it, or choose another --output"
        )
        stack.enter_context(locked(state / "lock", in_use))
        shutil.rmtree(state / "parts", ignore_errors=True)
        # What workers of a cluster leave there that are ended with the run.
        stack.callback(shutil.rmtree, state / "parts", ignore_errors=True)

    def _check_settings(self) -> None:
        about = {
            "schema": SCHEMA,
            "model": describe_model(self.model),
            "settings": {
                **self.job.work.describe(self.model),
                **self._elsewhere,
                "format": self.job.format,
            },
            "input": self._plan.describe(),
        }
        before = self._read("settings.json")
        if not before and self._finished.has_any:
            raise CaptionerError(
                f"output {shown(self.job.output)} has shards, and no "
                f"{STATE}/settings.json says how they were made: name another --output"
            )
        changed = changes(before, about) if before else []
        if changed and self._finished.has_any:
            raise CaptionerError(
                f"{shown(self.job.output)} was made with another model, other options or other "
                f"inputs ({'; '.join(changed[:3])}); use those, or name another --output"
            )
        if changed or not before:
            self._write("settings.json", about)

    def _read(self, name: str) -> dict[str, Any]:
        """What a file of the state holds; nothing if there is none."""
        address = joined(self.job.folder, f"{STATE}/{name}")
        try:
            if not reached(lambda: exists(address)):
                return {}
            found = json.loads(reached(lambda: read_file(address, _MOST_BYTES)))
        except OSError as error:
            raise cannot_read(address, error) from None
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise CaptionerError(f"{shown(address)} is damaged: name another --output")
        return found

    def _write(self, name: str, values: dict[str, Any], patient: bool = True) -> None:
        address = joined(self.job.folder, f"{STATE}/{name}")
        text = json.dumps(values, ensure_ascii=False, indent=2) + "\n"
        if not is_address(address):
            replace_file(Path(address), text)
            return
        with tempfile.TemporaryDirectory(prefix="captioner-") as folder:
            file = Path(folder, name)
            file.write_text(text, encoding="utf-8")
            if patient:
                reached(lambda: publish(file, address))
            else:
                publish(file, address)

    def _write_report(self, patient: bool = True) -> None:
        self._written_s = time.monotonic()
        files = f"{self.job.work.noun}s"
        earlier = Counter(self._earlier.get(files, {}))
        self._write(
            "report.json",
            {
                "shards": {
                    "total": self.total,
                    "finished": len(self._finished) + self.done,
                    "failed": len(self.failed),
                },
                files: dict(earlier + self.counts),
                f"{files}_counted_in_shards": self._earlier.get(f"{files}_counted_in_shards", 0)
                + self.done,
                "failed": [
                    {
                        "shard": report.task.name,
                        "source": report.task.source,
                        "tries": report.tries,
                        "error": report.error,
                    }
                    for report in self.failed
                ],
            },
            patient,
        )
