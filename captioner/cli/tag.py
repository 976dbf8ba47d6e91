"""`captioner tag`: parse, call, print."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.cli.checks import check_model, found_videos
from captioner.cli.options import (
    add_decoding,
    add_exclude,
    add_model,
    add_option,
    add_options,
    decoding_for,
    decoding_options,
    list_of,
    model_of,
    moment,
    options_named_by_flags,
    options_of,
    say,
    say_if_calibration_was_lost,
    say_what_was_passed_over,
    share,
)
from captioner.cli.shards import check_no_engine
from captioner.cli.tag_shards import (
    add_shards,
    check_shards,
    tag_shards,
    wants_shards,
)
from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError
from captioner.files.escaping import escaped, isolated, shown
from captioner.files.writing import check_folder
from captioner.model.options import ModelOptions
from captioner.options import described
from captioner.shards.work import VIDEO_FORMATS
from captioner.tagging.options import FrameBatchOptions, TagOptions
from captioner.tagging.writers import TAG_WRITERS, CsvTagWriter, TextTagWriter
from captioner.video.options import SamplingOptions

if TYPE_CHECKING:
    from captioner.files.finding import SourceFile
    from captioner.model.caption_model import CaptionModel

SECONDS_BAR = "{desc}{percentage:3.0f}%|{bar}| {n:.0f}/{total_fmt} s"

TAG_EXAMPLES = """\
examples:
  captioner tag clip.mp4                                  its tags and captions, to read
  captioner tag clip.mp4 --output-dir tags                all formats: tags/clip.json, .srt, ...
  captioner tag videos/ 'more/*.mkv' --output-dir tags    folders with all in them, patterns
  captioner tag videos/ --output-dir tags --format json,vtt --fps 2
  captioner tag videos/ --output-dir tags --format html   then open tags/index.html in a browser
  captioner tag film.mkv --output-dir tags --max-frames 500 --max-tags 10
  captioner tag clip.mp4 --output-dir tags --language en,de   subtitles clip.en.srt and clip.de.srt
  captioner tag film.mkv --output-dir tags --start 1:02:00 --end 1:05:30.5
  captioner tag videos.csv --output tags/                 a list of paths or URLs, in shards
  captioner tag s3://bucket/videos/ --output s3://bucket/tags   from a store, into a store
  captioner tag s3://bucket/videos/ --output s3://bucket/tags --engine ray   on a Ray cluster

