"""Caption many images: read ahead, caption in batches, one record for each file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captioner.captioning.affixes import Affixes
from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.finding import SourceFile
from captioner.files.given import Files, files_of
from captioner.images.ahead import read_ahead
from captioner.images.kinds import find_images
from captioner.images.reading import ImageError
from captioner.model.caption_model import CaptionModel
from captioner.model.results import Candidate, CaptionResult
from captioner.model.tags import Tag, tags_of
from captioner.networks.features import ImageFeatures
from captioner.text.languages import DEFAULT_LANGUAGE

NO_AFFIXES = Affixes()


@dataclass(frozen=True)
class CaptionRecord:
    """What became of one file: a result or an error.

    Attributes:
        file_name: `captioner.files.finding.SourceFile.name`.
        path: where the file is.
        result: its captions, None if it could not be read.
        error: why not, in a few words without the path; None if it could.
        tags: what it shows, surest first; None where tags were not asked for.
        unsure: whether the caption is less sure than was asked for: it is to be left out.
        embedded: whether the caption stands in the image file too; None where that was not asked
            for, or there is no caption.
        embed_error: why it does not.
        partial: whether the file is cut short, and the caption is of what there is of it.
        unsure_languages: of the result's other languages, those whose caption is less sure than
            was asked for.
    """

    file_name: str
    path: Path
    result: CaptionResult | None
    error: str | None
    tags: tuple[Tag, ...] | None = None
    unsure: bool = False
    embedded: bool | None = None
    embed_error: str | None = None
    partial: bool = False
    unsure_languages: frozenset[str] = frozenset()

    @property
    def status(self) -> str:
        """``ok``, ``unsure`` or ``failed``."""
        return "failed" if self.error is not None else "unsure" if self.unsure else "ok"

    def __str__(self) -> str:
        """What became of it, on one line."""
        return f"{shown(self.path)}: {self.error or self.result}"

    def to_dict(self, candidates: bool = False, affixes: Affixes = NO_AFFIXES) -> dict[str, Any]:
        """The record that `captioner.captioning.writers` write, JSON primitives.

        Args:
            candidates: add the list of all captions, best first, each with its ``text``,
                ``log_prob`` (natural, with the end of the sentence), ``avg_logprob`` (for each
                word and the end) and ``words``: pairs of word and probability. The end of the
                sentence, where it was reached, is the last pair; its word is None.
            affixes: what stands around every caption, those of the candidates as well; their
                words and all numbers stay the model's own.

        ``calibrated`` says what ``confidence`` is; see `CaptionResult.confidence`. An unsure
        caption is left out, ``text`` is None then; its ``confidence`` stays. Where there
        are tags, ``tags`` lists the ``name``, ``type`` and ``confidence`` of each. ``partial`` is
        there, and True, where the file is cut short. Where a caption was to be embedded,
        ``embed_error`` says why it is not, None if it is.

        ``language``, a BCP 47 tag, is there unless the caption is in English and in no other
        language. ``other_languages`` is there where several were asked for: for each of the others
        by its tag, ``text``, ``confidence`` and ``calibrated``, and ``candidates`` where they were
        asked for.
        """
        record: dict[str, Any] = {
            "file_name": self.file_name,
            **_result_dict(self.result, self.unsure, candidates, affixes),
        }
        if self.tags is not None:
            record["tags"] = [tag.to_dict() for tag in self.tags]
        if self.result is not None:
            record |= self._language_dict(self.result, candidates, affixes)
        if self.partial:
            record["partial"] = True
        record["error"] = self.error
        if self.embedded is not None:
            record["embed_error"] = self.embed_error
        return record

    def _language_dict(
        self, result: CaptionResult, candidates: bool, affixes: Affixes
    ) -> dict[str, Any]:
        others = {
            language: _result_dict(other, language in self.unsure_languages, candidates, affixes)
            for language, other in result.other_languages.items()
        }
        if not others and result.language == DEFAULT_LANGUAGE:
            return {}
        about: dict[str, Any] = {"language": result.language}
        return about | {"other_languages": others} if others else about


def caption_images(
    model: CaptionModel,
    files: Files,
    options: DecodingOptions | None = None,
    *,
    batch_size: int = 32,
    workers: int = 0,
    min_confidence: float = 0.0,
    min_tag_confidence: float | None = None,
    partial_images: bool = False,
) -> Generator[CaptionRecord, None, None]:
    """Caption files lazily, in their order; one that cannot be read becomes a record with an error.

    Memory does not grow with the number of files. Closing the generator, or an exception such as
    KeyboardInterrupt inside it, ends the threads; an image being decoded is finished first.

    Args:
        model: the captioner.
        files: images, folders, patterns, or what `captioner.images.kinds.find_images` lists.
        options: how to decode the captions; None for the model's own defaults.
        batch_size: images that the model sees at once.
        workers: threads that read images while the model works; 0 reads between the batches.
        min_confidence: captions that are less sure, in [0, 1], are marked to be left out.
        min_tag_confidence: give each image the tags that are at least so sure, in [0, 1]; None
            gives none. See `captioner.model.tags.tags_of` for what that means.
        partial_images: caption files that are cut short as far as they go; otherwise that is an
            error.

    Raises:
        ValueError: batch_size or workers is too small, or a minimum confidence is not in [0, 1];
            raised by the call itself.
        CaptionerError: the options do not suit the model, or a path leads to no image; raised by
            the call itself.
    """
    batches = caption_batches(
        model,
        enumerate(files_of(files, find_images)),
        options,
        batch_size=batch_size,
        workers=workers,
        min_confidence=min_confidence,
        min_tag_confidence=min_tag_confidence,
        partial_images=partial_images,
    )
    return _one_by_one(batches)


def _one_by_one(
    batches: Generator[list[CaptionRecord], None, None],
) -> Generator[CaptionRecord, None, None]:
    with closing(batches):
        for batch in batches:
            yield from batch


def caption_batches(
    model: CaptionModel,
    numbered_files: Iterable[tuple[int, SourceFile]],
    options: DecodingOptions | None = None,
    *,
    batch_size: int = 32,
    workers: int = 0,
    min_confidence: float = 0.0,
    min_tag_confidence: float | None = None,
    partial_images: bool = False,
    fixed_shape: bool = False,
) -> Generator[list[CaptionRecord], None, None]:
    """Caption files as `caption_images` does, and yield the records of each batch together.

    Args:
        model: the captioner.
        numbered_files: each file with its place in the whole, by which samples are drawn.
        options: see `caption_images`, as for the next five.
        batch_size: images that the model sees at once.
        workers: threads that read images.
        min_confidence: of captions.
        min_tag_confidence: of tags.
        partial_images: caption what is cut short.
        fixed_shape: fill up every batch to its full size. An image's row in it follows from its
            place alone, so that it gets the same numbers in a run that was interrupted, to the last
            bit. In another row they may differ by the rounding of the processor.

    Raises:
        ValueError: as `caption_images`, by the call itself.
        CaptionerError: the same.
    """
    options = options or model.decoding
    check_caption_options(model, options, batch_size, workers, min_confidence, min_tag_confidence)
    read = partial(_read, model, partial_images)
    batches = _read_batches(read, numbered_files, batch_size, workers)
    captioner = _Captioner(
        model,
        options,
        batch_size if fixed_shape else None,
        min_confidence,
        min_tag_confidence,
    )
    return _caption(captioner, batches)


def check_caption_options(
    model: CaptionModel,
    options: DecodingOptions,
    batch_size: int,
    workers: int,
    min_confidence: float,
    min_tag_confidence: float | None,
) -> None:
    """Refuse what `caption_images` refuses, before anything else is done.

    Raises:
        ValueError: a number is out of its range.
        CaptionerError: tags are wanted of a model without a lexicon or of captions whose words
            were given, or the options' words do not suit the model.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: at least 1 image is captioned at once")
    if workers < 0:
        raise ValueError(f"workers={workers}: give 0 or the number of threads that read images")
    for name, minimum in (
        ("min_confidence", min_confidence),
        ("min_tag_confidence", min_tag_confidence or 0.0),
    ):
        if not 0 <= minimum <= 1:
            raise ValueError(f"{name}={minimum!r}: give a number from 0 to 1")
    if min_tag_confidence is not None and model.lexicon is None:
        raise CaptionerError(
            "tags: this model has no lexicon of what its words mean; `captioner calibrate` gives "
            "it one"
        )
    if min_tag_confidence is not None and (options.prompt or options.must_include):
        raise CaptionerError(
            "tags: they are read from captions that the model chose; leave out the tags, or the "
            "prompt and the words to include"
        )
    model.check_options(options)


