"""Write caption records: one class per output format, one registry of them.

A record is a mapping with ``file_name`` (relative, forward slashes), ``text`` and ``confidence``
(both None for an image that failed), ``error`` (None or the reason) and perhaps ``candidates``.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any, ClassVar, Protocol, Self, TextIO, cast

from captioner.captioning.xmp import is_untouched, render_xmp
from captioner.errors import CaptionerError
from captioner.files.escaping import encode_text, escaped, safe_cell, shown, without_steering
from captioner.files.naming import output_stems
from captioner.files.writing import (
    cannot_write,
    check_folder,
    check_no_folder,
    create_file,
    exists,
    make_folder,
    rename_file,
    replace_file,
    sync_file,
    temporary_of,
)

Record = Mapping[str, Any]


class NamedFile(Protocol):
    """What `Writer.check` needs to know of an image: `files.finding.SourceFile` has it."""

    @property
    def path(self) -> Path:
        """Where the image is."""

    @property
    def name(self) -> str:
        """What the records call it."""


class Writer(ABC):
    """One output format. A context manager: entering opens, leaving closes or, on error, aborts.

    Attributes:
        format: its name, as in ``--format``.
        suffixes: of output files that choose it without a format given.
        summary: one line for the help.
    """

    format: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    summary: ClassVar[str]

    def __init__(self, output: Path | None = None, *, overwrite: bool = False) -> None:
        """Remember where to write; nothing is touched before `open`.

        Args:
            output: the file (sidecars: the folder), None for standard output (sidecars: beside
                the images).
            overwrite: whether existing output may be replaced.
        """
        self.output = output
        self.overwrite = overwrite

    def check(self, files: Iterable[NamedFile]) -> None:  # noqa: B027
        """Refuse, before any work, what `write` would refuse for one of these images.

        Raises:
            CaptionerError: names the file in the way and the remedy.
        """

    @abstractmethod
    def open(self) -> None:
        """Create the output.

        Raises:
            CaptionerError: it exists and may not be replaced, or cannot be written.
        """

    @abstractmethod
    def write(self, record: Record, path: Path | None = None) -> None:
        """Write one record; when this returns the formats written line by line are on disk.

        Args:
            record: see the module's text.
            path: where the image is; `SidecarWriter` needs it, `TsvWriter` shows it.

        Raises:
            CaptionerError: the output cannot be written.
        """

    def close(self) -> None:  # noqa: B027
        """Finish the output. Closing twice does nothing."""

    def abort(self) -> None:
        """Finish after an error or Ctrl-C: keep what was written, where the format allows it."""
        self.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class LineWriter(Writer):
    """A format of one line per record, in one file or on standard output.

    Lines go straight into the file and are flushed one by one: whatever ends the program, the
    captions that were made are there. What is worked on for hours is written by
    `captioner.captioning.job` instead, which takes the pieces of the file from here.

    Attributes:
        header: with which the file begins.
        footer: with which it ends.
    """

    header = ""
    footer = ""

    def __init__(self, output: Path | None = None, *, overwrite: bool = False) -> None:
        super().__init__(output, overwrite=overwrite)
        self._stream: IO[bytes] | TextIO | None = None
        self._encoding = "utf-8"

    @abstractmethod
    def _line(self, record: Record, path: Path | None) -> str | None:
        """The record's line with its end, None to leave the record out."""

    def open(self) -> None:
        """Create the output and write how it begins."""
        self._encoding = self._choose_encoding()
        if self.output is None:
            sys.stdout.flush()
            # As bytes, for UTF-8 whatever the terminal's encoding; notebooks only take text.
            self._stream = getattr(sys.stdout, "buffer", sys.stdout)
        else:
            _check_output(self.output, self.overwrite)
            self._stream = self._create(self.output)
        try:
            self._put(self.header)
        except BaseException:
            self.abort()  # Nobody leaves a context that was not entered.
            raise

    def write(self, record: Record, path: Path | None = None) -> None:
        """Write one line and flush it."""
        line = self._line(record, path)
        if line is not None:
            self._put(line)

    def pieces(self, records: Iterable[tuple[Record, Path]]) -> Iterator[bytes]:
        """What a file of these records is made of: its header, a piece for each, its footer.

        The piece of a record that is left out is empty. Nothing is written.
        """
        yield encode_text(self.header)
        for record, path in records:
            yield encode_text(self._line(record, path) or "")
        yield encode_text(self.footer)

    def close(self) -> None:
        """Close the file; standard output stays open."""
        self._close_stream()

    def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None and self.output is not None:
            stream.close()

    def _choose_encoding(self) -> str:
        return "utf-8"

    def _create(self, output: Path) -> IO[bytes]:
        return create_file(output, output)

    def _put(self, text: str) -> None:
        assert self._stream is not None, "write() outside of open() and close()"
        if self.output is None and sys.stdout.isatty():
            text = without_steering(text)
        data = encode_text(text, self._encoding)
        try:
            if isinstance(self._stream, io.TextIOBase):
                self._stream.write(data.decode(self._encoding))
            else:
                cast(IO[bytes], self._stream).write(data)
            self._stream.flush()
        except BrokenPipeError:
            raise  # The reader of a pipe has seen enough; that is no mistake.
        except OSError as error:
            with suppress(OSError):
                self._close_stream()  # It would try to write the rest again, and fail again.
            raise cannot_write(self.output or "standard output", error) from None


