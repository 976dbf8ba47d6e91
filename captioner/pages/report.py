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
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.journal import journal_beside, sources_of
from captioner.files.writing import cannot_read, check_folder, check_no_folder, replace_file
from captioner.model.caption_model import CaptionModel
from captioner.model.options import BatchOptions
from captioner.pages.render import render_page
from captioner.pages.report_images import Look, Lookout, ReportImage
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
class ReportJob:
    """What is to be shown.

    Attributes:
        captions: the JSONL file with the records of
            `captioner.captioning.batches.CaptionRecord.to_dict`, or others with ``file_name`` and
            ``text``.
        output: the page; its folder has the same name with ``_files`` added.
        images: the folder of the images; None finds them as the captions' journal says, and
            otherwise beside the captions.
        batch_size: images that the model sees at once.
        workers: threads that read images while the model works.
        overwrite: whether the page may take the place of any other file.
    """

    captions: Path
    output: Path
    images: Path | None = None
    batch_size: int = BatchOptions.batch_size
    workers: int = 0
    overwrite: bool = False

    @property
    def folder(self) -> Path:
        """Of the files that belong to the page."""
        return folder_of(self.output)

    @property
    def key(self) -> str:
        """By what the page of these captions is known again."""
        # A hash: where a file lies on one machine is nobody else's business.
        return sha256(os.fsencode(os.path.realpath(self.captions))).hexdigest()[:16]


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


def folder_of(output: Path) -> Path:
    """The folder beside a page, with the files that belong to it."""
    return output.with_name(f"{output.stem}_files")


def check_report(job: ReportJob) -> None:
    """Refuse, before any work, a page that cannot be written.

    Raises:
        CaptionerError: names what is in the way and the remedy.
    """
    output = job.output
    check_no_folder(output)
    check_folder(output.parent)
    if job.folder.exists() and not job.folder.is_dir():
        raise CaptionerError(f"{shown(job.folder)} is a file: the report needs a folder there")
    if job.images is not None and not job.images.is_dir():
        raise CaptionerError(f"images {shown(job.images)} is not a folder: give that of the images")
    if os.path.realpath(output) == os.path.realpath(job.captions):
        raise CaptionerError(f"output {shown(output)} is the captions' file: name another")
    if not output.exists() or job.overwrite:
        return
    if not output.is_file():
        raise CaptionerError(f"output {shown(output)} is not a regular file; choose another path")
    try:
        with output.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise cannot_read(output, error) from None
    if _generator(job).encode() not in start:
        raise CaptionerError(
            f"output {shown(output)} exists, and is not a report of these captions: --overwrite "
            "replaces it; or name another --output"
        )


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
    images = [_image_of(record, finder, model is not None) for record in records]
    looks = []
    with Lookout(job.folder, model, job.batch_size, job.workers) as lookout:
        for look in lookout.look(images):
            looks.append(look)
            on_image()
        notes = _notes(about, model, records, looks)
        replace_file(job.output, _page(job, model, records, images, looks, notes))
        lookout.tidy()  # only now: the page that was there showed what was there
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


def _words(record: Record) -> tuple[tuple[str, ...], bool]:
    """The words of the caption, and whether the record itself lists them."""
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
    words = tuple(tokenize(text))
    return words if len(words) <= MOST_WORDS else (), False


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


def _image_of(record: Record, finder: _Finder, with_words: bool) -> ReportImage:
    if record.get("error") is not None:
        return ReportImage(None, problem=str(record["error"]))
    path = finder.find(record["file_name"])
    if path is None:
        problem = "its name leads out of the folder of the images, or no file can have it"
        return ReportImage(None, problem=problem)
    partial = record.get("partial") is True
    return ReportImage(path, _words(record)[0] if with_words else (), partial=partial)


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
    try:
        is_same: bool | None = about["model"]["sha256"] == model.sha256
    except (KeyError, TypeError):
        is_same = _is_same_by_words(records, looks)
    if is_same is False:
        notes.append(
            "Another model than that of this report made the captions: where words look, and the "
            "probabilities beside them, are those of the report's model."
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


def _generator(job: ReportJob) -> str:
    return f"captioner report {job.key}"


def _item(record: Record, image: ReportImage, look: Look) -> dict[str, Any]:
    """An image as the page's script reads it; see ``itemOf`` there."""
    item: dict[str, Any] = {"record": record}
    if _has_large(record):
        item["around_text"] = _around_text(record)
    if look.thumbnail is not None:
        item["thumbnail"] = look.thumbnail
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


def _page(
    job: ReportJob,
    model: CaptionModel | None,
    records: Sequence[Record],
    images: Sequence[ReportImage],
    looks: Sequence[Look],
    notes: Sequence[str],
) -> str:
    failed = sum(record.get("error") is not None for record in records)
    about = [f"{len(records):,} images"] + ([f"{failed:,} could not be read"] if failed else [])
    about.append(f"captioner {__version__}")
    if model is not None:
        about.append(f"model {model.sha256[:12]}")
    return render_page(
        "report.html",
        title=f"Captions: {shown(job.output.stem)}",
        about=" · ".join(about),
        notes=notes,
        generator=_generator(job),
        data={
            "id": job.key,
            "name": shown(job.captions.stem),
            "thumbnails": f"{quote(os.fsencode(job.folder.name))}/thumbnails/",
            "grid": None if model is None else list(model.encoder.grid_shape),
            "items": [_item(*each) for each in zip(records, images, looks, strict=True)],
        },
    )
