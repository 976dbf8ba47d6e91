"""The decoder word by word, with gradients where they are wanted.

`captioner.networks.fast_steps` says the same faster, for search, sampling, blanks and maps of
attention. Here as there, the image's part in the products of the first layer is computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from captioner.networks.decoder import Decoder, Memory
from captioner.networks.features import ImageFeatures
from captioner.networks.weights import versions

Say = Callable[[int, Tensor], Tensor]
"""What an attending layer, by its number, adds to the readout (..., E) in states (..., H)."""


class DecoderState(NamedTuple):
    """Where a decoder stands in K captions of each of B images.

    ``hidden``: (layers, B, K', H), for an LSTM h and c, after the last word that was read.
    ``beams``: (B, K) int64, which of these K' captions each continues. ``image``: (B, G * H), what
    the image and the biases add to the G gates of the first layer.
    """

    hidden: tuple[Tensor, ...]
    beams: Tensor
    image: Tensor
    memory: Memory

    def select_beams(self, beams: Tensor) -> DecoderState:
        """New beam j of image b continues old beam ``beams[b, j]``; ``beams``: (B, K')."""
        return self._replace(beams=self.beams.gather(1, beams))

    def select_images(self, images: Tensor) -> DecoderState:
        """Keep these images (B',), in this order."""
        return DecoderState(
            tuple(part.index_select(1, images) for part in self.hidden),
            self.beams.index_select(0, images),
            self.image.index_select(0, images),
            self.memory.select_images(images),
        )

    def places(self) -> Tensor:
        """Which of the B * K' captions in ``hidden`` each continues, (B, K)."""
        images, beams = self.hidden[0].shape[1:3]
        return self.beams + beams * torch.arange(images, device=self.beams.device)[:, None]

    def following(self, hidden: tuple[Tensor, ...]) -> DecoderState:
        """The state after one more word of every caption; ``hidden``: (layers, B, K, H)."""
        beams = torch.arange(self.beams.shape[1], device=self.beams.device)
        return self._replace(hidden=hidden, beams=beams.expand_as(self.beams))


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
        self._in_turn = decoder.config.attention == "layered"
        self._layers = decoder.recurrent_weights()
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
        hidden = tuple(part.unsqueeze(2) for part in hidden)
        beams = torch.zeros(len(image), 1, dtype=torch.int64, device=image.device)
        return DecoderState(hidden, beams, image, memory)

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
        before = tuple(part.flatten(1, 2)[:, state.places()] for part in state.hidden)
        say = partial(self._decoder.read_out, memory=state.memory)
        hidden, said = self._recur(inputs, before, say)  # (layers, B, K, H), (B, K, E)
        return self._decoder.logits(self._decoder.prepare(said)), state.following(hidden)

    def _memory(self, features: ImageFeatures, styles: Tensor | None) -> Memory:
        return self._decoder.memory(features, styles)

    def _bias(self, layer: int) -> Tensor:
        """What is added to a layer's inputs: a GRU needs the hidden state's bias by itself."""
        _, _, bias_ih, bias_hh = self._layers[layer]
        return bias_ih if self._cell == "gru" else bias_ih + bias_hh

    def _recur(
        self, inputs: Tensor, hidden: tuple[Tensor, ...], say: Say
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """One step of all layers, of gates (..., G * H) and states (layers, ..., H).

        Returns:
            the new states, and what the layers say of them together, (..., E).
        """
        recurrent = [self._of_hidden(layer, before) for layer, before in enumerate(hidden[0])]
        return self._advance(inputs, recurrent, hidden, say)

    def _of_hidden(self, layer: int, before: Tensor) -> Tensor:
        """What a layer's state (..., H) before a word adds to the gates, (..., G * H)."""
        _, weight_hh, _, bias_hh = self._layers[layer]
        return functional.linear(before, weight_hh, bias_hh if self._cell == "gru" else None)

    def _advance(
        self, inputs: Tensor, recurrent: list[Tensor], hidden: tuple[Tensor, ...], say: Say
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """As :meth:`_recur`, with what :meth:`_of_hidden` gives for each layer."""
        after: list[tuple[Tensor, ...]] = []
        said: Tensor | None = None
        for layer, (weight_ih, *_) in enumerate(self._layers):
            if layer:
                below = after[-1][0] if said is None else said.tanh()
                inputs = functional.linear(below, weight_ih, self._bias(layer))
            before = tuple(part[layer] for part in hidden)
            after.append(self._cell_step(inputs, recurrent[layer], before))
            if self._in_turn or layer == len(self._layers) - 1:
                added = say(layer if self._in_turn else 0, after[-1][0])
                said = added if said is None else said + added
        assert said is not None
        return tuple(torch.stack(parts) for parts in zip(*after, strict=True)), said

    def _cell_step(
        self, inputs: Tensor, recurrent: Tensor, hidden: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """One step of a cell, (..., H) each, in the order of the gates that torch.nn documents."""
        size = self._size
        if self._cell == "gru":
            reset, update = (inputs + recurrent)[..., : 2 * size].sigmoid().chunk(2, dim=-1)
            new = torch.tanh(inputs[..., 2 * size :] + reset * recurrent[..., 2 * size :])
            return (torch.lerp(new, hidden[0], update),)
        gates = inputs + recurrent
        if self._cell == "rnn":
            return (gates.tanh(),)
        in_, forget, new, out = gates.chunk(4, dim=-1)
        cell = forget.sigmoid() * hidden[1] + in_.sigmoid() * new.tanh()
        return out.sigmoid() * cell.tanh(), cell
