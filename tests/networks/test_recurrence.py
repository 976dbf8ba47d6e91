"""The recurrence over captions of many lengths does what torch.nn does, and so do its gradients."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from captioner.networks.decoder import RNNS
from captioner.networks.recurrence import recur

pytestmark = pytest.mark.arithmetic

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
COUNTS, E, S, H = (4, 4, 2, 1), 5, 3, 6  # S: of what a caption adds in every step
RANKS = [rank for count in COUNTS for rank in range(count)]


@pytest.mark.parametrize(
    ("cell", "begun", "has_shared"), list(product(GATES, (False, True), (False, True)))
)
def test_states_and_gradients_are_those_of_torch(cell: str, begun: bool, has_shared: bool) -> None:
    torch.manual_seed(3)
    network = RNNS[cell](E + S, H).double()
    inputs = torch.randn(len(RANKS), E, dtype=torch.double, requires_grad=True)
    of_captions = torch.randn(COUNTS[0], S, dtype=torch.double, requires_grad=True)
    parts = 2 if cell == "lstm" else 1
    start = [
        torch.randn(COUNTS[0], H, dtype=torch.double, requires_grad=True) for _ in range(parts)
    ]
    learnt = [*network.parameters(), inputs, of_captions, *start[: begun * parts]]
    weights = torch.randn(len(RANKS), H, dtype=torch.double)

    def by_torch() -> Tensor:
        whole = torch.cat([inputs, of_captions[RANKS]], dim=1)
        packed = PackedSequence(whole, torch.tensor(COUNTS))
        first = tuple(part[None] for part in start)
        if not begun:
            return network(packed)[0].data
        return network(packed, first if cell == "lstm" else first[0])[0].data

    def by_us() -> Tensor:
        of_inputs, of_states, bias, bias_of_states = network.all_weights[0]
        of_words, of_image = of_inputs.split([E, S], dim=1)
        if cell != "gru":
            bias, bias_of_states = bias + bias_of_states, None
        shared = functional.linear(of_captions, of_image, bias)
        known = functional.linear(inputs, of_words)
        if not has_shared:
            known, shared = known + shared[RANKS], None
        first = tuple(start) if begun else None
        return recur(cell, COUNTS, known, shared, of_states, bias_of_states, first)

    expected, found = by_torch(), by_us()
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad((expected * weights).sum(), learnt)
    gradients = torch.autograd.grad((found * weights).sum(), learnt)
    for gradient, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, other)
        assert other.abs().max() > 0


@pytest.mark.parametrize("cell", GATES)
def test_bf16_rounds_the_products_alone(cell: str) -> None:
    torch.manual_seed(4)
    inputs = torch.randn(len(RANKS), GATES[cell] * H)
    weight = torch.randn(GATES[cell] * H, H, requires_grad=True)
    bias = torch.randn(GATES[cell] * H) if cell == "gru" else None
    exact = recur(cell, COUNTS, inputs, None, weight, bias, None)
    (wanted,) = torch.autograd.grad(exact.square().sum(), weight)
    with torch.autocast("cpu", torch.bfloat16):
        found = recur(cell, COUNTS, inputs, None, weight, bias, None)
    (gradient,) = torch.autograd.grad(found.square().sum(), weight)
    assert found.dtype is gradient.dtype is torch.float32
    assert torch.equal(found[: COUNTS[0]], exact[: COUNTS[0]])  # no product yet
    assert 1e-5 < (found - exact).abs().max() < 0.1
    assert 1e-5 < (gradient - wanted).norm() / wanted.norm() < 0.1
