"""`captioner report`: parse, call, print."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.cli.checks import check_model
from captioner.cli.options import add_model, model_of, options_of, say
from captioner.cli.progress import image_bar
from captioner.files.escaping import shown
from captioner.model.options import BatchOptions

if TYPE_CHECKING:
    from captioner.model.caption_model import CaptionModel
    from captioner.pages.report_job import ReportJob

REPORT_EXAMPLES = """\
examples:
  captioner caption photos/ --output report.html          both at once: captions and their page
  captioner report captions.jsonl                         the page of captions made before
  captioner report captions.jsonl --output out/july.html --images photos/
  captioner report captions.jsonl --no-attention          without the maps: no model is needed

The page is report.html, with a folder report_files beside it: keep them together, and they can be
moved, sent or put on a server. It opens in any browser and makes no network requests. Search, sort,
filter, correct captions, save them as JSONL or CSV; a click on a word of a caption shows where the
captioner looked when it said it. For that, every image is read again by the model of the
captions; with another one, the page says so.

Images are looked for where the captions were made, otherwise beside CAPTIONS.jsonl, or in
--images. One that is gone leaves a card that says why, and the exit code is 1. Run again, the page
is written again from what already exists; corrections that were made on it stay.
"""


def add_report(parser: argparse.ArgumentParser) -> None:
    """The options of the command, and its examples."""
    parser.epilog = REPORT_EXAMPLES
    parser.set_defaults(command=_report)
    parser.add_argument(
        "captions", type=Path, metavar="CAPTIONS.jsonl", help="what captioner caption wrote"
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("report.html"),
        metavar="FILE.html",
        help="the page (default: report.html)",
    )
    output.add_argument("--images", type=Path, metavar="DIR", help="folder of the images")
    output.add_argument(
        "--no-attention",
        action="store_true",
        help="do not show where the captioner looked: no model is loaded",
    )
    output.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a file that is not a report of these captions",
    )
    output.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    add_model(parser, has_batches=True)


def _report(args: argparse.Namespace) -> int:
    from captioner.pages.report_job import ReportJob, check_captions, check_report

    job = ReportJob(
        captions=args.captions,
        output=args.output,
        images=args.images,
        **asdict(options_of(BatchOptions, args)),
        overwrite=args.overwrite,
    )
    check_captions(job.captions)
    check_report(job)
    model = None
    if not args.no_attention:
        check_model(args)
        model = model_of(args)
    return run_report(job, model, args.quiet)


def run_report(job: ReportJob, model: CaptionModel | None, quiet: bool) -> int:
    """Write a page, with a progress bar and a summary; the exit code is 1 if images are gone."""
    from captioner.pages.report import read_records, write_report

    records = read_records(job.captions)
    try:
        with image_bar(len(records), quiet, "report") as count:
            summary = write_report(job, model, count, records)
    except KeyboardInterrupt:
        say("captioner: finished images are kept: run the same command again to resume")
        raise
    for name, reason in summary.unseen:
        say(f"captioner: {shown(Path(name))}: {reason}")
    if not quiet:
        for note in summary.notes:
            say(f"captioner: {note}")
        gone = f", {len(summary.unseen)} not found or not read" if summary.unseen else ""
        plural = "" if summary.images == 1 else "s"
        say(f"captioner: {shown(job.output)}: {summary.images} image{plural}{gone}")
    return 1 if summary.unseen else 0
