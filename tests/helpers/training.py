"""Short training runs: their options, what they write, and how they are interrupted."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from captioner.training.batches import Batch
from captioner.training.task import CaptionTask

TINY = (
    "--model.encoder.name=timm/test_resnet",
    "--model.encoder.weights=none",
    "--model.encoder.image_size=32",
    "--model.decoder.hidden_size=16",
    "--model.decoder.embed_size=16",
    "--data.min_count=1",
)
QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")


def arguments(shapes: Path, tmp_path: Path, run_dir: Path, *options: str) -> list[str]:
    places = [f"--data.root={shapes}", f"--run_dir={run_dir}", f"--data.cache_dir={tmp_path / 'c'}"]
    more = ["--data.batch_size=8", "--trainer.max_epochs=4", "--trainer.log_every_n_steps=1"]
    return ["fit", *TINY, *QUIET, "--model.decoder.heads=2", *places, *more, *options]


def in_child(act: Callable[[], object], output: Path) -> int:
    """Exit code of a forked process that does this: -9 when killed, 99 after an exception."""

    def run() -> None:
        with output.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            try:
                code = act()
            except BaseException as error:
                print(repr(error), file=sys.stderr)
                code = 99
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 0)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()  # a timeout would make it wait for the workers of a killed process as well
    assert process.exitcode is not None
    return process.exitcode


def at_batch(epoch: int, batch: int, act: Callable[[], object]) -> None:
    """Let this process do something when it begins that training step."""
    before = CaptionTask.on_train_batch_start

    def step(task: CaptionTask, data: Batch, index: int) -> None:
        if (task.current_epoch, index) == (epoch, batch):
            act()
        before(task, data, index)

    CaptionTask.on_train_batch_start = step  # type: ignore[method-assign]


def kill_at(epoch: int, batch: int) -> None:
    at_batch(epoch, batch, lambda: os.kill(os.getpid(), signal.SIGKILL))


def wait_for(here: str, there: str) -> None:
    """Say that this process is here, and wait until something else has come there."""
    Path(here).touch()
    while not Path(there).exists():
        time.sleep(0.05)


def read(run_dir: Path, name: str = "last") -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(
        run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True
    )
    return checkpoint


def scores(run_dir: Path, version: int = 0, name: str = "val/cider_d") -> list[float]:
    with (run_dir / "metrics" / f"version_{version}" / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]
