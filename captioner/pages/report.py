"""A page on which people look at captions, find, compare and correct them.

The page is one HTML file and a folder beside it with the thumbnails; both can be moved together.
See `captioner.pages.render` for what such a page may do, and ``templates/report.js`` for what it
does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.journal import journal_beside, sources_of
from captioner.files.writing import cannot_read, replace_file
from captioner.model.caption_model import CaptionModel
from captioner.model.tags import UNSURE, unsure_below
from captioner.pages.languages import page_languages
from captioner.pages.render import render_page
from captioner.pages.report_images import Look, ReportImage, ReportImages
from captioner.pages.report_job import ReportJob, check_report, generator_of
from captioner.pages.video_page import href
from captioner.text.languages import DEFAULT_LANGUAGE, language_of
from captioner.text.tokenizer import tokenize
from captioner.version import __version__

SAME_PROB = 0.02
"""A word's probability in the captions and by the report's model differ by less, or it is not that
model's caption: half precision changes it by a hundredth at most."""

MOST_WORDS = 100
"""Longer texts are not captioner's; skip attention for them."""

LARGEST = 2**53 - 1
"""The greatest whole number of JavaScript (ECMA-262, Number.MAX_SAFE_INTEGER)."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class ReportSummary:
    """What a page shows.

    Attributes:
        images: how many images.
        unseen: names of those without a thumbnail, with the reason; without those that the
            captions already report as unreadable.
        notes: what the page says at its head.
    """

    images: int
    unseen: Sequence[tuple[str, str]]
    notes: Sequence[str]


def write_report(
    job: ReportJob,
    model: CaptionModel | None = None,
    on_image: Callable[[], object] = lambda: None,
    records: Sequence[Record] | None = None,
) -> ReportSummary:
    """Look at the images and write the page; an interrupted run is resumed.

    Args:
        job: what is to be shown.
        model: by which the attention of each caption's words is found; None shows none.
        on_image: called after each image.
        records: what `read_records` gave of the job's captions, if it was called already.

    Raises:
        CaptionerError: the captions cannot be read, or the page cannot be written.
    """
    check_report(job)
    records = read_records(job.captions) if records is None else records
    state = Path(os.path.realpath(job.captions))
    about, sources = sources_of(journal_beside(state))
    finder = _Finder(job, {} if job.images is not None else sources)
    images = [_image_of(record, finder, model) for record in records]
    looks = []
    with ReportImages(job.folder, model, job.batch_size, job.workers) as reader:
        for look in reader.read(images):
            looks.append(look)
            on_image()
        notes = _notes(about, model, records, looks)
        replace_file(job.output, _page(job, model, records, images, looks, notes))
        reader.tidy()  # only now: the page that was there showed what was there
    unseen = [
        (record["file_name"], look.problem or "")
        for record, look in zip(records, looks, strict=True)
        if look.thumbnail is None and record.get("error") is None
    ]
    return ReportSummary(len(records), unseen, notes)


# --- records -------------------------------------------------------------------------------


def read_records(path: Path) -> list[Record]:
    """Read the records of a JSONL file.

    Raises:
        CaptionerError: it cannot be read, or a line is not a record; names the line.
    """
    try:
        with path.open("rb") as file:
            lines = [(number, line) for number, line in enumerate(file, start=1) if line.strip()]
    except OSError as error:
        raise cannot_read(path, error) from None
    if not lines:
        raise CaptionerError(
            f"{shown(path)} holds no captions: `captioner caption PHOTOS --output FILE.jsonl` "
            "makes such a file"
        )
    return [_record(path, number, line) for number, line in lines]


def _record(path: Path, number: int, line: bytes) -> Record:
    def refuse(what: str) -> CaptionerError:
        return CaptionerError(
            f"{shown(path)}: line {number} {what}; give a file that `captioner caption` wrote as "
            "JSONL, or one with file_name and text in every line"
        )

    def no_constant(name: str) -> None:
        raise ValueError(name)

    try:
        record = json.loads(line, parse_constant=no_constant)
    except (ValueError, RecursionError):
        raise refuse("is not JSON") from None
    if not isinstance(record, dict) or not isinstance(record.get("file_name"), str):
        raise refuse("has no file_name")
    if not isinstance(record.get("text"), str | None):
        raise refuse("has a text that is not a string")
    return record


def _words(record: Record, model: CaptionModel | None = None) -> tuple[tuple[str, ...], bool]:
    """The words of the caption as the model splits it, and whether the record itself lists them."""
    text = record.get("text")
    if text is None:
        return (), True
    try:
        first = record["candidates"][0]
        if first["text"] == text:
            words = tuple(word for word, _ in first["words"] if word is not None)
            if len(words) <= MOST_WORDS and all(isinstance(word, str) for word in words):
                return words, True
    except (KeyError, IndexError, TypeError, ValueError):
        pass  # made by others, or without candidates
    words = tuple(tokenize(text) if model is None else model.tokenizer.tokenize(text))
    return words if len(words) <= MOST_WORDS else (), False


def _is_in_language_of(model: CaptionModel, record: Record) -> bool:
    """Whether the model has the words of a caption; one that names no language is English."""
    return bool(record.get("language", DEFAULT_LANGUAGE) == model.language)


# --- images ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Finder:
    """Where the images are."""

    job: ReportJob
    sources: Mapping[str, tuple[str, str]]

    def find(self, name: str) -> Path | None:
        """The file of a record, there or not; None for a name that leads away or is not valid."""
        if name in self.sources:
            given, absolute = self.sources[name]
            # A name that is not valid UTF-8 is only in the path as it was given.
            only_given = os.path.exists(given) and not os.path.exists(absolute)
            return Path(given if only_given else absolute)
        try:
            os.fsencode(name)
        except UnicodeEncodeError:
            return None
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts or "\0" in name or not inside.parts:
            return None
        return (self.job.images or self.job.captions.parent).joinpath(*inside.parts)


def _image_of(record: Record, finder: _Finder, model: CaptionModel | None) -> ReportImage:
    if record.get("error") is not None:
        return ReportImage(None, problem=str(record["error"]))
    path = finder.find(record["file_name"])
    if path is None:
        problem = "its name leads out of the folder of the images, or no file can have it"
        return ReportImage(None, problem=problem)
    has_words = model is not None and _is_in_language_of(model, record)
    words = _words(record, model)[0] if has_words else ()
    return ReportImage(path, words, partial=record.get("partial") is True)


# --- the page ------------------------------------------------------------------------------


def _notes(
    about: Mapping[str, Any],
    model: CaptionModel | None,
    records: Sequence[Record],
    looks: Sequence[Look],
) -> list[str]:
    if model is None:
        return []
    notes = []
    captioned = [record for record in records if record.get("text") is not None]
    others = [record for record in captioned if not _is_in_language_of(model, record)]
    try:
        is_same: bool | None = about["model"]["sha256"] == model.sha256
    except (KeyError, TypeError):
        is_same = _is_same_by_words(records, looks)
    if is_same is False and len(others) < len(captioned):
        notes.append(
            "Another model than that of this report made the captions: where words look, and the "
            "probabilities beside them, are those of the report's model."
        )
    if others:
        language = others[0].get("language", DEFAULT_LANGUAGE)
        notes.append(
            f"{len(others):,} of the captions are in another language than the report's model "
            f"({language_of(model.language).name}), which therefore cannot show where it looked: "
            f"--language {shown(str(language))} chooses another."
        )
    if model.decoder.config.attention == "none":
        notes.append("The model has no attention: the page cannot show where it looked.")
    return notes


def _is_same_by_words(records: Sequence[Record], looks: Sequence[Look]) -> bool | None:
    """Whether most captions' words are as probable as their records say; None if none says it."""
    same = [
        all(abs(there - here) < SAME_PROB for there, here in zip(said, found, strict=False))
        for record, look in zip(records, looks, strict=True)
        if look.attention and (said := _said_probs(record))
        for found in [[prob or 0.0 for prob in look.attention["word_probs"]]]
    ]
    return 2 * sum(same) > len(same) if same else None


