"""What a caption job needs to know of its output, whatever that is.

`captioner.captioning.file_output` has the files that hold the captions of all images, and
`captioner.captioning.sidecar_output` those with a file for each image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from captioner.files.finding import SourceFile
from captioner.files.journal import Checksum, Entry, Journal, Key


class Output(ABC):
    """Where the captions go.

    Attributes:
        name: of the output, for messages.
        state: the journal's file.
        holds_all: whether it is one file, which holds the records of all images.
        holds_others: whether it also holds what no journal knows: its records are in the order in
            which they were made, and images that failed have none.
        may_replace: whether files of other origin may be replaced, if any may.
    """

    holds_all: ClassVar[bool] = True
    holds_others: ClassVar[bool] = False

    def __init__(self, name: str, state: Path) -> None:
        self.name = name
        self.state = state
        self.may_replace = False

    @abstractmethod
    def check_place(self) -> None:
        """Refuse an output that cannot be written, before anything is touched.

        Raises:
            CaptionerError: names it, the reason and the remedy.
        """

    @property
    @abstractmethod
    def verdicts(self) -> tuple[Path, str]:
        """What people said of its captions: see `captioner.files.verdicts.VerdictStore`."""

    @abstractmethod
    def is_there(self) -> bool:
        """Whether there is something that a job without a journal would replace."""

    def is_late(self, journal: Journal) -> bool:
        """Whether the output is not there because the work is not complete."""
        return False

    @abstractmethod
    def what_is_replaced(self) -> Checksum | bool | None:
        """Marks the existing output as safe to replace in a later run."""

    def named(self, file: SourceFile) -> SourceFile:
        """The image with the name that the output has for it."""
        return file

    def name_by_path(self, file: SourceFile) -> str:
        """A name for an image that no other one has, where another has its name."""
        return file.name

    def has_caption(self, file: SourceFile) -> bool:
        """Whether an image has a caption already, whoever wrote it, which the job leaves alone.

        Always False for outputs whose journal records it.
        """
        return False

    @abstractmethod
    def hand_made(self, files: Iterable[SourceFile], journal: Journal | None) -> Iterator[str]:
        """What ``overwrite`` would replace although captioner has not written it so.

        Args:
            files: the images.
            journal: of what was written until now; None where it is not known.

        Yields:
            The name of each file with text of somebody else's, printable.
        """

    def check(  # noqa: B027
        self, file: SourceFile, entry: Entry | None, is_done: bool
    ) -> None:
        """Refuse, before any work, what stands in the way of one image's caption.

        Args:
            file: the image.
            entry: what is known of it.
            is_done: whether it will not be captioned.

        Raises:
            CaptionerError: names what is in the way and the remedy.
        """

    def why_not(self, file: SourceFile) -> str | None:
        """Why the output has no place for one image, which is that image's error; mostly None."""
        return None

    def open_journal(self) -> Journal:
        """The journal of an earlier run, with what was interrupted in it ended.

        Raises:
            CaptionerError: it is damaged, or it or the output cannot be read or written.
        """
        journal = Journal(self.state)
        try:
            self.recover(journal)
        except BaseException:
            journal.close()
            raise
        return journal

    def recover(self, journal: Journal) -> None:
        """End what was interrupted while the output and its journal were put into order."""
        if journal.has_pending:
            journal.drop_pending()

    @abstractmethod
    def restore(self, journal: Journal, keep: bool) -> None:
        """Make the output what the journal says.

        Args:
            journal: of this output.
            keep: leave what was changed by hand as it is, and add to it.

        Raises:
            CaptionerError: it was changed by hand, or cannot be read or written.
        """

    def write_missing(self, file: SourceFile, entry: Entry) -> None:  # noqa: B027
        """Write what is missing of a finished image."""

    def remove_outdated(self, known: Sequence[Entry]) -> None:  # noqa: B027
        """Remove what was written for images that are done again, before the journal is updated."""

    @abstractmethod
    def add(self, entries: Sequence[Entry], before: Sequence[Entry | None]) -> None:
        """Write what the journal has just been given.

        Args:
            entries: of the journal.
            before: what was known of each image until then.
        """

    @abstractmethod
    def finish(self, journal: Journal, keys: Sequence[Key]) -> None:
        """Complete the output: these images, in this order."""
