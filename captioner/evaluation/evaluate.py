"""Caption the images of a data set and score the captions, with the protocol beside the numbers.

A score means nothing without how it was made, so the two travel together: which images, how many
references, which tokenizer, how the captions were decoded, which model and which versions. Each
image is captioned once, by free-running decoding, and compared with its raw references.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.captioning.batches import caption_images
from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError
from captioner.files.finding import SourceFile
from captioner.files.writing import replace_file
from captioner.images.reading import READER_VERSION
from captioner.text.metrics import CaptionScores, rule_of, score_captions
from captioner.text.options import ScoringOptions
from captioner.version import __version__

if TYPE_CHECKING:
    from captioner.captioning.coco_ids import CocoIds
    from captioner.data.datasets import Example
    from captioner.model.caption_model import CaptionModel
    from captioner.model.results import CaptionResult
    from captioner.text.lexicon import Lexicon

LIBRARIES = ("torch", "torchvision", "timm", "pillow", "numpy", "regex", "nltk")
"""Packages whose versions can change a score: they decode, resize, compute or tokenize."""


@dataclass(frozen=True)
class ImageEvaluation:
    """The caption of one image and what it scored.

    Attributes:
        image_id: the image's name in the data set.
        caption: the best caption.
        confidence: the model's own, in [0, 1].
        scores: metric name -> score of this image alone. The corpus BLEU is not their mean.
    """

    image_id: str
    caption: str
    confidence: float
    scores: dict[str, float]


@dataclass(frozen=True)
class Variety:
    """How much captions say, and how much of it no person said: what scores alone do not show.

    Attributes:
        captions: number of different captions.
        words: number of different words in them.
        unsupported: share of their content lemmas that no reference of the image has, in [0, 1];
            None where the model has no lexicon, or its captions no content lemma.
    """

    captions: int
    words: int
    unsupported: float | None

    def __str__(self) -> str:
        text = f"{self.captions} different captions of {self.words} words"
        if self.unsupported is None:
            return text
        return f"{text}; {self.unsupported:.1%} of the content words are in no reference"


@dataclass(frozen=True)
class EvaluationResult:
    """Scores, the protocol that produced them, and every image's caption.

    Attributes:
        scores: metric name -> corpus score; CIDEr-D in [0, 10], all others in [0, 1].
        protocol: everything that another person needs to repeat the numbers, JSON primitives.
        images: one entry per image, in the order of the examples.
        variety: of the captions.
    """

    scores: dict[str, float]
    protocol: dict[str, Any]
    images: tuple[ImageEvaluation, ...]
    variety: Variety

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives: ``scores``, ``protocol``, ``images`` and ``variety``."""
        return asdict(self)

    def coco_results(self, ids: CocoIds) -> list[dict[str, int | str]]:
        """The captions in the shape of COCO's result files.

        Args:
            ids: of the images, see `captioner.captioning.coco_ids.choose_coco_ids`; where they
                say nothing of the image, ``file_name`` stands beside them.
        """
        results: list[dict[str, int | str]] = []
        for image in self.images:
            result = {"image_id": ids.by_name[image.image_id], "caption": image.caption}
            if ids.numbered:
                result["file_name"] = image.image_id
            results.append(result)
        return results

    def table(self) -> str:
        """The scores for people, times 100 as papers print them."""
        decoding, data = self.protocol["decoding"], self.protocol["data"]
        how = "sampling" if decoding["sample"] else f"beam {decoding['beam_size']}"
        width = max(8, *map(len, self.scores))
        lines = [f"{name:<{width}} {100 * score:6.2f}" for name, score in self.scores.items()]
        split = f" of the split {data['split']}" if "split" in data else ""
        lines.append(str(self.variety))
        lines.append(f"(times 100; {data['images']} images{split}, {how})")
        return "\n".join(lines)


def evaluate(
    model: CaptionModel,
    examples: Sequence[Example],
    options: DecodingOptions | None = None,
    *,
    data: Mapping[str, Any] | None = None,
    scoring: ScoringOptions | None = None,
    batch_size: int = 32,
    workers: int = 0,
    on_image: Callable[[], object] | None = None,
) -> EvaluationResult:
    """Caption every example once and score the captions against its references.

    Args:
        model: the captioner.
        examples: images with their references; every one is scored or none.
        options: how to decode; the model's own options by default.
        data: what the protocol records of the data in addition to the counts, JSON primitives: its
            ``format``, its ``split``.
        scoring: the tokenizer, and metrics beyond the standard ones.
        batch_size: images that the model sees at once.
        workers: threads that read images while the model works; 0 reads between the batches.
        on_image: called after each image.

    Raises:
        CaptionerError: there is nothing to score, an image is listed twice, has no reference or
            cannot be read, or a metric cannot run.
    """
    options = options or model.decoding
    try:
        scoring = replace(scoring or ScoringOptions(), language=model.tokenizer.language)
    except ValueError as error:
        raise CaptionerError(str(error)) from None
    _check_examples(examples)
    # A metric that cannot run here is reported now and not after an hour of captioning.
    score_captions({"": "a trial"}, {"": ("a trial",)}, scoring)
    captioned = caption_examples(
        model,
        examples,
        options,
        batch_size=batch_size,
        workers=workers,
        on_image=on_image,
    )
    results = {example.image_id: result for example, result in captioned}
    scores = score_captions(
        {image_id: result.text for image_id, result in results.items()},
        {example.image_id: example.captions for example in examples},
        scoring,
    )
    variety = measure_variety(
        [results[example.image_id].candidates[0].words for example in examples],
        [example.captions for example in examples],
        model.lexicon,
    )
    protocol = _protocol(model, examples, options, scoring, data or {})
    return EvaluationResult(dict(scores.values), protocol, _images(results, scores), variety)