def _said_probs(record: Record) -> list[float]:
    try:
        return [float(prob) for word, prob in record["candidates"][0]["words"] if word is not None]
    except (KeyError, IndexError, TypeError, ValueError):
        return []


def _item(job: ReportJob, record: Record, image: ReportImage, look: Look) -> dict[str, Any]:
    """An image as the page's script reads it; see ``itemOf`` there."""
    item: dict[str, Any] = {"record": record}
    if _has_large(record):
        item["around_text"] = _around_text(record)
    if look.thumbnail is not None:
        item["thumbnail"] = look.thumbnail
        if image.path is not None:
            item["file"] = href(image.path, job.output.parent)
    else:
        item["problem"] = look.problem
    if look.attention is not None:
        item |= look.attention
        if not _words(record)[1]:
            item["words"] = image.words
    return item


def _has_large(value: object) -> bool:
    """Whether it holds a whole number that JavaScript cannot represent."""
    if isinstance(value, Mapping):
        return any(map(_has_large, value.values()))
    if isinstance(value, list):
        return any(map(_has_large, value))
    return isinstance(value, int) and abs(value) > LARGEST


def _around_text(record: Record) -> tuple[str, str]:
    """The record as JSON, before and after the value of ``text``."""
    mark = "text"
    while mark in json.dumps(record):
        mark += "_"
    before, behind = json.dumps({**record, "text": mark}).split(json.dumps(mark))
    return before, behind


def _title(job: ReportJob, images: Sequence[ReportImage]) -> str:
    """The name of the deepest folder that holds the images; the page's own where none does."""
    folders = {os.path.abspath(image.path.parent) for image in images if image.path is not None}
    try:
        name = Path(os.path.commonpath(folders)).name
    except ValueError:  # none, or on several drives
        name = ""
    return shown(name or job.output.stem)


def _page(
    job: ReportJob,
    model: CaptionModel | None,
    records: Sequence[Record],
    images: Sequence[ReportImage],
    looks: Sequence[Look],
    notes: Sequence[str],
) -> str:
    failed = sum(record.get("error") is not None for record in records)
    about = [f"{len(records):,} image{'' if len(records) == 1 else 's'}"] + (
        [f"{failed:,} could not be read"] if failed else []
    )
    about.append(f"captioner {__version__}")
    if model is not None:
        about.append(f"model {model.sha256[:12]}")
    return render_page(
        "report.html",
        title=_title(job, images),
        about=" · ".join(about),
        notes=notes,
        generator=generator_of(job),
        data={
            "id": job.key,
            "unsure_below": UNSURE if model is None else unsure_below(model.tag_calibration),
            "name": shown(job.captions.stem),
            "thumbnails": f"{quote(os.fsencode(job.folder.name))}/thumbnails/",
            "grid": None if model is None else list(model.encoder.grid_shape),
            "languages": page_languages(records),
            "items": [_item(job, *each) for each in zip(records, images, looks, strict=True)],
        },
    )
