"""Dropout by random bytes is dropout."""

from __future__ import annotations

import pytest
import torch

from captioner.networks.dropout import Dropout

SHAPE = (400, 1001)  # not a multiple of 8 values


@pytest.mark.parametrize(
    ("p", "dropped"), [(0.5, 128), (0.3, 77), (0.001, 1), (0.999, 255)], ids=str
)
def test_as_many_as_asked_for_are_dropped_and_the_mean_stays(p: float, dropped: int) -> None:
    torch.manual_seed(5)
    values = torch.ones(SHAPE, requires_grad=True)
    found = Dropout(p)(values)
    share = dropped / 256
    assert found.unique().tolist() == pytest.approx([0, 1 / (1 - share)])
    deviation = (share * (1 - share) / found.numel()) ** 0.5
    assert abs(float((found == 0).float().mean()) - share) < 4 * deviation
    (gradient,) = torch.autograd.grad(found.sum(), values)
    assert torch.equal(gradient, found)
    # Neighbours, and the same place in another row, are dropped by themselves.
    kept = (found != 0).float()
    for first, second in ((kept[:, 1:], kept[:, :-1]), (kept[1:], kept[:-1])):
        assert abs(float((first * second).mean()) - (1 - share) ** 2) < 8 * deviation


def test_the_seed_settles_what_is_dropped() -> None:
    dropout, values = Dropout(0.5), torch.ones(7)
    torch.manual_seed(6)
    first, second = dropout(values), dropout(values)
    torch.manual_seed(6)
    assert torch.equal(dropout(values), first)
    assert torch.equal(dropout(values), second)


@pytest.mark.parametrize("dropout", [Dropout(0.5).eval(), Dropout(0.0)], ids=["eval", "p=0"])
def test_nothing_is_dropped_otherwise(dropout: Dropout) -> None:
    values = torch.rand(3, 4)
    assert torch.equal(dropout(values), values)