def _images(
    results: Mapping[str, CaptionResult], scores: CaptionScores
) -> tuple[ImageEvaluation, ...]:
    return tuple(
        ImageEvaluation(image_id, result.text, result.confidence, scores.per_image[image_id])
        for image_id, result in results.items()
    )


def _protocol(
    model: CaptionModel,
    examples: Sequence[Example],
    options: DecodingOptions,
    scoring: ScoringOptions,
    data: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "captioner": __version__,
        "reader": READER_VERSION,
        "data": {**data, "images": len(examples), "references": _reference_counts(examples)},
        "model": _describe_model(model),
        "decoding": asdict(options),
        "metrics": {
            "tokenizer": rule_of(scoring)[0],
            "cider_d_document_frequency": "the references of the evaluated images",
        },
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def measure_variety(
    captions: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    lexicon: Lexicon | None,
) -> Variety:
    """Count what captions say.

    Args:
        captions: the words of each image's caption.
        references: what people said about each image.
        lexicon: says which words carry content; what it lacks counts for nothing.
    """
    said = missing = 0
    for words, texts in zip(captions, references, strict=True):
        if lexicon is None:
            break
        lemmas = lexicon.lemmas_of(words)
        said += len(lemmas)
        missing += len(lemmas - lexicon.lemmas_in(texts))
    return Variety(
        captions=len({tuple(words) for words in captions}),
        words=len({word for words in captions for word in words}),
        unsupported=missing / said if said else None,
    )


def _check_examples(examples: Sequence[Example]) -> None:
    if not examples:
        raise CaptionerError("evaluation: there are no images; choose another split or limit")
    seen = set()
    for example in examples:
        if example.image_id in seen:
            raise CaptionerError(
                f"evaluation: {example.image_id} is listed twice; each image is scored once"
            )
        if not example.captions:
            raise CaptionerError(
                f"evaluation: {example.image_id} has no reference caption; add one or remove it"
            )
        seen.add(example.image_id)


def caption_examples(
    model: CaptionModel,
    examples: Sequence[Example],
    options: DecodingOptions,
    *,
    batch_size: int,
    workers: int,
    on_image: Callable[[], object] | None,
) -> Iterator[tuple[Example, CaptionResult]]:
    """Caption every example, in their order; one that cannot be read ends it.

    Args:
        model: the captioner.
        examples: the images.
        options: how to decode.
        batch_size: images that the model sees at once.
        workers: threads that read images while the model works; 0 reads between the batches.
        on_image: called after each image.

    Raises:
        CaptionerError: an image cannot be read.
    """
    files = (SourceFile(example.path, example.image_id, None) for example in examples)
    records = caption_images(model, files, options, batch_size=batch_size, workers=workers)
    for example, record in zip(examples, records, strict=True):
        if record.result is None:
            raise unreadable("evaluation", example, record.error)
        yield example, record.result
        if on_image is not None:
            on_image()


def unreadable(purpose: str, example: Example, reason: str | None) -> CaptionerError:
    """The error to raise for an image that cannot be read; ``purpose`` begins the message.

    Figures on fewer images than announced could not be compared with anyone's.
    """
    return CaptionerError(
        f"{purpose}: {example.path}: {reason}; repair the image, or take it out of the annotations"
    )


def _reference_counts(examples: Sequence[Example]) -> dict[str, float]:
    counts = [len(example.captions) for example in examples]
    return {"min": min(counts), "max": max(counts), "mean": sum(counts) / len(counts)}


def _describe_model(model: CaptionModel) -> dict[str, Any]:
    return {
        # A model that never was a file (during training, in tests) has no hash.
        "sha256": None if model.path is None else model.sha256,
        "encoder": model.encoder.config.name,
        "language": model.language,
        "device": model.device.type,
        "precision": model.precision,
        "provenance": model.provenance,
    }


def save_json(path: Path, value: Any) -> None:
    """Write JSON primitives as UTF-8, under a temporary name first, so that no half file is left.

    Raises:
        CaptionerError: when the file cannot be written.
    """
    replace_file(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")
