"""Which output a job has, or an earlier job had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from captioner.captioning.alternatives import described_languages
from captioner.captioning.file_output import LinesOutput, ListOutput
from captioner.captioning.formats import WRITERS, is_sidecar
from captioner.captioning.job import CaptionJob
from captioner.captioning.output import Output
from captioner.captioning.sidecar_output import SidecarsOutput
from captioner.captioning.sidecars import SidecarWriter
from captioner.captioning.writers import JsonWriter, LineWriter
from captioner.files.journal import Journal

_BOM = "byte order mark)"


def make_output(job: CaptionJob, base: Path, languages: Sequence[str] = ()) -> Output:
    """The output of a job that keeps one.

    Args:
        job: what is to be done.
        base: the folder that holds all images.
        languages: of the captions; see `written_languages`.
    """
    writer = job.make_writer(languages)
    if isinstance(writer, SidecarWriter):
        return SidecarsOutput(writer, base, job.missing_only)
    assert job.output is not None, "only sidecars have a place of their own"
    kind = ListOutput if job.format == JsonWriter.format else LinesOutput
    return kind(job.output, lambda: cast(LineWriter, job.make_writer(languages)))


def output_before(job: CaptionJob, journal: Journal, base: Path) -> Output:
    """The output at a job's path, in the format that its journal records.

    Args:
        job: which is to be done now.
        journal: of the existing output.
        base: the folder that holds all images.
    """
    languages = described_languages(journal.about.get("model", {}))
    described = str(journal.about.get("settings", {}).get("format", ""))
    format, _, detail = described.partition(" (")
    if is_sidecar(job.format) or format not in WRITERS or is_sidecar(format):
        return make_output(job, base, languages)
    return make_output(replace(job, format=format, csv_bom=detail == _BOM), base, languages)


def describe_format(job: CaptionJob) -> str:
    """The format of a job, as its settings say it."""
    if job.format == "xmp":
        return f"xmp ({job.xmp_name})"
    if job.sidecar_suffix != SidecarWriter.suffix:
        return f"{job.format} ({job.sidecar_suffix})"
    return f"{job.format} ({_BOM}" if job.csv_bom else job.format