@dataclass(frozen=True)
class _Read:
    """A file, its place in the whole, and its pixels (3, height, width), or why it has none."""

    place: int
    file: SourceFile
    pixels: Tensor | None = None
    error: str | None = None
    is_partial: bool = False


def _read_batches(
    read: Callable[[tuple[int, SourceFile]], _Read],
    numbered_files: Iterable[tuple[int, SourceFile]],
    batch_size: int,
    workers: int,
) -> Generator[list[_Read], None, None]:
    """Batch b has the files whose places are from b * batch_size on, as far as they are given."""
    # Closed here and not by the garbage collector: Ctrl-C must not leave threads behind.
    with closing(read_ahead(read, numbered_files, workers, ahead=batch_size + workers)) as images:
        batch: list[_Read] = []
        for image in images:
            if batch and batch[0].place // batch_size != image.place // batch_size:
                yield batch
                batch = []
            batch.append(image)
            if (image.place + 1) % batch_size == 0:
                yield batch
                batch = []
        if batch:
            yield batch


def _caption(
    captioner: _Captioner, batches: Generator[list[_Read], None, None]
) -> Generator[list[CaptionRecord], None, None]:
    """The records of each batch; the CNN sees the next batch while this one's words are found."""
    with closing(batches), closing(_encode_ahead(captioner, batches)) as encoded:
        for batch, features in encoded:
            yield captioner.caption(batch, features)


