"""`captioner caption`: parse, call, print."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.cli.options import (
    SAMPLING_ARGUMENTS,
    add_arguments,
    add_decoding,
    add_exclude,
    add_model,
    decoding_options,
    say,
    say_what_was_passed_over,
    share,
)
from captioner.cli.progress import with_progress
from captioner.cli.report import run_report
from captioner.errors import CaptionerError
from captioner.files.escaping import shown

if TYPE_CHECKING:
    from captioner.captioning.job import CaptionJob
    from captioner.decoding.options import DecodingOptions
    from captioner.model.caption_model import CaptionModel
    from captioner.pages.report import ReportJob

PAGE = "html"
"""A format that is none of the writers': the captions are kept as JSONL, and a page shows them."""
PAGE_SUFFIXES = (".html", ".htm")
PAGE_CAPTIONS = 3
"""Captions of each image on a page, if nothing else is said: the best one, and what else it is."""

TAG_CONFIDENCE = 0.25
"""Of the tags, unless another is asked for."""

CAPTION_EXAMPLES = """\
examples:
  captioner caption dog.jpg                               one line on standard output
  captioner caption photos/ 'more/*.png'                  folders with all in them, patterns
  captioner caption photos/ --exclude '*.png' --exclude drafts/   but not these
  captioner caption photos/ --output captions.csv         one file; its suffix decides the format
  captioner caption photos/ --output texts/ --format txt  a text file for each image
  captioner caption photos/ --format txt --sidecar-suffix .caption --caption-prefix "sks, "
  captioner caption photos/ --output report.html          a page to look at; opens in any browser
  captioner caption photos/ --format xmp                  XMP sidecars beside the photos
  captioner caption photos/ --output captions.csv --embed   also into the photos themselves
  captioner caption new/ --output captions.csv --append   and others to the same file
  captioner caption photos/ --format txt --missing-only   only photos without a text file
  captioner caption photos/ --num-captions 3 --candidates --output captions.jsonl
  captioner caption dog.jpg --sample --top-p 0.9 --num-captions 5 --seed 1
  captioner caption photos/ --ban snow --no-repeat-ngram 2
  captioner caption dog.jpg --prompt "two dogs"           go on from these words
  captioner caption dog.jpg --must-include ball --must-include grass
  captioner caption photos/ --tags --output captions.jsonl      words with their probabilities

Other files in a folder (raw photos, videos) are counted by kind, in one line at the end.

Standard output gets a line `path<TAB>caption` for each image, and further captions behind further
tabs. An image that cannot be read is named on standard error, the others are captioned, and the
exit code is 1.

Stopped, killed or out of disk, the same command goes on: what is finished stays and is not looked
into again; images that failed, changed or are new are captioned and put in their places. Other
options, another model or other images are refused: --append adds other images at the end and
touches nothing else, --overwrite starts anew (to go on after that, leave it out). Where that would
replace text that people wrote or changed, it says in how many files and changes nothing: --yes
replaces it, --missing-only leaves it and captions the images that have no caption yet. What is
known of the output stands beside it in a hidden file, `.captions.csv.captioner`: without it nothing
can be added. The captions of a page, report.html, are report_files/captions.jsonl, and all of this
holds for them; `captioner report --help` tells of the page. Standard output keeps nothing: there,
every run starts from the beginning.

An XMP sidecar or an embedded description that another program has written or changed is never
replaced, not even by --overwrite. Without --embed images are never touched. docs/formats.md
explains all formats.
"""


