"""Shards on the workers of a Ray cluster, or of this machine.

Plain actors and not Ray Data: an engine takes tasks one by one from an iterator of unknown length,
knows which worker a shard failed on, and gives each report as it comes. `benchmarks/scale.py`
compares the two.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.model.caption_model import CaptionModel
from captioner.shards.job import EngineOptions
from captioner.shards.tasks import TRIES, ShardReport, ShardTask
from captioner.shards.worker import run_shard

# Read by Ray when it is imported. A user's own choice stays.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray  # noqa: E402
from ray.exceptions import RayError, RayTaskError  # noqa: E402

IN_FLIGHT = 2
"""Shards that a worker has at a time: the one it works on, and the next."""

_POLL_S = 1.0


@dataclass
class _Try:
    """A shard on its way: how often it was begun, and by which workers in vain."""

    task: ShardTask
    tries: int = 0
    failed_on: set[int] = field(default_factory=set)


class _Captioner:
    """What runs in a worker's process."""

    def __init__(self, file: bytes, device: str, precision: str) -> None:
        with tempfile.TemporaryDirectory(prefix="captioner-") as folder:
            path = Path(folder, "model.safetensors")
            path.write_bytes(file)
            self._model = CaptionModel.load(path, device=device, precision=precision)
            _ = self._model.sha256  # The file is gone later.

    def ready(self) -> None:
        """Return when the model is loaded."""

    def caption(self, task: ShardTask) -> ShardReport:
        """See `captioner.shards.worker.run_shard`."""
        return run_shard(task, self._model)


@dataclass
class _Worker:
    actor: Any
    number: int
    is_ready: bool = False
    tries: dict[Any, _Try] = field(default_factory=dict)  # by the reference of the report


class RayEngine:
    """Captions shards on Ray's workers, each of which loads the model once.

    A worker that is lost costs the shards that it has in hand; they are given to others, and a new
    worker is started where there is room.

    Args:
        file: the model's file, as bytes; sent to each worker.
        options: the cluster, and how many workers there are.
        device: see `captioner.model.caption_model.CaptionModel.load`.
        precision: the same.
    """

    def __init__(
        self, file: bytes, options: EngineOptions, device: str = "auto", precision: str = "auto"
    ) -> None:
        self._file, self._options = file, options
        self._device, self._precision = device, precision

    def run(self, tasks: Iterable[ShardTask]) -> Iterator[ShardReport]:
        """See `captioner.shards.engines.Engine.run`.

        Raises:
            CaptionerError: the cluster cannot be reached, has no room for a worker, or no worker
                can be started.
        """
        with _connected(self._options.address):
            workers, threads = room_for(self._options, _nodes())
            start = partial(
                ray.remote(_Captioner)
                .options(num_cpus=threads, num_gpus=self._options.gpus_per_worker)
                .remote,
                ray.put(self._file),
                self._device,
                self._precision,
            )
            crew = _Crew(start, workers)
            try:
                yield from crew.run(iter(tasks))
            finally:
                crew.stop()


