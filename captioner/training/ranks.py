"""The processes of one training on this machine: one for each device; they start and end together.

Lightning would start the others by the command line of whatever program runs, a test or a notebook
too, and would end all with SIGKILL when one fails. These run the command that this process was
asked for, talk over the loopback interface alone, and leave it to the one that fails to say why.
Processes that something else starts (torchrun, SLURM, Lightning's variables) are left to it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Self

import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.lsf import LSFEnvironment
from lightning_fabric.plugins.environments.mpi import MPIEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning import Callback, LightningModule, Trainer

from captioner.errors import CaptionerError
from captioner.files.child import python_command

PARENT = "CAPTIONER_RANK_PARENT"
"""Environment variable of the processes that are started here: the id of the one that does it."""
LOOK_EVERY_S = 0.2
GRACE_S = 5.0
"""So long the first process may take to end by itself after another one has failed."""
COMMAND = "captioner.cli.entry"


class OwnEnvironment(LightningEnvironment):
    """Lightning's environment, whose processes are started here and not by Lightning."""

    @property
    def creates_processes_externally(self) -> bool:
        """Lightning starts none."""
        return True


def starts_processes_here(plugins: Iterable[object]) -> bool:
    """Whether nothing else starts the processes: no cluster, no variables, no plugin."""
    others = (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment, MPIEnvironment)
    return not (
        "LOCAL_RANK" in os.environ
        or any(environment.detect() for environment in others)
        or any(isinstance(plugin, ClusterEnvironment) for plugin in plugins)
    )


class OtherRanks:
    """The processes beside the first one. Use it as a context, so that they end with it.

    Args:
        arguments: of the command that all of them run.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = list(arguments)
        self._children: list[subprocess.Popen[bytes]] = []
        self._ended = threading.Event()
        self._before: dict[str, str] = {}
        self._store: object = None

    def start(self, count: int, nodes: int) -> None:
        """Start all but the first of ``count`` processes on this machine, one of ``nodes``."""
        self._before = dict(os.environ)
        if nodes == 1:
            self._meet_on_loopback()
        command = [*python_command(COMMAND), *self._arguments]
        with _ignoring_interrupts():  # which they inherit: Ctrl-C is for this one to handle
            for rank in range(1, count):
                own = {PARENT: str(os.getpid()), "LOCAL_RANK": str(rank)}
                self._children.append(
                    subprocess.Popen(command, stdin=subprocess.DEVNULL, env={**os.environ, **own})
                )
        threading.Thread(target=self._watch, daemon=True, name="ranks").start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the others, or wait for their end where all went well.

        Raises:
            SystemExit: another process failed, has said why, and this one only lost it.
            CaptionerError: another process was killed, or one of another machine was lost.
        """
        # A lost connection is an error of PyTorch, of several types.
        failed = self._first_failed() if isinstance(error, RuntimeError) else None
        self._ended.set()
        if error is None:
            self._wait()
        self._kill()
        if self._before:
            self._leave_group()
        if failed is not None:
            raise self._reason(failed) from error
        if _is_lost_connection(error):
            raise CaptionerError(
                "another process of this training has ended, and its own output says why; resume "
                "with --ckpt_path last"
            ) from error

    def _meet_on_loopback(self) -> None:
        """Serve the store where the processes find each other, which others' machines cannot reach.

        Without it, PyTorch's listens on all interfaces, at a port that was free a moment before.
        """
        server = socket.create_server(("127.0.0.1", 0), backlog=1024)
        port = server.getsockname()[1]
        self._store = torch.distributed.TCPStore(  # type: ignore[attr-defined]
            "127.0.0.1",
            port,
            is_master=True,
            wait_for_workers=False,
            timeout=timedelta(minutes=30),
            master_listen_fd=server.detach(),
        )
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "127.0.0.1", str(port)
        os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
        os.environ["TORCHELASTIC_RESTART_COUNT"] = "0"
        names = {name for _, name in socket.if_nameindex()}
        if loopback := next((name for name in ("lo", "lo0") if name in names), None):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", loopback)

    def _watch(self) -> None:
        """End this process where another one fails and this one does not notice.

        It may wait in a call of PyTorch, which no exception reaches.
        """
        while not self._ended.wait(LOOK_EVERY_S):
            failed = next((child for child in self._children if child.poll()), None)
            if failed is None:
                continue
            if self._ended.wait(GRACE_S):
                return
            self._kill()
            if failed.returncode < 0:
                print(f"captioner: error: {self._reason(failed)}", file=sys.stderr)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(failed.returncode if failed.returncode > 0 else 2)

    def _first_failed(self) -> subprocess.Popen[bytes] | None:
        """The process that has failed, or does within a moment."""
        end = time.monotonic() + GRACE_S
        while self._children and time.monotonic() < end:
            for child in self._children:
                if child.poll():
                    return child
            time.sleep(LOOK_EVERY_S)
        return None

    def _reason(self, child: subprocess.Popen[bytes]) -> SystemExit | CaptionerError:
        if child.returncode > 0:
            return SystemExit(child.returncode)
        rank, count = self._children.index(child) + 1, len(self._children) + 1
        return CaptionerError(
            f"process {rank + 1} of {count} was ended by signal {-child.returncode}, as a system "
            "does that runs out of memory; resume with --ckpt_path last"
        )

    def _wait(self) -> None:
        for child in self._children:
            try:
                child.wait(timeout=60)
            except subprocess.TimeoutExpired:
                return

    def _kill(self) -> None:
        for child in self._children:
            if child.poll() is None:
                child.kill()
        for child in self._children:
            child.wait()

    def _leave_group(self) -> None:
        """Leave the process as it was: tests and Python programs continue after it."""
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        self._store = None
        for name in set(os.environ) - set(self._before):
            del os.environ[name]
        os.environ.update(self._before)


class EndsOnTerm(Callback):
    """Let SIGTERM end the process, as it ends others, and with it all processes.

    Lightning's answer to it is a message in which all must take part, when none expects it.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the place of Lightning's handler, which it sets shortly before."""
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    on_validation_start = on_test_start = on_train_start


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _is_lost_connection(error: BaseException | None) -> bool:
    known = torch.distributed.is_available() and isinstance(error, torch.distributed.DistError)
    return known or "/gloo/" in str(error)


def is_other_rank() -> bool:
    """Whether :class:`OtherRanks` of the parent process has started this one."""
    return os.environ.get(PARENT) == str(os.getppid())


def follow_parent() -> None:
    """Leave Ctrl-C to the parent, and end with it however it ends."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_EVERY_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent").start()


def let_parent_fail_first() -> None:
    """Give the parent the time to fail as this process does: then it ends this one."""
    time.sleep(GRACE_S)
