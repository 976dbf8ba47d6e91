"""Grid features and words so far -> next-word logits: a recurrent decoder with visual attention.

The recurrence reads words (and the whole picture) first; its hidden states then attend to the
grid. Attention after the recurrence (Lu et al. 2017, section 2.2, "spatial attention") makes a
training step parallel over the sentence: nothing walks through time in Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from captioner.errors import CaptionerError
from captioner.text.tokenizer import PAD_ID

if TYPE_CHECKING:
    from captioner.networks.encoder import ImageFeatures

CELLS: dict[str, type[nn.RNN | nn.GRU | nn.LSTM]] = {
    "rnn": nn.RNN,
    "gru": nn.GRU,
    "lstm": nn.LSTM,
}
ATTENTIONS = ("none", "spatial")


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of the recurrent decoder.

    Args:
        cell: ``rnn`` (tanh), ``gru`` or ``lstm``.
        attention: ``none``: the picture is the first input and nothing else (Vinyals et al. 2015,
            "Show and Tell", eq. 10); ``spatial``: the pooled picture goes in with every word and
            every hidden state attends to the grid.
        layers: number of recurrent layers.
        hidden_size: size H of the recurrent state and of the attention.
        embed_size: size E of the word embeddings and of the vector before the output layer.
        heads: attention heads; ``hidden_size`` is a multiple of their number.
        dropout: probability, on the word embeddings, between the layers and before the output.
        tied: the output layer shares the embedding matrix (Press and Wolf 2017).
        styles: names of the styles of captions that it can tell apart, the one that it writes
            unless told otherwise first; empty: it knows one only.

    Raises:
        ValueError: when an option has a value that cannot be used.
    """

    cell: str = "lstm"
    attention: str = "spatial"
    layers: int = 1
    hidden_size: int = 512
    embed_size: int = 512
    heads: int = 8
    dropout: float = 0.5
    tied: bool = True
    styles: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.styles, list):  # as JSON gives them; equal shapes must be equal
            object.__setattr__(self, "styles", tuple(self.styles))
        if not isinstance(self.cell, str) or self.cell not in CELLS:
            raise ValueError(f"cell={self.cell!r}: choose one of {', '.join(CELLS)}")
        if self.attention not in ATTENTIONS:
            raise ValueError(f"attention={self.attention!r}: choose one of {', '.join(ATTENTIONS)}")
        for name in ("layers", "hidden_size", "embed_size", "heads"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name}={value!r}: give a whole number of at least 1")
        if self.attention == "spatial" and self.hidden_size % self.heads:
            raise ValueError(
                f"heads={self.heads}: hidden_size={self.hidden_size} is no multiple of it; "
                "change one of the two"
            )
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout!r}: give a number from 0 to below 1")
        if not isinstance(self.tied, bool):
            raise ValueError(f"tied={self.tied!r}: use true or false")
        if not isinstance(self.styles, tuple) or not all(
            isinstance(style, str) and style for style in self.styles
        ):
            raise ValueError(f"styles={self.styles!r}: give a list of names")
        if len(set(self.styles)) < len(self.styles):
            raise ValueError(f"styles={self.styles!r}: a name comes twice")


class Memory(NamedTuple):
    """What a decoder keeps of the pictures: computed once per picture, shared by its captions.

    ``pooled``: (B, E), the whole picture as one input vector. ``keys`` and ``values``:
    (B, heads, R, H / heads), or empty tensors (B, 0) without attention.
    """

    pooled: Tensor
    keys: Tensor
    values: Tensor

    def select_images(self, images: Tensor) -> Memory:
        """Keep these pictures (B',), in this order."""
        return Memory(*(part.index_select(0, images) for part in self))


class DecoderState(NamedTuple):
    """Where a decoder stands in K captions of each of B pictures.

    ``hidden``: the cell's states, one tensor (layers, B, K, H), or two (h and c) for an LSTM.
    """

    hidden: tuple[Tensor, ...]
    memory: Memory

    def select_beams(self, beams: Tensor) -> DecoderState:
        """New beam j of picture b continues old beam ``beams[b, j]``; ``beams``: (B, K')."""
        layers, _, _, size = self.hidden[0].shape
        index = beams[None, :, :, None].expand(layers, -1, -1, size)
        return self._replace(hidden=tuple(state.gather(2, index) for state in self.hidden))

    def select_images(self, images: Tensor) -> DecoderState:
        """Keep these pictures (B',), in this order."""
        return DecoderState(
            tuple(state.index_select(1, images) for state in self.hidden),
            self.memory.select_images(images),
        )


