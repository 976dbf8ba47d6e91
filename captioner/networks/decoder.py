"""Grid features and words so far -> next-word logits: a recurrent decoder with visual attention.

The recurrence reads words (and the whole image) first; its hidden states then attend to the
grid. Attention after the recurrence (Lu et al. 2017, section 2.2, "spatial attention") makes a
training step parallel over the sentence, except for one small product a word in the recurrence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from captioner.errors import CaptionerError
from captioner.networks.dropout import Dropout
from captioner.networks.layout import WordLayout
from captioner.networks.recurrence import recur
from captioner.text.tokenizer import PAD_ID

if TYPE_CHECKING:
    from captioner.networks.configs import DecoderConfig
    from captioner.networks.features import ImageFeatures

RNNS: dict[str, type[nn.RNN | nn.GRU | nn.LSTM]] = {
    "rnn": nn.RNN,
    "gru": nn.GRU,
    "lstm": nn.LSTM,
}


class Memory(NamedTuple):
    """What a decoder keeps of the images: computed once per image, shared by its captions.

    ``pooled``: (B, E), the whole image as one input vector. ``keys`` and ``values``:
    (L, B, heads, R, H / heads) of the L layers that attend, or empty tensors (0, B) without
    attention.
    """

    pooled: Tensor
    keys: Tensor
    values: Tensor

    def select_images(self, images: Tensor) -> Memory:
        """Keep these images (B',), in this order."""
        keys, values = (part.index_select(1, images) for part in (self.keys, self.values))
        return Memory(self.pooled.index_select(0, images), keys, values)


class UpperLayer(nn.Module):
    """Reads what the layers below would say, attends anew, and adds to it.

    The second recurrence knows what was seen so far, as the language LSTM of Anderson et al. 2018
    ("up-down", section 3.2) does; unlike there, no layer waits for a word of the layer above.

    Args:
        config: the decoder's shape.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        hidden, embed = config.hidden_size, config.embed_size
        self.rnn = RNNS[config.cell](embed, hidden, batch_first=True)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.value = nn.Linear(hidden, hidden, bias=False)
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.readout = nn.Linear(2 * hidden, embed, bias=False)
        nn.init.zeros_(self.readout.weight)  # at first, nothing is added


class Decoder(nn.Module):
    """Recurrent caption decoder.

    Args:
        config: its shape.
        vocab_size: number of words V, special ones included.
        feature_size: size D of the encoder's features.

    Attributes:
        style: which of ``config.styles`` it writes by default.
    """

    def __init__(self, config: DecoderConfig, vocab_size: int, feature_size: int) -> None:
        super().__init__()
        self.config = config
        hidden, embed = config.hidden_size, config.embed_size
        attends = config.attention != "none"
        in_turn = config.attention == "layered"
        self.embedding = nn.Embedding(vocab_size, embed)
        self.pooled_projection = nn.Linear(feature_size, embed)
        self.style = 0
        if config.styles:
            self.style_embedding = nn.Embedding(len(config.styles), embed)
            nn.init.zeros_(self.style_embedding.weight)
        self.rnn = RNNS[config.cell](
            2 * embed if attends else embed,
            hidden,
            1 if in_turn else config.layers,
            batch_first=True,
            dropout=config.dropout if config.layers > 1 and not in_turn else 0.0,
        )
        self.upper = nn.ModuleList(UpperLayer(config) for _ in range(config.layers - 1) if in_turn)
        if attends:
            self.grid_projection = nn.Linear(feature_size, hidden)
            self.key = nn.Linear(hidden, hidden, bias=False)
            self.value = nn.Linear(hidden, hidden, bias=False)
            self.query = nn.Linear(hidden, hidden, bias=False)
        self.readout = nn.Linear(2 * hidden if attends else hidden, embed)
        self.output = nn.Linear(embed, vocab_size)
        self.dropout = Dropout(config.dropout)
        nn.init.normal_(self.embedding.weight, std=embed**-0.5)
        nn.init.zeros_(self.output.bias)
        if config.tied:
            self.output.weight = self.embedding.weight

    def memory(self, features: ImageFeatures, styles: Tensor | None = None) -> Memory:
        """Project the images' features once, for all their captions.

        Args:
            features: of B images.
            styles: (B,) int64, the style of each image's captions; None: all in :attr:`style`.
        """
        projected = self.pooled_projection(features.pooled)  # (B, E)
        if self.config.styles:
            if styles is None:
                styles = torch.full((len(projected),), self.style, device=projected.device)
            projected = projected + self.style_embedding(styles)
        pooled = torch.relu(projected)
        if self.config.attention == "none":
            nothing = pooled.new_zeros(0, len(pooled))
            return Memory(pooled, nothing, nothing)
        grid = self.dropout(torch.relu(self.grid_projection(features.grid)))  # (B, R, H)
        keys = [self._split_heads(layer.key(grid)) for layer in self.attending()]
        values = [self._split_heads(layer.value(grid)) for layer in self.attending()]
        return Memory(pooled, torch.stack(keys), torch.stack(values))

    def attending(self) -> list[Decoder | UpperLayer]:
        """The layers that attend, or without attention the one read out; the first is this module.

        Each has ``query``, ``key``, ``value`` and ``readout``, without attention ``readout`` alone.
        """
        return [self, *self._upper_layers()]

    def recurrent_weights(self) -> list[Sequence[Tensor]]:
        """Of every layer, in the order of torch.nn: weights of inputs and states, and biases."""
        return [*self.rnn.all_weights, *(each.rnn.all_weights[0] for each in self._upper_layers())]

    def _upper_layers(self) -> list[UpperLayer]:
        return cast("list[UpperLayer]", list(self.upper))

    def forward(
        self, features: ImageFeatures, words: Tensor, styles: Tensor | None = None
    ) -> Tensor:
        """Read whole captions, all words at once.

        Args:
            features: of B images.
            words: (B, C, T) int64, C captions of each image, from the start symbol on. Where an
                image has fewer, the others are padding alone.
            styles: (B,) int64; see :meth:`memory`.

        Returns:
            What the output layer turns into logits, (B, C, T, E): row t has read words 0..t. Where
            an image has fewer captions, 0.
        """
        there = words[..., 0] != PAD_ID
        layout = WordLayout.of(there * words.shape[2], words.shape[2])
        return layout.spread(self.read(features, words, layout, styles))

    def read(
        self,
        features: ImageFeatures,
        words: Tensor,
        layout: WordLayout,
        styles: Tensor | None = None,
    ) -> Tensor:
        """As :meth:`forward`, but of P words alone: (P, E), in the order of their layout.

        Args:
            features: of B images.
            words: (B, C, T) int64.
            layout: which of them; of each caption the first ones.
            styles: (B,) int64; see :meth:`memory`.
        """
        memory = self.memory(features, styles)
        embedded = self.dropout(self.embedding(words.flatten()[layout.places]))  # (P, E)
        image = self.dropout(memory.pooled[layout.images])  # (N, E)
        start = self.image_step(memory)
        if start is not None:
            start = tuple(part[:, layout.images] for part in start)
        recur_first, recur_upper = self._recur, self._recur_upper
        if embedded.device.type == "cuda":
            recur_first, recur_upper = self._recur_in_library, self._run_in_library
        states = recur_first(embedded, image, start, layout)
        said = self.read_out(0, states, memory, layout)
        for number, layer in enumerate(self._upper_layers(), 1):
            states = recur_upper(layer.rnn, self.dropout(torch.tanh(said)), layout)
            said = said + self.read_out(number, states, memory, layout)
        return self.prepare(said)

    def _recur_upper(self, rnn: nn.RNNBase, inputs: Tensor, layout: WordLayout) -> Tensor:
        """An upper layer's states (P, H) for words (P, E)."""
        return self._recur_layer(rnn.all_weights[0], inputs, None, None, layout)

    def _run_in_library(
        self,
        rnn: nn.RNNBase,
        inputs: Tensor,
        layout: WordLayout,
        begin: Tensor | tuple[Tensor, ...] | None = None,
    ) -> Tensor:
        """States (P, H) of one of torch.nn's recurrences that begins with these states."""
        states: Tensor = rnn(PackedSequence(inputs, torch.tensor(layout.counts)), begin)[0].data
        return states

    def _recur(
        self, inputs: Tensor, image: Tensor, start: tuple[Tensor, ...] | None, layout: WordLayout
    ) -> Tensor:
        """The last layer's states (P, H); words (P, E), images (N, E), states (layers, N, H)."""
        for layer, weights in enumerate(self.rnn.all_weights):
            if layer:
                inputs = self.dropout(inputs)
            begin = None if start is None else tuple(part[layer] for part in start)
            inputs = self._recur_layer(weights, inputs, None if layer else image, begin, layout)
        return inputs

    def _recur_layer(
        self,
        weights: Sequence[Tensor],
        inputs: Tensor,
        image: Tensor | None,
        begin: tuple[Tensor, ...] | None,
        layout: WordLayout,
    ) -> Tensor:
        """One layer's states (P, H) for words (P, E or H), with attention beside images (N, E)."""
        of_inputs, of_states, bias_of_inputs, bias_of_states = weights
        # A GRU multiplies what its hidden state gives, the bias with it.
        is_gru = self.config.cell == "gru"
        bias = bias_of_inputs if is_gru else bias_of_inputs + bias_of_states
        if image is None or self.config.attention == "none":
            shared, gates = None, functional.linear(inputs, of_inputs, bias)
        else:
            of_words, of_image = torch.split(of_inputs, self.config.embed_size, dim=1)
            # What the image adds is the same in every step.
            shared = functional.linear(image, of_image, bias)
            gates = functional.linear(inputs, of_words)
        bias_of_hidden = bias_of_states if is_gru else None
        cell = self.config.cell
        return recur(cell, layout.counts, gates, shared, of_states, bias_of_hidden, begin)

    def _recur_in_library(
        self, inputs: Tensor, image: Tensor, start: tuple[Tensor, ...] | None, layout: WordLayout
    ) -> Tensor:
        """The same by torch.nn, which is faster on a GPU."""
        if self.config.attention != "none":
            inputs = torch.cat([inputs, image[layout.ranks()]], dim=-1)
        begin = start[0] if start is not None and self.config.cell != "lstm" else start
        return self._run_in_library(self.rnn, inputs, layout, begin)

    def style_numbers(self, style: str | None, images: int) -> Tensor | None:
        """The style of each of B images' captions, as :meth:`memory` takes them; (B,) int64.

        Args:
            style: its name; None for the decoder's own.
            images: B.

        Raises:
            CaptionerError: when the decoder does not know the style.
        """
        if style is None:
            return None
        if style not in self.config.styles:
            known = ", ".join(self.config.styles) or "no styles; leave it out"
            raise CaptionerError(f"style {style!r}: this model knows {known}")
        number = self.config.styles.index(style)
        return torch.full((images,), number, device=self.embedding.weight.device)

    def logits(self, readout: Tensor) -> Tensor:
        """Scores of every word: (..., E) -> (..., V)."""
        scores: Tensor = self.output(readout)
        return scores

    def shares_of_cells(self, states: Tensor, memory: Memory) -> Tensor:
        """How much of what the next word is read from each cell of the grid adds, (B, Q, R).

        The length of what a cell adds to the readout, over all heads and all layers that attend,
        by the sum over the cells. A cell with much attention and values near 0 adds nothing, so
        that attention weights alone would mislead (Kobayashi et al. 2020, "Attention is not only a
        weight", section 3).

        Args:
            states: of all layers, (layers, B, Q, H).
            memory: of B images.

        Raises:
            CaptionerError: when the decoder has no attention.
        """
        if self.config.attention == "none":
            raise CaptionerError("attention=none: this captioner attends to no part of the image")
        added = memory.keys.new_zeros(())
        layers = self.attending()  # the last ones, or all
        pairs = zip(layers, states[-len(layers) :], strict=True)
        for number, (layer, of_layer) in enumerate(pairs):
            query = self._split_heads(layer.query(of_layer))  # (B, heads, Q, H / heads)
            scores = query @ memory.keys[number].transpose(2, 3) * query.shape[-1] ** -0.5
            of_seen = layer.readout.weight[:, self.config.hidden_size :]  # (E, H)
            by_head = of_seen.view(len(of_seen), self.config.heads, -1)
            values = torch.einsum("bnrh,enh->bnre", memory.values[number], by_head)
            added = added + torch.einsum("bnqr,bnre->bqre", scores.softmax(dim=-1), values)
        return functional.normalize(added.norm(dim=-1), p=1, dim=-1)

    def image_step(self, memory: Memory) -> tuple[Tensor, ...] | None:
        """Without attention, the state after the image as the first input: (layers, B, H)."""
        if self.config.attention != "none":
            return None
        _, hidden = self.rnn(self.dropout(memory.pooled).unsqueeze(1))
        return tuple(hidden) if self.config.cell == "lstm" else (hidden,)

    def read_out(
        self, number: int, states: Tensor, memory: Memory, layout: WordLayout | None = None
    ) -> Tensor:
        """What a layer's states and what they see add to the readout.

        The sum over the layers that attend, after :meth:`prepare`, is what :meth:`logits` turns
        into scores.

        Args:
            number: of the layer among those that attend, from 0 on.
            states: (B, Q, H), or (P, H) of words that are laid out.
            memory: of B images.
            layout: of the P words; None: of each image there are Q states.

        Returns:
            (B, Q, E) or (P, E).
        """
        layer = self.attending()[number]
        if self.config.attention != "none":
            queries = layer.query(states)
            if layout is None:
                seen = self._look(queries, number, memory)
            else:
                seen = layout.from_images(self._look(layout.by_image(queries), number, memory))
            states = torch.cat([states, seen], dim=-1)
        said: Tensor = layer.readout(self.dropout(states))
        return said

    def _look(self, queries: Tensor, number: int, memory: Memory) -> Tensor:
        """What a layer's queries (B, Q, H) see in the image, (B, Q, H)."""
        query, keys, values = self._split_heads(queries), memory.keys[number], memory.values[number]
        seen = functional.scaled_dot_product_attention(query, keys, values)
        return seen.transpose(1, 2).flatten(2)

    def prepare(self, said: Tensor) -> Tensor:
        """What all layers say together, (..., E), as the output layer takes it."""
        out: Tensor = self.dropout(torch.tanh(said))
        return out

    def _split_heads(self, x: Tensor) -> Tensor:
        """(B, N, H) -> (B, heads, N, H / heads)."""
        batch, length, size = x.shape
        heads = self.config.heads
        return x.reshape(batch, length, heads, size // heads).transpose(1, 2)


def shift(captions: Tensor) -> tuple[Tensor, Tensor]:
    """Split captions into what the decoder reads and what it must say next.

    Args:
        captions: (..., T + 1) int64: start symbol, words, end symbol, padding.

    Returns:
        inputs (..., T) and targets (..., T): target t is the word after input t.
    """
    return captions[..., :-1], captions[..., 1:]
