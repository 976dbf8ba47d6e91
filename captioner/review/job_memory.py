"""The memory of the caption job that made some captions, kept in step with their corrections.

All that `captioner review` knows of how a job remembers is here. With it, `captioner caption`
resumes afterwards as if it had written the corrected captions itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from captioner.captioning.affixes import Affixes
from captioner.captioning.alternatives import described_languages
from captioner.captioning.file_output import LinesOutput
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.finding import SourceFile
from captioner.files.journal import Checksum, Entry, Journal, key_of
from captioner.files.resume import Fingerprint, locked

Write = Callable[[Mapping[str, Any] | None], None]

CORRECTED_SINCE = "its caption was corrected since: run captioner caption --embed again"


class JobMemory:
    """What a job knows of its images; empty where no job is known. No job runs until it is closed.

    Args:
        state: the file of the memory, there or not.
        output: the one file with all captions; None where each image has a file of its own. The
            memory stays empty if it is not what the memory says.

    Raises:
        CaptionerError: a job is running, or its memory is damaged.
    """

    def __init__(self, state: Path, output: LinesOutput | None = None) -> None:
        self.state = state
        self._output = output
        self._journal: Journal | None = None
        with ExitStack() as stack:
            in_use = (
                f"{shown(output.path if output else state.parent)} is in use by another captioner: "
                "wait for it, or end it"
            )
            stack.enter_context(locked(state.with_name(f"{state.name}.lock"), in_use))
            stack.callback(self._close_journal)
            self.reopen()
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Let jobs run."""
        self._stack.close()

    def reopen(self) -> None:
        """Read it again."""
        self._close_journal()
        if not self.state.exists():
            return
        journal = Journal(self.state) if self._output is None else self._output.open_journal()
        if self._output is not None and not _is_in_step(self._output, journal):
            journal.close()  # Somebody has changed the file: it is theirs until a job looks at it.
            return
        self._journal = journal

    def _close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    @property
    def is_known(self) -> bool:
        """Whether there is a job that will resume."""
        return self._journal is not None

    @property
    def settings(self) -> Mapping[str, Any]:
        """The options of the job."""
        settings = {} if self._journal is None else self._journal.about.get("settings")
        return settings if isinstance(settings, dict) else {}

    @property
    def language(self) -> str | None:
        """The first language of the job's captions; None for English alone."""
        about = {} if self._journal is None else self._journal.about.get("model")
        return next(iter(described_languages(about if isinstance(about, dict) else {})), None)

    @property
    def affixes(self) -> Affixes:
        """What the job writes around each caption."""
        settings = self.settings
        return Affixes(settings.get("caption_prefix") or "", settings.get("caption_suffix") or "")

    def entry(self, name: str) -> Entry | None:
        """What is known of an image."""
        return None if self._journal is None else self._journal.get(name)

    def entries(self) -> list[Entry]:
        """Of all images, in the order in which they were made."""
        return [] if self._journal is None else list(self._journal.latest(self._journal.keys))

    def change_file(self, name: str, text: str | None, rows: int, write: Write) -> None:
        """Change a caption in the one file and in the memory.

        Args:
            name: of the image.
            text: its caption.
            rows: how many the file has.
            write: changes the file; it gets the record that a job would write, None where the
                image is not one of a job's.
        """
        journal, entry = self._journal, self.entry(name)
        if journal is None or (entry is None and journal.kept is None):
            write(None)
            return
        assert self._output is not None
        changed = None if entry is None else _with_text(entry, text)
        if journal.kept is not None:
            write(None if changed is None else changed.record)
            journal.add([] if changed is None else [changed])
            journal.mark_kept(Checksum.of(self._output.path))
            return
        assert entry is not None and changed is not None
        # A file that lacks rows, or has old ones, is put into order at the same time.
        is_in_order = len(journal) == rows and not journal.has_redone
        # The memory first: if this is as far as it comes, the next run completes the file.
        journal.add([changed])
        try:
            if is_in_order:
                journal.prepare(journal.keys)
                write(changed.record)
                journal.fold(key_of(name))
            else:
                self._output.finish(journal, journal.keys)
        except CaptionerError:
            with suppress(CaptionerError):
                journal.add([entry])
            raise

    def note(self, file: SourceFile, text: str | None) -> None:
        """Remember the caption of an image that has a file of its own, which is changed."""
        if self._journal is None:
            return
        entry = self._journal.get(file.name)
        if entry is None:
            record = {"file_name": file.name, "text": None, "confidence": None, "error": None}
            entry = Entry(record, str(file.path), Fingerprint.of(file))
        self._journal.add([_with_text(entry, text)])


def _is_in_step(output: LinesOutput, journal: Journal) -> bool:
    if not output.is_there():
        return False
    if journal.kept is not None:
        return Checksum.of(output.path, journal.kept.size_bytes) == journal.kept
    return output.is_as_written(journal)


def _with_text(entry: Entry, text: str | None) -> Entry:
    record = {**entry.record, "text": text}
    if text is not None and record.get("embed_error", CORRECTED_SINCE) is None:
        record["embed_error"] = CORRECTED_SINCE
    return Entry(record, entry.path, entry.source)


def path_of(entry: Entry) -> Path:
    """Where an image is, there or not."""
    given, absolute = entry.path, entry.source.path
    # A name that is not valid UTF-8 is only in the path as it was given.
    only_given = os.path.exists(given) and not os.path.exists(absolute)
    return Path(given if only_given else absolute)
