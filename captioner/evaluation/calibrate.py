"""Calibrate the confidence of tags on images that the model has not seen.

Every held-out image is captioned, every lemma in its captions is looked up in what people said
about it, and a logistic regression learns how often which evidence is right. The figures beside it
are cross-validated by image: no image is judged by weights that were fitted on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from captioner.data.datasets import ALL, CaptionData, Example, canonical_split
from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError
from captioner.evaluation.calibration_fit import (
    FOLDS,
    collect_observations,
    fit_calibration,
)
from captioner.evaluation.calibration_scores import (
    CalibrationResult,
    SeenScores,
    coverage_curve,
    score_seen,
)
from captioner.evaluation.evaluate import unreadable
from captioner.evaluation.installed import check_installed
from captioner.images.ahead import map_ahead
from captioner.images.reading import ImageError
from captioner.model.familiarity import Familiarity, check_counts
from captioner.model.language_file import write_language
from captioner.model.tag_head import TagHead, learnable, named_lemmas
from captioner.model.tags import EVIDENCE_CAPTIONS
from captioner.networks.fast_encoder import without_batch_norm
from captioner.networks.int8 import IMAGES, Int8
from captioner.text.lexicon import Lexicon
from captioner.text.lexicon_languages import build_lexicon_of
from captioner.version import __version__

if TYPE_CHECKING:
    from captioner.model.caption_model import CaptionModel
    from captioner.model.results import CaptionResult
    from captioner.networks.features import ImageFeatures


def calibrate(
    model: CaptionModel,
    data: CaptionData,
    split: str = "dev",
    limit: int | None = None,
    *,
    batch_size: int = 32,
    workers: int = 0,
    on_image: Callable[[], object] | None = None,
) -> CalibrationResult:
    """Give a model a tag calibration, and a lexicon if it has none; it captions as before.

    Args:
        model: the captioner; its ``lexicon`` and ``tag_calibration`` are set, and where the data
            has a training split its ``familiarity`` and ``tag_head`` too. Where it lacks what
            int8 needs, it gets that.
        data: described images; without a lexicon in the model, its split ``train`` makes one.
        split: images that the model was not trained on; ``all``: every image of data that has no
            training split.
        limit: only the first of them, this many.
        batch_size: images that the model sees at once.
        workers: threads that read images while the model works; 0 reads between the batches.
        on_image: called after each of :func:`images_to_read` images.

    Raises:
        CaptionerError: scikit-learn is not installed, the split does not exist, or has images
            to train on, an image cannot be read, the captions hold no lemma, or the lexicon
            cannot be built.
    """
    check_installed()
    wanted = canonical_split(split)
    if wanted == "train" or (wanted == ALL and "train" in data.splits):
        what = f"'train', which is part of {ALL!r}," if wanted == ALL else "'train'"
        raise CaptionerError(
            f"calibration on the split {what} would trust what the model learnt by heart; give "
            "images that it was not trained on (--split dev)"
        )
    examples = data.split(split)[:limit]
    if model.lexicon is None:
        captions = (example.captions for example in data.split("train"))
        model.lexicon = build_lexicon_of(model.tokenizer, captions)
        if model.lexicon is None:
            raise CaptionerError(
                f"calibration: captions in {model.language!r} have no lexicon, and confidence is "
                "measured by its lemmas; the languages that have one are en, zh, de and ar"
            )
    reading = _Reading(model, batch_size, workers, on_image)
    decoding = decoding_for_tags(model)
    if "train" in data.splits:
        captioned, seen = _learn_images(reading, data.split("train"), examples, decoding)
    else:
        captioned, seen = reading.captions(examples, decoding)[0], None
    lexicon = model.lexicon
    reading.measure_int8(examples)
    results = [(each, example.captions) for each, example in zip(captioned, examples, strict=True)]
    fitted_on = _describe(data, wanted, examples, decoding)
    calibration, scores = fit_calibration(collect_observations(results, lexicon), fitted_on)
    model.tag_calibration = calibration
    coverage = coverage_curve(results, lexicon, calibration)
    protocol = _protocol(model, fitted_on)
    return CalibrationResult(lexicon, calibration, scores, coverage, protocol, seen)


def decoding_for_tags(model: CaptionModel) -> DecodingOptions:
    """How captions are decoded for tags: other options give other evidence."""
    beams = max(EVIDENCE_CAPTIONS, model.decoding.beam_size)
    return replace(model.decoding, beam_size=beams, num_captions=EVIDENCE_CAPTIONS)


def images_to_read(data: CaptionData, split: str, limit: int | None) -> int:
    """How many images :func:`calibrate` reads: those asked for, and a training split.

    Raises:
        CaptionerError: the split does not exist.
    """
    asked = len(data.split(split)[:limit])
    if "train" not in data.splits:
        return asked
    return asked + len(data.split("train"))


def without_training_images(data: CaptionData) -> CaptionData:
    """The data without its split `train`: nothing of the model is fitted to these images."""
    return replace(data, examples=tuple(e for e in data.examples if e.split != "train"))


def save_calibrated(model: CaptionModel, path: Path) -> None:
    """Write the model with the very weights it was read with.

    Raises:
        CaptionerError: when the file cannot be written.
    """
    if model.is_language:
        write_language(model, path)
        return
    # A file in half precision becomes one again, and one in single precision loses nothing.
    half = all(
        torch.equal(tensor, tensor.half().to(tensor.dtype))
        for tensor in model.state_dict().values()
        if tensor.ndim > 1 and tensor.is_floating_point()
    )
    model.save(path, half=half)


class _Reading:
    """Reads images and gives their features, or captions as well.

    Args:
        model: whose encoder is used.
        batch_size: images that it sees at once.
        workers: threads that read images.
        on_image: called after each image.
    """

    def __init__(
        self,
        model: CaptionModel,
        batch_size: int,
        workers: int,
        on_image: Callable[[], object] | None,
    ) -> None:
        self.model, self.batch_size, self.workers = model, batch_size, workers
        self.on_image = on_image

    def pooled(self, examples: Sequence[Example]) -> torch.Tensor:
        """Pooled features (N, D) of N images, on the CPU."""
        return torch.cat([features.pooled.cpu() for features in self._features(examples)])

    def captions(
        self, examples: Sequence[Example], decoding: DecodingOptions
    ) -> tuple[list[CaptionResult], torch.Tensor]:
        """Captions of N images, and their pooled features (N, D) on the CPU."""
        results: list[CaptionResult] = []
        pooled = []
        for features in self._features(examples):
            results += self.model.caption_features(features, decoding)
            pooled.append(features.pooled.cpu())
        return results, torch.cat(pooled)

    def measure_int8(self, examples: Sequence[Example]) -> None:
        """Give the model what int8 needs, from some of the images, where it lacks that."""
        model = self.model
        if model.int8 is not None or model.is_language or model.encoder.graph.needs_library:
            return
        some = examples[:: max(1, len(examples) // IMAGES)][:IMAGES]
        scaled = (model.transform.scale(self._read(example))[None] for example in some)
        network = without_batch_norm(model.encoder.backbone)
        model.int8 = Int8.measure(network, [image.to(model.device) for image in scaled])

    def _features(self, examples: Sequence[Example]) -> Iterator[ImageFeatures]:
        """Of a batch of images after the other."""
        ahead = self.batch_size + self.workers
        with closing(map_ahead(self._read, examples, self.workers, ahead, "read")) as images:
            while batch := list(islice(images, self.batch_size)):
                with torch.inference_mode():
                    features = self.model.encode(torch.stack(batch))
                yield features
                if self.on_image is not None:
                    for _ in batch:
                        self.on_image()

    def _read(self, example: Example) -> torch.Tensor:
        try:
            return self.model.read(example.path)
        except ImageError as error:
            raise unreadable("calibration", example, error.reason) from error


def _learn_images(
    reading: _Reading,
    train: Sequence[Example],
    held_out: Sequence[Example],
    decoding: DecodingOptions,
) -> tuple[list[CaptionResult], SeenScores]:
    """Give the model its familiarity and its tag classifier, fitted to all training images.

    Returns:
        What the model says of the held-out images, and how well the classifier does on them.
    """
    model = reading.model
    assert model.lexicon is not None
    check_counts(len(train), len(held_out))
    learnt = reading.pooled(train)
    # The classifier is of the first lemmas; those of words that were added later come last.
    model.lexicon = model.lexicon.by_frequency(model.tokenizer.words)
    count = learnable(model.lexicon, len(train))
    # The captions are found with the classifier. How familiar their images are changes no caption,
    # and is measured by the same features, so that an image is encoded once.
    model.tag_head = TagHead.fit(learnt, _named(train, model.lexicon, count)).to(model.device)
    captioned, other = reading.captions(held_out, decoding)
    model.familiarity = Familiarity.fit(learnt, other).to(model.device)
    on_device = other.to(model.device)
    shares = model.familiarity(on_device).tolist()
    captioned = [
        replace(each, familiarity=share) for each, share in zip(captioned, shares, strict=True)
    ]
    probabilities = model.tag_head(on_device).cpu().numpy()
    named = _named(held_out, model.lexicon, count).numpy()
    return captioned, score_seen(probabilities, named)


def _named(examples: Sequence[Example], lexicon: Lexicon, count: int) -> torch.Tensor:
    """Which of the first ``count`` lemmas people name: (N, L) bool."""
    return named_lemmas((each.captions for each in examples), lexicon, count)


def _describe(
    data: CaptionData, split: str, examples: Sequence[Example], decoding: DecodingOptions
) -> dict[str, Any]:
    """What the calibration is fitted on, as the model file keeps it."""
    references = [len(example.captions) for example in examples]
    names = ("beam_size", "num_captions", "max_length", "length_penalty")
    return {
        "data": data.name,
        "format": data.format,
        "split": split,
        "images": len(examples),
        "captions_per_image": round(sum(references) / len(references), 2),
        "decoding": {name: getattr(decoding, name) for name in names},
    }


def _protocol(model: CaptionModel, fitted_on: dict[str, Any]) -> dict[str, Any]:
    return {
        "captioner": __version__,
        "model": {"sha256": None if model.path is None else model.sha256},
        "precision": model.precision,
        "data": fitted_on,
        "lemmas": len(model.lexicon or ()),
        "folds": FOLDS,
    }
