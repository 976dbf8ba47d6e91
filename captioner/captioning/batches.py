"""Caption many images: read ahead, caption in batches, one record for each file."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioner.captioning.affixes import Affixes
from captioner.captioning.encoding import EncodedBatch, NumberedFile, ReadImage, encoded_batches
from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.given import Files, files_of
from captioner.images.kinds import find_images
from captioner.model.caption_model import CaptionModel
from captioner.model.device import torch_threads
from captioner.model.results import Candidate, CaptionResult
from captioner.model.tags import Tag, tags_of
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
    numbered_files: Iterable[NumberedFile],
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
    batches = encoded_batches(
        model,
        numbered_files,
        batch_size=batch_size,
        workers=workers,
        partial_images=partial_images,
        fixed_shape=fixed_shape,
    )
    captioner = _Captioner(model, options, fixed_shape, min_confidence, min_tag_confidence)
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


def _caption(
    captioner: _Captioner, batches: Generator[EncodedBatch, None, None]
) -> Generator[list[CaptionRecord], None, None]:
    """The records of each batch; the CNN sees the next ones while its captions are searched for."""
    threads = captioner.model.fast_encoder().search_threads
    with closing(batches), ThreadPoolExecutor(1, thread_name_prefix="captioner-search") as pool:
        # Made while the first images are read: one image alone would wait a tenth of a second.
        made = pool.submit(captioner.model.decoder_steps)
        for batch in batches:
            made.result()
            with torch_threads(threads):
                records = captioner.caption(batch)
            yield records


@dataclass(frozen=True)
class _Captioner:
    """Turns what was encoded into records."""

    model: CaptionModel
    options: DecodingOptions
    fixed_shape: bool
    min_confidence: float
    min_tag_confidence: float | None

    def caption(self, batch: EncodedBatch) -> list[CaptionRecord]:
        results = iter(self._results(batch))
        return [
            CaptionRecord(image.file.name, image.file.path, None, image.error)
            if image.error is not None
            else self._record(image, next(results))
            for image in batch.images
        ]

    def _results(self, batch: EncodedBatch) -> list[CaptionResult]:
        if batch.features is None:
            return []
        # Samples are drawn by the file's place in the whole run: they depend on no batch size.
        streams = [0] * len(batch.features.grid)
        readable = (image for image in batch.images if image.error is None)
        for row, image in zip(batch.rows, readable, strict=True):
            streams[row] = image.place
        results = self.model.caption_features(
            batch.features, self.options, streams, fixed_shape=self.fixed_shape
        )
        return [results[row] for row in batch.rows]

    def _record(self, image: ReadImage, result: CaptionResult) -> CaptionRecord:
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
