"""A recurrent layer over captions of many lengths, as training runs it on a CPU.

``torch.nn`` either runs through the padding of shorter captions, or computes the gradient of the
recurrent weights step by step. Here a step has the captions that are long enough, and what does not
depend on the step before is one product for all words: inputs, and gradients of weights. Gates are
in the order that torch.nn.LSTM, GRU and RNN document, and so are the formulas.

Shapes: P words of N captions, laid out by :class:`~captioner.networks.layout.WordLayout`; H the
size of the hidden state, G gates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_sigmoid_backward = torch.ops.aten.sigmoid_backward
_tanh_backward = torch.ops.aten.tanh_backward


def recur(
    cell: str,
    counts: Sequence[int],
    inputs: Tensor,
    shared: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    start: tuple[Tensor, ...] | None,
) -> Tensor:
    """Hidden states (P, H) after each word.

    Under autocast, products are computed in its precision, all else in float32.

    Args:
        cell: ``rnn``, ``gru`` or ``lstm``.
        counts: how many captions have each step, never more than the step before.
        inputs: (P, G * H), the words times the input weights.
        shared: (N, G * H), what each caption adds to that in every step; None: nothing.
        weight: (G * H, H), the recurrent weights.
        bias: (G * H,), the hidden state's, of a GRU; that of others belongs to the inputs.
        start: (N, H) each, the state before the first word, of an LSTM h and c; None: zeros.
    """
    states: Tensor = _Recurrence.apply(
        cell, tuple(counts), inputs, shared, weight, bias, *(start or ())
    )
    return states


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        cell: str,
        counts: tuple[int, ...],
        inputs: Tensor,
        shared: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        *start: Tensor,
    ) -> Tensor:
        kind = inputs.device.type
        ctx.cell, ctx.counts = cell, counts
        ctx.precision = weight.dtype
        if torch.is_autocast_enabled(kind):
            ctx.precision = torch.get_autocast_dtype(kind)
        ctx.has_shared, ctx.has_bias = shared is not None, bias is not None
        size = weight.shape[1]
        gates = torch.empty(inputs.shape, dtype=weight.dtype, device=inputs.device)
        states, extra = gates.new_empty(2, len(inputs), size).unbind()
        before = start or (gates.new_zeros(counts[0], size),) * 2
        with torch.autocast(kind, enabled=False):
            recurrent_weight = weight.to(ctx.precision).t()
            for step, (first, last) in enumerate(_spans(counts)):
                rows = slice(first, last)
                before = tuple(part[: last - first] for part in before)
                if shared is None:
                    gates[rows] = inputs[rows]
                else:
                    torch.add(inputs[rows], shared[: last - first], out=gates[rows])
                recurrent = None
                if step or start:
                    recurrent = before[0].to(ctx.precision) @ recurrent_weight
                before = _FORWARD[cell](gates[rows], recurrent, bias, before, extra[rows])
                states[rows] = before[0]
        ctx.save_for_backward(gates, states, extra, weight, *start)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        gates, states, extra, weight, *start = ctx.saved_tensors
        counts, cell, size = ctx.counts, ctx.cell, states.shape[1]
        before, used = _states_before(states, counts, start[0] if start else None)
        cells_before = None
        if cell == "lstm":
            cells_before, _ = _states_before(extra, counts, start[1] if start else None)
        of_inputs = torch.empty_like(gates)
        of_recurrent = torch.empty_like(gates) if cell == "gru" else of_inputs
        of_hidden, of_cell = gates.new_zeros(2, counts[0], size).unbind()
        of_shared = gates.new_zeros(counts[0], gates.shape[1]) if ctx.has_shared else None
        recurrent_weight = weight.to(ctx.precision)
        for first, last in reversed(list(_spans(counts))):
            rows, here = slice(first, last), slice(0, last - first)
            of_hidden[here] += gradients[0][rows]
            _BACKWARD[cell](
                (gates[rows], extra[rows], before[rows], of_hidden[here], of_cell[here]),
                cells_before[rows] if cells_before is not None else None,
                of_inputs[rows],
                of_recurrent[rows],
            )
            if first or start:
                of_hidden[here] += of_recurrent[rows].to(ctx.precision) @ recurrent_weight
            if of_shared is not None:
                of_shared[here] += of_inputs[rows]
        of_weight = of_recurrent[used:].to(ctx.precision).t() @ before[used:].to(ctx.precision)
        return (
            None,
            None,
            of_inputs,
            of_shared,
            of_weight,
            of_recurrent.sum(0) if ctx.has_bias else None,
            *((of_hidden, of_cell)[: len(start)]),
        )


def _spans(counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first word of each step, and the first of the next one."""
    return pairwise(accumulate(counts, initial=0))