def add_caption(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    from captioner.captioning.formats import WRITERS
    from captioner.captioning.sidecars import XMP_NAMINGS, SidecarWriter

    parser.set_defaults(command=_caption)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="image, folder or pattern")
    add_exclude(parser)
    parser.add_argument(
        "--partial-images",
        action="store_true",
        help="caption images that are cut short as far as they go, instead of reporting an error; "
        "jsonl and json mark them with partial: true",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--output", metavar="PATH", help="write there, not to standard output")
    output.add_argument(
        "--format",
        choices=[*WRITERS, PAGE],
        help="of the output; without it the suffix of PATH decides. "
        + "; ".join(f"{name}: {writer.summary}" for name, writer in WRITERS.items())
        + f"; {PAGE}: a page on which people look at, find and correct captions",
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
    again.add_argument(
        "--missing-only",
        action="store_true",
        help="caption only images that have no caption yet, whoever wrote it: no text file or "
        "sidecar, or no row in PATH, which keeps its bytes and gets rows in its own columns (jsonl "
        "and csv)",
    )
    output.add_argument(
        "--yes",
        action="store_true",
        help="with --overwrite: replace also what captioner has not written, or what was changed "
        "since; without it such files are counted, and nothing is done",
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
    tags = output.add_mutually_exclusive_group()
    tags.add_argument(
        "--tags",
        nargs="?",
        type=share,
        const=TAG_CONFIDENCE,
        metavar="P",
        help="with jsonl and xmp: what each image shows, as words that are right with a "
        "probability of at least P (default: 0.25); xmp and --embed have them anyway, if the model "
        "has any",
    )
    tags.add_argument(
        "--no-tags", action="store_true", help="with xmp, html and --embed: the caption only"
    )
    output.add_argument(
        "--caption-prefix",
        default="",
        metavar="TEXT",
        help="write this before every caption, in every format, such as the trigger words of a "
        "LoRA; a space is added only where two words would run into each other",
    )
    output.add_argument(
        "--caption-suffix", default="", metavar="TEXT", help="write this behind every caption"
    )
    output.add_argument(
        "--sidecar-suffix",
        default=SidecarWriter.suffix,
        metavar="SUFFIX",
        help="with txt: what the text files end in (default: .txt)",
    )
    output.add_argument(
        "--csv-bom",
        action="store_true",
        help="with csv: begin with a byte order mark, by which Excel knows that it is UTF-8",
    )
    output.add_argument(
        "--xmp-name",
        choices=XMP_NAMINGS,
        help="with xmp: darktable (default): a.jpg.xmp, as darktable and digiKam call them; "
        "adobe: a.xmp",
    )
    output.add_argument(
        "--no-attention",
        action="store_true",
        help="with html: do not show where the captioner looked, for which it reads images twice",
    )
    output.add_argument(
        "--embed",
        action="store_true",
        help="also write the caption and the tags into the image files themselves: JPEG, PNG, WebP "
        "and TIFF, through ExifTool, which has to be installed. A description that captioner has "
        "not written stays; --no-tags: the caption only",
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
    from captioner.model.shipped import load_model

    if args.embed:
        _check_embedding()
    page = _page(args)
    _job_of(args, page)  # A mistake is told before the model is loaded.
    model = load_model(args.model, device=args.device, precision=args.precision)
    job = _job_of(args, page, model.decoding)
    tagged = (page is not None or job.format == "xmp" or job.embed) and not args.no_tags
    if tagged and args.tags is None and model.lexicon is not None:
        job = replace(job, min_tag_confidence=TAG_CONFIDENCE)
    code = _run(args, job, model)
    if page is None:
        return code
    return max(code, run_report(page, None if args.no_attention else model, args.quiet))


def _job_of(
    args: argparse.Namespace, page: ReportJob | None, own: DecodingOptions | None = None
) -> CaptionJob:
    """The job; what the options leave open is as in the model's own ones."""
    options = decoding_options(args, own)
    return _caption_job(args, options) if page is None else _page_job(args, page, options)


def _run(args: argparse.Namespace, job: CaptionJob, model: CaptionModel) -> int:
    from captioner.captioning.run import open_caption_job
    from captioner.captioning.writers import JsonWriter
    from captioner.images.reading import IMAGES, find_images

    counts: Counter[str] = Counter()
    with open_caption_job(job, model) as run, closing(run.records()) as records:
        counts["done"], counts["kept"] = run.done, run.kept
        try:
            for path, problem in run.embed_finished():
                _count_embedding(counts, path, problem)
            done = run.done + run.kept
            bar = with_progress(
                records, args.quiet, to_stdout=not job.is_kept, total=run.total, done=done
            )
            for record in bar:
                counts[record.status] += 1
                if record.error is not None:
                    say(f"captioner: {shown(record.path)}: {record.error}")
                elif record.partial and not args.quiet:
                    say(f"captioner: {shown(record.path)}: truncated file, captioned as it is")
                if record.embedded is not None:
                    _count_embedding(counts, record.path, record.embed_error)
        except KeyboardInterrupt:
            if run.how_to_go_on:
                say(f"captioner: {run.how_to_go_on}")
            raise
    if not args.quiet:
        say("captioner: " + _captions_text(counts, args.min_confidence > 0, args.embed))
    say_what_was_passed_over(args.paths, IMAGES, args.exclude, wanted=not args.quiet)
    if job.format == JsonWriter.format:
        _say_what_shares_a_number(file.name for file in find_images(args.paths, args.exclude))
    return 1 if counts["failed"] or counts["not embedded"] else 0


def _check_embedding() -> None:
    from captioner.files.exiftool import find_exiftool

    try:
        find_exiftool()
    except CaptionerError as error:
        raise CaptionerError(f"--embed: {error}") from None


def _count_embedding(counts: Counter[str], path: Path, problem: str | None) -> None:
    counts["embedded" if problem is None else "not embedded"] += 1
    if problem is not None:
        say(f"captioner: {shown(path)}: caption not embedded: {problem}")


def _say_what_shares_a_number(names: Iterable[str]) -> None:
    from captioner.captioning.coco_ids import NumberIds

    ids = NumberIds()
    for name in names:
        ids.id_of(name)
    if ids.clashes:
        first, other = ids.clashes[0]
        say(
            f"captioner: {len(ids.clashes)} images have the number of another and go by their name "
            f"(first: {other}, as {first})"
        )


def _page(args: argparse.Namespace) -> ReportJob | None:
    """The page that is wanted, checked; None for another output."""
    output = None if args.output in (None, "-") else Path(args.output)
    by_suffix = args.format is None and output is not None and not output.is_dir()
    is_page = args.format == PAGE or (
        by_suffix and output is not None and output.suffix.lower() in PAGE_SUFFIXES
    )
    if not is_page:
        if args.no_attention:
            raise CaptionerError("--no-attention applies to pages only: add --output report.html")
        return None
    if output is None or (output.exists() and not (output.is_file() or output.is_dir())):
        raise CaptionerError(
            "--format html: a page is a file with a folder beside it: add --output report.html"
        )
    from captioner.pages.report import ReportJob, check_report, folder_of

    page = ReportJob(
        captions=folder_of(output) / "captions.jsonl",
        output=output,
        batch_size=args.batch_size,
        workers=args.workers,
        overwrite=args.overwrite,
    )
    check_report(page)
    return page


def _page_job(args: argparse.Namespace, page: ReportJob, options: DecodingOptions) -> CaptionJob:
    """The job that makes the captions of a page."""
    _check_tags(args, PAGE)
    if "num_captions" not in vars(args) and not options.sample:
        options = replace(options, num_captions=min(PAGE_CAPTIONS, options.beam_size))
    return _job(args, options, page.captions, "jsonl", candidates=True)


def _caption_job(args: argparse.Namespace, options: DecodingOptions) -> CaptionJob:
    from captioner.captioning.formats import open_writer

    writer = open_writer(args.output, args.format)
    _check_candidates(args.candidates, options.num_captions, writer.format)
    _check_tags(args, writer.format)
    candidates = args.candidates or options.num_captions > 1
    return _job(args, options, writer.output, writer.format, candidates)


def _job(
    args: argparse.Namespace,
    decoding: DecodingOptions,
    output: Path | None,
    format: str,
    candidates: bool,
) -> CaptionJob:
    from captioner.captioning.job import CaptionJob

    if args.yes and not args.overwrite:
        raise CaptionerError("--yes: is for --overwrite, which replaces")
    try:
        return CaptionJob(
            paths=tuple(args.paths),
            exclude=tuple(args.exclude),
            output=output,
            format=format,
            decoding=decoding,
            candidates=candidates,
            min_confidence=args.min_confidence,
            min_tag_confidence=args.tags,
            batch_size=args.batch_size,
            workers=args.workers,
            overwrite=args.overwrite,
            append=args.append,
            missing_only=args.missing_only,
            replace_hand_made=args.yes,
            partial_images=args.partial_images,
            xmp_name=args.xmp_name or "darktable",
            embed=args.embed,
            caption_prefix=args.caption_prefix,
            caption_suffix=args.caption_suffix,
            sidecar_suffix=args.sidecar_suffix,
            csv_bom=args.csv_bom,
        )
    except ValueError as error:
        raise CaptionerError(str(error)) from error


def _check_tags(args: argparse.Namespace, format: str) -> None:
    if args.tags is not None and format not in ("jsonl", "xmp", PAGE) and not args.embed:
        raise CaptionerError(f"--tags: {format} has no place for them; use --format jsonl or xmp")
    if args.no_tags and format not in ("xmp", PAGE) and not args.embed:
        raise CaptionerError(
            f"--no-tags: is for --embed and for --format xmp and html, not for {format}"
        )
    if args.xmp_name is not None and format != "xmp":
        raise CaptionerError(f"--xmp-name: is for --format xmp, not for {format}")


def _captions_text(counts: Counter[str], some_left_out: bool, embed: bool) -> str:
    text = f"{counts['ok']} captioned, "
    if some_left_out:
        text += f"{counts['unsure']} not sure enough, "
    if counts["done"]:
        text += f"{counts['done']} finished before, "
    if counts["kept"]:
        text += f"{counts['kept']} kept as they were, "
    text += f"{counts['failed']} failed"
    if embed:
        text += f"; {counts['embedded']} embedded, {counts['not embedded']} not embedded"
    return text


def _check_candidates(candidates: bool, num_captions: int, format: str) -> None:
    if candidates and format != "jsonl":
        raise CaptionerError(f"--candidates: {format} has no place for them; use --format jsonl")
    if num_captions > 1 and format not in ("jsonl", "tsv"):
        raise CaptionerError(
            f"--num-captions {num_captions}: {format} holds one caption for each image; use "
            "--format jsonl or tsv"
        )
