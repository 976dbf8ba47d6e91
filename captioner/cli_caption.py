"""`captioner caption`: parse, call, print."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING

from captioner.cli_options import (
    SAMPLING_ARGUMENTS,
    add_arguments,
    add_decoding,
    add_model,
    decoding_options,
    say,
    share,
    shown,
)
from captioner.errors import CaptionerError

if TYPE_CHECKING:
    from captioner.caption_job import CaptionJob, CaptionRun
    from captioner.captioning import CaptionRecord

CAPTION_EXAMPLES = """\
examples:
  captioner caption dog.jpg                               one line on standard output
  captioner caption photos/ 'more/*.png'                  folders with all in them, patterns
  captioner caption photos/ --output captions.csv         one file; its suffix decides the format
  captioner caption photos/ --output texts/ --format txt  a text file for each image
  captioner caption new/ --output captions.csv --append   and others to the same file
  captioner caption photos/ --num-captions 3 --candidates --output captions.jsonl
  captioner caption dog.jpg --sample --top-p 0.9 --num-captions 5 --seed 1
  captioner caption photos/ --ban snow --no-repeat-ngram 2
  captioner caption dog.jpg --prompt "two dogs"           go on from these words
  captioner caption dog.jpg --must-include ball --must-include grass
  captioner caption photos/ --tags --output captions.jsonl      words with their probabilities

Standard output gets a line `path<TAB>caption` for each image, and further captions behind further
tabs. An image that cannot be read is named on standard error, the others are captioned, and the
exit code is 1.

Stopped, killed or out of disk, the same command goes on: what is finished stays and is not looked
into again; images that failed, changed or are new are captioned and put in their places. Other
options, another model or other images are refused: --append adds other images at the end and
touches nothing else, --overwrite starts anew (to go on after that, leave it out). What is known of
the output stands beside it in a hidden file, `.captions.csv.captioner`: without it nothing can be
added. Standard output keeps nothing: there, every run starts from the beginning.
"""


def add_caption(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    from captioner.writers import WRITERS

    parser.set_defaults(command=_caption)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="image, folder or pattern")
    output = parser.add_argument_group("output")
    output.add_argument("--output", metavar="PATH", help="write there, not to standard output")
    output.add_argument(
        "--format",
        choices=list(WRITERS),
        help="of the output; without it the suffix of PATH decides. "
        + "; ".join(f"{name}: {writer.summary}" for name, writer in WRITERS.items()),
    )
    again = output.add_mutually_exclusive_group()
    again.add_argument(
        "--append",
        action="store_true",
        help="keep all that is in PATH, and add the images that are not yet in it",
    )
    again.add_argument(
        "--overwrite", action="store_true", help="start anew, and replace what is there already"
    )
    output.add_argument(
        "--candidates",
        action="store_true",
        help="with jsonl: the probability of every word of every caption",
    )
    output.add_argument(
        "--min-confidence",
        type=share,
        default=0.0,
        metavar="P",
        help="leave out captions that are less sure, from 0 to 1 (default: 0)",
    )
    output.add_argument(
        "--tags",
        nargs="?",
        type=share,
        const=0.25,
        metavar="P",
        help="with jsonl: what each image shows, as words that are right with a probability of "
        "at least P (default: 0.25)",
    )
    output.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    decoding = add_decoding(parser)
    decoding.add_argument(
        "--num-captions",
        type=int,
        default=argparse.SUPPRESS,
        metavar="N",
        help="captions for each image, best first; at most the beam size, except with --sample "
        "(jsonl and tsv; default: 1)",
    )
    decoding.add_argument(
        "--ban",
        action="append",
        default=argparse.SUPPRESS,
        dest="banned_words",
        metavar="WORD",
        help="never say this word; may be given again",
    )
    decoding.add_argument(
        "--prompt",
        default=argparse.SUPPRESS,
        metavar="TEXT",
        help="begin every caption with these words; they count in --max-length",
    )
    decoding.add_argument(
        "--must-include",
        action="append",
        default=argparse.SUPPRESS,
        metavar="WORD",
        help="say this very word somewhere; may be given again. The search then keeps the beam "
        "size for each number of words said; not with --sample",
    )
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument(
        "--sample",
        action="store_true",
        default=argparse.SUPPRESS,
        help="draw the words at random instead of searching for the best caption",
    )
    add_arguments(sampling, SAMPLING_ARGUMENTS)
    add_model(parser)


def _caption(args: argparse.Namespace) -> int:
    from captioner.caption_job import open_caption_job
    from captioner.model import load_model

    job = _caption_job(args)
    model = load_model(args.model, device=args.device, precision=args.precision)
    counts: Counter[str] = Counter()
    with open_caption_job(job, model) as run, closing(run.records()) as records:
        counts["done"] = run.done
        try:
            for record in _with_progress(records, run, args.quiet):
                counts[record.status] += 1
                if record.error is not None:
                    say(f"captioner: {shown(record.path)}: {record.error}")
        except KeyboardInterrupt:
            if run.how_to_go_on:
                say(f"captioner: {run.how_to_go_on}")
            raise
    if not args.quiet:
        say("captioner: " + _captions_text(counts, args.min_confidence > 0))
    return 1 if counts["failed"] else 0


def _caption_job(args: argparse.Namespace) -> CaptionJob:
    from captioner.caption_job import CaptionJob
    from captioner.writers import open_writer

    options = decoding_options(args)
    writer = open_writer(args.output, args.format)
    _check_candidates(args.candidates, options.num_captions, writer.format)
    if args.tags is not None and writer.format != "jsonl":
        raise CaptionerError(f"--tags: {writer.format} has no place for them; use --format jsonl")
    try:
        return CaptionJob(
            paths=tuple(args.paths),
            output=writer.output,
            format=writer.format,
            decoding=options,
            candidates=args.candidates or options.num_captions > 1,
            min_confidence=args.min_confidence,
            min_tag_confidence=args.tags,
            batch_size=args.batch_size,
            workers=args.workers,
            overwrite=args.overwrite,
            append=args.append,
        )
    except ValueError as error:
        raise CaptionerError(str(error)) from error


def _captions_text(counts: Counter[str], some_left_out: bool) -> str:
    text = f"{counts['ok']} captioned, "
    if some_left_out:
        text += f"{counts['unsure']} not sure enough, "
    if counts["done"]:
        text += f"{counts['done']} finished before, "
    return text + f"{counts['failed']} failed"


def _check_candidates(candidates: bool, num_captions: int, format: str) -> None:
    if candidates and format != "jsonl":
        raise CaptionerError(f"--candidates: {format} has no place for them; use --format jsonl")
    if num_captions > 1 and format not in ("jsonl", "tsv"):
        raise CaptionerError(
            f"--num-captions {num_captions}: {format} holds one caption for each image; use "
            "--format jsonl or tsv"
        )


def _with_progress(
    records: Iterable[CaptionRecord], run: CaptionRun, quiet: bool
) -> Iterable[CaptionRecord]:
    # Captions and a bar on the same terminal would overwrite each other.
    to_screen = not run.job.is_kept and sys.stdout.isatty()
    if quiet or not sys.stderr.isatty() or to_screen:
        return records
    from tqdm import tqdm

    bar: Iterable[CaptionRecord] = tqdm(
        records, unit=" images", file=sys.stderr, total=run.total, initial=run.done
    )
    return bar
