"""A job over shards on the command line, whatever is done with them: engine, progress, summary."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from captioner.cli.options import options_named_by_flags, options_of, say
from captioner.errors import CaptionerError
from captioner.model.options import ModelOptions
from captioner.shards.job import EngineOptions, ShardJob

if TYPE_CHECKING:
    from captioner.model.caption_model import CaptionModel
    from captioner.shards.engines import Engine
    from captioner.shards.run import ShardRun
    from captioner.shards.tasks import ShardReport


def check_engine(args: argparse.Namespace) -> None:
    """Refuse options of the engine that do not go together, and one that is not installed.

    With Ray, the model of this process only checks the job: from then on ``args`` ask for it on the
    CPU, and have as ``workers_model`` what the workers are to load.

    Raises:
        CaptionerError: names the option and the remedy.
    """
    options, how = options_of(EngineOptions, args), options_of(ModelOptions, args)
    if options.engine == "local":
        return
    if find_spec("ray") is None:
        raise CaptionerError(
            "--engine ray: Ray is not installed; install it with: pip install 'captioner[ray]'"
        )
    from captioner.shards.ray_engine import placed

    device, precision = placed(how.device, how.precision, options)
    args.workers_model = replace(how, device=device, precision=precision)
    args.device, args.precision = "cpu", "fp32"


def check_no_engine(args: argparse.Namespace, how: str) -> None:
    """Refuse Ray where there are no shards.

    Args:
        args: of the command.
        how: to get shards.

    Raises:
        CaptionerError: says so.
    """
    if options_of(EngineOptions, args).engine != "local":
        raise CaptionerError(f"--engine {args.engine}: is for shards (docs/scale.md); {how}")


def run_shards(
    args: argparse.Namespace,
    job: ShardJob,
    model: CaptionModel,
    counts_text: Callable[[Counter[str]], str],
    *kinds: type,
) -> int:
    """Do a job; returns the command's exit code.

    Args:
        args: of the command.
        job: what is to be done.
        model: the captioner, loaded from a file.
        counts_text: says what became of the files.
        kinds: the dataclasses of the command's options, for messages about them.
    """
    from captioner.shards.run import ShardRun

    engine, elsewhere = _engine(args, model)
    with options_named_by_flags(*kinds, ModelOptions), ShardRun(job, model, elsewhere) as run:
        try:
            for report in _with_progress(engine, run, args.quiet):
                if report.error is not None:
                    say(f"captioner: shard {report.task.name}: {report.error}")
        except KeyboardInterrupt:
            say(f"captioner: {run.resume_hint}")
            raise
    if not args.quiet:
        say(f"captioner: {_summary(run)}; {job.work.noun}s: {counts_text(run.counts)}")
    return 1 if run.failed or run.counts["failed"] else 0


def _engine(args: argparse.Namespace, model: CaptionModel) -> tuple[Engine, dict[str, str]]:
    """The engine, and what `ShardRun` has to know of where it computes."""
    from captioner.shards.engines import LocalEngine

    options = options_of(EngineOptions, args)
    if options.engine == "local":
        return LocalEngine(model), {}
    from captioner.shards.model_bytes import ModelBytes
    from captioner.shards.ray_engine import RayEngine

    how: ModelOptions = args.workers_model
    engine = RayEngine(ModelBytes.read(how, model), options, say=say)
    return engine, {"device": how.device, "precision": how.precision}


def _with_progress(engine: Engine, run: ShardRun, quiet: bool) -> Iterator[ShardReport]:
    """The reports of an engine, taken by the run, and on a terminal a line of how far it is."""
    from tqdm import tqdm

    start_s = time.monotonic()
    hidden = quiet or not sys.stderr.isatty()
    with tqdm(total=run.total, unit=" shards", file=sys.stderr, disable=hidden) as bar:
        for report in engine.run(run.tasks()):
            run.take(report)
            bar.update(run.done + run.before - bar.n)
            seconds = time.monotonic() - start_s
            bar.set_postfix_str(_progress(run, engine.workers, seconds), refresh=False)
            yield report


def _progress(run: ShardRun, workers: int, seconds: float) -> str:
    files = sum(run.counts.values())
    text = f"{files / max(seconds, 1e-9):.1f} {run.job.work.noun}s/s, {workers} worker"
    text += f"{'' if workers == 1 else 's'}, {len(run.failed)} failed"
    if run.total is not None:
        text += f", {run.total - run.before - run.done - len(run.failed)} left"
    return text


def _summary(run: ShardRun) -> str:
    text = f"{run.done} shard{'' if run.done == 1 else 's'} {run.job.work.done}, "
    if run.before:
        text += f"{run.before} finished before, "
    return text + f"{len(run.failed)} failed"