def _states_before(
    states: Tensor, counts: Sequence[int], start: Tensor | None
) -> tuple[Tensor, int]:
    """The state (P, H) before each word, and how many of them are zeros, the first ones."""
    first = states.new_zeros(counts[0], states.shape[1]) if start is None else start
    spans = zip(_spans(counts), counts[1:], strict=False)
    parts = [states[begin : begin + following] for (begin, _), following in spans]
    return torch.cat([first, *parts]), counts[0] if start is None else 0


def _rnn(
    gates: Tensor,
    recurrent: Tensor | None,
    bias: Tensor | None,
    before: tuple[Tensor, ...],
    extra: Tensor,
) -> tuple[Tensor, ...]:
    if recurrent is not None:
        gates += recurrent
    return (gates.tanh_(),)


def _rnn_back(kept: Sequence[Tensor], _: Tensor | None, of_inputs: Tensor, __: Tensor) -> None:
    gates, _extra, _before, of_hidden, _of_cell = kept
    _tanh_backward(of_hidden, gates, grad_input=of_inputs)
    of_hidden.zero_()


def _lstm(
    gates: Tensor,
    recurrent: Tensor | None,
    bias: Tensor | None,
    before: tuple[Tensor, ...],
    extra: Tensor,
) -> tuple[Tensor, ...]:
    """``extra`` receives the cell's state."""
    if recurrent is not None:
        gates += recurrent
    size = extra.shape[1]
    gates[:, : 2 * size].sigmoid_()
    in_, forget, new, out = gates.chunk(4, dim=1)
    new.tanh_()
    out.sigmoid_()
    torch.mul(forget, before[1], out=extra).addcmul_(in_, new)
    return extra.tanh().mul_(out), extra


def _lstm_back(
    kept: Sequence[Tensor], cells_before: Tensor | None, of_inputs: Tensor, _: Tensor
) -> None:
    gates, extra, _before, of_hidden, of_cell = kept
    assert cells_before is not None
    in_, forget, new, out = gates.chunk(4, dim=1)
    of_in, of_forget, of_new, of_out = of_inputs.chunk(4, dim=1)
    seen = extra.tanh()
    _sigmoid_backward(of_hidden * seen, out, grad_input=of_out)
    of_cell += _tanh_backward(of_hidden.mul_(out), seen)
    _sigmoid_backward(of_cell * new, in_, grad_input=of_in)
    _sigmoid_backward(of_cell * cells_before, forget, grad_input=of_forget)
    _tanh_backward(of_cell * in_, new, grad_input=of_new)
    of_cell *= forget
    of_hidden.zero_()


def _gru(
    gates: Tensor,
    recurrent: Tensor | None,
    bias: Tensor | None,
    before: tuple[Tensor, ...],
    extra: Tensor,
) -> tuple[Tensor, ...]:
    """``extra`` receives what the reset gate multiplies."""
    assert bias is not None
    size = extra.shape[1]
    sums = bias.expand_as(gates) if recurrent is None else recurrent + bias
    gates[:, : 2 * size].add_(sums[:, : 2 * size]).sigmoid_()
    reset, update, new = gates.chunk(3, dim=1)
    extra.copy_(sums[:, 2 * size :])
    new.addcmul_(reset, extra).tanh_()
    return (torch.lerp(new, before[0], update),)


def _gru_back(
    kept: Sequence[Tensor], _: Tensor | None, of_inputs: Tensor, of_recurrent: Tensor
) -> None:
    gates, extra, before, of_hidden, _of_cell = kept
    reset, update, new = gates.chunk(3, dim=1)
    of_reset, of_update, of_new = of_inputs.chunk(3, dim=1)
    _sigmoid_backward(of_hidden * (before - new), update, grad_input=of_update)
    _tanh_backward(torch.addcmul(of_hidden, of_hidden, update, value=-1), new, grad_input=of_new)
    _sigmoid_backward(of_new * extra, reset, grad_input=of_reset)
    of_recurrent.copy_(of_inputs)
    of_recurrent[:, 2 * before.shape[1] :] *= reset
    of_hidden *= update


_FORWARD = {"rnn": _rnn, "gru": _gru, "lstm": _lstm}
_BACKWARD = {"rnn": _rnn_back, "gru": _gru_back, "lstm": _lstm_back}
"""They leave in the gradient of the hidden state what does not come through the weights."""
