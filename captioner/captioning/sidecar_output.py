"""A file for each image, text or XMP, and how missing ones are written again from the journal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from captioner.captioning.output import Output
from captioner.captioning.sidecars import SidecarWriter
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.finding import SourceFile
from captioner.files.journal import Checksum, Entry, Journal, Key, adopt, next_journal
from captioner.files.writing import (
    cannot_write,
    check_folder,
    exists,
    part_beside,
    replace_file,
    why_no_name,
)


class SidecarsOutput(Output):
    """A file for each image: text or XMP."""

    holds_all = False

    def __init__(self, writer: SidecarWriter, base: Path) -> None:
        output = writer.output
        folder = base if output is None else output
        name = f"the {writer.what} beside the images" if output is None else shown(output)
        super().__init__(name, folder / writer.journal)
        self._writer = writer
        self._folder = folder
        self._checked: Path | None = None

    def check_place(self) -> None:
        """See `Output.check_place`."""
        check_folder(self._folder)

    def is_there(self) -> bool:
        """See `Output.is_there`."""
        return False  # Other files may lie there: each image's own is looked at.

    def what_is_replaced(self) -> Checksum | bool | None:
        """See `Output.what_is_replaced`."""
        return True

    def check(
        self, file: SourceFile, entry: Entry | None, is_done: bool, may_replace: bool
    ) -> None:
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
        if not may_replace:
            raise CaptionerError(
                f"{shown(target)} exists, and this job has not made it: --overwrite replaces the "
                f"{writer.what} of these images"
            )

    def why_not(self, file: SourceFile) -> str | None:
        """See `Output.why_not`."""
        return why_no_name(self._writer.target(file.path, file.name))

    def settle(self) -> None:
        """See `Output.settle`."""
        next_journal(self.state).unlink(missing_ok=True)

    def restore(self, journal: Journal, keep: bool) -> None:
        """See `Output.restore`."""
        pass  # Image by image: see `mend`.

    def mend(self, file: SourceFile, entry: Entry) -> None:
        """See `Output.mend`."""
        target = self._writer.target(file.path, file.name)
        if entry.record["text"] is not None and not exists(target):
            self._write(target, entry)

    def make_room(self, known: Sequence[Entry]) -> None:
        """See `Output.make_room`."""
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
        # Looked at again: a photo program may have made it since the job was checked.
        if exists(target) and not self._writer.may_replace(target):
            raise self._writer.foreign(target)
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
            journal.write_new(journal.keys).close()
            journal.close()
            adopt(self.state)
        elif not journal.is_complete:
            journal.mark_complete()