class _Crew:
    """The workers of one run."""

    def __init__(self, start: Any, size: int) -> None:
        self._start = start
        self._numbers = count(1)
        self._again: deque[_Try] = deque()
        self._failed_starts = 0
        self._workers: dict[Any, _Worker] = {}  # by the reference of `ready`
        for _ in range(size):
            self._add()

    def run(self, tasks: Iterator[ShardTask]) -> Iterator[ShardReport]:
        while True:
            self._hand_out(tasks)
            running = {ref: worker for worker in self._all for ref in worker.tries}
            if not running and self._is_idle:
                return
            waited = [*running, *(ref for ref, each in self._workers.items() if not each.is_ready)]
            for ref in ray.wait(waited, timeout=_POLL_S)[0]:
                if ref in running:
                    yield from self._finish(running[ref], ref)
                else:
                    self._welcome(ref)

    def stop(self) -> None:
        for worker in self._all:
            with suppress(RayError):
                ray.kill(worker.actor)

    # --- shards ----------------------------------------------------------------------------

    def _hand_out(self, tasks: Iterator[ShardTask]) -> None:
        """Give each worker something to do, those with the least first."""
        self._is_idle = False
        for in_hand in range(IN_FLIGHT):
            for worker in self._all:
                if not worker.is_ready or len(worker.tries) > in_hand:
                    continue
                if (each := self._next_for(worker, tasks)) is None:
                    self._is_idle = not self._again
                    continue
                each.tries += 1
                worker.tries[worker.actor.caption.remote(each.task)] = each

    def _next_for(self, worker: _Worker, tasks: Iterator[ShardTask]) -> _Try | None:
        """A shard that failed elsewhere, else a new one."""
        others = any(each.is_ready and each is not worker for each in self._all)
        for each in self._again:
            if worker.number not in each.failed_on or not others:
                self._again.remove(each)
                return each
        task = next(tasks, None)
        return None if task is None else _Try(task)

    def _finish(self, worker: _Worker, ref: Any) -> Iterator[ShardReport]:
        """Take a report; give it if it is the last word on its shard."""
        try:
            report: ShardReport = ray.get(ref)
        except RayTaskError as error:
            # The worker's own refusal, such as an output that cannot be written.
            raise error.cause if isinstance(error.cause, CaptionerError) else error from None
        except RayError:
            yield from self._replace(worker)
            return
        each = worker.tries.pop(ref)
        yield from self._conclude(each, worker, report)

    def _conclude(self, each: _Try, worker: _Worker, report: ShardReport) -> Iterator[ShardReport]:
        if report.error is not None and each.tries < TRIES:
            each.failed_on.add(worker.number)
            self._again.append(each)
        else:
            yield replace(report, tries=each.tries)

    # --- workers ---------------------------------------------------------------------------

    @property
    def _all(self) -> list[_Worker]:
        return list(self._workers.values())

    def _add(self) -> None:
        actor = self._start()
        self._workers[actor.ready.remote()] = _Worker(actor, next(self._numbers))

    def _welcome(self, ref: Any) -> None:
        try:
            ray.get(ref)
        except RayError as error:
            self._failed_starts += 1
            del self._workers[ref]
            if self._failed_starts >= TRIES:
                raise CaptionerError(f"Ray cannot start a worker: {_reason(error)}") from None
            self._add()
        else:
            self._failed_starts = 0
            self._workers[ref].is_ready = True

    def _replace(self, worker: _Worker) -> Iterator[ShardReport]:
        """Another worker for one that is lost, and others for its shards."""
        self._workers = {ref: each for ref, each in self._workers.items() if each is not worker}
        with suppress(RayError):
            ray.kill(worker.actor)  # Where it was only out of reach.
        self._add()
        for each in worker.tries.values():
            yield from self._conclude(
                each, worker, ShardReport(each.task, error="the worker was lost")
            )


def room_for(options: EngineOptions, nodes: list[dict[str, float]]) -> tuple[int, int]:
    """How many workers to start, and with how many threads each.

    Args:
        options: may name the number of workers.
        nodes: what each node of the cluster has, ``CPU`` and ``GPU``.

    Returns:
        The number of workers, by default one for each GPU that they use or for each processor, and
        the most threads with which so many find room.

    Raises:
        CaptionerError: no node has room for one.
    """
    gpus = options.gpus_per_worker

    def room(threads: int) -> int:
        return sum(
            int(min(node.get("CPU", 0) // threads, node.get("GPU", 0) // gpus if gpus else 1e9))
            for node in nodes
        )

    if room(1) == 0:
        what = "processor" if not any(node.get("CPU", 0) for node in nodes) else "GPU"
        raise CaptionerError(
            f"--engine ray: no node of the cluster has a free {what}"
            + (f" for --gpus-per-worker {gpus}" if what == "GPU" else "")
        )
    workers = options.num_workers or room(1)
    most = int(max(node.get("CPU", 0) for node in nodes))
    return workers, max((n for n in range(1, most + 1) if room(n) >= workers), default=1)


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """A connection to a cluster, or one of this machine's own for the time of the run."""
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(
            address=address or None,
            include_dashboard=False if not address else None,
            logging_level="ERROR",
            log_to_driver=False,
        )
    except (ConnectionError, RayError, RuntimeError, ValueError) as error:
        raise CaptionerError(
            f"--address {shown(address)}: no Ray cluster can be reached there ({_reason(error)})"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _reason(error: Exception) -> str:
    """The last line of what Ray says, which names the cause."""
    text = str(error).strip()
    return shown(text.splitlines()[-1].strip()) if text else type(error).__name__
