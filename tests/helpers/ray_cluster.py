"""A Ray cluster of several nodes on this machine's loopback, and what can go wrong on one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from captioner.model.caption_model import CaptionModel
from captioner.shards.tasks import ShardReport, ShardTask
from captioner.shards.worker import run_shard

HOST = "127.0.0.2"
"""With 127.0.0.1, Ray takes the address of the network card."""


class RayCluster:
    """A head without processors, and two nodes with one each.

    Attributes:
        address: of the head.
    """

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        # The path of a socket may have 107 bytes; pytest's folders can be longer.
        self._folder = tempfile.mkdtemp(prefix="ray")
        # The head's address goes into Ray's usual folder all the same, which has to be there.
        usual = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
        Path(usual, "ray").mkdir(parents=True, exist_ok=True)
        # Ray's workers give way to all else: to other tests for ever.
        os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "node_ip_address": HOST,
                "num_cpus": 0,
                "include_dashboard": False,
                "temp_dir": self._folder,
            },
        )
        self.address = str(self._cluster.address)

        self._nodes = [
            self._cluster.add_node(node_ip_address=HOST, num_cpus=1, wait=False) for _ in range(2)
        ]
        self._cluster.wait_for_nodes(timeout=600)

    def kill_node_at_work(self, driver: subprocess.Popen[str]) -> None:
        """Kill all processes of one node, in the middle of a shard of this driver."""
        while True:
            for node in self._nodes:
                raylet = _raylet_of(node)
                workers = _children(raylet)
                if any(_title(worker) == "ray::Worker.do" for worker in workers):
                    for pid in (raylet, *workers):
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    return
            assert driver.poll() is None, driver.communicate()
            time.sleep(0.01)

    def stop(self) -> None:
        self._cluster.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)


def _raylet_of(node: Any) -> int:
    [raylet] = node.all_processes["raylet"]
    return int(raylet.process.pid)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def _title(pid: int) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0 ").decode()
    return ""


# --- what workers can do with a task, beside `captioner.shards.worker.run_shard` -----------


def end_worker(task: ShardTask, model: CaptionModel) -> ShardReport:
    """Do a shard, but for one that ends the process as a lack of memory would."""
    if task.name == "00001":
        os.kill(os.getpid(), signal.SIGKILL)
    return run_shard(task, model)


def write_elsewhere(task: ShardTask, model: CaptionModel) -> ShardReport:
    """Report a shard as done whose output is on a disk that nobody else sees."""
    return ShardReport(task, {"ok": 1})
