"""`captioner tag` over shards: parse, call, print."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from captioner.cli.options import add_options, options_of, with_flags
from captioner.cli.shards import check_engine, run_shards
from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.shards.job import EngineOptions, ShardJob, VideoShardOptions
from captioner.shards.work import VIDEO_FORMATS
from captioner.tagging.options import TagOptions
from captioner.video.options import SamplingOptions

if TYPE_CHECKING:
    from captioner.model.caption_model import CaptionModel

REFUSED = {
    "overwrite": "--overwrite",
    "csv_bom": "--csv-bom",
    "min_caption_confidence": "--min-caption-confidence",
}
"""Options that shards have no use for."""


def add_shards(parser: argparse.ArgumentParser) -> None:
    """How inputs become shards."""
    group = parser.add_argument_group(
        "shards",
        "Lists of videos (.csv, .jsonl, .parquet) and addresses (s3://...) give a file for\n"
        "each shard, below --output; so do videos where --format is jsonl or parquet.",
    )
    add_options(group, VideoShardOptions)
    add_options(group, EngineOptions)


def wants_shards(args: argparse.Namespace) -> bool:
    """Whether a file for each shard is wanted: by the inputs, the output or the format."""
    from captioner.files.stores import is_address
    from captioner.shards.inputs import looks_like_shards
    from captioner.shards.tag import TagWork

    if is_address(args.output_dir or "") or set(args.format or ()) & set(VIDEO_FORMATS):
        return True
    return any(looks_like_shards(path, TagWork.kinds) for path in args.paths)


def check_shards(args: argparse.Namespace) -> None:
    """Refuse what shards cannot be, before any work.

    Raises:
        CaptionerError: names the option and the remedy.
    """
    if args.output_dir is None:
        raise CaptionerError(
            f"{shown(args.paths[0])}: tags of shards and of what lies at addresses go into a "
            "folder, a file for each shard: add --output tags/"
        )
    for name, flag in REFUSED.items():
        if (value := getattr(args, name)) is not None and value is not False:
            raise CaptionerError(f"{flag}: is not for shards; leave it out")
    formats = args.format or VIDEO_FORMATS[:1]
    if len(formats) > 1 or formats[0] not in VIDEO_FORMATS:
        raise CaptionerError(
            f"--format {','.join(formats)}: a shard is one file of records, without subtitles and "
            f"pages for each video; choose one of {', '.join(VIDEO_FORMATS)}"
        )
    _job_of(args, {})
    check_engine(args)


def tag_shards(
    args: argparse.Namespace,
    asked: Mapping[str, Any],
    model: CaptionModel,
    counts_text: Callable[[Counter[str]], str],
) -> int:
    """Run the command; returns its exit code.

    Args:
        args: of the command, checked.
        asked: the options of `captioner.shards.tag.TagWork` beside the inputs.
        model: the captioner.
        counts_text: says what became of the videos.
    """
    kinds = (SamplingOptions, TagOptions, DecodingOptions)
    return run_shards(args, _job_of(args, asked), model, counts_text, *kinds)


def _job_of(args: argparse.Namespace, asked: Mapping[str, Any]) -> ShardJob:
    from captioner.shards.tag import TagWork

    work = TagWork(tuple(args.paths), tuple(args.exclude), **asked)
    format = (args.format or VIDEO_FORMATS)[0]
    try:
        return ShardJob(work, args.output_dir, format, options_of(VideoShardOptions, args))
    except ValueError as error:
        raise CaptionerError(with_flags(str(error), VideoShardOptions)) from error
