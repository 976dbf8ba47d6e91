"""Write what a video shows: one class per output format, one registry of them.

A record is `captioner.tagging.videos.VideoTags.to_dict` with two more keys, ``model`` and
``settings``: which model said it and how it was asked. It may have a third, ``page``: what
`HtmlTagWriter` shows. ``docs/video-tags.md`` describes all formats.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from captioner.files.escaping import escaped, safe_cell
from captioner.tagging.passages import passages
from captioner.tagging.subtitles import make_cues
from captioner.text.languages import language_of
from captioner.text.scripts import is_right_to_left, with_direction_marks

Record = Mapping[str, Any]


class TagWriter(ABC):
    """One output format.

    Attributes:
        format: its name, as in ``--format``.
        suffix: of its files.
        summary: one line for the help.
        has_language: whether a file is in one language, so that each has its own.
    """

    format: ClassVar[str]
    suffix: str
    summary: ClassVar[str]
    has_language: ClassVar[bool] = False

    def __init__(
        self,
        *,
        min_confidence: float = 0.0,
        csv_bom: bool = False,
        language: str | None = None,
        is_first: bool = True,
    ) -> None:
        """Take the options of all formats, so that the caller need not distinguish them.

        Args:
            min_confidence: captions that are less sure than this, in [0, 1], get no subtitle, and
                none over the video on a page. Everything else shows them all.
            csv_bom: whether CSV begins with a byte order mark.
            language: of the file, where there are several: its name has it before its suffix, as
                players know it.
            is_first: whether that is the first language of the records.

        Raises:
            ValueError: min_confidence is out of range.
        """
        if not 0 <= min_confidence <= 1:
            raise ValueError(f"min_confidence={min_confidence!r}: give a number from 0 to 1")
        self.min_confidence = min_confidence
        self.csv_bom = csv_bom
        self.other = None if is_first else language
        if language is not None and self.has_language:
            self.suffix = f".{language}{self.suffix}"

    @abstractmethod
    def text(self, record: Record) -> str:
        """The whole file for one video; to be encoded as UTF-8, its line ends as they are."""


class JsonTagWriter(TagWriter):
    """Everything known, by the schema ``docs/video-tags.schema.json``."""

    format = "json"
    suffix = ".json"
    summary = "everything known: shots, segments, frames, tags and where they hold"

    def text(self, record: Record) -> str:
        """The record, indented, its keys always in the same order."""
        return json.dumps(ordered(record), ensure_ascii=False, allow_nan=False, indent=2) + "\n"


class _SubtitleWriter(TagWriter):
    """A cue for each caption; see `make_cues`."""

    has_language = True

    @abstractmethod
    def _escape(self, line: str) -> str:
        """A line of text as the format has to spell it.

        Must leave no backslash: pysubs2 reads those as SubStation codes.
        """

    def text(self, record: Record) -> str:
        # Imported here: the command line's help lists the formats and must be instant.
        import pysubs2

        subtitles = pysubs2.SSAFile()
        for cue in make_cues(record["segments"], self.min_confidence, self.other):
            text = r"\N".join(map(self._escape, _in_order(cue.lines)))
            subtitles.append(pysubs2.SSAEvent(start=cue.start_ms, end=cue.end_ms, text=text))
        # Without keep_ssa_tags it would take what stands in braces for formatting, and drop it.
        return re.sub(r"\n+\Z", "\n", subtitles.to_string(self.format, keep_ssa_tags=True))


def _in_order(lines: Sequence[str]) -> Sequence[str]:
    is_marked = is_right_to_left(" ".join(lines))
    return [with_direction_marks(line) for line in lines] if is_marked else lines


class SrtTagWriter(_SubtitleWriter):
    r"""SubRip subtitles.

    The format has no escapes, and players take ``<i>``, ``{\an8}`` and ``&lt;`` for formatting.
    ``< > { } \`` and an ``&`` that begins a character reference are therefore written in their
    full-width forms (U+FF1C and so on); Unicode's normalisation NFKC turns them back.
    """

    format = "srt"
    suffix = ".srt"
    summary = "subtitles for video players: what is shown when"

    _SPECIAL = re.compile(r"[<>{}\\]|&(?=#?\w+;)")
    _TO_FULL_WIDTH = 0xFEE0

    def _escape(self, line: str) -> str:
        return self._SPECIAL.sub(lambda found: chr(ord(found[0]) + self._TO_FULL_WIDTH), line)


class VttTagWriter(_SubtitleWriter):
    """WebVTT (https://www.w3.org/TR/webvtt1/), for HTML's ``<track kind="descriptions">``."""

    format = "vtt"
    suffix = ".vtt"
    summary = 'WebVTT for web pages, as <track kind="descriptions">'

    _HEADER = "WEBVTT\n"
    _NOTE = 'NOTE What the video shows, told by a program; for <track kind="descriptions">\n'

    def text(self, record: Record) -> str:
        """The cues after a comment that says what they are for; pysubs2 writes no comments."""
        header, cues = super().text(record).split("\n", 1)
        assert header + "\n" == self._HEADER
        return f"{self._HEADER}\n{self._NOTE}{cues}"

    def _escape(self, line: str) -> str:
        return html.escape(line, quote=False).replace("\\", "&#92;")


class CsvTagWriter(TagWriter):
    """A row for each span of each tag; RFC 4180, cells are never formulas."""

    format = "csv"
    suffix = ".csv"
    summary = "a table for spreadsheets: the tags and where they hold"

    _COLUMNS = (
        *("file_name", "tag", "type", "confidence", "coverage"),
        *("start", "end", "span_confidence"),
    )

    def text(self, record: Record) -> str:
        """The table with its header, which a video without tags has too."""
        table = io.StringIO()
        if self.csv_bom:
            table.write("\ufeff")
        writer = csv.writer(table, lineterminator="\r\n")
        writer.writerow(self._COLUMNS)
        for tag in record["tags"]:
            about_tag = [tag["name"], tag["type"], tag["confidence"], tag["coverage"]]
            for span in tag["segments"]:
                row = [record["video"]["file_name"], *about_tag]
                row += [span["start"], span["end"], span["confidence"]]
                writer.writerow([safe_cell(cell) for cell in row])
        return table.getvalue()


class TextTagWriter(TagWriter):
    """A summary for people."""

    format = "txt"
    suffix = ".txt"
    summary = "a summary to read: the tags, then a line for each caption"

    def text(self, record: Record) -> str:
        """The summary; names and captions cannot break its lines."""
        return self.shown(record, escaped)

    def shown(self, record: Record, safe: Callable[[str], str]) -> str:
        """The summary, with names and captions as ``safe`` shows them."""
        parts = [_about_video(record, safe), _tag_lines(record["tags"], safe)]
        parts.append(_segment_lines(record["segments"], safe))
        for language in record.get("model", {}).get("other_languages", ()):
            heading = f"In {language_of(language).name}:"
            parts.append([heading, *_segment_lines(record["segments"], safe, language)[1:]])
        return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


class HtmlTagWriter(TagWriter):
    """A page with a player, the tags over time and a transcript.

    The record's ``page`` is `captioner.pages.video_page.page_data`, which also knows where the
    video is and has images; without it there is neither a player nor an image.
    """

    format = "html"
    suffix = ".html"
    summary = "a page with a player, tags over time and a transcript, and index.html for all"

    def text(self, record: Record) -> str:
        """The page."""
        from captioner.pages.video_page import page_data, render  # the help must be instant

        data = record["page"] if "page" in record else page_data(record)
        return render({**data, "unsure_below": self.min_confidence})


TAG_WRITERS: dict[str, type[TagWriter]] = {
    writer.format: writer
    for writer in (
        *(JsonTagWriter, SrtTagWriter, VttTagWriter, CsvTagWriter, TextTagWriter),
        HtmlTagWriter,
    )
}
"""Format name -> class; the command line's choices."""


def ordered(record: Record) -> dict[str, Any]:
    """All of a record that the schema allows, its keys always in the same order."""
    keys = ("schema", "status", "error", "video", "model", "settings")
    return {key: record[key] for key in (*keys, "shots", "segments", "frames", "tags")}


def summary_line(record: Record) -> dict[str, Any]:
    """What a list of many videos says of one: a line of ``tags.jsonl``, as JSON primitives."""
    keys = ("name", "type", "confidence", "coverage")
    return {
        "file_name": record["video"]["file_name"],
        "status": record["status"],
        "error": record["error"],
        "duration_s": record["video"]["duration_s"],
        "segments": len(record["segments"]),
        "calibrated": record["model"].get("calibrated"),
        "tags": [{key: tag[key] for key in keys} for tag in record["tags"]],
    }


# --- the summary ---------------------------------------------------------------------------


def _about_video(record: Record, safe: Callable[[str], str]) -> list[str]:
    video, error = record["video"], record["error"]
    hours, seconds = divmod(round(video["duration_s"]), 3600)
    about = f"{hours}:{seconds // 60:02}:{seconds % 60:02}"
    if video["width"] is not None:
        about += f", {video['width']}x{video['height']}"
    reason = "" if error is None else f" ({escaped(error['message'])})"
    return [safe(video["file_name"]), about, f"Status: {record['status']}{reason}"]


def _tag_lines(tags: Iterable[Mapping[str, Any]], safe: Callable[[str], str]) -> list[str]:
    lines = [f"{tag['coverage']:4.0%}  {safe(tag['name'])} ({tag['type']})" for tag in tags]
    return ["Tags, each with its share of the time:", *lines] if lines else ["No tags."]


def _segment_lines(
    segments: Iterable[Mapping[str, Any]],
    safe: Callable[[str], str],
    language: str | None = None,
) -> list[str]:
    rows = [
        (
            f"{_clock(passage.start_s)}-{_clock(passage.end_s)}",
            "      nothing to see"
            if passage.text is None
            else f"{passage.confidence:4.0%}  {safe(passage.text)}",
        )
        for passage in passages(segments, language)
    ]
    width = max((len(when) for when, _ in rows), default=0)
    lines = [f"{when:>{width}} {what}" for when, what in rows]
    return ["What it shows, and how sure that is:", *lines] if lines else ["No segments."]


def _clock(time_s: float) -> str:
    """``0:03.0``, ``12:03.0``, ``1:02:03.0``."""
    tenths = round(10 * time_s)
    hours, minutes = divmod(tenths // 600, 60)
    start = f"{hours}:{minutes:02}" if hours else str(minutes)
    return f"{start}:{tenths // 10 % 60:02}.{tenths % 10}"
