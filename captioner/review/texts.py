"""Captions with a file for each image: text files and XMP sidecars, beside the images or apart."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from captioner.captioning.alternatives import alternatives_of
from captioner.captioning.sidecars import SidecarWriter, XmpWriter
from captioner.captioning.xmp import read_xmp
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.finding import SourceFile, find_files
from captioner.files.journal import Entry
from captioner.files.writing import (
    cannot_read,
    cannot_write,
    exists,
    part_beside,
    replace_file,
    why_no_name,
)
from captioner.images.kinds import IMAGES
from captioner.review.captions import Captions, Item, names_of_tags, share_of
from captioner.review.job_memory import JobMemory, path_of
from captioner.text.languages import LANGUAGES

MOST_BYTES = 64 * 1024
"""Longer text files are not captions."""

_NAMING = re.compile(r"xmp \((\w+)\)")


class TextCaptions(Captions):
    """A file for each image.

    Args:
        folder: of the images, or of the files where they lie apart from the images.
        writer: of the files.
        memory: of the job that wrote them.
        base: the folder to which that job's names are relative.
    """

    def __init__(self, folder: Path, writer: SidecarWriter, memory: JobMemory, base: Path) -> None:
        self.folder = folder
        self.key = f"*{writer.suffix}"
        self.title = f"{shown(os.path.basename(os.path.abspath(folder)))} ({writer.suffix})"
        self._writer = writer
        self._memory = memory
        self._prefix = _relative(folder, base)
        self._files = {file.name: file for file in self._find()}
        if not self._files:
            raise CaptionerError(f"{shown(folder)} holds no images")
        self._items = {name: self._item(file) for name, file in self._files.items()}

    def refresh(self, name: str) -> Item | None:
        """See `Captions.refresh`."""
        if name in self._files:
            self._items[name] = self._item(self._files[name])
        return self._items.get(name)

    def write(self, name: str, text: str | None) -> None:
        """See `Captions.write`."""
        file = self._files[name]
        target = self._target(file)
        if exists(target) and not self._writer.may_replace(target):
            raise self._writer.foreign(target)
        item = self._items[name]
        content = self._writer.texts(self._record(file, target, text))[0]
        if content is None:
            try:
                target.unlink(missing_ok=True)
            except OSError as error:
                raise cannot_write(target, error) from None
        else:
            replace_file(target, content, part_beside(target))
        self._memory.note(self._as_known(file), text)
        self._items[name] = replace(item, text=text)

    def _record(self, file: SourceFile, target: Path, text: str | None) -> dict[str, Any]:
        """What a file is to hold: a caption, its tags, and other languages as they are."""
        item = self._items[file.name]
        record: dict[str, Any] = {"text": text, "tags": [{"name": tag} for tag in item.tags]}
        if item.language is None or not isinstance(self._writer, XmpWriter):
            return record
        found = read_xmp(target)
        entry = self._memory.entry(self._as_known(file).name)
        if found is not None:
            alternatives = dict(found.alternatives)
        else:
            alternatives = {} if entry is None else alternatives_of(entry.record)
        alternatives.pop(item.language, None)
        others = {language: {"text": each} for language, each in alternatives.items()}
        return {**record, "language": item.language, "other_languages": others}

    # --- reading -----------------------------------------------------------------------------

    def _find(self) -> Iterator[SourceFile]:
        if not self._is_apart:
            yield from find_files(self.folder, IMAGES)
        for entry in self._memory.entries() if self._is_apart else ():
            yield SourceFile(path_of(entry), entry.name)

    @property
    def _is_apart(self) -> bool:
        """Whether the files lie in a folder of their own."""
        return self._writer.output is not None

    def _as_known(self, file: SourceFile) -> SourceFile:
        """The image as the job calls it."""
        return replace(file, name=self._prefix + file.name)

    def _target(self, file: SourceFile) -> Path:
        target = self._writer.target(file.path, file.name)
        # People may have given it the full name of the image, although the short one was free.
        full = target.with_name(f"{file.path.name}{self._writer.suffix}")
        taken = self._writer.is_taken
        if why_no_name(full) is None and taken(full) and not taken(target):
            return full
        return target

    def _item(self, file: SourceFile) -> Item:
        entry = self._memory.entry(self._as_known(file).name)
        record = {} if entry is None else entry.record
        item = Item(
            file.name,
            file.path,
            None,
            tags=names_of_tags(record.get("tags")),
            language=_language_of(self._writer.suffix) or self._memory.language,
        )
        error = record.get("error")
        try:
            target = self._target(file)
            if (problem := why_no_name(target)) is not None:
                return replace(item, problem=problem)
            item = self._with_text(item, target)
        except CaptionerError as problem:
            return replace(item, problem=str(problem))
        if item.text is None and isinstance(error, str):
            return replace(item, path=None, problem=error)
        if item.text is not None and item.text == record.get("text"):
            item = replace(item, confidence=share_of(record.get("confidence")))
        return item

    def _with_text(self, item: Item, target: Path) -> Item:
        if not exists(target):
            return item
        if isinstance(self._writer, XmpWriter):
            found = read_xmp(target)
            if found is None:
                raise self._writer.foreign(target)
            language = item.language or next(iter(found.alternatives), None)
            # Of several languages, the one under review may have been rejected.
            text = found.alternatives.get(language or "") if found.alternatives else found.text
            return replace(item, text=text, tags=found.tags, language=language)
        return replace(item, text=_read_text(target))


def _language_of(suffix: str) -> str | None:
    """The language that a suffix names, as ``.de.txt`` does."""
    name = suffix.removeprefix(".").split(".")[0]
    return name if suffix.count(".") > 1 and name in LANGUAGES else None


def _read_text(path: Path) -> str | None:
    """The caption of a text file, None for an empty one.

    Raises:
        CaptionerError: it holds something else.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise CaptionerError(f"{shown(path.name)} is too long for a caption")
        text = path.read_text(encoding="utf-8-sig").strip()
    except OSError as error:
        raise cannot_read(path, error) from None
    except UnicodeDecodeError:
        raise CaptionerError(f"{shown(path.name)} is not UTF-8 text") from None
    if "\n" in text:
        raise CaptionerError(f"{shown(path.name)} has several lines: review takes one caption")
    return text or None