class Decoder(nn.Module):
    """Recurrent caption decoder.

    Args:
        config: its shape.
        vocab_size: number of words V, special ones included.
        feature_size: size D of the encoder's features.

    Attributes:
        style: which of ``config.styles`` it writes unless told otherwise.
    """

    def __init__(self, config: DecoderConfig, vocab_size: int, feature_size: int) -> None:
        super().__init__()
        self.config = config
        hidden, embed = config.hidden_size, config.embed_size
        spatial = config.attention == "spatial"
        self.embedding = nn.Embedding(vocab_size, embed)
        self.pooled_projection = nn.Linear(feature_size, embed)
        self.style = 0
        if config.styles:
            self.style_embedding = nn.Embedding(len(config.styles), embed)
            nn.init.zeros_(self.style_embedding.weight)
        self.rnn = CELLS[config.cell](
            2 * embed if spatial else embed,
            hidden,
            config.layers,
            batch_first=True,
            dropout=config.dropout if config.layers > 1 else 0.0,
        )
        if spatial:
            self.grid_projection = nn.Linear(feature_size, hidden)
            self.key = nn.Linear(hidden, hidden, bias=False)
            self.value = nn.Linear(hidden, hidden, bias=False)
            self.query = nn.Linear(hidden, hidden, bias=False)
        self.readout = nn.Linear(2 * hidden if spatial else hidden, embed)
        self.output = nn.Linear(embed, vocab_size)
        self.dropout = nn.Dropout(config.dropout)
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
            nothing = pooled.new_zeros(len(pooled), 0)
            return Memory(pooled, nothing, nothing)
        grid = self.dropout(torch.relu(self.grid_projection(features.grid)))  # (B, R, H)
        keys, values = self._split_heads(self.key(grid)), self._split_heads(self.value(grid))
        return Memory(pooled, keys, values)

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
            What the output layer turns into logits, (B, C, T, E): row t has read words 0..t.
        """
        images, captions, length = words.shape
        memory = self.memory(features, styles)
        # Captions that are not there cost nothing in the recurrence.
        present = (words[..., 0] != PAD_ID).flatten().nonzero()[:, 0]  # (N,)
        inputs = self._inputs(words, memory).flatten(0, 1)[present]  # (N, T, E or 2E)
        hidden = self._image_step(memory)
        start = None
        if hidden is not None:
            repeated = tuple(h.repeat_interleave(captions, dim=1)[:, present] for h in hidden)
            start = repeated if self.config.cell == "lstm" else repeated[0]
        found, _ = self.rnn(inputs, start)  # (N, T, H)
        states = found.new_zeros(images * captions, *found.shape[1:]).index_copy(0, present, found)
        states = states.reshape(images, captions * length, -1)
        return self.read_out(states, memory).view(images, captions, length, -1)

    def style_numbers(self, style: str | None, images: int) -> Tensor | None:
        """The style of each of B images' captions, as :meth:`start` takes them; (B,) int64.

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

    def start(self, features: ImageFeatures, styles: Tensor | None = None) -> DecoderState:
        """The state before the first word, with one caption (K = 1) for each image."""
        memory = self.memory(features, styles)
        hidden = self._image_step(memory)
        if hidden is None:
            zeros = memory.pooled.new_zeros(
                self.config.layers, len(memory.pooled), self.config.hidden_size
            )
            hidden = (zeros, zeros) if self.config.cell == "lstm" else (zeros,)
        return DecoderState(tuple(state.unsqueeze(2) for state in hidden), memory)

    def step(self, words: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Read one more word of every caption.

        Args:
            words: (B, K) int64.
            state: as :meth:`start` or the step before returned it.

        Returns:
            logits (B, K, V) of the next word, and the new state.
        """
        readout, state, _ = self._step(words, state)
        return self.logits(readout), state

    def step_with_attention(
        self, words: Tensor, state: DecoderState
    ) -> tuple[Tensor, DecoderState, Tensor]:
        """Like :meth:`step`, with the attention weights (B, K, R), the mean over the heads.

        They say which cells of the grid the next word was read from (Lu et al. 2017, section 2.2).

        Raises:
            CaptionerError: when the decoder has no attention.
        """
        if self.config.attention == "none":
            raise CaptionerError("attention=none: this captioner attends to no part of the picture")
        readout, state, states = self._step(words, state)
        query = self._split_heads(self.query(states))  # (B, heads, K, H / heads)
        scores = query @ state.memory.keys.transpose(2, 3) * query.shape[-1] ** -0.5
        return self.logits(readout), state, scores.softmax(dim=-1).mean(dim=1)

    def _step(self, words: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState, Tensor]:
        images, beams = words.shape
        inputs = self._inputs(words.unsqueeze(2), state.memory).flatten(0, 1)  # (B * K, 1, ...)
        before = tuple(part.flatten(1, 2).contiguous() for part in state.hidden)
        states, after = self.rnn(inputs, before if self.config.cell == "lstm" else before[0])
        hidden = after if self.config.cell == "lstm" else (after,)
        states = states.view(images, beams, -1)
        new_hidden = tuple(part.unflatten(1, (images, beams)) for part in hidden)
        return self.read_out(states, state.memory), state._replace(hidden=new_hidden), states

    def _inputs(self, words: Tensor, memory: Memory) -> Tensor:
        """Inputs of the recurrence for words (B, C, T): embeddings, beside them the picture."""
        embedded: Tensor = self.dropout(self.embedding(words))  # (B, C, T, E)
        if self.config.attention == "none":
            return embedded
        picture = memory.pooled[:, None, None, :].expand_as(embedded)
        return torch.cat([embedded, self.dropout(picture)], dim=-1)

    def _image_step(self, memory: Memory) -> tuple[Tensor, ...] | None:
        """Without attention, the state after the picture as the first input: (layers, B, H)."""
        if self.config.attention != "none":
            return None
        _, hidden = self.rnn(self.dropout(memory.pooled).unsqueeze(1))
        return tuple(hidden) if self.config.cell == "lstm" else (hidden,)

    def read_out(self, states: Tensor, memory: Memory) -> Tensor:
        """Hidden states (B, Q, H) and what they see in the picture -> (B, Q, E).

        What :meth:`logits` turns into scores.
        """
        if self.config.attention == "spatial":
            query = self._split_heads(self.query(states))
            seen = functional.scaled_dot_product_attention(query, memory.keys, memory.values)
            states = torch.cat([states, seen.transpose(1, 2).flatten(2)], dim=-1)  # (B, Q, 2H)
        out: Tensor = self.dropout(torch.tanh(self.readout(self.dropout(states))))
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
