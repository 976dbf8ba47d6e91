"""Shards on the workers of a Ray cluster, or of this machine.

Plain actors and not Ray Data: docs/scale.md says why.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice

from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.shards.job import EngineOptions
from captioner.shards.model_bytes import ModelBytes
from captioner.shards.tasks import ShardReport, ShardTask
from captioner.shards.worker import run_shard

# Read by Ray when it is imported. A user's own choice stays.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray warns that a worker without a GPU will see all of them; it is told to use none.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray  # noqa: E402

from captioner.shards.ray_crew import Crew  # noqa: E402
from captioner.shards.ray_worker import Do, Worker  # noqa: E402

REACH_S = 10.0
"""How long the cluster's head may take to answer."""


class RayEngine:
    """Does the work of shards on Ray's workers, each of which loads the model once.

    A worker has one shard at a time. One that is lost costs that shard's work: the shard is given
    to another worker, and a new worker is started where there is room. A worker that cannot write
    the output gets no more shards; the others continue.

    Args:
        model: goes to each worker through Ray's object store.
        options: the cluster, and how many workers there are.
        do: what is done with each task.
        say: prints a line for the user.
    """

    def __init__(
        self,
        model: ModelBytes,
        options: EngineOptions,
        do: Do = run_shard,
        say: Callable[[str], None] = print,
    ) -> None:
        self._model, self._options, self._do, self._say = model, options, do, say
        self._crew: Crew | None = None

    @property
    def workers(self) -> int:
        """How many are ready or at work."""
        return 0 if self._crew is None else self._crew.workers

    def run(self, tasks: Iterable[ShardTask]) -> Iterator[ShardReport]:
        """See `captioner.shards.engines.Engine.run`.

        Raises:
            CaptionerError: the cluster cannot be reached, has no room for a worker, or no worker
                can be started.
        """
        tasks = iter(tasks)
        first = next(tasks, None)
        if first is None:
            return  # Where all is finished, no cluster is needed.
        with _connected(self._options):
            room = room_for(self._options, _nodes())
            wanted = self._options.num_workers or room
            if wanted > room:
                self._say(
                    f"captioner: --num-workers {wanted}: the cluster has room for {room}; the "
                    "others start when there is more"
                )
            tasks = chain([first], tasks)
            ahead = [*islice(tasks, wanted)]
            gpus = self._options.gpus_per_worker
            start = partial(
                ray.remote(Worker).options(num_cpus=1, num_gpus=gpus).remote,
                ray.put(self._model),
                self._do,
                gpus,
            )
            self._crew = Crew(start, len(ahead), self._say)
            try:
                yield from self._crew.run(chain(ahead, tasks))
            finally:
                self._crew.stop()
                self._crew = None


def room_for(options: EngineOptions, nodes: Iterable[dict[str, float]]) -> int:
    """How many workers a cluster has room for: one for each processor, and GPUs if they use any.

    Args:
        options: say how many GPUs a worker has.
        nodes: what each node of the cluster has, ``CPU`` and ``GPU``.

    Raises:
        CaptionerError: there is no room for any.
    """
    gpus = options.gpus_per_worker
    found = [
        (int(node.get("CPU", 0)), int(node.get("GPU", 0) // gpus) if gpus else 0) for node in nodes
    ]
    room = sum(min(cpu, gpu) if gpus else cpu for cpu, gpu in found)
    if room == 0:
        what = "with a processor"
        if gpus and any(cpu for cpu, _ in found):
            what = f"for --gpus-per-worker {gpus}, with a processor and a GPU"
        raise CaptionerError(f"--engine ray: the cluster has no node {what}")
    return room


def placed(device: str, precision: str, options: EngineOptions) -> tuple[str, str]:
    """Where the workers compute, which is not for each of them to find out: it must be the same.

    Args:
        device: as it is asked for, perhaps ``auto``.
        precision: the same.
        options: say how many GPUs a worker has.

    Raises:
        CaptionerError: the device does not go with them.
    """
    gpus = options.gpus_per_worker
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    if device.startswith("cuda") != bool(gpus):
        raise CaptionerError(
            f"--device {device}: workers have {gpus} GPUs; give --gpus-per-worker {1 - gpus}"
        )
    if device.startswith("cuda:"):
        raise CaptionerError(f"--device {device}: give cuda; Ray gives each worker its own GPU")
    if precision == "auto":
        precision = "bf16" if gpus else "fp32"
    return device, precision


def _nodes() -> list[dict[str, float]]:
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


@contextmanager
def _connected(options: EngineOptions) -> Iterator[None]:
    """A connection to a cluster, or one of this machine's own for the time of the run."""
    if ray.is_initialized():
        yield
        return
    address = options.address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        _check_head(address)
        ray.init(
            address=address,
            # One of this machine's own has room for what is asked for.
            num_cpus=options.num_workers if address == "local" else None,
            include_dashboard=False if address == "local" else None,
            logging_level=logging.ERROR,
        )
    except Exception as error:  # Ray raises plain ones, too.
        reason = shown(" ".join(str(error).split()) or type(error).__name__)
        if address == "local":
            raise CaptionerError(f"--engine ray: Ray does not start here ({reason})") from None
        raise CaptionerError(
            f"--address {shown(address)}: no Ray cluster can be used there ({reason})"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_head(address: str) -> None:
    """Find out whether anybody listens; Ray itself may take minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
