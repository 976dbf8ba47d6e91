"""A file for each image, text or XMP, and how missing ones are written again from the journal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from captioner.captioning.output import Output
from captioner.captioning.sidecars import SidecarWriter
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.finding import SourceFile
from captioner.files.journal import Checksum, Entry, Journal, Key
from captioner.files.writing import (
    cannot_write,
    check_folder,
    exists,
    part_beside,
    replace_file,
    why_no_name,
)


class SidecarsOutput(Output):
    """A file for each image: text or XMP.

    Args:
        writer: of the files.
        base: the folder that holds all images.
        missing_only: whether images that have a file of whatever origin are left alone.
    """

    holds_all = False

    def __init__(self, writer: SidecarWriter, base: Path, missing_only: bool = False) -> None:
        output = writer.output
        folder = base if output is None else output
        name = f"the {writer.what} beside the images" if output is None else shown(output)
        super().__init__(name, folder / writer.journal)
        self._writer = writer
        self._folder = folder
        self._missing_only = missing_only
        self._checked: Path | None = None

    def check_place(self) -> None:
        """See `Output.check_place`."""
        check_folder(self._folder)

    @property
    def verdicts(self) -> tuple[Path, str]:
        """See `Output.verdicts`."""
        return self._folder, f"*{self._writer.suffix}"

    def is_there(self) -> bool:
        """See `Output.is_there`."""
        return False  # Other files may lie there: each image's own is looked at.

    def what_is_replaced(self) -> Checksum | bool | None:
        """See `Output.what_is_replaced`."""
        return True

    def has_caption(self, file: SourceFile) -> bool:
        """See `Output.has_caption`."""
        first, *others = self._writer.targets(file.path, file.name)
        # People may have given it the full name of the image, although the short one was free.
        full = first.with_name(f"{file.path.name}{self._writer.suffix}")
        return (self._is_taken(first) or self._is_taken(full)) and all(map(self._is_taken, others))

    def _is_taken(self, target: Path) -> bool:
        return why_no_name(target) is None and self._writer.is_taken(target)

    def hand_made(self, files: Iterable[SourceFile], journal: Journal | None) -> Iterator[str]:
        """See `Output.hand_made`."""
        if self._writer.is_signed:
            return  # What others wrote is refused, whatever is asked for.
        for file in files:
            entry = None if journal is None else journal.get(file.name)
            for target, text in self._files(file, entry):
                if self._is_taken(target) and not self._is_ours(target, text):
                    yield shown(target)

    def check(self, file: SourceFile, entry: Entry | None, is_done: bool) -> None:
        """See `Output.check`."""
        writer = self._writer
        if file.path.name.lower().endswith(writer.suffix.lower()):
            raise CaptionerError(
                f"{shown(file.path)} is to be captioned, and has the suffix of the {writer.what}: "
                "rename it, or choose another --format"
            )
        if self.why_not(file) is not None:
            return  # That one will fail, and it alone.
        for target, text in self._files(file, entry):
            if target.parent != self._checked:
                check_folder(target.parent)
                self._checked = target.parent
            if not is_done and exists(target) and not self._is_ours(target, text):
                self._check_replacing(target)

    def _check_replacing(self, target: Path) -> None:
        writer = self._writer
        if not writer.may_replace(target):
            raise writer.foreign(target)
        if not (self.may_replace or self._missing_only):
            raise CaptionerError(
                f"{shown(target)} exists, and this job has not made it: --missing-only keeps it "
                f"and captions the images that have none, --overwrite replaces the {writer.what} "
                "of these images"
            )

    def why_not(self, file: SourceFile) -> str | None:
        """See `Output.why_not`."""
        problems = map(why_no_name, self._writer.targets(file.path, file.name))
        return next((problem for problem in problems if problem is not None), None)

    def restore(self, journal: Journal, keep: bool) -> None:
        """See `Output.restore`."""
        pass  # Image by image: see `write_missing`.

    def write_missing(self, file: SourceFile, entry: Entry) -> None:
        """See `Output.write_missing`."""
        for target, text in self._files(file, entry):
            # A text file that somebody has emptied is no caption; it is theirs unless one is
            # wanted.
            is_there = self._writer.is_taken(target) if self._missing_only else exists(target)
            if text is not None and not is_there:
                self._write(target, text)

    def remove_outdated(self, known: Sequence[Entry]) -> None:
        """See `Output.remove_outdated`."""
        # First: once the journal knows better, only what is missing is written.
        for entry in known:
            for target, text in self._files(SourceFile(Path(entry.path), entry.name), entry):
                if self._is_ours(target, text):
                    try:
                        target.unlink()
                    except OSError as error:
                        raise cannot_write(target, error) from None

    def add(self, entries: Sequence[Entry], before: Sequence[Entry | None]) -> None:
        """See `Output.add`."""
        for entry in entries:
            for target, text in self._files(SourceFile(Path(entry.path), entry.name), entry):
                if text is not None:
                    self._write(target, text)

    def _files(self, file: SourceFile, entry: Entry | None) -> Iterator[tuple[Path, str | None]]:
        """The files of an image, and what the journal says that each holds; None for nothing."""
        targets = self._writer.targets(file.path, file.name)
        texts = [None] * len(targets) if entry is None else self._writer.texts(entry.record)
        return zip(targets, texts, strict=True)

    def _write(self, target: Path, text: str) -> None:
        # Looked at again: somebody may have made it since the job was checked.
        is_foreign = exists(target) and not self._writer.may_replace(target)
        if is_foreign and not self._missing_only:
            raise self._writer.foreign(target)
        if self._writer.is_taken(target) and not self.may_replace:
            return  # Theirs stays. Ours was removed before, or is what would be written.
        replace_file(target, text, part_beside(target))

    def _is_ours(self, target: Path, text: str | None) -> bool:
        """Whether a file holds what was written there, and not what somebody made of it."""
        if text is None:
            return False
        try:
            return target.read_text(encoding="utf-8") == text
        except (OSError, ValueError):
            return False

    def finish(self, journal: Journal, keys: Sequence[Key]) -> None:
        """See `Output.finish`."""
        if journal.has_redone:
            journal.keep(journal.keys)
        elif not journal.is_complete:
            journal.mark_complete()
