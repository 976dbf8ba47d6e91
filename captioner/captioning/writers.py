"""Write caption records: one class per output format (`formats` lists them).

A record is a mapping with ``file_name`` (relative, forward slashes), ``text`` and ``confidence``
(both None for an image that failed), ``error`` (None or the reason) and perhaps ``candidates``.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, ClassVar, Protocol, Self, TextIO, cast

from captioner.captioning.alternatives import captions_of, flattened
from captioner.captioning.coco_ids import NumberIds
from captioner.errors import CaptionerError
from captioner.files.escaping import (
    encode_text,
    escaped,
    isolated,
    safe_cell,
    shown,
    without_steering,
)
from captioner.files.writing import (
    cannot_write,
    check_no_folder,
    create_file,
    rename_file,
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
    `captioner.captioning.run` instead, which takes the pieces of the file from here.

    Attributes:
        header: with which the file begins.
        footer: with which it ends.
        is_escaped: whether its lines hold nothing that could steer a terminal.
    """

    header = ""
    footer = ""
    is_escaped: ClassVar[bool] = False

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

    @property
    def _is_on_terminal(self) -> bool:
        return self.output is None and sys.stdout.isatty()

    def _put(self, text: str) -> None:
        assert self._stream is not None, "write() outside of open() and close()"
        if self._is_on_terminal and not self.is_escaped:
            text = without_steering(text)
        data = encode_text(text, self._encoding)
        try:
            if isinstance(self._stream, io.TextIOBase):
                self._stream.write(data.decode(self._encoding))
            else:
                cast(IO[bytes], self._stream).write(data)
            self._stream.flush()
        except BrokenPipeError:
            raise  # The reader of a pipe has seen enough; that is not an error.
        except OSError as error:
            with suppress(OSError):
                self._close_stream()  # It would try to write the rest again, and fail again.
            raise cannot_write(self.output or "standard output", error) from None


class TsvWriter(LineWriter):
    """``path<TAB>caption`` per image, further captions and other languages after further tabs.

    Control characters are escaped, so that a line stays a line and a terminal shows them.
    Images that failed have no line. On a terminal the caption has its confidence before it, and
    fields in Arabic keep their places (`isolated`); what goes into a file or to another program is
    the plain text.
    """

    format = "tsv"
    is_escaped = True
    suffixes = (".tsv",)
    summary = "one line per image: its path, a tab, the caption"

    def _choose_encoding(self) -> str:
        terminal = sys.stdout.encoding if self.output is None else None
        return terminal or "utf-8"

    def _line(self, record: Record, path: Path | None) -> str | None:
        captions = captions_of(record).values()
        if all(each["text"] is None for each in captions):
            return None
        name = record["file_name"]
        if path is not None:
            name = os.fsencode(path).decode("utf-8", "backslashreplace")
        fields = [name]
        for each in captions:
            if self._is_on_terminal:
                fields.append(f"{each['confidence']:4.0%}")
            fields += [one["text"] or "" for one in each.get("candidates") or [each]]
        safe = isolated if self._is_on_terminal else escaped
        return "\t".join(map(safe, fields)) + "\n"


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

    Captions in other languages have more columns: ``language``, that of ``text``, and
    ``text_de`` and ``confidence_de`` for each further language.

    Cells that a spreadsheet would run as a formula (they start with ``= + - @``, also in their
    full-width forms, a tab or a line end) are given a leading ``'``.
    """

    format = "csv"
    suffixes = (".csv",)
    summary = "a table for spreadsheets: file name, caption, confidence, error"

    columns: tuple[str, ...] = ("file_name", "text", "confidence", "error")
    """Of a table in English alone."""

    def __init__(
        self,
        output: Path | None = None,
        *,
        overwrite: bool = False,
        bom: bool = False,
        languages: Sequence[str] = (),
    ) -> None:
        """As the others' one.

        Args:
            output: see `Writer`, as for the next.
            overwrite: whether it may be replaced.
            bom: begin with a byte order mark, by which Excel sees UTF-8.
            languages: of the captions, the first one first; empty for English alone.
        """
        super().__init__(output, overwrite=overwrite)
        if languages:
            others = [f"{name}_{each}" for each in languages[1:] for name in ("text", "confidence")]
            self.columns = ("file_name", "language", "text", "confidence", *others, "error")
        self.header = ("\ufeff" if bom else "") + ",".join(self.columns) + "\r\n"

    def _line(self, record: Record, path: Path | None) -> str:
        row = io.StringIO()
        values = flattened(record)
        cells = [safe_cell(values.get(column)) for column in self.columns]
        csv.writer(row).writerow(cells)
        return row.getvalue()


class JsonWriter(LineWriter):
    """COCO results: a list of ``{"image_id", "caption"}``; images that failed are left out.

    The id is the number for names such as ``123456.jpg`` and
    ``COCO_val2014_000000123456.jpg``, in whatever folder, and otherwise, or where an image before
    it has that number, the file name. A file appears under its name when it is complete; after an
    error there is none.
    """

    format = "json"
    suffixes = (".json",)
    summary = "COCO results, the file that caption evaluation tools read"

    header = "["
    footer = "\n]\n"

    def __init__(self, output: Path | None = None, *, overwrite: bool = False) -> None:
        super().__init__(output, overwrite=overwrite)
        self._between = "\n"
        self._ids = NumberIds()
        self._temporary: Path | None = None

    def _line(self, record: Record, path: Path | None) -> str | None:
        if record["text"] is None:
            return None
        image_id = self._ids.id_of(record["file_name"])
        item: dict[str, Any] = {"image_id": image_id, "caption": record["text"]}
        if record.get("partial"):
            item["partial"] = True
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


def _check_output(path: Path, overwrite: bool) -> None:
    check_no_folder(path)
    # Only a file can be lost: /dev/null and pipes are written to.
    if os.path.isfile(path) and not overwrite:
        raise CaptionerError(f"output {shown(path)} exists: --overwrite replaces it")
