"""A second task for the CNN: which lemmas do people name of an image?

All captions of an image count at once, whatever the order of their words (Fang et al. 2015,
section 3, "visual detectors"), so that the CNN also learns what a decoder would guess from the
words before. The classifier is thrown away after training.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from captioner.data.datasets import Example
from captioner.errors import CaptionerError
from captioner.model.tag_head import learnable, named_lemmas
from captioner.text.lexicon import Lexicon

PREFIX = "tag_loss."


class TagLoss(nn.Module):
    """Cross-entropy of one logistic regression a lemma, on pooled features of one length.

    Args:
        lexicon: of the training captions.
        examples: the N training images; lemmas that too few of them show are left out.
        feature_size: D of the encoder.

    Attributes:
        lemmas: the L that are learnt.
        classifier: from features of length sqrt(D) to them.
    """

    def __init__(self, lexicon: Lexicon, examples: Sequence[Example], feature_size: int) -> None:
        super().__init__()
        count = learnable(lexicon, len(examples))
        self._examples, self._lexicon = examples, lexicon
        self.lemmas = lexicon.lemmas[:count]
        self.classifier = nn.Linear(feature_size, count)
        nn.init.zeros_(self.classifier.weight)
        with torch.no_grad():
            rates = [lemma.frequency for lemma in self.lemmas]
            self.classifier.bias.copy_(torch.tensor(rates).clamp(1e-4, 1 - 1e-4).logit())

    def forward(self, pooled: Tensor, places: Sequence[int]) -> Tensor:
        """Nats an image, the sum over the lemmas.

        Args:
            pooled: features (B, D).
            places: (B,) of the images among the training images.
        """
        scaled = functional.normalize(pooled.float(), dim=1) * pooled.shape[1] ** 0.5
        logits = self.classifier(scaled).float()
        captions = (self._examples[place].captions for place in places)
        named = named_lemmas(captions, self._lexicon, len(self.lemmas)).to(logits)
        loss = functional.binary_cross_entropy_with_logits(logits, named, reduction="sum")
        return loss / len(places)


def check_tag_loss(state: dict[str, Tensor], weight: float, loss: TagLoss | None) -> None:
    """Leave the classifier out of a checkpoint's weights where nothing is trained.

    Args:
        state: the weights.
        weight: ``model.tag_weight`` of the configuration.
        loss: what they are loaded into; None where nothing is trained or the weight is 0.

    Raises:
        CaptionerError: a run with a classifier is resumed without, or the other way round.
    """
    names = [name for name in state if name.startswith(PREFIX)]
    if bool(names) != bool(weight):
        raise CaptionerError(
            f"model.tag_weight={weight}: the checkpoint's run has "
            f"{'another weight' if names else '0'}; use the config.yaml of its run"
        )
    if loss is None:
        for name in names:
            del state[name]
