"""The decoder word by word, with gradients where they are wanted.

`captioner.networks.fast_steps` says the same faster, for search, sampling, blanks and maps of
attention. Here as there, the image's part in the products of the first layer is computed once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from captioner.networks.decoder import Decoder, Memory
from captioner.networks.features import ImageFeatures
from captioner.networks.weights import versions

_PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class DecoderState(NamedTuple):
    """Where a decoder stands in K captions of each of B images.

    ``hidden``: (layers, B, K, H), for an LSTM h and c. ``image``: (B, G * H), what the image and
    the biases add to the G gates of the first layer.
    """

    hidden: tuple[Tensor, ...]
    image: Tensor
    memory: Memory

    def select_beams(self, beams: Tensor) -> DecoderState:
        """New beam j of image b continues old beam ``beams[b, j]``; ``beams``: (B, K')."""
        rows = torch.arange(len(beams), device=beams.device)[:, None]
        return self._replace(hidden=tuple(part[:, rows, beams] for part in self.hidden))

    def select_images(self, images: Tensor) -> DecoderState:
        """Keep these images (B',), in this order."""
        return DecoderState(
            tuple(part.index_select(1, images) for part in self.hidden),
            self.image.index_select(0, images),
            self.memory.select_images(images),
        )


class DecoderSteps:
    """A decoder that reads captions word by word; says what the decoder does, up to rounding.

    Args:
        decoder: whose weights are used as they are now; in eval mode.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.source_version = versions(decoder)
        self._decoder = decoder
        self._cell = decoder.config.cell
        self._size = decoder.config.hidden_size
        # The names of torch.nn.LSTM: of inputs and of the hidden state.
        self._layers: list[list[Tensor]] = [
            [getattr(decoder.rnn, f"{part}_l{layer}") for part in _PARTS]
            for layer in range(decoder.config.layers)
        ]
        embed = decoder.config.embed_size
        weight_ih = self._layers[0][0]
        self._of_words, self._of_image = weight_ih[:, :embed], weight_ih[:, embed:]

    def is_current(self, decoder: Decoder) -> bool:
        """Whether it still is made of this decoder's weights."""
        return self.source_version == versions(decoder)

    def start(self, features: ImageFeatures, styles: Tensor | None = None) -> DecoderState:
        """The state before the first word, with one caption (K = 1) for each image.

        Args:
            features: of B images.
            styles: (B,) int64, of the captions; None: the decoder's own.
        """
        memory = self._memory(features, styles)
        hidden = self._decoder.image_step(memory)
        if hidden is None:
            shape = (self._decoder.config.layers, len(memory.pooled), self._size)
            zeros = memory.pooled.new_zeros(shape)
            hidden = (zeros, zeros) if self._cell == "lstm" else (zeros,)
        pooled = memory.pooled if self._of_image.shape[1] else memory.pooled[:, :0]
        image = functional.linear(pooled, self._of_image, self._bias(0))  # (B, G * H)
        return DecoderState(tuple(part.unsqueeze(2) for part in hidden), image, memory)

    def step(self, words: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Read one more word of every caption.

        Args:
            words: (B, K) int64.
            state: as :meth:`start` or the step before returned it.

        Returns:
            logits (B, K, V) of the next word, and the new state.
        """
        embedded = self._decoder.embedding(words)
        inputs = functional.linear(embedded, self._of_words) + state.image[:, None]
        hidden = self._recur(inputs, state.hidden)  # (layers, B, K, H)
        readout = self._decoder.read_out(hidden[0][-1], state.memory)
        return self._decoder.logits(readout), state._replace(hidden=hidden)

    def step_with_attention(
        self, words: Tensor, state: DecoderState
    ) -> tuple[Tensor, DecoderState, Tensor]:
        """Like :meth:`step`, with the attention weights (B, K, R), the mean over the heads.

        They say which cells of the grid the next word was read from (Lu et al. 2017, section 2.2).

        Raises:
            CaptionerError: when the decoder has no attention.
        """
        logits, after = self.step(words, state)
        return logits, after, self._decoder.attention(after.hidden[0][-1], after.memory)

    def _memory(self, features: ImageFeatures, styles: Tensor | None) -> Memory:
        return self._decoder.memory(features, styles)

    def _bias(self, layer: int) -> Tensor:
        """What is added to a layer's inputs: a GRU needs the hidden state's bias by itself."""
        _, _, bias_ih, bias_hh = self._layers[layer]
        return bias_ih if self._cell == "gru" else bias_ih + bias_hh

    def _recur(self, inputs: Tensor, hidden: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """One step of all layers: gates (..., G * H), states (layers, ..., H) -> new states."""
        after = [self._cell_step(0, inputs, tuple(part[0] for part in hidden))]
        for layer in range(1, len(self._layers)):
            weight_ih = self._layers[layer][0]
            inputs = functional.linear(after[-1][0], weight_ih, self._bias(layer))
            after.append(self._cell_step(layer, inputs, tuple(part[layer] for part in hidden)))
        return tuple(torch.stack(parts) for parts in zip(*after, strict=True))

    def _cell_step(
        self, layer: int, inputs: Tensor, hidden: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """One step of a cell, (..., H) each, in the order of the gates that torch.nn documents."""
        before, size = hidden[0], self._size
        _, weight_hh, _, bias_hh = self._layers[layer]
        if self._cell == "gru":
            recurrent = functional.linear(before, weight_hh, bias_hh)
            reset, update = (inputs + recurrent)[..., : 2 * size].sigmoid().chunk(2, dim=-1)
            new = torch.tanh(inputs[..., 2 * size :] + reset * recurrent[..., 2 * size :])
            return (torch.lerp(new, before, update),)
        rows = before.flatten(0, -2)
        gates = torch.addmm(inputs.flatten(0, -2), rows, weight_hh.T).view_as(inputs)
        if self._cell == "rnn":
            return (gates.tanh(),)
        in_, forget, new, out = gates.chunk(4, dim=-1)
        cell = forget.sigmoid() * hidden[1] + in_.sigmoid() * new.tanh()
        return out.sigmoid() * cell.tanh(), cell
