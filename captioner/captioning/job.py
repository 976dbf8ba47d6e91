"""What a caption job is, checked before any work. Loads no torch; `run` does the job."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.captioning.affixes import Affixes
from captioner.captioning.formats import WRITERS, is_sidecar, make_writer
from captioner.captioning.sidecars import XMP_NAMINGS, SidecarWriter, check_sidecar_suffix
from captioner.captioning.writers import CsvWriter, Writer
from captioner.decoding.options import DecodingOptions
from captioner.files.escaping import shown
from captioner.images.kinds import IMAGES, images_to_find
from captioner.model.options import BatchOptions
from captioner.options import check_options, option

if TYPE_CHECKING:
    from captioner.captioning.batches import CaptionRecord


@dataclass(frozen=True)
class CaptionJob:
    """What is to be done. Checked in full when made; ValueError names what is wrong.

    Attributes:
        paths: images, folders and patterns; see `captioner.files.finding.find_files`.
        exclude: what is left out of the folders: patterns as in a .gitignore file. Images that an
            earlier run captioned stay in the output.
        output: the file to write, or the folder for text files and XMP sidecars; None for
            standard output (those: beside the images).
        format: a key of `captioner.captioning.formats.WRITERS`.
        decoding: how images are captioned.
        candidates: whether records list all captions with the probabilities of their words.
        min_confidence: captions that are less sure, in [0, 1], are left out.
        min_tag_confidence: give each image the tags that are at least so sure, in [0, 1]; None
            gives none.
        batch_size: images that the model sees at once, at most.
        workers: threads that read images while the model works.
        overwrite: start over and replace the existing output.
        replace_hand_made: with ``overwrite``: replace also what captioner has not written, or what
            was changed since.
        append: keep all that is in the output, and add the images that are not.
        partial_images: caption images that are cut short as far as they go.
        missing_only: caption only images that have no caption yet, whoever wrote it; existing
            captions stay as they are.
        raw: which raw photos of the folders are captioned, one of
            `captioner.images.kinds.RAW_CHOICES`.
        xmp_name: how XMP sidecars are called, one of `captioner.captioning.sidecars.XMP_NAMINGS`.
        embed: write captions and tags into the image files too, as
            `captioner.captioning.embedding` does it.
        caption_prefix: text before every caption that is written.
        caption_suffix: text after it. A space is added where two words would run into each other.
        sidecar_suffix: of text files, with its dot.
        csv_bom: begin CSV with a byte order mark, by which Excel knows UTF-8.
    """

    paths: tuple[str, ...]
    output: Path | None = None
    format: str = "tsv"
    decoding: DecodingOptions = DecodingOptions()
    candidates: bool = option(False, "with jsonl: the probability of every word of every caption")
    min_confidence: float = option(
        0.0,
        "leave out captions with less confidence, from 0 to 1",
        metavar="P",
        minimum=0,
        maximum=1,
    )
    min_tag_confidence: float | None = option(None, kind=float, flag="--tags", minimum=0, maximum=1)
    batch_size: int = BatchOptions.batch_size
    workers: int = 0
    overwrite: bool = option(False, "start over and replace the existing output")
    append: bool = option(
        False, "keep all that is in PATH, and add the images that are not yet in it"
    )
    xmp_name: str = option(
        XMP_NAMINGS[0],
        "with xmp: darktable (default): a.jpg.xmp, as darktable and digiKam call them; "
        "adobe: a.xmp",
        choices=XMP_NAMINGS,
        default_text="",
    )
    exclude: tuple[str, ...] = ()
    embed: bool = option(
        False,
        "also write the caption and the tags into the image files themselves: JPEG, PNG, WebP "
        "and TIFF, through ExifTool, which has to be installed. A description that captioner has "
        "not written stays; --no-tags: the caption only",
    )
    caption_prefix: str = option(
        "",
        "write this before every caption, in every format, such as the trigger words of a "
        "LoRA; a space is added only where two words would run into each other",
        metavar="TEXT",
    )
    caption_suffix: str = option("", "write this after every caption", metavar="TEXT")
    sidecar_suffix: str = option(
        SidecarWriter.suffix, "with txt: what the text files end in", metavar="SUFFIX"
    )
    csv_bom: bool = option(
        False, "with csv: begin with a byte order mark, by which Excel knows that it is UTF-8"
    )
    missing_only: bool = option(
        False,
        "caption only images that have no caption yet, whoever wrote it: no text file or "
        "sidecar, or no row in PATH, which keeps its bytes and gets rows in its own columns (jsonl "
        "and csv)",
    )
    replace_hand_made: bool = option(
        False,
        "with --overwrite: replace also what captioner has not written, or what was changed "
        "since; without it such files are counted, and nothing is done",
        flag="--yes",
    )
    partial_images: bool = option(
        False,
        "caption images that are cut short as far as they go, instead of reporting an error; "
        "jsonl and json mark them with partial: true",
    )
    raw: str = "alone"

    def __post_init__(self) -> None:
        if self.format not in WRITERS:
            raise ValueError(f"format={self.format!r}: choose from {', '.join(WRITERS)}")
        check_options(self)
        images_to_find(self.raw)  # which refuses other values
        if self.overwrite and self.append:
            raise ValueError(
                "append=True and overwrite=True: the one keeps what the other replaces"
            )
        if self.missing_only and (self.overwrite or self.append):
            other = "overwrite" if self.overwrite else "append"
            raise ValueError(f"missing_only=True and {other}=True: give one of them")
        if self.replace_hand_made and not self.overwrite:
            raise ValueError("replace_hand_made=True: is for overwrite=True, which replaces")
        for name in ("append", "missing_only"):
            if getattr(self, name) and not self.is_kept:
                raise ValueError(
                    f"{name}=True: standard output and devices keep nothing; name a file"
                )
        self._check_format_options()
        is_file = self.output is not None and not is_sidecar(self.format)
        if is_file and IMAGES.lists(str(self.output)):
            raise ValueError(
                f"output {shown(self.output or '')} would be taken for an image to caption: end "
                f"it in .{self.format}"
            )

    def _check_format_options(self) -> None:
        _ = self.affixes  # checks them
        check_sidecar_suffix(self.sidecar_suffix)
        if self.sidecar_suffix != SidecarWriter.suffix and self.format != SidecarWriter.format:
            raise ValueError(
                f"sidecar_suffix={self.sidecar_suffix!r}: is for the format txt, not for "
                f"{self.format}"
            )
        if self.csv_bom and self.format != CsvWriter.format:
            raise ValueError(f"csv_bom=True: is for the format csv, not for {self.format}")

    @property
    def affixes(self) -> Affixes:
        """What stands around every caption."""
        return Affixes(self.caption_prefix, self.caption_suffix)

    def make_writer(self, languages: Sequence[str] = ()) -> Writer:
        """A new writer of the job's format.

        Args:
            languages: of the captions, the first one first; empty for English alone.
        """
        return make_writer(
            self.format,
            self.output,
            xmp_name=self.xmp_name,
            sidecar_suffix=self.sidecar_suffix,
            csv_bom=self.csv_bom,
            languages=languages,
        )

    def to_dict(self, record: CaptionRecord) -> dict[str, Any]:
        """A record as it is written."""
        return record.to_dict(self.candidates, self.affixes)

    @property
    def is_kept(self) -> bool:
        """Whether a run can be resumed: not on standard output, pipes and devices."""
        if is_sidecar(self.format):
            return True
        if self.output is None:
            return False
        return not os.path.exists(self.output) or self.output.is_file() or self.output.is_dir()
