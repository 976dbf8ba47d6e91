"""`captioner fit | validate | test`: the Lightning half of the command line."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.utilities import rank_zero_only

from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.networks.configs import MIN_SIDE, DecoderConfig, EncoderConfig
from captioner.training.callbacks import WeightAverage
from captioner.training.datamodule import CaptionDataModule
from captioner.training.outcome import best_text, no_gain_text, scores_text, start_text, warnings_of
from captioner.training.ranks import (
    EndsOnTerm,
    OtherRanks,
    OwnEnvironment,
    follow_parent,
    is_other_rank,
    let_parent_fail_first,
    starts_processes_here,
)
from captioner.training.run_folder import (
    LastCheckpoint,
    RunFolder,
    SafeCheckpoints,
    checkpoint_folder,
    claim_folder,
    find_checkpoint,
    remove_folder,
    resume_hint,
)
from captioner.training.start import SETTINGS, settings_of_start
from captioner.training.start_scores import StartScores
from captioner.training.task import CaptionTask

# Output of Lightning and its libraries that users cannot act on: beginnings of messages, the
# modules that log them, and patterns of warnings.
MUTED_MESSAGES = (
    "💡",
    "TPU available",
    "Loading `train_dataloader`",
    "`weights_only` was not set",
    "Initializing distributed",
    "-" * 100,  # frames the number of processes
    "Your model can run with static graph",
)
MUTED_LOGGERS = (
    "pytorch_lightning.utilities.rank_zero",
    "pytorch_lightning.trainer.connectors.checkpoint_connector",
    "lightning_fabric.utilities.rank_zero",
    "lightning_fabric.utilities.distributed",
)
NOT_WARNED = (
    r"(?s).*does not have many workers",  # features from the cache need none
    r"(?s).*number of training batches .* smaller than the logging interval",
    r"(?s).*treespec, LeafSpec",
    r"(?s).*dataloader is not resumable",  # ours asks Lightning where it stood
    r"(?s).*module\(s\) in eval mode",  # frozen BatchNorm
    r"(?s)The dirpath has changed",  # a run may begin with another run's checkpoint
    r"(?s)Checkpoint directory .* exists and is not empty",  # it does when a run is resumed
    r"(?s)It is recommended to use `self\.log\(.*sync_dist=True",  # what is logged is of all ranks
)


class TrainingParser(LightningArgumentParser):
    """The options; a mistake in them is one message, without the usage of a hundred options."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Refuse an option, a value or a configuration file.

        Raises:
            CaptionerError: always.
        """
        command = self.prog.replace(" [options]", "") if " " in self.prog else "captioner fit"
        hint = "give them in a file with --config; " if "are required" in message else ""
        raise CaptionerError(f"{message}\n({hint}`{command} --help-all` lists all options)") from ex


class CaptionCLI(LightningCLI):
    """The command line of training: one folder for a run, one set of callbacks for every run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Run the command that the arguments name.

        What failed before its first step leaves no folder; what was interrupted says how it
        resumes.
        """
        self._made: Path | None = None
        self._command: str = kwargs["args"][0]
        self._others = OtherRanks(kwargs["args"])
        try:
            with self._others:
                super().__init__(*args, **kwargs)
        except BaseException as error:
            if not _is_first():
                if is_other_rank() and isinstance(error, Exception):
                    let_parent_fail_first()
                raise
            is_fit = "subcommand" in self.__dict__ and self.subcommand == "fit"
            if is_fit and not self._has_stepped():
                remove_folder(Path(self.config.fit.run_dir), self._made)
            if is_fit and isinstance(error.__context__ or error, KeyboardInterrupt):
                print(f"captioner: {shown(resume_hint(self.config.fit.run_dir))}", file=sys.stderr)
            raise

    def _has_stepped(self) -> bool:
        return "trainer" in self.__dict__ and self.trainer.global_step > 0

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The command, and the arguments of the trainer's method that are not options.

        The other commands get no options: to make them takes as long again for each.
        """
        # weights_only=False would let a checkpoint run code: it is not offered.
        loaders = {"model", "datamodule", "weights_only"}
        is_fit = self._command == "fit"
        own = {"train_dataloaders", "val_dataloaders"} if is_fit else {"dataloaders"}
        return {self._command: loaders | own}

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
        parser.link_arguments("run_dir", "checkpoint.dirpath", checkpoint_folder)
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
        if self._command != "fit":
            # Lightning's table has scores of two scales; after_validate prints ours.
            self._subcommand_parsers[self._command].set_defaults({"verbose": False})
        self.config = parser.parse_args(args)
        options = self.config[self.config.subcommand]
        if options.data.root is None and not options.data.sources:
            missing = f"{self.config.subcommand}.data.root"
            parser.error(f"the following arguments are required: {missing}")
        _check_options(options)
        if options.model.init_from is not None:
            self._take_settings(parser, args, options)
        options.trainer.precision = _possible_precision(options.trainer)
        options.ckpt_path = find_checkpoint(
            self.config.subcommand, options.ckpt_path, options.run_dir, options.model.init_from
        )

    def _take_settings(self, parser: LightningArgumentParser, args: Any, options: Any) -> None:
        """Take what was left out of encoder and decoder from the model to start from."""
        given = self._given_settings(parser, args, options)
        found = settings_of_start(options.model.init_from, given, options.get)
        for setting, value in found.items():
            options[setting] = value
            if setting.startswith("model.encoder."):  # linked when the options were parsed
                options[setting.replace("model", "data", 1)] = value

    def _given_settings(self, parser: LightningArgumentParser, args: Any, options: Any) -> set[str]:
        """The settings that other defaults would not change: command line or files name them."""
        defaults = self._subcommand_parsers[self.config.subcommand]
        usual = {name: defaults.get_default(name) for name in SETTINGS}
        defaults.set_defaults({name: _another(value) for name, value in usual.items()})
        try:
            other = parser.parse_args(args)[self.config.subcommand]
        finally:
            defaults.set_defaults(usual)
        return {name for name in SETTINGS if other[name] == options[name]}

    def before_instantiate_classes(self) -> None:
        """Look at the run's folder before the features of a thousand images are computed."""
        options = self.config[self.subcommand]
        if self.subcommand == "fit" and not options.trainer.fast_dev_run and _is_first():
            self._made = claim_folder(Path(options.run_dir), options.ckpt_path)

    def instantiate_classes(self) -> None:
        """Build task, data module and trainer.

        Raises:
            CaptionerError: when an option has a value that cannot be used.
        """
        try:
            super().instantiate_classes()
        except (ValueError, MisconfigurationException) as error:
            if "interactive environment" in str(error):
                raise CaptionerError(
                    "trainer.devices: Python in a notebook or at a prompt cannot train in several "
                    "processes; run the command in a terminal, or as `!captioner` in a cell"
                ) from error
            # Option dataclasses and Lightning refuse values with these, and say which.
            raise CaptionerError(f"configuration: {error}") from error
        strategy, launched = self.trainer.strategy, self.trainer.strategy.launcher
        if self.trainer.world_size > 1 and not (
            isinstance(strategy, DDPStrategy) and isinstance(launched, _SubprocessScriptLauncher)
        ):
            raise CaptionerError(
                f"trainer.strategy={self.config_init[self.subcommand].trainer.strategy}: several "
                "processes train with ddp; use --trainer.strategy ddp"
            )

    def before_fit(self) -> None:
        """Start the other processes, now that the options are known to be good."""
        if self._starts_processes and self.trainer.world_size > 1:
            self._others.start(self.trainer.num_devices, self.trainer.num_nodes)

    before_validate = before_test = before_fit

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
        self._starts_processes = starts_processes_here(plugins)
        kwargs["plugins"] = [*plugins, SafeCheckpoints()]
        if self._starts_processes:
            kwargs["plugins"].append(OwnEnvironment())
        callbacks = config.trainer.callbacks or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        self._start = StartScores()
        kwargs["callbacks"] = [*callbacks, self._start]
        if self._starts_processes or is_other_rank():
            kwargs["callbacks"].append(EndsOnTerm())
        return super().instantiate_trainer(**kwargs)

    def after_fit(self) -> None:
        """Say how good the best checkpoint is, what to do with it, and what is wrong with it."""
        best = self.trainer.checkpoint_callback
        if not isinstance(best, ModelCheckpoint) or best.best_model_score is None:
            return
        if not self.trainer.is_global_zero:
            return
        value, monitor = float(best.best_model_score), str(best.monitor)
        run_dir = Path(self.config.fit.run_dir)
        if monitor in self._start.scores:
            before = self._start.scores[monitor]
            print(start_text(monitor, before, value))
            if value <= before:
                print(f"captioner: {no_gain_text(monitor)}", file=sys.stderr)
        print(best_text(monitor, value, Path(best.best_model_path), run_dir))
        task, data = self.model, self.datamodule
        if monitor == "val/cider_d" and task.objective == "cross_entropy":
            images, captions = data.training_size
            for warning in warnings_of(value, images, captions, task.init_from):
                print(f"captioner: {warning}", file=sys.stderr)

    def after_validate(self) -> None:
        """Print the scores."""
        self._print_scores("val")

    def after_test(self) -> None:
        """Print the scores."""
        self._print_scores("test")

    def _print_scores(self, prefix: str) -> None:
        metrics = self.trainer.callback_metrics.items()
        if self.trainer.is_global_zero:
            print(scores_text({name: float(value) for name, value in metrics}, prefix))


