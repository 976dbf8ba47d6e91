"""Products that leave out zeros are the products."""

from __future__ import annotations

import pytest
import torch

from captioner.networks.sparse_products import SPARSE, WIDTH, SparseProduct

pytestmark = pytest.mark.arithmetic


@pytest.mark.parametrize("share", [0.0, 0.05, 0.9 * SPARSE, 1.1 * SPARSE, 1.0])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(9, 40, WIDTH + 24), (1, 3, 5), (0, 4, 2)])
def test_product_with_zeros(share: float, rows: int, inputs: int, outputs: int) -> None:
    generator = torch.manual_seed(0)
    given = torch.randn(rows, inputs, generator=generator)
    given *= torch.rand(rows, inputs, generator=generator) < share
    given[rows // 2 :][:1] = 0  # one whole row
    weight = torch.randn(inputs, outputs, generator=generator)
    expected = (given.double() @ weight.double()).float()
    torch.testing.assert_close(SparseProduct(weight)(given), expected, rtol=1e-5, atol=1e-5)


def test_what_is_not_a_number_stays_so() -> None:
    given = torch.zeros(4, 20)
    given[1, 3], given[2, 4] = torch.nan, torch.inf
    found = SparseProduct(torch.ones(20, 2))(given)
    assert found[:, 0].isfinite().tolist() == [True, False, False, True]
