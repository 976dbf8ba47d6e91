"""The output formats of captions: one registry, and how one of them is chosen."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from captioner.captioning.sidecars import XMP_NAMINGS, SidecarWriter, XmpWriter
from captioner.captioning.writers import CsvWriter, JsonlWriter, JsonWriter, TsvWriter, Writer
from captioner.errors import CaptionerError
from captioner.files.escaping import shown

WRITERS: dict[str, type[Writer]] = {
    writer.format: writer
    for writer in (TsvWriter, JsonlWriter, CsvWriter, JsonWriter, SidecarWriter, XmpWriter)
}
"""Format name -> class; the command line's choices."""


_NOT_WRITTEN = {
    ".parquet": "Parquet",
    ".arrow": "Arrow",
    ".feather": "Feather",
    ".xlsx": "a workbook of Excel",
    ".xls": "a workbook of Excel",
    ".ods": "a spreadsheet",
    ".tar": "an archive",
    ".zip": "an archive",
}
"""Suffixes of tables of captions that people have, and what they are."""


def is_sidecar(format: str) -> bool:
    """Whether a format of `WRITERS` has a file for each image."""
    return issubclass(WRITERS[format], SidecarWriter)


def check_language_count(format: str, count: int) -> None:
    """Refuse several languages in a format that holds one caption for each image.

    Raises:
        CaptionerError: says which formats have several.
    """
    if count > 1 and format == JsonWriter.format:
        raise CaptionerError(
            f"{format} (COCO results) holds one caption for each image, and these would be in "
            f"{count} languages: give one language, or --format jsonl or csv"
        )


def make_writer(
    format: str,
    output: Path | None = None,
    *,
    xmp_name: str = XMP_NAMINGS[0],
    sidecar_suffix: str = SidecarWriter.suffix,
    csv_bom: bool = False,
    languages: Sequence[str] = (),
) -> Writer:
    """The writer of a format of `WRITERS`, with what that format leaves open.

    Args:
        format: its name.
        output: the file, the folder for sidecars; see `Writer`.
        xmp_name: how XMP sidecars are called, one of `XMP_NAMINGS`.
        sidecar_suffix: of text files.
        csv_bom: whether CSV begins with a byte order mark.
        languages: of the captions, the first one first; empty for English alone.
    """
    if format == XmpWriter.format:
        return XmpWriter(output, naming=xmp_name)
    if format == SidecarWriter.format:
        return SidecarWriter(output, suffix=sidecar_suffix, languages=languages)
    if format == CsvWriter.format:
        return CsvWriter(output, bom=csv_bom, languages=languages)
    return WRITERS[format](output)


def open_writer(
    output: str | Path | None, format: str | None = None, overwrite: bool = False
) -> Writer:
    """Choose the writer; it is opened by entering its context.

    Args:
        output: the file to write, by whose suffix the format is chosen if none is given; the
            folder for text files; None or ``-`` for standard output (text files: beside the
            images).
        format: a key of `WRITERS`; None without output is ``tsv``.
        overwrite: whether existing output may be replaced.

    Raises:
        CaptionerError: the format is unknown or missing; lists the valid ones.
    """
    path = None if output is None or str(output) == "-" else Path(output)
    if format is None:
        format = "tsv" if path is None else _format_of(path)
    if format not in WRITERS:
        raise CaptionerError(f"format {format!r} is unknown: choose from {', '.join(WRITERS)}")
    return WRITERS[format](path, overwrite=overwrite)


def _format_of(path: Path) -> str:
    by_suffix = {suffix: name for name, writer in WRITERS.items() for suffix in writer.suffixes}
    suffix = path.suffix.lower()
    is_folder = os.path.isdir(path)
    if suffix in by_suffix and not is_folder:
        return by_suffix[suffix]
    if is_folder or suffix == ".txt":
        what = "is a folder" if is_folder else "could mean two things"
        raise CaptionerError(
            f"output {shown(path)} {what}: --format txt writes a text file for each image into a"
            " folder, a name such as captions.tsv one file with a line for each image"
        )
    if suffix in _NOT_WRITTEN and not is_folder:
        raise CaptionerError(
            f"output {shown(path)} is {_NOT_WRITTEN[suffix]} by its name: one file for all images "
            "ends in .jsonl or .csv, and rows can be added to these only (a table to be completed "
            "with --missing-only has to be saved as one of them first); --format parquet and tar "
            "write a file for each shard into a folder"
        )
    raise CaptionerError(
        f"output {shown(path)} does not say the format: end it in one of"
        f" {' '.join(by_suffix)} (or .html for a page), or add --format with one of"
        f" {', '.join(WRITERS)}"
    )
