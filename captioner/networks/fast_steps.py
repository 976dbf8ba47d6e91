"""The decoder word by word, as it captions: what `DecoderSteps` says, sooner.

Every word is multiplied beforehand, zeros in the features are left out, products of the same input
are one, and places without a caption take no part.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from captioner.networks.decoder import Decoder, Memory, UpperLayer
from captioner.networks.decoder_steps import DecoderState, DecoderSteps, Say
from captioner.networks.features import ImageFeatures
from captioner.networks.sparse_products import SparseProduct

ROWS = 8
"""Products have a multiple of so many rows, so that few sizes have to be tried."""

_Product = Callable[[Tensor], Tensor]


class Evidence(NamedTuple):
    """What speaks for words besides the decoder.

    Attributes:
        scores: (B, V), added to the logits of an image's captions.
        spent: (B, K, S) int64, words to whose logits nothing is added in a caption.
    """

    scores: Tensor
    spent: Tensor


class FastSteps(DecoderSteps):
    """A decoder that reads captions word by word; says what the decoder does, up to rounding.

    Without gradients. What it prepares pays for itself after some captions.

    Args:
        decoder: whose weights are used as they are now; in eval mode.
    """

    @torch.no_grad()
    def __init__(self, decoder: Decoder) -> None:
        super().__init__(decoder)
        self._attends = decoder.config.attention != "none"
        self._table = linear(decoder.embedding.weight, self._of_words)  # (V, G * H)
        self._make_products([_weights_of_states(decoder, each) for each in decoder.attending()])
        self._trials: dict[tuple[int, int], Tensor | None] = {}

    def _make_products(self, of_states: list[tuple[Tensor, Tensor]]) -> None:
        """Make weights ready: those of queries and readout, and the decoder's others."""
        decoder = self._decoder
        self._of_states: list[_Product] = [
            partial(linear, weight=weight, bias=bias) for weight, bias in of_states
        ]
        # A transposed copy is multiplied faster, by a tenth.
        self._of_readout = decoder.output.weight.T.contiguous()  # (E, V)
        if self._attends:
            self._of_seen = self._weights_of_seen()
            self._of_grid: _Product = SparseProduct(decoder.grid_projection.weight.T)  # (D, H)
            self._of_cells: _Product = SparseProduct(self._weight_of_cells().T)  # (H, 2LH)

    def _weights_of_seen(self) -> list[Tensor]:
        """What each layer's readout takes of what is seen, (E, H)."""
        return [each.readout.weight[:, self._size :] for each in self._decoder.attending()]

    def _weight_of_cells(self) -> Tensor:
        """Of the keys and then the values of all L layers that attend, (2LH, H)."""
        layers = self._decoder.attending()
        weights = [each.key.weight for each in layers] + [each.value.weight for each in layers]
        return torch.cat(weights)

    def step(self, words: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Read one more word of every caption, as `DecoderSteps` does."""
        logits, after = self.step_open(words, state, torch.ones_like(words, dtype=torch.bool))
        return logits.view(*words.shape, -1), after

    @torch.no_grad()
    def step_open(
        self, words: Tensor, state: DecoderState, open_: Tensor, evidence: Evidence | None = None
    ) -> tuple[Tensor, DecoderState]:
        """Read one more word of the open captions; what a place gives depends on no other place.

        Where some are not open, products of fewer rows are computed, if trial shows that these give
        a row the same numbers as those of all rows, to the last bit.

        Args:
            words: (B, K) int64.
            state: as :meth:`start` or the step before returned it.
            open_: (B, K) bool, which captions are to be continued.
            evidence: what speaks for words besides.

        Returns:
            logits (N, V) of the next words of the N open captions, image by image, and the new
            state, which means nothing where captions are not open.
        """
        beams, count = words.shape[1], words.numel()
        there = open_.flatten().nonzero()[:, 0]
        places = _Places(there, self._rows_for(len(there), count), count)
        images = places.rows // beams  # (N',)
        inputs = self._table.index_select(0, places.take(words.flatten()))
        inputs += state.image.index_select(0, images)

        def say(number: int, states: Tensor) -> Tensor:
            query, said = self._read_state(number, states)
            if not self._attends:
                return said
            queries = places.put_back(query).reshape(*words.shape, -1)
            seen = self._look(queries, number, state.memory)
            return self._add_seen(number, said, places.take(seen))

        before = places.take(state.places().flatten())
        hidden, readout = self._continue(inputs, state.hidden, before, say)
        scores = None
        if evidence is not None:
            spent = places.take(evidence.spent.flatten(0, 1))
            scores = evidence.scores.index_select(0, images).scatter_(1, spent, 0.0)
        logits = places.of_captions(self._score(readout, scores))
        after = tuple(places.put_back(p, 1).view(len(p), *words.shape, -1) for p in hidden)
        return logits, state.following(after)

    def _memory(self, features: ImageFeatures, styles: Tensor | None) -> Memory:
        """What the decoder keeps of the images; on a CPU, computed for one after the other."""
        if not self._attends:
            return super()._memory(features, styles)
        if features.grid.device.type != "cpu":
            return Memory(*(part.contiguous() for part in super()._memory(features, styles)))
        # The whole image's part is the decoder's own.
        pooled = super()._memory(features._replace(grid=features.grid[:, :0]), styles).pooled
        images, cells, _ = features.grid.shape
        layers, heads = len(self._decoder.attending()), self._decoder.config.heads
        keys, values = pooled.new_empty(2, layers, images, heads, cells, self._size // heads)
        for image, grid in enumerate(features.grid):
            projected = self._of_grid(grid).add_(self._decoder.grid_projection.bias)
            both = self._of_cells(projected.relu_())  # (R, 2LH)
            both = both.view(cells, 2, layers, heads, -1).permute(1, 2, 3, 0, 4)
            keys[:, image], values[:, image] = both[0], both[1]
        return Memory(pooled, keys, values)

    def _continue(
        self, inputs: Tensor, hidden: tuple[Tensor, ...], before: Tensor, say: Say
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """As `_recur`, of N captions that continue old ones, which can be the same.

        Args:
            inputs: gates (N, G * H).
            hidden: of the old captions, (layers, B, K, H).
            before: which of the B * K each continues (N,).
            say: see `DecoderSteps`.
        """
        flat = tuple(part.flatten(1, 2) for part in hidden)  # (layers, B * K, H)
        different, which = torch.unique(before, return_inverse=True)
        whole = flat[0].shape[1]
        places = _Places(different, self._rows_for(len(different), whole), whole)
        recurrent = [
            self._of_hidden(layer, places.take(state)).index_select(0, places.find(before, which))
            for layer, state in enumerate(flat[0])
        ]
        old = tuple(part.index_select(1, before) for part in flat)
        return self._advance(inputs, recurrent, old, say)

    def _read_state(self, number: int, states: Tensor) -> tuple[Tensor, Tensor]:
        """Query (N, H), or (N, 0) without attention, and the states' part of the readout (N, E)."""
        both = self._of_states[number](states)
        of_query = self._size if self._attends else 0
        return both[:, :of_query], both[:, of_query:]

    def _look(self, queries: Tensor, number: int, memory: Memory) -> Tensor:
        """What a layer's queries (B, K, H) see in the images, (B * K, H)."""
        images, beams, _ = queries.shape
        split = queries.view(images, beams, self._decoder.config.heads, -1).transpose(1, 2)
        # For so few queries, faster than scaled_dot_product_attention.
        scores = (split * split.shape[-1] ** -0.5) @ memory.keys[number].transpose(2, 3)
        seen: Tensor = scores.softmax(dim=-1) @ memory.values[number]
        return seen.transpose(1, 2).flatten(2).flatten(0, 1)

    def _add_seen(self, number: int, said: Tensor, seen: Tensor) -> Tensor:
        """The whole of what a layer says (N, E): the states' part and what is seen (N, H)."""
        return torch.addmm(said, seen, self._of_seen[number].T)

    def _score(self, readout: Tensor, scores: Tensor | None) -> Tensor:
        """Logits (N, V) of what was read (N, E), added to other scores (N, V)."""
        bias = self._decoder.output.bias
        begun = bias.repeat(len(readout), 1) if scores is None else scores.add_(bias)
        return begun.addmm_(readout.tanh(), self._of_readout)

    def _rows_for(self, needed: int, whole: int) -> int:
        """How many rows are multiplied for captions in `needed` of `whole` places."""
        count = -(-max(needed, 1) // ROWS) * ROWS
        if count >= whole:
            return whole
        fewer, all_ = self._trial(count), self._trial(whole)
        return count if fewer is not None and all_ is not None and fewer.equal(all_) else whole

    def _trial(self, count: int) -> Tensor | None:
        """What one caption gives in every row of products of `count` rows; None if it differs.

        How a matrix library adds up depends on the size of the product and of the rows' place in
        it, if at all, and not on the numbers: so one row of them is enough.
        """
        key = count, torch.get_num_threads()
        if key not in self._trials:
            random = torch.Generator().manual_seed(0)
            row = torch.rand(1, self._size, generator=random) - 0.5
            states = row.to(self._table).repeat(count, 1)
            parts = 2 if self._cell == "lstm" else 1
            before = (states.expand(len(self._layers), -1, -1),) * parts
            queries: list[Tensor] = []

            def say(number: int, of_rows: Tensor) -> Tensor:
                query, said = self._read_state(number, of_rows)
                queries.append(query)
                return self._add_seen(number, said, states) if self._attends else said

            hidden, readout = self._recur(self._table[:1].repeat(count, 1), before, say)
            after = (part.transpose(0, 1).flatten(1) for part in hidden)
            found = torch.cat([*after, *queries, self._score(readout, None)], dim=1)
            self._trials[key] = found[0].clone() if bool((found == found[0]).all()) else None
        return self._trials[key]


def _weights_of_states(decoder: Decoder, layer: Decoder | UpperLayer) -> tuple[Tensor, Tensor]:
    """Weights (H + E, H) and biases (H + E,) of what a layer's states give: query and readout.

    Without attention, (E, H) and (E,).
    """
    size = decoder.config.hidden_size
    of_states = layer.readout.weight[:, :size]
    bias: Tensor | None = layer.readout.bias  # an upper layer has none
    bias = of_states.new_zeros(len(of_states)) if bias is None else bias.detach()
    if decoder.config.attention == "none":
        return of_states, bias
    # Query and readout both read the state.
    return torch.cat([layer.query.weight, of_states]), pad(bias, (size, 0))


def current_steps(known: FastSteps | None, decoder: Decoder, precision: str) -> FastSteps:
    """What reads captions with the weights that a decoder has now.

    Args:
        known: made earlier; returned if it still is what is wanted.
        decoder: in eval mode.
        precision: one of `captioner.networks.precisions.PRECISIONS`; all but int8, which is for
            CPUs, leave the decoder in float32.
    """
    kind: type[FastSteps] = FastSteps
    if precision == "int8":
        from captioner.networks.int8_steps import Int8Steps

        kind = Int8Steps
    return known if type(known) is kind and known.is_current(decoder) else kind(decoder)


class _Places:
    """The places of a batch that are computed: ``rows`` (N',).

    Args:
        there: places that hold a caption (N,), in their order.
        count: how many are computed: all, or these and some that fill up.
        whole: how many there are.
    """

    def __init__(self, there: Tensor, count: int, whole: int) -> None:
        self._there, self._whole = there, whole
        self._all = count == whole
        fill = (0, count - len(there))
        self.rows = torch.arange(whole, device=there.device) if self._all else pad(there, fill)

    def take(self, of_places: Tensor, dim: int = 0) -> Tensor:
        """Of what is there for every place, that of the rows."""
        return of_places if self._all else of_places.index_select(dim, self.rows)

    def find(self, places: Tensor, among: Tensor) -> Tensor:
        """The rows of some places, given where these are among those that hold a caption."""
        return places if self._all else among

    def put_back(self, of_rows: Tensor, dim: int = 0) -> Tensor:
        """Of what is there for every row, that of the places; 0 where there is no caption."""
        if self._all:
            return of_rows
        shape = (*of_rows.shape[:dim], self._whole, *of_rows.shape[dim + 1 :])
        known = of_rows.narrow(dim, 0, len(self._there))
        return of_rows.new_zeros(shape).index_copy_(dim, self._there, known)

    def of_captions(self, of_rows: Tensor) -> Tensor:
        """Of what is there for every row, that of the captions."""
        if not self._all:
            return of_rows[: len(self._there)]
        return of_rows if len(self._there) == self._whole else of_rows[self._there]