def open_texts(folder: Path, suffix: str) -> TextCaptions:
    """The captions of a folder that are files of a suffix.

    Args:
        folder: of the images, or the one that a job wrote the files into.
        suffix: ``.xmp``, or of text files.

    Raises:
        CaptionerError: there are none, or the job's memory is damaged.
    """
    is_xmp = suffix == XmpWriter.suffix
    writer = XmpWriter() if is_xmp else SidecarWriter(suffix=suffix)
    base = _base_of(folder, writer.journal)
    memory = JobMemory(base / writer.journal)
    naming = _NAMING.fullmatch(str(memory.settings.get("format", "")))
    # Beside the images or apart: what the job's images say.
    output = None
    if memory.is_known and not _lies_beside(memory.entries(), base):
        folder = output = base
    if is_xmp:
        writer = XmpWriter(output, naming=naming[1] if naming else "darktable")
    else:
        writer = SidecarWriter(output, suffix=suffix)
    try:
        return TextCaptions(folder, writer, memory, base)
    except BaseException:
        memory.close()
        raise


def _base_of(folder: Path, journal: str) -> Path:
    """The folder, this one or one above it, in which a job was begun; this one if none was."""
    folder = Path(os.path.abspath(folder))
    return next((each for each in (folder, *folder.parents) if (each / journal).is_file()), folder)


def _relative(folder: Path, base: Path) -> str:
    inside = os.path.relpath(os.path.abspath(folder), os.path.abspath(base)).replace(os.sep, "/")
    return "" if inside == "." else f"{inside}/"


def _lies_beside(entries: list[Entry], base: Path) -> bool:
    """Whether the images of a job lie in its own folder, wherever that has been moved to."""
    return not entries or any(os.path.lexists(base / entry.name) for entry in entries)
