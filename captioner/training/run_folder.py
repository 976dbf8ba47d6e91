"""The folder of a run: its checkpoints, its configuration, and who may write there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.cli import SaveConfigCallback
from pytorch_lightning.plugins.io import TorchCheckpointIO

from captioner.errors import CaptionerError
from captioner.model.checkpoints import read_checkpoint

CHECKPOINTS = "checkpoints"
LAST = "last.ckpt"


class SafeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are whole or not there at all, and that are read without running code."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write beside the file and rename: Lightning's own way moves it here from /tmp.

        Raises:
            CaptionerError: when it cannot be written.
        """
        path = Path(path)
        # One name for every try: what a killed run left behind is written over by the next.
        temporary = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            # A write that fails inside of torch.save comes out as a RuntimeError about positions.
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):
                raise
            raise CaptionerError(
                f"checkpoint {path}: {cause.strerror or cause}; make room there, then resume with "
                "--ckpt_path last"
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read tensors and JSON primitives, whatever ``weights_only`` says.

        Raises:
            CaptionerError: when the file is missing, damaged, unsafe or no captioner's.
        """
        return read_checkpoint(path)


class LastCheckpoint(Checkpoint):
    """Write ``last.ckpt``, from which an interrupted run resumes, after every epoch.

    Args:
        every_n_steps: also after this many optimiser steps; 0: only after epochs.
    """

    def __init__(self, every_n_steps: int = 0) -> None:
        super().__init__()
        if every_n_steps < 0:
            raise CaptionerError(f"last.every_n_steps={every_n_steps}: must be at least 0")
        self.every_n_steps = every_n_steps
        self._saved_at_step = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save in mid-epoch, right after the optimiser has stepped."""
        step = trainer.global_step
        if self.every_n_steps and step % self.every_n_steps == 0 and step != self._saved_at_step:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after validation: best score and early stopping's patience are in it."""
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._saved_at_step = trainer.global_step
        trainer.save_checkpoint(Path(trainer.default_root_dir) / CHECKPOINTS / LAST)


class RunFolder(SaveConfigCallback):
    """Keep one run in one folder: its configuration is written once and never overwritten."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write ``config.yaml`` when a run starts; a resumed run keeps the one it has."""
        path = Path(trainer.default_root_dir) / self.config_filename
        resumed = self.config.ckpt_path and path.is_file()
        if stage == "fit" and trainer.is_global_zero and not resumed:
            self.parser.save(self.config, path, skip_unset=False, multifile=False, overwrite=True)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let a run whose folder was moved find its best checkpoint in the new place."""
        here = Path(trainer.default_root_dir).resolve() / CHECKPOINTS
        if Path(str(trainer.ckpt_path)).resolve().parent != here:
            return
        for state in checkpoint.get("callbacks", {}).values():
            if isinstance(state, dict) and "best_model_path" in state:
                state.update(_moved(state, here))


def _moved(state: Mapping[str, Any], here: Path) -> dict[str, Any]:
    """The state of a ModelCheckpoint with all its paths in the folder ``here``."""

    def moved(path: str) -> str:
        return str(here / Path(path).name) if path else path

    names = ("best_model_path", "kth_best_model_path", "last_model_path")
    return {
        **{name: moved(state[name]) for name in names},
        "dirpath": str(here),
        "best_k_models": {moved(path): score for path, score in state["best_k_models"].items()},
    }


def find_checkpoint(
    command: str, given: str | None, run_dir: str, init_from: str | None
) -> str | None:
    """The checkpoint that ``--ckpt_path`` means: a file, or ``last`` or ``best`` of the run.

    Returns:
        Its path; ``None`` to begin from the start.

    Raises:
        CaptionerError: when it is not there or cannot be used.
    """
    if given is None:
        if command != "fit" and init_from is None:
            raise CaptionerError(
                f"{command} scores a checkpoint: name one with --ckpt_path FILE, or the run's own "
                "with --ckpt_path best"
            )
        return None
    path = Path(given).expanduser()
    if given in ("last", "best"):
        path = Path(checkpoint_folder(run_dir)) / f"{given}.ckpt"
    if given == "last" and command == "fit" and not path.exists():
        return None  # nothing was saved yet: one command for the first start and every other
    if not path.is_file():
        raise CaptionerError(f"checkpoint {path}: no such file; give another --ckpt_path")
    read_checkpoint(path, mmap=True)
    return str(path)


def claim_folder(folder: Path, ckpt_path: str | None) -> Path | None:
    """Make the folder of a run that starts, or resumes from ``ckpt_path``.

    Returns:
        The topmost folder that was made; None if all were there.

    Raises:
        CaptionerError: it holds another run, or cannot be written.
    """
    if ckpt_path is None and (folder / CHECKPOINTS / LAST).is_file():
        raise CaptionerError(
            f"{folder} already holds a run: resume it (--ckpt_path last), or choose another "
            "folder (--run_dir)"
        )
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(0, "no permission to write")
    except OSError as error:
        raise CaptionerError(
            f"cannot write {folder}: {error.strerror}; choose another --run_dir"
        ) from error
    return missing[-1] if missing else None


def remove_folder(folder: Path, made: Path | None) -> None:
    """Remove what a run that failed before its first step has made.

    Args:
        folder: of the run.
        made: the topmost folder that `claim_folder` made: this one, or one above it.
    """
    if made is None:
        return
    shutil.rmtree(folder, ignore_errors=True)
    for parent in folder.parents:
        if not parent.is_relative_to(made):
            break
        with suppress(OSError):  # something else is in it
            parent.rmdir()


def resume_hint(run_dir: str) -> str:
    """What to do after an interruption."""
    last = Path(checkpoint_folder(run_dir)) / LAST
    if last.is_file():
        return f"{last} was saved: run the same command with --ckpt_path last to resume"
    return "nothing was saved yet: run the same command again to start over"


def checkpoint_folder(run_dir: str) -> str:
    """Where a run keeps its checkpoints."""
    return str(Path(run_dir) / CHECKPOINTS)
