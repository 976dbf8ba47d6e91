"""Which tensors a model file may bring."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from captioner.model.description import is_finite


@pytest.mark.parametrize(
    ("tensor", "finite"),
    [
        (torch.full((9,), 3e38), True),  # the sum of these is infinite
        (torch.tensor([3e38, 3e38, -torch.inf]), False),
        (torch.tensor([torch.inf, -torch.inf]), False),
        (torch.tensor([[0.0, torch.nan]]), False),
        (torch.zeros(0), True),
    ],
)
def test_values_that_are_not_finite_are_found(tensor: Tensor, finite: bool) -> None:
    assert is_finite(tensor) is finite
