"""`captioner fit | validate | test`: the Lightning half of the command line."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO

from captioner.errors import CaptionerError
from captioner.model.checkpoints import read_checkpoint
from captioner.networks.configs import DecoderConfig, EncoderConfig
from captioner.training.callbacks import WeightAverage
from captioner.training.datamodule import CaptionDataModule
from captioner.training.task import CaptionTask

CHECKPOINTS = "checkpoints"
LAST = "last.ckpt"

# Output of Lightning and its libraries that users cannot act on: beginnings of messages, the
# modules that log them, and patterns of warnings.
MUTED_MESSAGES = ("💡", "TPU available", "Loading `train_dataloader`", "`weights_only` was not set")
MUTED_LOGGERS = ("utilities.rank_zero", "trainer.connectors.checkpoint_connector")
NOT_WARNED = (
    r"(?s).*does not have many workers",  # features from the cache need none
    r"(?s).*number of training batches .* smaller than the logging interval",
    r"(?s).*treespec, LeafSpec",
    r"(?s).*dataloader is not resumable",  # ours asks Lightning where it stood
    r"(?s).*module\(s\) in eval mode",  # frozen BatchNorm
    r"(?s)The dirpath has changed",  # a run may begin with another run's checkpoint
    r"(?s)Checkpoint directory .* exists and is not empty",  # it does when a run is resumed
)


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
        if stage == "fit" and not (self.config.ckpt_path and path.is_file()):
            self.parser.save(self.config, path, skip_none=False, multifile=False, overwrite=True)

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


class TrainingParser(LightningArgumentParser):
    """The options; a mistake in them is one message, without the usage of a hundred options."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Refuse an option, a value or a configuration file.

        Raises:
            CaptionerError: always.
        """
        command = self.prog.replace(" [options]", "") if " " in self.prog else "captioner fit"
        hint = "give them in a file with --config; " if "are required" in message else ""
        raise CaptionerError(f"{message}\n({hint}`{command} --help` lists all options)") from ex


class CaptionCLI(LightningCLI):
    """The command line of training: one folder for a run, one set of callbacks for every run."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The commands, and the arguments of the trainer's methods that are not options."""
        # weights_only=False would let a checkpoint run code: it is not offered.
        loaders = {"model", "datamodule", "weights_only"}
        return {
            "fit": loaders | {"train_dataloaders", "val_dataloaders"},
            "validate": loaders | {"dataloaders"},
            "test": loaders | {"dataloaders"},
        }

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The seed: a number, since two parts of the configuration are linked to it."""
        parser.add_argument(
            "--seed_everything",
            type=int,
            default=0,
            help="Of weights, dropout, shuffling and augmentation: the same seed, the same run.",
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run's folder and callbacks, and link what two parts must agree on."""
        parser.add_argument(
            "--run_dir", type=str, default="runs/captioner", help="Where this run is kept."
        )
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.add_lightning_class_args(LastCheckpoint, "last")
        parser.add_lightning_class_args(WeightAverage, "average")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/cider_d",
                "checkpoint.mode": "max",
                "checkpoint.filename": "best",
                "checkpoint.enable_version_counter": False,
                "early_stopping.monitor": "val/cider_d",
                "early_stopping.mode": "max",
                "early_stopping.patience": 5,
                "trainer.devices": 1,
                "trainer.max_epochs": 20,
                "trainer.num_sanity_val_steps": 0,
                "trainer.gradient_clip_val": 1.0,
            }
        )
        parser.link_arguments("run_dir", "trainer.default_root_dir")
        parser.link_arguments("run_dir", "checkpoint.dirpath", _checkpoint_folder)
        parser.link_arguments("model.encoder", "data.encoder")
        parser.link_arguments("model.init_from", "data.init_from")
        parser.link_arguments("model.objective", "data.objective")
        parser.link_arguments("seed_everything", "model.seed")
        parser.link_arguments("seed_everything", "data.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, check, and settle which checkpoint is meant, before anything is built.

        The parent class warns here whenever the process has arguments of its own.

        Raises:
            CaptionerError: when an option has a value that cannot be used.
        """
        self.config = parser.parse_args(args)
        options = self.config[self.config.subcommand]
        if options.data.root is None and not options.data.sources:
            missing = f"{self.config.subcommand}.data.root"
            parser.error(f"the following arguments are required: {missing}")
        _check_options(options)
        options.trainer.precision = _possible_precision(options.trainer)
        options.ckpt_path = find_checkpoint(
            self.config.subcommand, options.ckpt_path, options.run_dir, options.model.init_from
        )

    def before_instantiate_classes(self) -> None:
        """Look at the run's folder before the features of a thousand images are computed."""
        options = self.config[self.subcommand]
        if self.subcommand == "fit" and not options.trainer.fast_dev_run:
            _claim_folder(Path(options.run_dir), options.ckpt_path)

    def instantiate_classes(self) -> None:
        """Build task, data module and trainer.

        Raises:
            CaptionerError: when an option has a value that cannot be used.
        """
        try:
            super().instantiate_classes()
        except (ValueError, MisconfigurationException) as error:
            # Option dataclasses and Lightning refuse values with these, and say which.
            raise CaptionerError(f"configuration: {error}") from error
        if self.trainer.world_size > 1:
            raise CaptionerError(
                f"trainer.devices and trainer.num_nodes ask for {self.trainer.world_size} "
                "processes; validation scores need all captions in one: use 1 and 1"
            )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Log to TensorBoard and CSV inside the run's folder unless loggers are configured."""
        config = self.config_init[self.subcommand]
        if config.trainer.logger is None:
            # A folder for each start: Lightning's CSV logger starts its file over.
            kwargs["logger"] = [CSVLogger(config.run_dir, name="metrics")]
            if self.subcommand == "fit":
                kwargs["logger"].insert(0, TensorBoardLogger(config.run_dir, name="", version=""))
        plugins = config.trainer.plugins or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        kwargs["plugins"] = [*plugins, SafeCheckpoints()]
        return super().instantiate_trainer(**kwargs)

    def after_fit(self) -> None:
        """Say where the best checkpoint is."""
        best = self.trainer.checkpoint_callback
        if isinstance(best, ModelCheckpoint) and best.best_model_score is not None:
            path = os.path.relpath(best.best_model_path)
            print(f"best {best.monitor}: {float(best.best_model_score):.4f}, {path}")


def _check_options(options: Any) -> None:
    if not 0 <= options.seed_everything < 2**32:
        raise CaptionerError(
            f"seed_everything={options.seed_everything}: must be from 0 to 4294967295"
        )
    if options.trainer.max_steps != -1:
        # Lightning resumes such a run an epoch too early, with the wrong images.
        raise CaptionerError(
            f"trainer.max_steps={options.trainer.max_steps}: training is counted in epochs, so "
            "that an interrupted run can resume exactly; use trainer.max_epochs"
        )
    for name, kind in (("encoder", EncoderConfig), ("decoder", DecoderConfig)):
        try:
            kind(**vars(options.model[name]))
        except ValueError as error:
            raise CaptionerError(f"model.{name}.{error}") from error


def _possible_precision(trainer: Any) -> Any:
    """The trainer's precision; float32 where it asks for a bfloat16 that the CPU does not have.

    oneDNN has no bfloat16 LSTM for processors without AVX512: the first step would fail.
    """
    gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    on_cpu = trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and not gpu)
    asks = str(trainer.precision).startswith("bf16")
    if not (on_cpu and asks) or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return trainer.precision
    print(
        f"trainer.precision={trainer.precision}: this processor has no bfloat16 arithmetic; "
        "training in float32 (32-true)",
        file=sys.stderr,
    )
    return "32-true"


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
        path = Path(_checkpoint_folder(run_dir)) / f"{given}.ckpt"
    if given == "last" and command == "fit" and not path.exists():
        return None  # nothing was saved yet: one command for the first start and every other
    if not path.is_file():
        raise CaptionerError(f"checkpoint {path}: no such file; give another --ckpt_path")
    read_checkpoint(path, mmap=True)
    return str(path)


