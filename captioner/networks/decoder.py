"""Grid features and words so far -> next-word logits: a recurrent decoder with visual attention.

The recurrence reads words (and the whole image) first; its hidden states then attend to the
grid. Attention after the recurrence (Lu et al. 2017, section 2.2, "spatial attention") makes a
training step parallel over the sentence: nothing walks through time in Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from captioner.errors import CaptionerError
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
    (B, heads, R, H / heads), or empty tensors (B, 0) without attention.
    """

    pooled: Tensor
    keys: Tensor
    values: Tensor

    def select_images(self, images: Tensor) -> Memory:
        """Keep these images (B',), in this order."""
        return Memory(*(part.index_select(0, images) for part in self))


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
        spatial = config.attention == "spatial"
        self.embedding = nn.Embedding(vocab_size, embed)
        self.pooled_projection = nn.Linear(feature_size, embed)
        self.style = 0
        if config.styles:
            self.style_embedding = nn.Embedding(len(config.styles), embed)
            nn.init.zeros_(self.style_embedding.weight)
        self.rnn = RNNS[config.cell](
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
        hidden = self.image_step(memory)
        start = None
        if hidden is not None:
            repeated = tuple(h.repeat_interleave(captions, dim=1)[:, present] for h in hidden)
            start = repeated if self.config.cell == "lstm" else repeated[0]
        found, _ = self.rnn(inputs, start)  # (N, T, H)
        states = found.new_zeros(images * captions, *found.shape[1:]).index_copy(0, present, found)
        states = states.reshape(images, captions * length, -1)
        return self.read_out(states, memory).view(images, captions, length, -1)

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

    def attention(self, states: Tensor, memory: Memory) -> Tensor:
        """Attention weights (B, Q, R) of hidden states (B, Q, H), the mean over the heads.

        Raises:
            CaptionerError: when the decoder has no attention.
        """
        if self.config.attention == "none":
            raise CaptionerError("attention=none: this captioner attends to no part of the image")
        query = self._split_heads(self.query(states))  # (B, heads, Q, H / heads)
        scores = query @ memory.keys.transpose(2, 3) * query.shape[-1] ** -0.5
        weights: Tensor = scores.softmax(dim=-1).mean(dim=1)
        return weights

    def _inputs(self, words: Tensor, memory: Memory) -> Tensor:
        """Inputs of the recurrence for words (B, C, T): embeddings, beside them the image."""
        embedded: Tensor = self.dropout(self.embedding(words))  # (B, C, T, E)
        if self.config.attention == "none":
            return embedded
        image = memory.pooled[:, None, None, :].expand_as(embedded)
        return torch.cat([embedded, self.dropout(image)], dim=-1)

    def image_step(self, memory: Memory) -> tuple[Tensor, ...] | None:
        """Without attention, the state after the image as the first input: (layers, B, H)."""
        if self.config.attention != "none":
            return None
        _, hidden = self.rnn(self.dropout(memory.pooled).unsqueeze(1))
        return tuple(hidden) if self.config.cell == "lstm" else (hidden,)

    def read_out(self, states: Tensor, memory: Memory) -> Tensor:
        """Hidden states (B, Q, H) and what they see in the image -> (B, Q, E).

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
