"""`captioner caption` over shards: parse, call, print."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

from captioner.cli.checks import check_model
from captioner.cli.options import (
    decoding_for,
    decoding_options,
    model_of,
    options_named_by_flags,
    options_of,
    say,
    say_if_calibration_was_lost,
    with_flags,
)
from captioner.errors import CaptionerError
from captioner.model.options import BatchOptions, ModelOptions
from captioner.shards.job import FORMATS, EngineOptions, ShardJob, ShardOptions

if TYPE_CHECKING:
    from captioner.captioning.job import CaptionJob
    from captioner.decoding.options import DecodingOptions
    from captioner.model.caption_model import CaptionModel
    from captioner.shards.engines import Engine
    from captioner.shards.run import ShardRun
    from captioner.shards.tasks import ShardReport

REFUSED = {
    "append": "--append",
    "overwrite": "--overwrite",
    "missing_only": "--missing-only",
    "replace_hand_made": "--yes",
    "embed": "--embed",
    "xmp_name": "--xmp-name",
    "csv_bom": "--csv-bom",
    "no_attention": "--no-attention",
    "no_tags": "--no-tags",
}
"""Options that shards have no use for."""


def wants_shards(args: argparse.Namespace) -> bool:
    """Whether a file for each shard is wanted: by the inputs, the output or the format."""
    from captioner.files.stores import is_address
    from captioner.shards.inputs import looks_like_shards

    output = args.output or ""
    if is_address(output) or args.format in ("parquet", "tar"):
        return True
    if output.endswith("/") and args.format == "jsonl":
        return True
    return any(map(looks_like_shards, args.paths))


def caption_shards(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    check_model(args, several_languages=True)
    _job_of(args)
    engine_options = options_of(EngineOptions, args)
    if engine_options.engine == "ray":
        check_ray()
    model = model_of(args)
    job = _job_of(args, model)
    say_if_calibration_was_lost(model, wanted=not args.quiet)
    from captioner.captioning.job import CaptionJob
    from captioner.decoding.constraints import notes_on_banned
    from captioner.decoding.options import DecodingOptions
    from captioner.shards.run import ShardRun

    for note in () if args.quiet else notes_on_banned(job.caption.decoding, model.tokenizer):
        say(f"captioner: --ban: {note}")
    engine = _engine(engine_options, model, options_of(ModelOptions, args))
    named = options_named_by_flags(CaptionJob, DecodingOptions, ModelOptions)
    with named, ShardRun(job, model) as run:
        try:
            for report in _with_progress(engine.run(run.tasks()), run, args.quiet):
                if report.error is not None:
                    say(f"captioner: shard {report.task.name}: {report.error}")
        except KeyboardInterrupt:
            say(f"captioner: {run.resume_hint}")
            raise
    if not args.quiet:
        say("captioner: " + _summary(run))
    return 1 if run.failed or run.counts["failed"] else 0


def check_ray() -> None:
    """Refuse the engine before any work where Ray is not installed."""
    if find_spec("ray") is None:
        raise CaptionerError(
            "--engine ray: Ray is not installed; install it with: pip install 'captioner[ray]'"
        )


def _engine(options: EngineOptions, model: CaptionModel, how: ModelOptions) -> Engine:
    from captioner.shards.engines import LocalEngine

    if options.engine == "local":
        return LocalEngine(model)
    from captioner.shards.ray_engine import RayEngine

    assert model.path is not None  # A job is checked by the hash of its file.
    return RayEngine(model.path.read_bytes(), options, how.device, how.precision)


def _job_of(args: argparse.Namespace, model: CaptionModel | None = None) -> ShardJob:
    if args.output in (None, "-"):
        raise CaptionerError(
            f"{args.paths[0]}: captions of shards and of what lies at addresses go into a folder, "
            "a file for each shard: add --output captions/"
        )
    for name, flag in REFUSED.items():
        if getattr(args, name, None):
            raise CaptionerError(f"{flag}: is not for shards; leave it out")
    format = args.format or FORMATS[0]
    if format not in FORMATS:
        raise CaptionerError(
            f"--format {format}: shards are written as {', '.join(FORMATS)}; choose one of them"
        )
    decoding = decoding_options(args) if model is None else decoding_for(model, args)
    try:
        return ShardJob(
            _caption_job(args, decoding), args.output, format, options_of(ShardOptions, args)
        )
    except ValueError as error:
        from captioner.captioning.job import CaptionJob

        raise CaptionerError(with_flags(str(error), CaptionJob, ShardOptions)) from error


def _caption_job(args: argparse.Namespace, decoding: DecodingOptions) -> CaptionJob:
    from captioner.captioning.job import CaptionJob

    batches = options_of(BatchOptions, args)
    return CaptionJob(
        paths=tuple(args.paths),
        exclude=tuple(args.exclude),
        raw=args.raw,
        format="jsonl",
        decoding=decoding,
        candidates=args.candidates or decoding.num_captions > 1,
        min_confidence=args.min_confidence,
        min_tag_confidence=args.tags,
        batch_size=batches.batch_size,
        workers=batches.workers,
        partial_images=args.partial_images,
        caption_prefix=args.caption_prefix,
        caption_suffix=args.caption_suffix,
    )


def _with_progress(
    reports: Iterable[ShardReport], run: ShardRun, quiet: bool
) -> Iterator[ShardReport]:
    """The reports, taken by the run, and on a terminal a line of how far it is."""
    from tqdm import tqdm

    start_s = time.monotonic()
    hidden = quiet or not sys.stderr.isatty()
    with tqdm(total=run.total, unit=" shards", file=sys.stderr, disable=hidden) as bar:
        for report in reports:
            run.take(report)
            bar.update(run.done + run.before - bar.n)
            bar.set_postfix_str(_progress(run, time.monotonic() - start_s), refresh=False)
            yield report


def _progress(run: ShardRun, seconds: float) -> str:
    images = sum(run.counts.values())
    text = f"{images / max(seconds, 1e-9):.1f} images/s, {len(run.failed)} failed"
    if run.total is not None:
        text += f", {run.total - run.before - run.done - len(run.failed)} left"
    return text


def _summary(run: ShardRun) -> str:
    text = f"{run.done} shard{'' if run.done == 1 else 's'} captioned, "
    if run.before:
        text += f"{run.before} finished before, "
    text += f"{len(run.failed)} failed; images: {run.counts['ok']} captioned, "
    if run.job.caption.min_confidence > 0:
        text += f"{run.counts['unsure']} not sure enough, "
    return text + f"{run.counts['failed']} failed"
