"""`captioner caption` over shards: parse, call, print."""

from __future__ import annotations

import argparse
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from captioner.cli.checks import check_model
from captioner.cli.options import (
    decoding_for,
    decoding_options,
    model_of,
    options_of,
    say,
    say_if_calibration_was_lost,
    with_flags,
)
from captioner.cli.shards import check_engine, run_shards
from captioner.errors import CaptionerError
from captioner.model.options import BatchOptions
from captioner.shards.job import ShardJob, ShardOptions
from captioner.shards.work import FORMATS

if TYPE_CHECKING:
    from captioner.captioning.job import CaptionJob
    from captioner.decoding.options import DecodingOptions
    from captioner.model.caption_model import CaptionModel

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
    from captioner.shards.caption import CaptionWork
    from captioner.shards.inputs import looks_like_shards

    output = args.output or ""
    if is_address(output) or args.format in ("parquet", "tar"):
        return True
    if output.endswith("/") and args.format == "jsonl":
        return True
    return any(looks_like_shards(path, CaptionWork.kinds) for path in args.paths)


def caption_shards(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    check_model(args, several_languages=True)
    _job_of(args)
    check_engine(args)
    model = model_of(args)
    job = _job_of(args, model)
    say_if_calibration_was_lost(model, wanted=not args.quiet)
    from captioner.captioning.job import CaptionJob
    from captioner.decoding.constraints import notes_on_banned
    from captioner.decoding.options import DecodingOptions

    decoding = decoding_for(model, args)
    for note in () if args.quiet else notes_on_banned(decoding, model.tokenizer):
        say(f"captioner: --ban: {note}")
    return run_shards(args, job, model, partial(_counts_text, args), CaptionJob, DecodingOptions)


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
    from captioner.shards.caption import CaptionWork

    decoding = decoding_options(args) if model is None else decoding_for(model, args)
    try:
        work = CaptionWork(_caption_job(args, decoding))
        return ShardJob(work, args.output, format, options_of(ShardOptions, args))
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


def _counts_text(args: argparse.Namespace, counts: Counter[str]) -> str:
    unsure = f"{counts['unsure']} not sure enough, " if args.min_confidence > 0 else ""
    return f"{counts['ok']} captioned, {unsure}{counts['failed']} failed"
