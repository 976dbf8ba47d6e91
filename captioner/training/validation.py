"""What a model says of the images of a split, in all processes, and what that is worth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from captioner.data.datasets import Example
from captioner.text.metrics import score_captions
from captioner.text.options import ScoringOptions
from captioner.training.batches import Part
from captioner.training.gathering import from_first, gather


class Validation:
    """Captions and loss of one pass over a split; each process adds those of its own images."""

    def __init__(self) -> None:
        self.said: dict[str, str] = {}
        """Captions of the images by their ids; of all processes once they are gathered."""
        self.loss_sum, self.words = 0.0, 0

    def clear(self) -> None:
        """Forget the pass before."""
        self.said.clear()
        self.loss_sum, self.words = 0.0, 0

    def add_loss(self, mean: Tensor, words: int) -> None:
        """Add the mean loss () over some words."""
        self.loss_sum += float(mean) * words
        self.words += words

    def gather(self) -> None:
        """Bring together what all processes have added; each has it all afterwards."""
        parts = gather((self.said.copy(), self.loss_sum, self.words))
        for said, _, _ in parts:
            self.said.update(said)
        self.loss_sum = sum(loss for _, loss, _ in parts)
        self.words = sum(words for _, _, words in parts)

    def scores(
        self,
        parts: Sequence[Part],
        examples: Sequence[Example],
        scoring: ScoringOptions,
        first: bool,
    ) -> Mapping[str, float]:
        """The loss in nats per word, and the scores: of each source, then the mean over sources.

        Args:
            parts: the split's images, source by source.
            examples: the split's images.
            scoring: how captions are scored.
            first: whether this is the first process, which computes the scores for all.
        """
        found = dict(self._scores(parts, examples, scoring)) if first else {}
        return {"loss": self.loss_sum / max(1, self.words), **from_first(found)}

    def _scores(
        self, parts: Sequence[Part], examples: Sequence[Example], scoring: ScoringOptions
    ) -> Iterator[tuple[str, float]]:
        means: dict[str, float] = defaultdict(float)
        for part in parts:
            of_source = examples[part.first : part.first + part.size]
            references = {e.image_id: e.captions for e in of_source if e.image_id in self.said}
            if not references:
                continue  # A trial run sees the first batches only.
            said = {image_id: self.said[image_id] for image_id in references}
            for metric, value in score_captions(said, references, scoring).values.items():
                key = metric.lower().replace("-", "_")
                means[key] += value / len(parts)
                if len(parts) > 1:
                    yield f"{part.source.name}/{key}", value
        yield from means.items()
