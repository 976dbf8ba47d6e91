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
        target = self._writer.target(file.path, file.name)
        # People may have given it the full name of the image, although the short one was free.
        names = (target, target.with_name(f"{file.path.name}{self._writer.suffix}"))
        return any(why_no_name(name) is None and self._writer.is_taken(name) for name in names)

    def hand_made(self, files: Iterable[SourceFile], journal: Journal | None) -> Iterator[str]:
        """See `Output.hand_made`."""
        if self._writer.is_signed:
            return  # What others wrote is refused, whatever is asked for.
        for file in files:
            entry = None if journal is None else journal.get(file.name)
            target = self._writer.target(file.path, file.name)
            if why_no_name(target) is not None or not self._writer.is_taken(target):
                continue
            if entry is None or not self._is_ours(target, entry):
                yield shown(target)

    def check(self, file: SourceFile, entry: Entry | None, is_done: bool) -> None:
        """See `Output.check`."""
        writer = self._writer
        if file.path.name.lower().endswith(writer.suffix.lower()):
            raise CaptionerError(
                f"{shown(file.path)} is to be captioned, and has the suffix of the {writer.what}: "
                "rename it, or choose another --format"
            )
        target = writer.target(file.path, file.name)
        if why_no_name(target) is not None:
            return  # That one will fail, and it alone.
        if target.parent != self._checked:
            check_folder(target.parent)
            self._checked = target.parent
        if is_done or not exists(target) or (entry is not None and self._is_ours(target, entry)):
            return
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
        return why_no_name(self._writer.target(file.path, file.name))

    def restore(self, journal: Journal, keep: bool) -> None:
        """See `Output.restore`."""
        pass  # Image by image: see `write_missing`.

    def write_missing(self, file: SourceFile, entry: Entry) -> None:
        """See `Output.write_missing`."""
        target = self._writer.target(file.path, file.name)
        if entry.record["text"] is not None and not exists(target):
            self._write(target, entry)

    def remove_outdated(self, known: Sequence[Entry]) -> None:
        """See `Output.remove_outdated`."""
        # First: once the journal knows better, only what is missing is written.
        for entry in known:
            target = self._writer.target(Path(entry.path), entry.name)
            if self._is_ours(target, entry):
                try:
                    target.unlink()
                except OSError as error:
                    raise cannot_write(target, error) from None

    def add(self, entries: Sequence[Entry], before: Sequence[Entry | None]) -> None:
        """See `Output.add`."""
        for entry in entries:
            if entry.record["text"] is not None:
                self._write(self._writer.target(Path(entry.path), entry.name), entry)

    def _write(self, target: Path, entry: Entry) -> None:
        # Looked at again: somebody may have made it since the job was checked.
        is_foreign = exists(target) and not self._writer.may_replace(target)
        if is_foreign and not self._missing_only:
            raise self._writer.foreign(target)
        if self._writer.is_taken(target) and not self.may_replace:
            return  # Theirs stays. Ours was removed before, or is what would be written.
        replace_file(target, self._writer.text(entry.record), part_beside(target))

    def _is_ours(self, target: Path, entry: Entry) -> bool:
        """Whether a file holds what was written there, and not what somebody made of it."""
        if entry.record["text"] is None:
            return False
        try:
            return target.read_text(encoding="utf-8") == self._writer.text(entry.record)
        except (OSError, ValueError):
            return False

    def finish(self, journal: Journal, keys: Sequence[Key]) -> None:
        """See `Output.finish`."""
        if journal.has_redone:
            journal.keep(journal.keys)
        elif not journal.is_complete:
            journal.mark_complete()
