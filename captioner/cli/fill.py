"""`captioner fill`: parse, call, print."""

from __future__ import annotations

import argparse
import glob
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from captioner.cli.checks import check_images, check_model
from captioner.cli.options import (
    add_exclude,
    add_model,
    add_options,
    add_raw,
    model_of,
    options_of,
    say,
)
from captioner.cli.progress import with_progress
from captioner.decoding.options import FillOptions
from captioner.errors import CaptionerError
from captioner.files.escaping import shown

FILL_EXAMPLES = """\
examples:
  captioner fill dog.jpg "a ___ dog"                         the likeliest words, and how likely
  captioner fill dog.jpg "a ___ dog runs through the ___"    one word for each blank
  captioner fill photos/ "two ___ in the snow" --top 3       folders with all in them, patterns
  captioner fill photos/ "a ___ on a ___" --format jsonl     a JSON object for each image

The sentence is the last argument. Each ___ stands for exactly one word of the model's vocabulary;
the words before and after it both count: fillings are compared by the probability of the whole
sentence, and the probabilities of all fillings sum to 1. A sentence that does not fit the image at
all is filled in too.

With one blank every word is tried, and the probabilities are exact. From the second blank on, the
K most probable beginnings of the sentence are continued (--beam-size), and a line shows how much
of the probability may lie in others. An image that cannot be read is named on standard error, the
others are done, and the exit code is 1.
"""


def add_fill(parser: argparse.ArgumentParser) -> None:
    """The options of the command, and its examples."""
    parser.epilog = FILL_EXAMPLES
    from captioner.captioning.fill_writers import FILL_WRITERS, FillTextWriter

    parser.set_defaults(command=_fill)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="image, folder or pattern")
    parser.add_argument("sentence", metavar="SENTENCE", help="with ___ for each word to be found")
    add_exclude(parser)
    add_raw(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--format",
        choices=FILL_WRITERS,
        default=FillTextWriter.format,
        help="; ".join(f"{name}: {writer.summary}" for name, writer in FILL_WRITERS.items())
        + f" (default: {FillTextWriter.format})",
    )
    output.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    add_options(parser.add_argument_group("search"), FillOptions)
    add_model(parser)


def _fill(args: argparse.Namespace) -> int:
    from captioner.decoding.sentences import parse_blanks
    from captioner.images.kinds import find_images

    options = options_of(FillOptions, args)
    _check_quotes(args.paths, args.sentence)
    parse_blanks(args.sentence)
    check_model(args)
    check_images(args.paths, args.exclude, args.raw)
    files = find_images(args.paths, args.exclude, args.raw)
    from captioner.captioning.fill import fill_images
    from captioner.captioning.fill_writers import FILL_WRITERS

    model = model_of(args)
    counts: Counter[str] = Counter()
    records = fill_images(model, files, args.sentence, options)
    with FILL_WRITERS[args.format]() as writer, closing(records):
        for record in with_progress(records, args.quiet, to_stdout=True):
            writer.write(record.to_dict(), record.path)
            counts["ok" if record.error is None else "failed"] += 1
            if record.error is not None:
                say(f"captioner: {shown(record.path)}: {record.error}")
    if not args.quiet:
        say(f"captioner: {counts['ok']} filled in, {counts['failed']} failed")
    return 1 if counts["failed"] else 0


def _check_quotes(paths: Sequence[str], sentence: str) -> None:
    """Refuse a sentence that the shell has split into its words."""
    gone = (n for n, path in enumerate(paths) if not (Path(path).exists() or glob.has_magic(path)))
    first = next(gone, len(paths))
    words = [*paths[first:], sentence]
    if first and len(words) > 1 and any("_" in word and not word.strip("_") for word in words):
        given = " ".join((*paths[:first], f'"{" ".join(words)}"'))
        raise CaptionerError(
            f"the sentence {' '.join(words)!r} is one argument: put it in quotes, as in "
            f"`captioner fill {given}`"
        )
