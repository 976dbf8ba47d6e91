"""Caption many images: read ahead, caption in batches, one record for each file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captioner.decoding import DecodingOptions
from captioner.errors import CaptionerError
from captioner.finding import SourceFile
from captioner.images import ImageError
from captioner.model import Candidate, CaptionModel, CaptionResult
from captioner.tags import EVIDENCE_CAPTIONS, Tag, tags_of


@dataclass(frozen=True)
class CaptionRecord:
    """What became of one file: a result or an error.

    Attributes:
        file_name: `captioner.finding.SourceFile.name`.
        path: where the file is.
        result: its captions, None if it could not be read.
        error: why not, in a few words without the path; None if it could.
        tags: what it shows, surest first; None where tags were not asked for.
    """

    file_name: str
    path: Path
    result: CaptionResult | None
    error: str | None
    tags: tuple[Tag, ...] | None = None

    def to_dict(self, candidates: bool = False) -> dict[str, Any]:
        """The record that `captioner.writers` write, JSON primitives.

        Args:
            candidates: add the list of all captions, best first, each with its ``text``,
                ``confidence``, ``log_prob`` (natural, with the end of the sentence) and
                ``words``: pairs of word and probability. The end of the sentence, where it was
                reached, is the last pair; its word is None.

        Where there are tags, ``tags`` lists the ``name``, ``type`` and ``confidence`` of each.
        """
        record: dict[str, Any] = {
            "file_name": self.file_name,
            "text": None if self.result is None else self.result.text,
            "confidence": None if self.result is None else round(self.result.confidence, 4),
        }
        if candidates:
            found = () if self.result is None else self.result.candidates
            record["candidates"] = [_candidate_dict(candidate) for candidate in found]
        if self.tags is not None:
            record["tags"] = [tag.to_dict() for tag in self.tags]
        record["error"] = self.error
        return record


def caption_images(
    model: CaptionModel,
    files: Iterable[SourceFile],
    options: DecodingOptions | None = None,
    *,
    batch_size: int = 32,
    workers: int = 0,
    min_tag_confidence: float | None = None,
) -> Generator[CaptionRecord, None, None]:
    """Caption files lazily, in their order; one that cannot be read becomes a record with an error.

    Memory does not grow with the number of files. Closing the generator, or an exception such as
    KeyboardInterrupt inside it, ends the threads; an image being decoded is finished first.

    Args:
        model: the captioner.
        files: what `captioner.images.find_images` lists.
        options: how to decode the captions; the defaults of `DecodingOptions` otherwise.
        batch_size: images that the model sees at once.
        workers: threads that read images while the model works; 0 reads between the batches.
        min_tag_confidence: give each image the tags that are at least so sure, in [0, 1]; None
            gives none. See `captioner.tags.tags_of` for what that means.

    Raises:
        ValueError: batch_size or workers is too small, or min_tag_confidence is not in [0, 1];
            raised by the call itself.
        CaptionerError: the options do not suit the model, or tags are wanted of one without a
            lexicon; the latter is raised by the call itself.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: at least 1 image is captioned at once")
    if workers < 0:
        raise ValueError(f"workers={workers}: give 0 or the number of threads that read images")
    if min_tag_confidence is not None:
        if not 0 <= min_tag_confidence <= 1:
            raise ValueError(
                f"min_tag_confidence={min_tag_confidence!r}: give a number from 0 to 1"
            )
        if model.lexicon is None:
            raise CaptionerError(
                "tags: this model has no lexicon of what its words mean; `captioner calibrate` "
                "gives it one"
            )
    wanted = _Wanted(options or DecodingOptions(), min_tag_confidence)
    return _caption(model, files, wanted, batch_size, workers)


