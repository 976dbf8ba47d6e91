"""Caption images into an output; the job can be interrupted and resumed at any moment.

Beside the output, hidden, stands the job's journal (`captioner.files.journal`): with which model
and options the captions were made, and the record of every finished image. Whatever ends the
process, the next run continues after the last image in the journal, and its finished output is,
byte for byte, that of an undisturbed run. After each batch the journal and then the output are
written and wait for the disk, once a second at most unless `SYNC_RECORDS` records wait: a kill
costs the current batch and the work of the last second.

Batches have one shape, and an image's row in its batch follows from its number in the job, so that
what it gets does not depend on where a run was interrupted.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from captioner.captioning.alternatives import alternatives_of, foremost, tag_names
from captioner.captioning.batches import CaptionRecord
from captioner.captioning.caption_run import CaptionRun
from captioner.captioning.embedding import NotEmbedded
from captioner.captioning.file_output import FileOutput
from captioner.captioning.job import CaptionJob
from captioner.captioning.output import Output
from captioner.captioning.outputs import describe_format, make_output, output_before
from captioner.captioning.passing_run import PassingRun
from captioner.captioning.table_output import TABLE, find_table
from captioner.decoding.options import describe_decoding
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.finding import SourceFile, base_folder, find_files
from captioner.files.journal import Checksum, Entry, Journal, Key, key_of
from captioner.files.resume import Fingerprint, changes, locked
from captioner.files.verdicts import count_verdicts
from captioner.files.writing import is_blank, make_folder
from captioner.images.kinds import IMAGES
from captioner.images.reading import READER_VERSION
from captioner.model.caption_model import CaptionModel
from captioner.model.description import describe_model
from captioner.version import __version__

SYNC_RECORDS = 64
SYNC_S = 1.0


def open_caption_job(job: CaptionJob, model: CaptionModel) -> CaptionRun:
    """Make ready to caption what is not finished yet. Entering the result checks everything.

    Args:
        job: what is to be done.
        model: the captioner, loaded from a file.
    """
    return KeptRun(job, model) if job.is_kept else PassingRun(job, model)


class KeptRun(CaptionRun):
    """Into a file or text files that have a journal."""

    def __init__(self, job: CaptionJob, model: CaptionModel) -> None:
        super().__init__(job, model)
        self._replaces: Checksum | bool | None = None
        self._waiting: list[tuple[Entry, Entry | None]] = []  # with what was known before
        self._synced_s = 0.0
        self._is_broken = False
        # Of the files that are being read, in their order: taken before they are opened.
        self._ahead: deque[tuple[SourceFile, Fingerprint]] = deque()
        self._keys = array("Q")  # of all images of the job, in their order
        self._known_paths: set[Key] = set()  # of images in an output that is appended to
        self._appended_to: Journal | None = None  # while other images may have the names of these

    # --- before the work -------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._check_options()
        job = self.job
        base = base_folder(job.paths, IMAGES)
        self._output: Output = make_output(job, base, self._languages)
        self._output.check_place()
        about: dict[str, Any] = {
            "model": describe_model(self.model),
            "settings": describe_settings(job, self.model),
        }
        with ExitStack() as stack:
            make_folder(self._output.state.parent)
            in_use = (
                f"{self._output.name} is in use by another `captioner caption` or `captioner "
                "review`; wait for it, or choose another --output"
            )
            lock = self._output.state.with_name(f"{self._output.state.name}.lock")
            stack.enter_context(locked(lock, in_use))
            found = self._find_table(about, base)
            if found is not None:
                stack.enter_context(found)
            self._check_images(found)
            if job.overwrite and not job.replace_hand_made:
                self._check_hand_made(base)
            if found is None:
                found = Journal.create(self._output.state, about, self._replaces)
                stack.enter_context(found)
            self._journal = found
            self._output.restore(self._journal, job.append)
            if self._embedder is not None:
                stack.enter_context(closing(self._embedder))
            self._stack = stack.pop_all()
        return self

    def _find_table(self, about: dict[str, Any], base: Path) -> Journal | None:
        """The journal to resume, None to begin one; of a file that people wrote, its own kind."""
        table = None
        if self.job.missing_only and isinstance(self._output, FileOutput):
            table = find_table(self._output, self.job.format, base)
        if table is None:
            return self._find_journal(about)
        self._output = table
        table.check_place()
        about["settings"][TABLE] = True
        if not table.state.exists():
            return None
        journal = Journal(table.state)
        # What captioner wrote before somebody changed the file is part of what stays.
        settings = {**journal.about.get("settings", {}), TABLE: True}
        changed = changes({**journal.about, "settings": settings}, about)
        if table.is_resumed and not changed:
            return journal
        journal.close()
        if changed and len(journal):
            raise self._other_options(changed)
        return None

    def _find_journal(self, about: Mapping[str, Any]) -> Journal | None:
        """The journal to resume, None to begin one; then `_replaces` says what it replaces."""
        output, state = self._output, self._output.state
        if self.job.overwrite:
            self._replaces = output.what_is_replaced()
            return None
        if not state.exists():
            if self.job.missing_only and isinstance(output, FileOutput) and is_blank(output.path):
                self._replaces = output.what_is_replaced()
            elif output.is_there():
                raise CaptionerError(
                    f"output {output.name} exists, and no {state.name} beside it says how it was "
                    "made: --missing-only keeps it and adds images that are not yet in it, "
                    "--overwrite replaces it; or name another --output"
                )
            return None
        journal = output.open_journal()
        is_gone = output.holds_all and not output.is_there()
        changed = changes(journal.about, about)
        if (is_gone and not output.is_late(journal)) or (changed and not len(journal)):
            # There is nothing to lose: somebody has removed the captions, or there are none yet.
            self._replaces = None if is_gone else journal.replaces
            journal.close()
            return None
        try:
            self._check_same(journal, changed)
        except CaptionerError:
            journal.close()
            raise
        return journal

    def _check_hand_made(self, base: Path) -> None:
        """Refuse to replace what people wrote, unless they said that they mean it."""
        output, journal = self._output, None
        if output.state.exists():
            with suppress(CaptionerError):  # Of a damaged one, nobody knows what is ours.
                journal = output.open_journal()
                output = output_before(self.job, journal, base)
        with journal or nullcontext():
            first, count = "", 0
            for name in output.hand_made(self._images(), journal):
                first, count = first or name, count + 1
        if count:
            files = f"1 file ({first})" if count == 1 else f"{count} files (the first: {first})"
            raise CaptionerError(
                f"--overwrite would replace {files} with text that captioner has not written, or "
                "that was changed since; nothing is changed: --missing-only keeps such text, "
                "--overwrite --yes replaces it"
            )
        reviewed = count_verdicts(*self._output.verdicts)
        if reviewed:
            raise CaptionerError(
                f"--overwrite would replace captions of {self._output.name} that people have "
                f"reviewed ({reviewed}); nothing is changed: without --overwrite they stay, "
                "--overwrite --yes replaces them"
            )

    def _check_same(self, journal: Journal, changed: Sequence[str]) -> None:
        if changed:
            raise self._other_options(changed)
        if journal.kept is not None and not self.job.append:
            raise CaptionerError(
                f"output {self._output.name} was changed by hand and then added to: continue with "
                "--append or --missing-only, or start over with --overwrite"
            )

    def _other_options(self, changed: Sequence[str]) -> CaptionerError:
        return CaptionerError(
            f"another model or other options made {self._output.name} "
            f"({'; '.join(changed[:3])}); use those, name another --output, or start over with "
            "--overwrite"
        )

    def _check_images(self, journal: Journal | None) -> None:
        """Look at all images, but not into them, and refuse what cannot go well."""
        listed: set[Key] = set()
        if journal is not None and self.job.append:
            self._known_paths = {key_of(e.source.path) for e in journal.latest(journal.keys)}
            self._appended_to = journal if self._output.holds_all else None
        is_begun = journal is not None and journal.replaces is True and not journal.was_complete
        self._output.may_replace = self.job.overwrite or (is_begun and not self.job.missing_only)
        for file in self._images():
            key = key_of(file.name)
            if key in listed:
                raise CaptionerError(f"two images are called {file.name}: rename one of them")
            listed.add(key)
            entry = None if journal is None else journal.get(file.name)
            is_done = self._is_done(file, Fingerprint.of(file), entry)
            self._output.check(file, entry, is_done)
            is_kept = is_done and entry is None and self.job.missing_only
            self.kept += is_kept
            self.done += is_done and not is_kept
        self.total = len(listed)
        is_alone = self._output.holds_all and not self._output.holds_others
        if journal is not None and is_alone and not self.job.append:
            self._check_nothing_else(journal, listed)

    def _images(self) -> Iterator[SourceFile]:
        return map(self._named, self._files())

    def _named(self, file: SourceFile) -> SourceFile:
        """The image as the output calls it: by its path where another one there has its name."""
        file = self._output.named(file)
        entry = None if self._appended_to is None else self._appended_to.get(file.name)
        if entry is None or entry.has_failed:
            return file
        here = Fingerprint.of(file)
        if here.is_same(entry.source) or here.path == entry.source.path:
            return file
        return replace(file, name=self._output.name_by_path(file))

    def _is_done(self, file: SourceFile, here: Fingerprint, entry: Entry | None) -> bool:
        if self.job.missing_only and self._output.has_caption(file):
            return True
        if entry is None:
            return key_of(here.path) in self._known_paths
        if self.job.missing_only and self._output.holds_all and entry.record["text"] is not None:
            return True
        if not here.is_same(entry.source) and here.path != entry.source.path:
            if entry.has_failed:
                return False
            raise CaptionerError(
                f"{self._output.name} holds the caption of another {file.name} "
                f"({entry.source.path}); choose another --output, or replace it with --overwrite"
            )
        return self.job.append or (here.is_same(entry.source) and not entry.has_failed)

    def _check_nothing_else(self, journal: Journal, listed: set[Key]) -> None:
        others = [key for key in journal.keys if key not in listed]
        if others:
            # What is left out by now has been captioned before: it stays.
            everything = {key_of(file.name) for file in find_files(self.job.paths, IMAGES, None)}
            others = [key for key in others if key not in everything]
        other = next((e for e in journal.latest(others) if not e.has_failed), None)
        if other is not None:
            raise CaptionerError(
                f"output {self._output.name} holds captions of other images (as {other.name}): "
                "--append keeps them and adds these, --overwrite starts over; or name another "
                "--output"
            )

    # --- the work --------------------------------------------------------------------------

    def embed_finished(self) -> Iterator[tuple[Path, str | None]]:
        """Also what could not be embedded then; see `CaptionRun.embed_finished`."""
        if self._embedder is None:
            return
        for file in self._images():
            here, entry = Fingerprint.of(file), self._journal.get(file.name)
            if entry is None or not here.is_same(entry.source) or not _lacks_embedding(entry):
                continue
            text, tags = foremost(entry.record) or "", tag_names(entry.record)
            others, problem = alternatives_of(entry.record), None
            try:
                here = self._embedder.embed(file.path, text, tags, here, others)
            except NotEmbedded as error:
                problem = str(error)
            record = {**entry.record, "embed_error": problem}
            if (record, here) != (entry.record, entry.source):
                # The file first: if this is as far as it comes, it is captioned again.
                self._journal.add([Entry(record, entry.path, here)])
            yield file.path, problem

    def records(self) -> Generator[CaptionRecord, None, None]:
        """Caption what is not finished; see `CaptionRun.records`."""
        assert self.total is not None, "records() outside of the context"
        batches = self._batches(self._todo(), even_size(self.total, self.job.batch_size), True)
        self._synced_s = time.monotonic()
        with closing(batches):
            for batch in batches:
                yield from self._take(batch)
        self._flush()
        with _with_hint(self.resume_hint):
            self._output.finish(self._journal, self._final_keys())

    def _todo(self) -> Iterator[tuple[int, SourceFile]]:
        for place, file in enumerate(self._images()):
            here, entry = Fingerprint.of(file), self._journal.get(file.name)
            self._keys.append(key_of(file.name))
            if not self._is_done(file, here, entry):
                self._ahead.append((file, here))
                yield place, file
            elif entry is not None:
                self._output.write_missing(file, entry)

    def _take(self, batch: Sequence[CaptionRecord]) -> list[CaptionRecord]:
        """Put records on their way; returns them as they are written."""
        taken = []
        for record in batch:
            file, source = self._ahead.popleft()
            assert file.name == record.file_name, "records come in the order of their files"
            if record.error is not None and file.root is not None and not file.root.exists():
                raise CaptionerError(
                    f"{shown(file.root)} is gone; finished work is saved: run the same command "
                    "again when it is back"
                )
            problem = None if record.error is not None else self._output.why_not(file)
            if problem is not None:
                record = replace(record, result=None, tags=None, unsure=False, error=problem)
            record, source = self._embed(record, source)
            taken.append(record)
            if record.error is not None and self._output.holds_others:
                continue
            entry = Entry(self.job.to_dict(record), str(record.path), source)
            known = self._journal.get(entry.name)
            if known is None or (known.record, known.source) != (entry.record, entry.source):
                self._waiting.append((entry, known))
        passed_s = time.monotonic() - self._synced_s
        if len(self._waiting) >= SYNC_RECORDS or passed_s >= SYNC_S:
            self._flush()
        return taken

    def _flush(self) -> None:
        """Write what waits. Interrupted and called again, it writes nothing twice."""
        if self._waiting:
            entries = [entry for entry, _ in self._waiting]
            with _with_hint(self.resume_hint):
                try:
                    self._output.remove_outdated([known for _, known in self._waiting if known])
                    self._journal.add(entries)
                    self._output.add(entries, [known for _, known in self._waiting])
                except CaptionerError:
                    self._is_broken = True
                    raise
        self._waiting = []
        self._synced_s = time.monotonic()

    def _final_keys(self) -> Sequence[Key]:
        """The order of the output: that of the images, after what it holds of others."""
        journal = self._journal
        output = self._output
        if self.job.append or not output.holds_all or output.holds_others:
            return journal.keys
        listed = set(self._keys)
        others = [key for key in journal.keys if key not in listed]
        gone = {
            key
            for key, entry in zip(others, journal.latest(others), strict=True)
            if entry.has_failed
        }
        if not gone and [key for key in journal.keys if key in listed] == list(self._keys):
            return journal.keys  # nothing is new: what is left out by now stays in its place
        kept = array("Q", (key for key in others if key not in gone))
        kept.extend(self._keys)
        return kept

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if kind is not None and not self._is_broken:
                self._flush()

    @property
    def resume_hint(self) -> str:
        """How to resume, in the words of the command line."""
        again = "run the same command again"
        if self.job.overwrite:
            again += ", without --overwrite" + (" --yes" if self.job.replace_hand_made else "")
        return f"finished work is saved: {again} to resume"


def _lacks_embedding(entry: Entry) -> bool:
    """Whether there is a caption that does not stand in its image."""
    is_embedded = "embed_error" in entry.record and entry.record["embed_error"] is None
    return foremost(entry.record) is not None and not is_embedded


def even_size(images: int, most: int) -> int:
    """The size of as few batches as can be, all alike: the last is filled up to it."""
    batches = max(1, -(-images // most))
    return max(1, -(-images // batches))


@contextmanager
def _with_hint(remedy: str) -> Generator[None, None, None]:
    """Add to an error what the user can do about it."""
    try:
        yield
    except CaptionerError as error:
        raise CaptionerError(f"{error}; {remedy}") from None


def describe_settings(job: CaptionJob, model: CaptionModel) -> dict[str, Any]:
    """What decides about the captions beside the model, JSON primitives."""
    # Neither the size of batches nor the threads: who runs out of memory may resume with less.
    return {
        "captioner": __version__,
        "reader": READER_VERSION,
        "format": describe_format(job),
        "caption_prefix": job.caption_prefix or None,
        "caption_suffix": job.caption_suffix or None,
        "decoding": describe_decoding(job.decoding),
        "candidates": job.candidates,
        "min_confidence": job.min_confidence,
        "min_tag_confidence": job.min_tag_confidence,
        "partial_images": job.partial_images,
        "device": model.device.type,
        "precision": model.precision,
    }
