"""`captioner fit | validate | test`: the Lightning half of the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from captioner.datamodule import CaptionDataModule
from captioner.errors import CaptionerError
from captioner.training import CaptionTask


class RunFolder(SaveConfigCallback):
    """Keep one run in one folder: its configuration is written once and never overwritten."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write ``config.yaml`` when a run starts; a resumed run keeps the one it has."""
        folder = Path(trainer.default_root_dir)
        config = folder / self.config_filename
        if stage != "fit" or (trainer.ckpt_path and config.is_file()):
            return
        if config.is_file():
            raise CaptionerError(
                f"{folder} holds a run already: go on with it (--ckpt_path last), or choose "
                "another folder (--run_dir)"
            )
        try:
            super().setup(trainer, pl_module, stage)
        except OSError as error:
            raise CaptionerError(
                f"cannot write {folder}: {error.strerror}; choose another --run_dir"
            ) from error


class CaptionCLI(LightningCLI):
    """The command line of training: one folder for a run, one set of callbacks for every run."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run's folder and callbacks, and link what two parts must agree on."""
        parser.add_argument(
            "--run_dir", type=str, default="runs/captioner", help="Where this run is kept."
        )
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/cider_d",
                "checkpoint.mode": "max",
                "checkpoint.save_last": True,
                "checkpoint.filename": "best",
                "checkpoint.enable_version_counter": False,
                "early_stopping.monitor": "val/cider_d",
                "early_stopping.mode": "max",
                "early_stopping.patience": 5,
                "trainer.num_sanity_val_steps": 0,
                "trainer.gradient_clip_val": 1.0,
            }
        )
        parser.link_arguments("run_dir", "trainer.default_root_dir")
        parser.link_arguments("run_dir", "checkpoint.dirpath", _checkpoint_folder)
        parser.link_arguments("model.encoder", "data.encoder")
        parser.link_arguments("model.init_from", "data.vocabulary_from")
        parser.link_arguments("seed_everything", "model.seed", int)
        parser.link_arguments("seed_everything", "data.seed", int)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Log to TensorBoard and CSV inside the run's folder unless loggers are configured."""
        config = self.config_init[self.subcommand]
        if config.trainer.logger is None:
            kwargs["logger"] = [
                TensorBoardLogger(config.run_dir, name="", version=""),
                # A folder for each start: Lightning's CSV logger begins its file anew.
                CSVLogger(config.run_dir, name="metrics"),
            ]
        return super().instantiate_trainer(**kwargs)


def _checkpoint_folder(run_dir: str) -> str:
    return str(Path(run_dir) / "checkpoints")


def main(argv: Sequence[str]) -> int:
    """Run ``fit``, ``validate`` or ``test`` with their options; returns the exit code.

    Raises:
        CaptionerError: for what the user can mend.
    """
    CaptionCLI(
        CaptionTask,
        CaptionDataModule,
        save_config_callback=RunFolder,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        args=list(argv),
    )
    sys.stdout.flush()
    return 0
