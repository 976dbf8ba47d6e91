"""Where a captioner looked while it said each word of a caption, and how probable the word was.

The caption is read again with the words given (teacher forcing): the hidden state that says a word
has read those before it, and attends to the grid (Lu et al. 2017, section 2.2, eq. 6 to 8). What a
cell adds to what is read is its share of the map (`captioner.networks.decoder.Decoder`). Such maps
show what the decoder read from, not what made it choose the word; a CNN's cell has seen far more of
the image than its own square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captioner.text.tokenizer import BOS_ID, EOS_ID, UNK_ID

if TYPE_CHECKING:
    from captioner.images.transform import ImageTransform
    from captioner.model.caption_model import CaptionModel
    from captioner.networks.features import ImageFeatures

Window = tuple[float, float, float, float]


@dataclass(frozen=True)
class CaptionAttention:
    """A caption's T words and what the decoder saw for each.

    Attributes:
        words: the words.
        word_probs: the probability of each after those before it, in [0, 1]; None for a word that
            the model does not know.
        end_prob: that the sentence ends after them.
        weights: (T, R) float32, each row the shares of the grid's cells, row by row, in what the
            word was read from; None for a decoder without attention.
    """

    words: tuple[str, ...]
    word_probs: tuple[float | None, ...]
    end_prob: float
    weights: NDArray[np.float32] | None

    def levels(self) -> NDArray[np.uint8]:
        """The weights (T, R) in 256 steps, each word's greatest being 255."""
        assert self.weights is not None, "a decoder without attention has none"
        highest = self.weights.max(axis=1, keepdims=True, initial=1e-9)
        levels: NDArray[np.uint8] = np.rint(255 * self.weights / highest).astype(np.uint8)
        return levels


@torch.inference_mode()
def attend(
    model: CaptionModel, features: ImageFeatures, captions: Sequence[Sequence[str]]
) -> list[CaptionAttention]:
    """Read one caption of each image again.

    Args:
        model: the captioner, in evaluation mode as it is loaded.
        features: of B images: ``model.encode(pixels)``.
        captions: B captions, each the words of the tokenizer; one may be empty.
    """
    assert len(captions) == len(features.grid), "a caption for each image"
    if not captions:
        return []
    ids = [[model.tokenizer.id_of(word) for word in words] for words in captions]
    longest = max(map(len, ids))
    # What stands after the end of a shorter caption is read, and what it says is left out.
    given = torch.tensor(
        [[BOS_ID, *row, *[EOS_ID] * (longest - len(row))] for row in ids], device=model.device
    )  # (B, T + 1)
    said = torch.tensor([[*row, *[EOS_ID] * (longest + 1 - len(row))] for row in ids])
    probs, weights = _read(model, features, given, said.to(model.device))
    return [
        _of_one(tuple(words), row, probs[place], None if weights is None else weights[place])
        for place, (words, row) in enumerate(zip(captions, ids, strict=True))
    ]


def _read(
    model: CaptionModel, features: ImageFeatures, given: Tensor, said: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float32] | None]:
    """Probabilities (B, T + 1) of what is said after what is given, and shares (B, T + 1, R)."""
    steps, decoder = model.decoder_steps(), model.decoder
    state = steps.start(type(features)(*(part.to(model.device) for part in features)))
    probs, states = [], []
    for place in range(given.shape[1]):
        logits, state = steps.step(given[:, place : place + 1], state)
        states.append(state.hidden[0])  # (layers, B, 1, H)
        log_probs = logits.float().log_softmax(dim=-1).squeeze(1)  # (B, V)
        probs.append(log_probs.gather(1, said[:, place : place + 1]).exp())
    found = torch.cat(probs, dim=1).double().cpu().numpy()
    if decoder.config.attention == "none":
        return found, None
    shares = decoder.shares_of_cells(torch.cat(states, dim=2), state.memory)
    return found, shares.float().cpu().numpy()


def _of_one(
    words: tuple[str, ...],
    ids: Sequence[int],
    probs: NDArray[np.float64],
    weights: NDArray[np.float32] | None,
) -> CaptionAttention:
    count = len(words)
    return CaptionAttention(
        words,
        tuple(None if word == UNK_ID else float(p) for word, p in zip(ids, probs, strict=False)),
        float(probs[count]),
        None if weights is None else weights[:count],
    )


def grid_window(transform: ImageTransform, size: tuple[int, int]) -> Window:
    """Which part of an image the grid lies over, in shares of its width and height.

    Args:
        transform: the model's.
        size: ``(width, height)`` of the image.

    Returns:
        ``(left, top, width, height)``: (0, 0, 1, 1) where the whole image is squashed to the
        network's input, less where its edges are cut off, more where it is padded.
    """
    if transform.resize == "squash":
        return 0.0, 0.0, 1.0, 1.0
    # Pixels of the network's input for each of the image's, the same in both directions.
    scales = transform.size[0] / size[0], transform.size[1] / size[1]
    scale = max(scales) if transform.resize == "crop" else min(scales)
    width, height = (side / scale / own for side, own in zip(transform.size, size, strict=True))
    return (1 - width) / 2, (1 - height) / 2, width, height