def _claim_folder(folder: Path, ckpt_path: str | None) -> None:
    if ckpt_path is None and (folder / CHECKPOINTS / LAST).is_file():
        raise CaptionerError(
            f"{folder} already holds a run: resume it (--ckpt_path last), or choose another "
            "folder (--run_dir)"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(0, "no permission to write")
    except OSError as error:
        raise CaptionerError(
            f"cannot write {folder}: {error.strerror}; choose another --run_dir"
        ) from error


def _checkpoint_folder(run_dir: str) -> str:
    return str(Path(run_dir) / CHECKPOINTS)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep advertisements and warnings that mean nothing here from the user."""

    def is_ours(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not message.startswith(MUTED_MESSAGES)

    loggers = [logging.getLogger(f"pytorch_lightning.{name}") for name in MUTED_LOGGERS]
    for logger in loggers:
        logger.addFilter(is_ours)
    try:
        with warnings.catch_warnings():
            for message in NOT_WARNED:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_ours)


def main(argv: Sequence[str]) -> int:
    """Run ``fit``, ``validate`` or ``test`` with their options; returns the exit code.

    Raises:
        CaptionerError: for what the user can mend.
        KeyboardInterrupt: when the user interrupts; `last.ckpt` is then what was saved last.
        SystemExit: after ``--help`` and ``--print_config``, with code 0.
    """
    try:
        with _quiet():
            CaptionCLI(
                CaptionTask,
                CaptionDataModule,
                save_config_callback=RunFolder,
                auto_configure_optimizers=False,
                parser_class=TrainingParser,
                parser_kwargs={"prog": "captioner"},
                args=list(argv),
            )
    except SystemExit as end:
        # Lightning turns an interruption into exit code 1.
        if isinstance(end.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    sys.stdout.flush()
    return 0
