"""What a page is to show and where, checked before any work. Loads no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.urls import refuse_url
from captioner.files.writing import cannot_read, check_folder, check_no_folder
from captioner.model.options import BatchOptions

_OTHER_FORMATS = (".csv", ".tsv", ".txt", ".json", ".html", ".htm", ".xmp", ".parquet")


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


def folder_of(output: Path) -> Path:
    """The folder beside a page, with the files that belong to it."""
    return output.with_name(f"{output.stem}_files")


def check_captions(path: Path) -> None:
    """Refuse, by its name alone, what are no captions in JSONL.

    Raises:
        CaptionerError: says how to make the page instead.
    """
    if path.is_dir():
        raise CaptionerError(
            f"{shown(path)} is a folder, and a page is made of captions: `captioner caption "
            f"{shown(path)} --output report.html` makes both"
        )
    if not path.is_file():
        refuse_url(path)
        raise CaptionerError(f"{shown(path)} cannot be read: no such file or directory")
    if path.suffix.lower() in _OTHER_FORMATS:
        raise CaptionerError(
            f"{shown(path)} is not JSONL, of which a page is made: caption the images with "
            "--output captions.jsonl, or at once with --output report.html"
        )


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
    if generator_of(job).encode() not in start:
        raise CaptionerError(
            f"output {shown(output)} exists, and is not a report of these captions: --overwrite "
            "replaces it; or name another --output"
        )


def generator_of(job: ReportJob) -> str:
    """What the head of a page says it was made by."""
    return f"captioner report {job.key}"
