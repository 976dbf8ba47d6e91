"""What runs in a worker's process on a Ray cluster."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import ray
import torch

from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.stores import local_path
from captioner.model.caption_model import CaptionModel
from captioner.shards.model_bytes import ModelBytes
from captioner.shards.tasks import ShardReport, ShardTask
from captioner.version import __version__

Do: TypeAlias = Callable[[ShardTask, CaptionModel], ShardReport]
"""What is done with a task: `captioner.shards.worker.run_shard`, or a function like it."""


@dataclass(frozen=True)
class Place:
    """Where a worker runs.

    Attributes:
        node: Ray's id of the machine.
        host: what the machine is called.
    """

    node: str
    host: str


class Worker:
    """A model, loaded once, and what is done with it. Ray makes an actor of this.

    Args:
        model: the captioner.
        do: what is done with each task.
        gpus: how many the worker has; without any it computes in one thread, because there is one
            worker for each processor.
    """

    def __init__(self, model: ModelBytes, do: Do, gpus: int) -> None:
        self._bytes, self._do, self._gpus = model, do, gpus

    def start(self, version: str) -> Place:
        """Load the model.

        Args:
            version: of captioner, where the job was started.

        Raises:
            CaptionerError: the version here is another one, or the model cannot be loaded.
        """
        warnings.filterwarnings("ignore", module=r"PIL\.")  # as in the command
        host = platform.node() or "a machine without a name"
        if version != __version__:
            raise CaptionerError(
                f"{host} has captioner {__version__}, the job was started with {version}: install "
                "the same one on every machine of the cluster"
            )
        if not self._gpus:
            torch.set_num_threads(1)
        self._model = self._bytes.load()
        del self._bytes
        return Place(ray.get_runtime_context().get_node_id(), host)

    def do(self, task: ShardTask) -> ShardReport:
        """Do one task; see `Do`."""
        if task.files and not any(map(_is_here, task.files)):
            return ShardReport(
                task,
                error=f"none of its {len(task.files)} files, such as {shown(task.files[0][0])}, "
                f"is on {platform.node()}: machines of a cluster need the same folders, or "
                "addresses",
            )
        return self._do(task, self._model)


def _is_here(file: tuple[str, str]) -> bool:
    path = local_path(file[0])
    return path is None or path.exists()
