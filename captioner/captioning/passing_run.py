"""Caption images into what keeps nothing: every run starts from the beginning."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Self

from captioner.captioning.batches import CaptionRecord
from captioner.captioning.caption_run import CaptionRun
from captioner.files.finding import SourceFile
from captioner.files.resume import Fingerprint


class PassingRun(CaptionRun):
    """Into standard output, a pipe or a device."""

    def __enter__(self) -> Self:
        """See `CaptionRun.__enter__`."""
        self._check_options()
        self._writer = self.job.make_writer(self._languages)
        self._found = self._files()
        self._ahead: deque[Fingerprint] = deque()  # of the files that are being read
        with ExitStack() as stack:
            if self._embedder is not None:
                stack.enter_context(closing(self._embedder))
            self._writer.open()
            stack.push(self._writer)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """See `CaptionRun.__exit__`."""
        self._stack.__exit__(kind, error, trace)

    def records(self) -> Generator[CaptionRecord, None, None]:
        """See `CaptionRun.records`."""
        batches = self._batches(enumerate(self._noted()), self.job.batch_size, fixed_shape=False)
        with closing(batches):
            for batch in batches:
                for record in batch:
                    record, _ = self._embed(record, self._ahead.popleft())
                    self._writer.write(self.job.to_dict(record), record.path)
                    yield record

    def _noted(self) -> Iterator[SourceFile]:
        for file in self._found:
            self._ahead.append(Fingerprint.of(file))
            yield file

    @property
    def resume_hint(self) -> str:
        """See `CaptionRun.resume_hint`."""
        return ""