class TsvWriter(LineWriter):
    """``path<TAB>caption`` per image, further captions behind further tabs.

    Control characters are escaped, so that a line stays a line and a terminal shows what is there.
    Images that failed have no line.
    """

    format = "tsv"
    suffixes = (".tsv",)
    summary = "one line per image: its path, a tab, the caption"

    def _choose_encoding(self) -> str:
        terminal = sys.stdout.encoding if self.output is None else None
        return terminal or "utf-8"

    def _line(self, record: Record, path: Path | None) -> str | None:
        if record["text"] is None:
            return None
        name = record["file_name"]
        if path is not None:
            name = os.fsencode(path).decode("utf-8", "backslashreplace")
        texts = [candidate["text"] for candidate in record.get("candidates") or [record]]
        return "\t".join(map(escaped, [name, *texts])) + "\n"


class JsonlWriter(LineWriter):
    """One JSON object per line, UTF-8: as ``metadata.jsonl`` a Hugging Face imagefolder reads it.

    Images that failed have ``text`` null and their reason in ``error``.
    """

    format = "jsonl"
    suffixes = (".jsonl", ".ndjson")
    summary = "one JSON object per line, with everything known; also for Hugging Face datasets"

    def _line(self, record: Record, path: Path | None) -> str:
        return json.dumps(dict(record), ensure_ascii=False, allow_nan=False) + "\n"


class CsvWriter(LineWriter):
    """Columns file_name, text, confidence, error; UTF-8, lines end as RFC 4180 says.

    Cells that a spreadsheet would run as a formula (they start with ``= + - @``, also in their
    full-width forms, a tab or a line end) are given a leading ``'``.
    """

    format = "csv"
    suffixes = (".csv",)
    summary = "a table for spreadsheets: file name, caption, confidence, error"

    _COLUMNS = ("file_name", "text", "confidence", "error")
    header = ",".join(_COLUMNS) + "\r\n"

    def _line(self, record: Record, path: Path | None) -> str:
        row = io.StringIO()
        cells = [safe_cell(record.get(column)) for column in self._COLUMNS]
        csv.writer(row).writerow(cells)
        return row.getvalue()


