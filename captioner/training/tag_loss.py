"""A second task for the CNN: which lemmas do people name of an image?

What every caption of an image says counts at once, whatever its words' order (Fang et al. 2015,
section 3, "visual detectors"), so that the CNN learns from what a decoder could guess from the words
before. The classifier is thrown away after training.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from captioner.data.datasets import Example
from captioner.model.tag_head import learnable
from captioner.text.lexicon import Lexicon


class TagLoss(nn.Module):
    """Cross-entropy of one logistic regression a lemma, on pooled features of one length.

    Args:
        lexicon: of the training captions.
        examples: the N training images; lemmas that too few of them show are left out.
        feature_size: D of the encoder.

    Attributes:
        classifier: from features of length sqrt(D) to the L lemmas.
    """

    def __init__(self, lexicon: Lexicon, examples: Sequence[Example], feature_size: int) -> None:
        super().__init__()
        count = learnable(lexicon, len(examples))
        self._examples, self._lexicon = examples, lexicon
        self._places_of = {lemma: place for place, lemma in enumerate(lexicon.lemmas[:count])}
        self._named: dict[int, Tensor] = {}
        self.classifier = nn.Linear(feature_size, count)
        nn.init.zeros_(self.classifier.weight)
        with torch.no_grad():
            rates = [lemma.frequency for lemma in self._places_of]
            self.classifier.bias.copy_(torch.tensor(rates).clamp(1e-4, 1 - 1e-4).logit())

    def forward(self, pooled: Tensor, places: Sequence[int]) -> Tensor:
        """Nats an image, the sum over the lemmas.

        Args:
            pooled: features (B, D).
            places: (B,) of the images among the training images.
        """
        scaled = functional.normalize(pooled.float(), dim=1) * pooled.shape[1] ** 0.5
        targets = torch.zeros(len(places), self.classifier.out_features)
        for row, place in enumerate(places):
            targets[row, self._named_in(place)] = 1.0
        logits = self.classifier(scaled).float()
        loss = functional.binary_cross_entropy_with_logits(
            logits, targets.to(logits.device), reduction="sum"
        )
        return loss / len(places)

    def _named_in(self, place: int) -> Tensor:
        """The lemmas (int64) that the captions of an image name; found once."""
        if place not in self._named:
            lemmas = self._lexicon.lemmas_in(self._examples[place].captions)
            found = sorted(self._places_of[each] for each in lemmas & self._places_of.keys())
            self._named[place] = torch.tensor(found, dtype=torch.int64)
        return self._named[place]
