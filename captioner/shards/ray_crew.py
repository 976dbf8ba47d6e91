"""The workers of one run on a Ray cluster: who has which shard, and what follows a loss."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.stores import local_path
from captioner.shards.ray_worker import Place
from captioner.shards.tasks import TRIES, ShardReport, ShardTask
from captioner.version import __version__

LOSSES = 5
"""A shard in whose work so many workers were lost is given up: it may be what ends them. Fewer may
be bad luck, and are no failures of the shard."""

POLL_S = 1.0
SILENT_S = 60.0
"""After so long without any worker, a line says so."""


@dataclass
class _Try:
    """A shard that is not finished: what became of it so far, and on which workers and nodes."""

    task: ShardTask
    failures: int = 0
    losses: int = 0
    failed_on: set[object] = field(default_factory=set)

    @property
    def tries(self) -> int:
        return self.failures + self.losses


@dataclass(eq=False)
class _Worker:
    """A worker's process, as seen from here.

    Attributes:
        actor: Ray's handle.
        starts: how often it has been tried to start it.
        place: where it runs, once it does.
        is_trusted: whether an output of it has been seen here.
    """

    actor: Any
    starts: int
    place: Place = Place("", "")
    is_trusted: bool = False


class Crew:
    """Workers that have one shard each.

    Args:
        start: starts a worker, `captioner.shards.ray_worker.Worker`; returns Ray's handle of it.
        size: how many there are to be.
        say: prints a line for the user.
    """

    def __init__(self, start: Callable[[], Any], size: int, say: Callable[[str], None]) -> None:
        self._start, self._say = start, say
        self._most_again = max(2 * size, 16)
        self._again: deque[_Try] = deque()
        self._is_taken = False  # the last task
        self._starting: dict[Any, _Worker] = {}  # by the reference of what it returns
        self._idle: list[_Worker] = []
        self._working: dict[Any, tuple[_Worker, _Try]] = {}  # by the reference of the report
        self._last_worker_s = time.monotonic()
        self._why_none = ""
        for _ in range(size):
            self._add(starts=1)

    @property
    def workers(self) -> int:
        """How many are ready or at work."""
        return len(self._idle) + len(self._working)

    def run(self, tasks: Iterator[ShardTask]) -> Iterator[ShardReport]:
        """See `captioner.shards.engines.Engine.run`."""
        while True:
            self._hand_out(tasks)
            if self._is_taken and not self._working and not self._again:
                return
            self._check_workers()
            for ref in self._ended():
                if ref in self._starting:
                    self._welcome(self._starting.pop(ref), ref)
                else:
                    yield from self._conclude(*self._working.pop(ref), ref)

    def _ended(self) -> list[Any]:
        """What has come in, or nothing after a while."""
        refs = [*self._working, *self._starting]
        if not ray.wait(refs, timeout=POLL_S)[0]:
            return []
        # With thousands of workers, one look at them all costs as much as that at one.
        ended: list[Any] = ray.wait(refs, num_returns=len(refs), timeout=0)[0]
        return ended

    def stop(self) -> None:
        """End all workers at once."""
        working = (worker for worker, _ in self._working.values())
        for worker in (*self._starting.values(), *self._idle, *working):
            self._end(worker)

    # --- shards ----------------------------------------------------------------------------

    def _hand_out(self, tasks: Iterator[ShardTask]) -> None:
        for worker in [*self._idle]:
            if (each := self._next_for(worker, tasks)) is not None:
                self._idle.remove(worker)
                self._working[worker.actor.do.remote(each.task)] = worker, each

    def _next_for(self, worker: _Worker, tasks: Iterator[ShardTask]) -> _Try | None:
        """A shard that failed elsewhere, else a new one."""
        for each in self._again:
            if self._suits(worker, each):
                self._again.remove(each)
                return each
        # A machine on which all fails must not go through the whole job meanwhile.
        if self._is_taken or len(self._again) >= self._most_again:
            return None
        task = next(tasks, None)
        self._is_taken = task is None
        return None if task is None else _Try(task)

    def _suits(self, worker: _Worker, each: _Try) -> bool:
        """Whether it is on another node than those that failed, or is another worker, if any is."""
        if not each.failed_on:
            return True
        alive = [*self._idle, *(worker for worker, _ in self._working.values())]
        if any(other.place.node not in each.failed_on for other in alive):
            return worker.place.node not in each.failed_on
        return worker not in each.failed_on or all(other in each.failed_on for other in alive)

    def _conclude(self, worker: _Worker, each: _Try, ref: Any) -> Iterator[ShardReport]:
        """Take a report; give it if it is the last word on its shard."""
        try:
            report: ShardReport = ray.get(ref)
        except RayTaskError as error:
            if isinstance(error.cause, CaptionerError):
                self._give_up(worker, str(error.cause))
                self._try_again(worker, each)
                return
            report = ShardReport(each.task, error=reason_of(error))
        except RayError:
            yield from self._replace(worker, each)
            return
        if report.error is not None:
            each.failures += 1
            self._idle.append(worker)
            if each.failures >= TRIES:
                yield replace(report, tries=each.tries)
            else:
                self._try_again(worker, each)
        elif not worker.is_trusted and not _is_seen(report.task):
            self._give_up(worker, _unseen(report.task, worker.place))
            self._try_again(worker, each)
        else:
            worker.is_trusted = True
            self._idle.append(worker)
            yield replace(report, tries=each.tries + 1)

    def _try_again(self, worker: _Worker, each: _Try) -> None:
        each.failed_on |= {worker, worker.place.node}
        self._again.append(each)

    # --- workers ---------------------------------------------------------------------------

    def _add(self, starts: int) -> None:
        actor = self._start()
        self._starting[actor.start.remote(__version__)] = _Worker(actor, starts)

    def _welcome(self, worker: _Worker, ref: Any) -> None:
        """A worker is ready, or cannot be started; then another one is, a few times."""
        try:
            worker.place = ray.get(ref)
        except RayError as error:
            self._end(worker)
            if worker.starts < TRIES:
                self._add(worker.starts + 1)
                return
            cause = error.cause if isinstance(error, RayTaskError) else None
            self._lack(f"a worker cannot be started: {cause or reason_of(error)}")
        else:
            self._idle.append(worker)

    def _replace(self, worker: _Worker, each: _Try) -> Iterator[ShardReport]:
        """Another worker for one that is lost; its shard is tried again."""
        self._end(worker)  # It may only be out of reach.
        self._add(starts=1)
        each.losses += 1
        if each.losses < LOSSES:
            self._again.appendleft(each)
            return
        reason = f"{each.losses} workers were lost while they had it; too little memory, perhaps"
        yield ShardReport(each.task, error=reason, tries=each.tries)

    def _give_up(self, worker: _Worker, reason: str) -> None:
        """End a worker that cannot write its output, which no other shard would change."""
        self._end(worker)
        self._lack(f"a worker on {shown(worker.place.host)} is given up: {reason}")

    def _lack(self, why: str) -> None:
        self._why_none = why
        self._say(f"captioner: {why}")

    def _check_workers(self) -> None:
        """Say so if there is nobody to work, and end where nobody will come."""
        now_s = time.monotonic()
        if self.workers:
            self._last_worker_s = now_s
        elif not self._starting:
            raise CaptionerError(f"--engine ray: there is no worker left; {self._why_none}")
        elif now_s - self._last_worker_s > SILENT_S:
            self._last_worker_s = float("inf")  # Once is enough.
            self._say("captioner: no worker has started; the cluster may have no room: waiting")

    def _end(self, worker: _Worker) -> None:
        with suppress(RayError):
            ray.kill(worker.actor)


def reason_of(error: Exception) -> str:
    """The last line of what Ray says, which names the cause."""
    text = str(error).strip()
    return shown(text.splitlines()[-1].strip()) if text else type(error).__name__


def _is_seen(task: ShardTask) -> bool:
    """Whether the output of a finished shard is where it is expected: folders can differ."""
    path = local_path(task.output)
    return path is None or path.exists()


def _unseen(task: ShardTask, place: Place) -> str:
    return (
        f"it has written {shown(task.output)}, which is not here: --output has to be a folder "
        f"that all machines of the cluster share, or an address; remove what lies on {place.host}"
    )
