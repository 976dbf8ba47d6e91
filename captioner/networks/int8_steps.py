"""The decoder word by word, with products of whole numbers of 8 bits."""

from __future__ import annotations

import torch
from torch import Tensor

from captioner.networks.decoder import Decoder
from captioner.networks.fast_steps import FastSteps
from captioner.networks.int8_product import Int8Product


class Int8Steps(FastSteps):
    """As `FastSteps`, less exact and in half the time; on a CPU, with ONNX Runtime.

    States and what the output layer reads are in [-1, 1]: they come out of a tanh. Each image's
    grid has a range of its own, and so has what each caption sees of it. What the layers of a
    recurrent cell give each other stays in float32, and so does the attention.

    Args:
        decoder: whose weights are used as they are now; in eval mode.
    """

    @torch.no_grad()
    def __init__(self, decoder: Decoder) -> None:
        super().__init__(decoder)
        self._of_hidden_states = [
            Int8Product(weight, bias if self._cell == "gru" else None)
            for _, weight, _, bias in self._layers
        ]
        self._of_state_int8 = Int8Product(self._of_state, self._bias_of_state)
        self._of_readout_int8 = Int8Product(decoder.output.weight)
        del self._of_state, self._of_readout
        if self._spatial:
            self._of_seen_int8 = Int8Product(self._of_seen)
            del self._of_seen
            self._of_grid = Int8Product(decoder.grid_projection.weight).with_one_range
            of_cells = torch.cat([decoder.key.weight, decoder.value.weight])
            self._of_cells = Int8Product(of_cells).with_one_range

    def _of_hidden(self, layer: int, before: Tensor) -> Tensor:
        return self._of_hidden_states[layer](before)

    def _read_state(self, states: Tensor) -> tuple[Tensor, Tensor]:
        of_query = self._size if self._spatial else 0
        both = self._of_state_int8(states)
        return both[:, :of_query], both[:, of_query:]

    def _add_seen(self, readout: Tensor, seen: Tensor) -> Tensor:
        return self._of_seen_int8.row_by_row(seen).add_(readout)

    def _score(self, readout: Tensor, scores: Tensor | None) -> Tensor:
        bias = self._decoder.output.bias
        found = self._of_readout_int8(readout.tanh())
        return found.add_(bias) if scores is None else scores.add_(bias).add_(found)
