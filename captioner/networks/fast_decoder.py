"""The decoder as inference runs it: what the words and the picture add to the cell, computed once.

Of the products in a step of the recurrence only that with the hidden state depends on what was
said before. The word's is looked up in a table (V, G * H), the picture's is made once per picture.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from captioner.networks.decoder import Decoder, Memory
from captioner.networks.encoder import ImageFeatures
from captioner.networks.weights import versions

_PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class FastState(NamedTuple):
    """Where a decoder stands in K captions of each of B pictures.

    ``hidden``: (B, K, H), for an LSTM h and c. ``picture``: (B, G * H), what the picture and the
    biases add to the G gates of the cell.
    """

    hidden: tuple[Tensor, ...]
    picture: Tensor
    memory: Memory

    def select_beams(self, beams: Tensor) -> FastState:
        """New beam j of picture b continues old beam ``beams[b, j]``; ``beams``: (B, K')."""
        rows = torch.arange(len(beams), device=beams.device)[:, None]
        return self._replace(hidden=tuple(part[rows, beams] for part in self.hidden))

    def select_images(self, images: Tensor) -> FastState:
        """Keep these pictures (B',), in this order."""
        return FastState(
            tuple(part.index_select(0, images) for part in self.hidden),
            self.picture.index_select(0, images),
            self.memory.select_images(images),
        )


class FastDecoder:
    """A decoder of one layer for inference; computes what it does, up to rounding.

    Args:
        decoder: whose weights are used as they are now.
    """

    def __init__(self, decoder: Decoder) -> None:
        assert decoder.config.layers == 1, "deeper layers read the hidden states below, not words"
        self.made_of = versions(decoder)
        self._decoder = decoder
        self._cell = decoder.config.cell
        self._size = decoder.config.hidden_size
        # The names of torch.nn.LSTM: of inputs and of the hidden state.
        weights: list[Tensor] = [getattr(decoder.rnn, f"{part}_l0") for part in _PARTS]
        self._weight_ih, self._weight_hh, self._bias_ih, self._bias_hh = weights
        embed = decoder.config.embed_size
        with torch.no_grad():
            of_words, self._of_picture = self._weight_ih[:, :embed], self._weight_ih[:, embed:]
            self._table = functional.linear(decoder.embedding.weight, of_words)  # (V, G * H)

    def is_of(self, decoder: Decoder) -> bool:
        """Whether it still is made of this decoder's weights."""
        return self.made_of == versions(decoder)

    def start(self, features: ImageFeatures, styles: Tensor | None = None) -> FastState:
        """The state before the first word, with one caption (K = 1) for each image.

        Args:
            features: of B images.
            styles: (B,) int64, of the captions; None: the decoder's own.
        """
        state = self._decoder.start(features, styles)
        memory = state.memory
        bias = self._bias_ih if self._cell == "gru" else self._bias_ih + self._bias_hh
        pooled = memory.pooled if self._of_picture.shape[1] else memory.pooled[:, :0]
        picture = functional.linear(pooled, self._of_picture, bias)  # (B, G * H)
        return FastState(tuple(part[0] for part in state.hidden), picture, memory)

    def step(self, words: Tensor, state: FastState) -> tuple[Tensor, FastState]:
        """Read one more word (B, K) of every caption: logits (B, K, V), and the new state."""
        inputs = functional.embedding(words, self._table) + state.picture[:, None]
        hidden = self._recur(inputs, state.hidden)
        readout = self._decoder.read_out(hidden[0], state.memory)
        return self._decoder.logits(readout), state._replace(hidden=hidden)

    def _recur(self, inputs: Tensor, hidden: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """One step of the cell, in the order of the gates that torch.nn documents."""
        before, size = hidden[0], self._size
        if self._cell == "gru":
            recurrent = functional.linear(before, self._weight_hh, self._bias_hh)
            reset, update = (inputs + recurrent)[..., : 2 * size].sigmoid().chunk(2, dim=-1)
            new = torch.tanh(inputs[..., 2 * size :] + reset * recurrent[..., 2 * size :])
            return (torch.lerp(new, before, update),)
        gates = inputs + functional.linear(before, self._weight_hh)
        if self._cell == "rnn":
            return (gates.tanh(),)
        in_, forget, new, out = gates.chunk(4, dim=-1)
        cell = forget.sigmoid() * hidden[1] + in_.sigmoid() * new.tanh()
        return out.sigmoid() * cell.tanh(), cell