def _encode_ahead(
    captioner: _Captioner, batches: Iterator[list[_Read]]
) -> Generator[tuple[list[_Read], ImageFeatures | None], None, None]:
    pool = ThreadPoolExecutor(1, thread_name_prefix="captioner-encode")
    waiting: deque[tuple[list[_Read], Future[ImageFeatures | None]]] = deque()
    failure: Exception | None = None
    try:
        while True:
            try:
                batch = next(batches, None)
            except Exception as error:
                failure, batch = error, None  # Raised after what was read before.
            if batch is None:
                break
            waiting.append((batch, pool.submit(captioner.encode, batch)))
            if len(waiting) > 1:
                done, features = waiting.popleft()
                yield done, features.result()
        for done, features in waiting:
            yield done, features.result()
        if failure is not None:
            raise failure
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class _Captioner:
    """Turns what was read into records; `shape` is the batch size to fill up to, if any."""

    model: CaptionModel
    options: DecodingOptions
    shape: int | None
    min_confidence: float
    min_tag_confidence: float | None

    def encode(self, batch: list[_Read]) -> ImageFeatures | None:
        """Features of a batch's readable images; None if there are none.

        With a fixed shape, an image's row is its place in the job, modulo the size of a batch, and
        rows without an image are zeros.
        """
        readable = [image.pixels for image in batch if image.pixels is not None]
        if not readable:
            return None
        pixels = torch.stack(readable)
        if self.shape is not None:
            rows = torch.tensor(self._rows(batch))
            pixels = pixels.new_zeros(self.shape, *pixels.shape[1:]).index_copy_(0, rows, pixels)
        return self.model.encode(pixels)

    def _rows(self, batch: list[_Read]) -> list[int]:
        """The rows of the readable images in the batch that the model sees."""
        places = [image.place for image in batch if image.pixels is not None]
        return list(range(len(places))) if self.shape is None else [n % self.shape for n in places]

    def caption(self, batch: list[_Read], features: ImageFeatures | None) -> list[CaptionRecord]:
        results = iter(() if features is None else self._results(batch, features))
        return [
            CaptionRecord(image.file.name, image.file.path, None, image.error)
            if image.pixels is None
            else self._record(image, next(results))
            for image in batch
        ]

    def _results(self, batch: list[_Read], features: ImageFeatures) -> list[CaptionResult]:
        # Samples are drawn by the file's place in the whole run: they depend on no batch size.
        rows = self._rows(batch)
        streams = [0] * len(features.grid)
        for row, image in zip(rows, (i for i in batch if i.pixels is not None), strict=True):
            streams[row] = image.place
        fixed = self.shape is not None
        results = self.model.caption_features(features, self.options, streams, fixed_shape=fixed)
        return [results[row] for row in rows]

    def _record(self, image: _Read, result: CaptionResult) -> CaptionRecord:
        file = image.file
        tags = _tags(self.model, result, self.min_tag_confidence)
        unsure = {
            language
            for language, each in result.by_language.items()
            if each.confidence < self.min_confidence
        }
        return CaptionRecord(
            file.name,
            file.path,
            result,
            None,
            tags,
            result.language in unsure,
            partial=image.is_partial,
            unsure_languages=frozenset(unsure - {result.language}),
        )


def _tags(
    model: CaptionModel, result: CaptionResult, minimum: float | None
) -> tuple[Tag, ...] | None:
    if minimum is None or model.lexicon is None:
        return None
    found = tags_of(result, model.lexicon, model.tag_calibration)
    return tuple(tag for tag in found if tag.confidence >= minimum)


def _read(model: CaptionModel, may_be_partial: bool, numbered: tuple[int, SourceFile]) -> _Read:
    place, file = numbered
    try:
        data = None if file.load is None else file.load()
        if may_be_partial:
            pixels, is_partial = model.read_partial(file.path, data)
            return _Read(place, file, pixels, is_partial=is_partial)
        return _Read(place, file, model.read(file.path, data))
    except ImageError as error:
        return _Read(place, file, error=error.reason)


def _result_dict(
    result: CaptionResult | None, unsure: bool, candidates: bool, affixes: Affixes
) -> dict[str, Any]:
    """What a record says of the captions in one language."""
    about: dict[str, Any] = {
        "text": None if result is None or unsure else affixes.around(result.text),
        "confidence": None if result is None else round(result.confidence, 4),
        "calibrated": None if result is None else result.is_calibrated,
    }
    if candidates:
        found = () if result is None or unsure else result.candidates
        about["candidates"] = [_candidate_dict(candidate, affixes) for candidate in found]
    return about


def _candidate_dict(candidate: Candidate, affixes: Affixes) -> dict[str, Any]:
    # One probability more than words where the sentence was ended.
    words = [*candidate.words, None][: len(candidate.word_probs)]
    probs = (round(prob, 4) for prob in candidate.word_probs)
    return {
        "text": affixes.around(candidate.text),
        "log_prob": round(candidate.log_prob, 4),
        "avg_logprob": round(candidate.log_prob / len(candidate.word_probs), 4),
        "words": [[word, prob] for word, prob in zip(words, probs, strict=True)],
    }