class JsonWriter(LineWriter):
    """COCO results: a list of ``{"image_id", "caption"}``; images that failed are left out.

    The id is the number for names such as ``123456.jpg`` and
    ``COCO_val2014_000000123456.jpg``, in whatever folder, and otherwise the file name. A file
    appears under its name when it is complete; after an error there is none.
    """

    format = "json"
    suffixes = (".json",)
    summary = "COCO results, the file that caption evaluation tools read"

    header = "["
    footer = "\n]\n"

    def __init__(self, output: Path | None = None, *, overwrite: bool = False) -> None:
        super().__init__(output, overwrite=overwrite)
        self._between = "\n"
        self._temporary: Path | None = None

    def _line(self, record: Record, path: Path | None) -> str | None:
        if record["text"] is None:
            return None
        item = {"image_id": _coco_id(record["file_name"]), "caption": record["text"]}
        line = self._between + json.dumps(item, ensure_ascii=False)
        self._between = ",\n"
        return line

    def close(self) -> None:
        """End the list and give the file its name."""
        if self._stream is None:
            return
        self._put(self.footer)
        if self.output is not None:
            sync_file(cast(IO[bytes], self._stream), self.output)
        self._close_stream()
        if self._temporary is not None:
            assert self.output is not None
            rename_file(self._temporary, self.output)

    def abort(self) -> None:
        """Remove the unfinished file."""
        self._close_stream()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)

    def _create(self, output: Path) -> IO[bytes]:
        if os.path.exists(output) and not os.path.isfile(output):
            return super()._create(output)  # /dev/null is written to, never replaced by a file.
        self._temporary = temporary_of(output)
        return create_file(self._temporary, output)


class SidecarWriter(Writer):
    """A text file with the caption for each image: ``a.txt`` for ``a.jpg``.

    The files lie beside the images, or below the output folder in the same subfolders. Of several
    images with one stem the first by name has ``a.txt``; the others, and files without an image's
    suffix, keep theirs: ``a.png.txt``. That depends on the folder alone and not on which of its
    images are captioned, so that a second run finds the files of the first. Images that failed
    get none.

    Attributes:
        suffix: of the files.
        what: they are called in messages.
        journal: the name of the hidden file that a job keeps beside them.
    """

    format = "txt"
    summary = "a .txt file for each image, beside it or below the output folder"
    suffix: ClassVar[str] = ".txt"
    what: ClassVar[str] = "text files"
    journal: ClassVar[str] = ".captions.captioner"

    def __init__(self, output: Path | None = None, *, overwrite: bool = False) -> None:
        super().__init__(output, overwrite=overwrite)
        self._folder: str | None = None
        self._stems: dict[str, str] = {}

    def target(self, path: Path, name: str) -> Path:
        """The file that belongs to the image at `path` that the records call `name`.

        Raises:
            CaptionerError: there can be none; names the image and the remedy.
        """
        sidecar = self._stem(path) + self.suffix
        if self.output is None:
            return path.parent / sidecar
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts:
            raise CaptionerError(f"{name} would be written outside of {self.output}")
        return self.output.joinpath(*inside.parent.parts, sidecar)

    def _stem(self, path: Path) -> str:
        return self._stems_beside(path).get(path.name, path.name)

    def _stems_beside(self, path: Path) -> dict[str, str]:
        """File name -> stem, for all images of the folder."""
        # Imported here: the command line's help lists the formats and must not load Pillow.
        from captioner.images.reading import IMAGES

        folder = os.path.abspath(path.parent)
        if folder != self._folder:
            # One folder's names at a time: images come folder by folder.
            self._folder, self._stems = folder, output_stems(folder, IMAGES)
        return self._stems

    def text(self, record: Record) -> str:
        """What the file of a record with a caption holds."""
        return f"{record['text']}\n"

    def may_replace(self, target: Path) -> bool:
        """Whether ``overwrite`` is enough to replace a file that is there."""
        return True

    def foreign(self, target: Path) -> CaptionerError:
        """The error to raise for a file that nothing replaces."""
        raise NotImplementedError("every text file may be replaced")

    def check(self, files: Iterable[NamedFile]) -> None:
        """Refuse files that exist and folders that cannot be written."""
        checked: Path | None = None
        for file in files:
            target = self.target(file.path, file.name)
            if target.parent != checked:
                check_folder(target.parent)
                checked = target.parent
            self._check_target(target)

    def open(self) -> None:
        """Create the output folder."""
        if self.output is not None:
            make_folder(self.output)
            check_folder(self.output)

    def write(self, record: Record, path: Path | None = None) -> None:
        """Write one image's file, whole or not at all."""
        if record["text"] is None:
            return
        if path is None:
            raise CaptionerError(f"{self.what} need the path of each image: write(record, path)")
        target = self.target(path, record["file_name"])
        self._check_target(target)
        replace_file(target, self.text(record))

    def _check_target(self, target: Path) -> None:
        if not exists(target):
            return
        if not self.may_replace(target):
            raise self.foreign(target)
        if not self.overwrite:
            raise CaptionerError(
                f"{shown(target)} exists: --overwrite replaces the {self.what} of these images"
            )


