"""What every metric takes and gives: captions by image, and their scores."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from captioner.errors import CaptionerError

Candidates = Mapping[str, str]
References = Mapping[str, Sequence[str]]
Tokenize = Callable[[str], list[str]]
NGram = tuple[str, ...]
R = TypeVar("R")

MAX_N = 4  # words of the longest n-grams


@dataclass(frozen=True)
class Scores:
    """One metric.

    Attributes:
        corpus: of all images: the mean of theirs, unless the metric says otherwise.
        per_image: of each image alone, by its id.
    """

    corpus: float
    per_image: dict[str, float]


class Metric(ABC):
    """How near captions are to people's captions of the same images.

    Args:
        references: image id -> its captions.
        tokenize: raw caption -> words, of references and candidates.

    Raises:
        CaptionerError: there are no references, or an image has none.
    """

    def __init__(self, references: References, *, tokenize: Tokenize) -> None:
        check_references(references)
        self.references = references
        self.tokenize = tokenize

    @abstractmethod
    def evaluate(self, candidates: Candidates) -> dict[str, Scores]:
        """Score one caption of every image.

        Args:
            candidates: image id -> its caption, for the images of the references.

        Returns:
            The scores by the metric's name; several where it has several orders.

        Raises:
            CaptionerError: the images are not those of the references, or the metric cannot run.
        """


class ImageMetric(Metric, Generic[R]):
    """A metric that scores every image alone: also a reward that is cheap to call often.

    R is what a subclass keeps of one image's references.
    """

    name: str

    def __init__(self, references: References, *, tokenize: Tokenize) -> None:
        super().__init__(references, tokenize=tokenize)
        self._prepared = {
            image_id: self._prepare([tokenize(text) for text in captions])
            for image_id, captions in references.items()
        }

    @abstractmethod
    def _prepare(self, references: list[list[str]]) -> R:
        """What is computed of one image's references once."""

    @abstractmethod
    def _score(self, words: Sequence[str], references: R) -> float:
        """The score of one caption."""

    def score(self, candidates: Iterable[tuple[str, Sequence[str]]]) -> list[float]:
        """Score (image id, words) pairs; an image may come any number of times.

        Raises:
            CaptionerError: an image has no references.
        """
        return [self._score(words, self._of(image_id)) for image_id, words in candidates]

    def evaluate(self, candidates: Candidates) -> dict[str, Scores]:
        """Score one caption of every image; the corpus score is the mean of theirs."""
        check_candidates(candidates, self.references)
        scores = self.score(
            (image_id, self.tokenize(text)) for image_id, text in candidates.items()
        )
        return {self.name: mean_scores(dict(zip(candidates, scores, strict=True)))}

    def _of(self, image_id: str) -> R:
        if image_id not in self._prepared:
            raise CaptionerError(f"metrics: image {image_id!r} has no references; give some")
        return self._prepared[image_id]


def mean_scores(per_image: dict[str, float]) -> Scores:
    """The scores of images and their mean."""
    return Scores(math.fsum(per_image.values()) / len(per_image), per_image)


def check_references(references: References) -> None:
    """Refuse references that are not a list of captions for each of some images.

    Raises:
        CaptionerError: there are none, or an image has none.
    """
    if not references:
        raise CaptionerError("references: there are none; give at least one image's captions")
    for image_id, captions in references.items():
        if isinstance(captions, str) or not captions:
            raise CaptionerError(
                f"references: image {image_id!r} has {captions!r}; "
                "give a list with at least one caption, or leave the image out"
            )


def check_candidates(candidates: Candidates, references: References) -> None:
    """Refuse captions that are not of the images of the references.

    Raises:
        CaptionerError: an image has only one of the two.
    """
    for image_id in [*candidates, *references]:
        if image_id not in references or image_id not in candidates:
            lacks = "no candidate" if image_id in references else "no references"
            raise CaptionerError(
                f"metrics: image {image_id!r} has {lacks}; use the same image ids for both, and "
                "score every image (an empty caption counts)"
            )


def ngram_counts(words: Sequence[str], max_n: int = MAX_N) -> Counter[NGram]:
    """Count the n-grams of one caption, n = 1 to ``max_n`` together."""
    return Counter(
        tuple(words[start : start + n])
        for n in range(1, max_n + 1)
        for start in range(len(words) - n + 1)
    )
