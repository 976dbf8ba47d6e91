"""The layouts of captioned images that can be read: one finder and one reader for each.

A finder lists the annotation files in a folder; a reader puts what they hold into `Entries`, with
the place of every entry, so that each complaint names its file and line. `FORMATS` is the registry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from captioner.data.coco import find_coco, find_karpathy, read_coco, read_karpathy
from captioner.data.entries import Entries
from captioner.data.flickr import find_flickr, read_flickr
from captioner.data.parquet import find_parquet, read_parquet
from captioner.data.sidecars import SIDECAR_SUFFIXES, find_sidecar, read_sidecar
from captioner.data.tables import (
    csv_records,
    find_lists,
    find_table,
    jsonl_records,
    read_lists,
    read_tables,
)
from captioner.data.verdicts import find_verdicts, read_verdict_files
from captioner.data.webdataset import find_tars, read_tars
from captioner.files.verdicts import FILE_NAME


@dataclass(frozen=True)
class Format:
    """How one layout is recognised (`find`: the annotation files in a folder) and read."""

    find: Callable[[Path], list[Path]]
    read: Callable[[list[Path], Entries], None]
    looks_for: str


def sidecar_format(suffix: str | None = None) -> Format:
    """The format of text files beside the images, with a suffix that is given or found."""
    return Format(
        partial(find_sidecar, suffix=suffix),
        partial(read_sidecar, suffix=suffix),
        f"images with a {suffix or ' or '.join(SIDECAR_SUFFIXES)} of the same name beside",
    )


FORMATS: dict[str, Format] = {
    "flickr": Format(
        find_flickr,
        read_flickr,
        "*.token.txt, captions.txt (image,caption) or results.csv (also with commas or tabs)",
    ),
    "coco": Format(
        find_coco,
        read_coco,
        "captions*.json, or train.json with val.json, there or in annotations/",
    ),
    "karpathy": Format(find_karpathy, read_karpathy, "dataset*.json"),
    "jsonl": Format(
        lambda root: find_table(root, ".jsonl"),
        lambda files, entries: read_tables(files, entries, "jsonl", jsonl_records),
        "metadata.jsonl, train.jsonl with dev.jsonl, or one other *.jsonl, also in folders there",
    ),
    "csv": Format(
        lambda root: find_table(root, ".csv"),
        lambda files, entries: read_tables(files, entries, "csv", csv_records),
        "metadata.csv, train.csv with dev.csv, or one other *.csv, also in folders there",
    ),
    "lavis": Format(
        find_lists, read_lists, '*.json that is a list of {"image", "caption"}, or in annotations/'
    ),
    "parquet": Format(
        find_parquet, read_parquet, "*.parquet with images and captions, also in folders there"
    ),
    "sidecar": sidecar_format(),
    "webdataset": Format(
        find_tars, read_tars, "*.tar, also compressed (*.tar.gz, *.tgz ...) and in folders there"
    ),
    "verdicts": Format(
        find_verdicts, read_verdict_files, f"{FILE_NAME}, which `captioner review` wrote"
    ),
}

LAST_RESORTS = ("sidecar", "lavis", "parquet", "webdataset", "verdicts")
"""These may lie beside another format by chance: each counts where none before it is found."""