def _is_first() -> bool:
    """Whether this is the only process of the training, or the first of them."""
    return not getattr(rank_zero_only, "rank", 0)


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


def _another(value: Any) -> Any:
    """Another value of the same type, or of the type that goes with None: an image size."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return f"not {value}"
    return MIN_SIDE if value is None else value + 1


def _possible_precision(trainer: Any) -> Any:
    """The trainer's precision; float32 where it asks for a bfloat16 that the CPU does not have.

    oneDNN has no bfloat16 LSTM for processors without AVX512: the first step would fail.
    """
    gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    on_cpu = trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and not gpu)
    asks = str(trainer.precision).startswith("bf16")
    if not (on_cpu and asks) or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return trainer.precision
    if _is_first():
        print(
            f"trainer.precision={trainer.precision}: this processor has no bfloat16 arithmetic; "
            "training in float32 (32-true)",
            file=sys.stderr,
        )
    return "32-true"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep advertisements and warnings that mean nothing here from the user."""

    def is_ours(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not message.startswith(MUTED_MESSAGES)

    if not _is_first():
        for name in ("pytorch_lightning", "lightning_fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
    loggers = [logging.getLogger(name) for name in MUTED_LOGGERS]
    for logger in loggers:
        logger.addFilter(is_ours)
    try:
        with warnings.catch_warnings():
            for message in NOT_WARNED if _is_first() else [""]:  # one process warns for all
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
    if is_other_rank():
        follow_parent()
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
