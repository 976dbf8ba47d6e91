"""`captioner caption`: parse, call, print."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.cli.caption_options import (
    CAPTION_EXAMPLES,
    PAGE,
    TAG_CONFIDENCE,
    add_caption_options,
)
from captioner.cli.caption_shards import caption_shards, wants_shards
from captioner.cli.checks import check_images, check_model
from captioner.cli.options import (
    decoding_for,
    decoding_options,
    model_of,
    options_named_by_flags,
    options_of,
    say,
    say_if_calibration_was_lost,
    say_what_was_passed_over,
    with_flags,
)
from captioner.cli.progress import with_progress
from captioner.cli.report import run_report
from captioner.cli.shards import check_no_engine
from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.model.options import BatchOptions, ModelOptions
from captioner.options import described

if TYPE_CHECKING:
    from captioner.captioning.job import CaptionJob
    from captioner.model.caption_model import CaptionModel
    from captioner.pages.report_job import ReportJob

PAGE_SUFFIXES = (".html", ".htm")
PAGE_CAPTIONS = 3
"""Captions of each image on a page, if nothing else is said: the best one, and what else it is."""


def add_caption(parser: argparse.ArgumentParser) -> None:
    """The options of the command, and its examples."""
    parser.epilog = CAPTION_EXAMPLES
    parser.set_defaults(command=_caption)
    add_caption_options(parser)


def _caption(args: argparse.Namespace) -> int:
    if wants_shards(args):
        return caption_shards(args)
    check_no_engine(args, "of images: --format jsonl --output captions/, with the slash")
    # Every mistake is reported before torch and the model are loaded.
    if args.embed:
        _check_embedding()
    check_model(args, several_languages=True)
    page = _page(args)
    check_images(args.paths, args.exclude, args.raw)
    _job_of(args, page)
    model = model_of(args)
    job = _job_of(args, page, model)
    from captioner.captioning.job import CaptionJob
    from captioner.decoding.constraints import notes_on_banned

    for note in () if args.quiet else notes_on_banned(job.decoding, model.tokenizer):
        say(f"captioner: --ban: {note}")
    tagged = (page is not None or job.format == "xmp" or job.embed) and not args.no_tags
    if tagged and args.tags is None and model.lexicon is not None:
        job = replace(job, min_tag_confidence=TAG_CONFIDENCE)
    say_if_calibration_was_lost(model, wanted=not args.quiet)
    with options_named_by_flags(CaptionJob, DecodingOptions, ModelOptions):
        code = _run(args, job, model)
    if page is None:
        return code
    return max(code, run_report(page, None if args.no_attention else model, args.quiet))


def _job_of(
    args: argparse.Namespace, page: ReportJob | None, model: CaptionModel | None = None
) -> CaptionJob:
    """The job; what the options leave open is as in the model's own ones."""
    options = decoding_options(args) if model is None else decoding_for(model, args)
    return _caption_job(args, options) if page is None else _page_job(args, page, options)


def _run(args: argparse.Namespace, job: CaptionJob, model: CaptionModel) -> int:
    from captioner.captioning.run import open_caption_job
    from captioner.captioning.writers import JsonWriter
    from captioner.images.kinds import find_images, images_to_find, notes_on_others

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
            if run.resume_hint:
                say(f"captioner: {run.resume_hint}")
            raise
    if not args.quiet:
        say("captioner: " + _captions_text(counts, args.min_confidence > 0, args.embed))
    say_what_was_passed_over(
        args.paths,
        images_to_find(args.raw),
        args.exclude,
        notes_on_others(args.raw),
        wanted=not args.quiet,
    )
    if job.format == JsonWriter.format:
        _say_what_shares_a_number(
            file.name for file in find_images(args.paths, args.exclude, args.raw)
        )
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
    from captioner.pages.report_job import ReportJob, check_report, folder_of

    page = ReportJob(
        captions=folder_of(output) / "captions.jsonl",
        output=output,
        **asdict(options_of(BatchOptions, args)),
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
    from captioner.captioning.formats import check_language_count, open_writer

    writer = open_writer(args.output, args.format)
    _check_candidates(args.candidates, options.num_captions, writer.format)
    check_language_count(writer.format, len(options_of(ModelOptions, args).language))
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

    given = {name: value for name, value in vars(args).items() if name in described(CaptionJob)}
    try:
        return CaptionJob(
            paths=tuple(args.paths),
            exclude=tuple(args.exclude),
            raw=args.raw,
            output=output,
            format=format,
            decoding=decoding,
            **asdict(options_of(BatchOptions, args)),
            **{**given, "candidates": candidates, "min_tag_confidence": args.tags},
        )
    except ValueError as error:
        raise CaptionerError(with_flags(str(error), CaptionJob)) from error


def _check_tags(args: argparse.Namespace, format: str) -> None:
    if args.tags is not None and format not in ("jsonl", "xmp", PAGE) and not args.embed:
        raise CaptionerError(f"--tags: {format} has no place for them; use --format jsonl or xmp")
    if args.no_tags and format not in ("xmp", PAGE) and not args.embed:
        raise CaptionerError(
            f"--no-tags: is for --embed and for --format xmp and html, not for {format}"
        )
    if "xmp_name" in vars(args) and format != "xmp":
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