class XmpWriter(SidecarWriter):
    """An XMP sidecar for each image: its caption as the description, its tags as keywords.

    ``a.jpg.xmp`` for ``a.jpg``, the name that darktable and digiKam give, is every image's own.
    Adobe's ``a.xmp`` belongs to all files of that stem: images that share one are refused.

    A sidecar that another program has written or added to, or that somebody has changed, is never
    replaced: it may hold the development of a photo.
    """

    format = "xmp"
    summary = "an XMP sidecar for each image, with its caption and tags, for photo programs"
    suffix = ".xmp"
    what = "XMP sidecars"
    journal = ".captions.xmp.captioner"

    def __init__(
        self, output: Path | None = None, *, overwrite: bool = False, naming: str = "darktable"
    ) -> None:
        """As the text files' one; the naming is one of `XMP_NAMINGS`."""
        super().__init__(output, overwrite=overwrite)
        self.naming = naming
        self._sharing: dict[str, list[str]] = {}  # stem -> names, of the folder of `_stems`

    def _stem(self, path: Path) -> str:
        if self.naming == "darktable":
            return path.name
        stem = os.path.splitext(path.name)[0]
        others = [name for name in self._names_with(stem, path) if name != path.name]
        if others:
            raise CaptionerError(
                f"{shown(path)} and {shown(others[0])} would share {shown(stem)}.xmp: --xmp-name "
                "darktable gives each image its own sidecar; or rename one of them"
            )
        return stem

    def _names_with(self, stem: str, path: Path) -> list[str]:
        before = self._folder
        names = self._stems_beside(path)
        if self._folder != before:
            self._sharing = {}
            for name in names:
                # Compared as Windows and macOS do.
                key = os.path.splitext(name)[0].casefold()
                self._sharing.setdefault(key, []).append(name)
        return self._sharing.get(stem.casefold(), [])

    def text(self, record: Record) -> str:
        """The whole sidecar."""
        return render_xmp(record["text"], [tag["name"] for tag in record.get("tags") or ()])

    def may_replace(self, target: Path) -> bool:
        """Whether captioner has made it, and nobody has changed it since."""
        return is_untouched(target)

    def foreign(self, target: Path) -> CaptionerError:
        """Names the sidecar and where ours can go."""
        return CaptionerError(
            f"{shown(target)} holds what captioner has not written (perhaps the development of a "
            "photo), and is never replaced: write into a folder of their own with --output DIR; "
            "docs/formats.md says how to merge them"
        )


WRITERS: dict[str, type[Writer]] = {
    writer.format: writer
    for writer in (TsvWriter, JsonlWriter, CsvWriter, JsonWriter, SidecarWriter, XmpWriter)
}
"""Format name -> class; the command line's choices."""

XMP_NAMINGS = ("darktable", "adobe")
"""How XMP sidecars can be called: ``a.jpg.xmp``, or ``a.xmp``."""


def is_sidecar(format: str) -> bool:
    """Whether a format of `WRITERS` has a file for each image."""
    return issubclass(WRITERS[format], SidecarWriter)


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
    raise CaptionerError(
        f"output {shown(path)} does not say the format: end it in one of"
        f" {' '.join(by_suffix)} or add --format with one of {', '.join(WRITERS)}"
    )


def _check_output(path: Path, overwrite: bool) -> None:
    check_no_folder(path)
    # Only a file can be lost: /dev/null and pipes are written to.
    if os.path.isfile(path) and not overwrite:
        raise CaptionerError(f"output {shown(path)} exists: --overwrite replaces it")


# --- text ----------------------------------------------------------------------------------


def _coco_id(file_name: str) -> int | str:
    found = re.fullmatch(r"(?:COCO_.+_)?([0-9]+)", PurePosixPath(file_name).stem)
    return int(found[1]) if found else file_name