GIF, animated WebP and APNG are videos as well: in a folder those with more than one frame.
In DIR every video gets a file of each format, in the same subfolders; tags.jsonl has a line for
each, and index.html leads to all pages. A page refers to its video, which stays where it is.
Run again, the command resumes: a finished video is not done twice, an unfinished one is done from
its start, a failed one is tried again. A video that cannot be read is named on
standard error, the others are tagged, and the exit code is 1. docs/video-tags.md explains the
formats, docs/scale.md shards and addresses.
"""


def add_tag(parser: argparse.ArgumentParser) -> None:
    """The options of the command, and its examples."""
    parser.epilog = TAG_EXAMPLES
    parser.set_defaults(command=_tag)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="video, folder or pattern")
    add_exclude(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        *("-o", "--output-dir", "--output"),
        metavar="DIR",
        help="write files there, instead of a summary to standard output",
    )
    output.add_argument(
        "--format",
        type=list_of([*TAG_WRITERS, *VIDEO_FORMATS]),
        metavar="NAME[,NAME...]",
        help="a file of each for every video (default: all). "
        + "; ".join(f"{name}: {writer.summary}" for name, writer in TAG_WRITERS.items())
        + "; for shards jsonl (default) or parquet: a file of records, those of json",
    )
    output.add_argument(
        "--min-caption-confidence",
        type=share,
        metavar="P",
        help="captions with less confidence, from 0 to 1, get no subtitle in srt and vtt and over "
        "the video of a page; all else shows them (default: 0.25, below which fewer than one word "
        "in four is expected to be right; 0 for a model that is not calibrated)",
    )
    output.add_argument(
        "--csv-bom",
        action="store_true",
        help="with csv: begin with a byte order mark, by which Excel knows that it is UTF-8",
    )
    again = output.add_mutually_exclusive_group()
    again.add_argument(
        "--resume",
        action="store_true",
        help="leave finished videos in DIR as they are; this is what happens without it as well",
    )
    again.add_argument(
        "--overwrite", action="store_true", help="do everything again and replace what is in DIR"
    )
    output.add_argument("--quiet", action="store_true", help="no progress bars and no summary")
    frames = parser.add_argument_group("frames")
    for name in described(SamplingOptions):
        is_moment = name in ("start_s", "end_s")
        add_option(frames, SamplingOptions, name, **({"type": moment} if is_moment else {}))
    add_options(parser.add_argument_group("tags"), TagOptions)
    add_decoding(parser)
    add_options(add_model(parser), FrameBatchOptions)
    add_shards(parser)


def _tag(args: argparse.Namespace) -> int:
    from captioner.video.finding import VIDEOS

    is_for_shards = wants_shards(args)
    if not is_for_shards:
        check_no_engine(args, "of videos: --format jsonl")
    (check_shards if is_for_shards else _check_output)(args)
    asked: dict[str, Any] = {
        "sampling": options_of(SamplingOptions, args),
        "tagging": options_of(TagOptions, args),
        "batch_size": options_of(FrameBatchOptions, args).batch_size,
    }
    decoding_options(args)
    check_model(args, several_languages=True)
    files = [] if is_for_shards else found_videos(args.paths, args.exclude)
    model = model_of(args)
    asked["decoding"] = decoding_for(model, args)
    if model.lexicon is None and not args.quiet:
        say("captioner: the model has no lexicon, so there will be no tags: `captioner calibrate`")
    say_if_calibration_was_lost(model, wanted=not args.quiet)
    if is_for_shards:
        return tag_shards(args, asked, model, _counts_text)
    with _VideoBars(len(files), args.quiet) as bars:
        work = _print_summaries if args.output_dir is None else _write_files
        counts = work(args, asked, model, files, bars)
    if not args.quiet:
        say("captioner: " + _counts_text(counts))
    say_what_was_passed_over(args.paths, VIDEOS, args.exclude, wanted=not args.quiet)
    return 1 if counts["failed"] else 0


def _check_output(args: argparse.Namespace) -> None:
    """Refuse what is about files where none are written."""
    if args.csv_bom and CsvTagWriter.format not in (args.format or TAG_WRITERS):
        raise CaptionerError(f"--csv-bom: is for the format csv, not for {', '.join(args.format)}")
    if args.output_dir is not None:
        check_folder(Path(args.output_dir))
        return
    for name in ("resume", "overwrite", "format", "csv_bom"):
        if getattr(args, name) and args.format != (TextTagWriter.format,):
            raise CaptionerError(
                f"--{name.replace('_', '-')}: without --output-dir a summary is printed and no "
                "file is written; add --output-dir DIR"
            )


def _print_summaries(
    args: argparse.Namespace,
    asked: Mapping[str, Any],
    model: CaptionModel,
    files: Sequence[SourceFile],
    bars: _VideoBars,
) -> Counter[str]:
    """Print what each video shows, a blank line between two; returns how many had which end."""
    from tqdm import tqdm

    from captioner.tagging.videos import tag_videos

    counts: Counter[str] = Counter()
    about = {"other_languages": [other.language for other in model.others]}
    safe = isolated if sys.stdout.isatty() else escaped
    with closing(tag_videos(model, files, **asked, on_progress=bars.frame)) as videos:
        for video in videos:
            bars.video()
            if video.status != "failed":
                text = TextTagWriter().shown({**video.to_dict(), "model": about}, safe)
                tqdm.write(f"\n{text}" if counts else text, file=sys.stdout, end="")
            counts[video.status] += 1
            _say_error(
                video.path, video.status, None if video.error is None else video.error.reason
            )
    return counts


def _write_files(
    args: argparse.Namespace,
    asked: Mapping[str, Any],
    model: CaptionModel,
    files: Sequence[SourceFile],
    bars: _VideoBars,
) -> Counter[str]:
    """Write the files of each video; returns how many had which end."""
    from captioner.tagging.job import TagJob, run_tag_job

    formats = args.format or tuple(TAG_WRITERS)
    job = TagJob(
        Path(args.output_dir),
        formats,
        **asked,
        overwrite=args.overwrite,
        min_caption_confidence=args.min_caption_confidence,
        csv_bom=args.csv_bom,
    )
    counts: Counter[str] = Counter()
    outcomes = run_tag_job(job, model, files, bars.frame)
    kinds = (TagJob, SamplingOptions, TagOptions, DecodingOptions, ModelOptions)
    with closing(outcomes), _saying_how_to_resume(args.overwrite), options_named_by_flags(*kinds):
        for outcome in outcomes:
            counts[outcome.status] += 1
            bars.video()
            _say_error(outcome.file.path, outcome.status, outcome.error)
    return counts


def _say_error(path: Path, status: str, error: str | None) -> None:
    if error is not None:
        say(f"captioner: {shown(path)}: {'only a part: ' if status == 'partial' else ''}{error}")


@contextmanager
def _saying_how_to_resume(overwrite: bool) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        without = " without --overwrite" if overwrite else ""
        say(
            f"captioner: run the same command{without} to resume: finished videos are kept, the "
            "others are done from their start"
        )
        raise


def _counts_text(counts: Counter[str]) -> str:
    text = f"{counts['ok'] + counts['partial']} tagged"
    if counts["partial"]:
        text += f" ({counts['partial']} in part)"
    if counts["done"]:
        text += f", {counts['done']} finished before"
    return f"{text}, {counts['failed']} failed"


class _VideoBars:
    """A bar over the videos and one over the seconds of the video that is being read."""

    def __init__(self, videos: int, quiet: bool) -> None:
        from tqdm import tqdm

        hidden = quiet or not sys.stderr.isatty()
        self._videos = tqdm(total=videos, unit=" videos", file=sys.stderr, disable=hidden)
        self._seconds = tqdm(
            unit=" s", file=sys.stderr, disable=hidden, leave=False, bar_format=SECONDS_BAR
        )
        self._file: Path | None = None

    def frame(self, file: SourceFile, time_s: float, announced_s: float | None) -> None:
        if file.path != self._file:
            self._file = file.path
            self._seconds.reset(total=None if announced_s is None else round(announced_s, 1))
            self._seconds.set_description(shown(Path(file.path.name)), refresh=False)
        self._seconds.n = round(time_s, 1)
        self._seconds.update(0)

    def video(self) -> None:
        self._videos.update()

    def __enter__(self) -> _VideoBars:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._seconds.close()
        self._videos.close()