@dataclass(frozen=True)
class _Wanted:
    """What each image gets: captions, and perhaps tags."""

    options: DecodingOptions
    min_tag_confidence: float | None

    def decoding(self) -> DecodingOptions:
        """The options with which captions are decoded: for tags, as many as are evidence."""
        options = self.options
        if self.min_tag_confidence is None or options.num_captions >= EVIDENCE_CAPTIONS:
            return options
        most = EVIDENCE_CAPTIONS if options.sample else min(EVIDENCE_CAPTIONS, options.beam_size)
        return replace(options, num_captions=max(most, options.num_captions))

    def record(self, model: CaptionModel, image: _Read, result: CaptionResult) -> CaptionRecord:
        """The record of an image that could be read."""
        tags = None
        if self.min_tag_confidence is not None:
            assert model.lexicon is not None
            found = tags_of(result, model.lexicon, model.tag_calibration)
            tags = tuple(tag for tag in found if tag.confidence >= self.min_tag_confidence)
        shown = CaptionResult(result.candidates[: self.options.num_captions])
        return CaptionRecord(image.file.name, image.file.path, shown, None, tags)


@dataclass(frozen=True)
class _Read:
    """A file and its pixels (3, height, width), or why it has none."""

    file: SourceFile
    pixels: Tensor | None = None
    error: str | None = None


def _caption(
    model: CaptionModel,
    files: Iterable[SourceFile],
    wanted: _Wanted,
    batch_size: int,
    workers: int,
) -> Generator[CaptionRecord, None, None]:
    # Closed here and not by the garbage collector: Ctrl-C must not leave threads behind.
    with closing(
        _read_ahead(partial(_read, model), files, workers, ahead=batch_size + workers)
    ) as images:
        batch: list[_Read] = []
        readable = seen = 0
        for image in images:
            batch.append(image)
            readable += image.pixels is not None
            # The second bound: a run of bad files must not pile up behind one good one.
            if readable == batch_size or len(batch) == 2 * batch_size:
                yield from _caption_batch(model, batch, wanted, seen)
                seen += len(batch)
                batch, readable = [], 0
        yield from _caption_batch(model, batch, wanted, seen)


def _caption_batch(
    model: CaptionModel, batch: list[_Read], wanted: _Wanted, seen: int
) -> Iterator[CaptionRecord]:
    """Caption what could be read of a batch that ``seen`` files came before."""
    pixels = [image.pixels for image in batch if image.pixels is not None]
    # Samples are drawn by the file's place in the whole run: they depend on no batch size.
    streams = [seen + place for place, image in enumerate(batch) if image.pixels is not None]
    options = wanted.decoding()
    results = iter(model.caption_batch(torch.stack(pixels), options, streams) if pixels else ())
    for image in batch:
        if image.pixels is None:
            yield CaptionRecord(image.file.name, image.file.path, None, image.error)
        else:
            yield wanted.record(model, image, next(results))


def _read(model: CaptionModel, file: SourceFile) -> _Read:
    try:
        return _Read(file, model.read(file.path))
    except ImageError as error:
        return _Read(file, error=error.reason)


def _read_ahead(
    read: Callable[[SourceFile], _Read], files: Iterable[SourceFile], workers: int, ahead: int
) -> Generator[_Read, None, None]:
    """Apply `read` in threads, at most `ahead` files ahead of what was taken; keeps the order."""
    if workers == 0:
        yield from map(read, files)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="captioner-read")
    waiting: deque[Future[_Read]] = deque()
    try:
        for file in files:
            waiting.append(pool.submit(read, file))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _candidate_dict(candidate: Candidate) -> dict[str, Any]:
    # One probability more than words where the sentence was ended.
    words = [*candidate.words, None][: len(candidate.word_probs)]
    probs = (round(prob, 4) for prob in candidate.word_probs)
    return {
        "text": candidate.text,
        "confidence": round(candidate.confidence, 4),
        "log_prob": round(candidate.log_prob, 4),
        "words": [[word, prob] for word, prob in zip(words, probs, strict=True)],
    }
