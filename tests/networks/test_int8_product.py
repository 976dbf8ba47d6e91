"""Products of whole numbers of 8 bits: exact where nothing is rounded, and row by row."""

from __future__ import annotations

import pytest
import torch

from captioner.networks.int8_product import LARGEST, LARGEST_WEIGHT, Int8Product

pytestmark = pytest.mark.arithmetic


def random_whole(shape: tuple[int, int], largest: int, seed: int) -> torch.Tensor:
    """Whole numbers up to the largest, which stands in each row."""
    found = torch.randint(-largest, largest + 1, shape, generator=torch.manual_seed(seed)).float()
    found[:, 0] = largest
    return found


@pytest.mark.parametrize("with_bias", [False, True])
def test_whole_numbers_are_multiplied_exactly(with_bias: bool) -> None:
    weight, rows = random_whole((40, 100), LARGEST_WEIGHT, 0), random_whole((7, 100), LARGEST, 1)
    bias = torch.arange(40.0) if with_bias else None
    expected = rows @ weight.T / LARGEST + (bias if bias is not None else 0.0)
    product = Int8Product(weight, bias)
    torch.testing.assert_close(product(rows / LARGEST), expected)


def test_rows_of_any_numbers_are_multiplied() -> None:
    weight, rows = random_whole((40, 100), LARGEST_WEIGHT, 0), random_whole((7, 100), LARGEST, 1)
    product = Int8Product(weight)
    torch.testing.assert_close(product.with_one_range(-3 * rows), -3 * rows @ weight.T)
    sizes = torch.arange(7.0)[:, None]
    torch.testing.assert_close(product.row_by_row(sizes * rows), sizes * rows @ weight.T)
    assert not product.with_one_range(0 * rows).any()


def test_nothing_overflows() -> None:
    ones = torch.ones(1, 512)
    weight = torch.cat([ones, -ones, torch.zeros(1, 512)]) * 5
    expected = torch.tensor([[2560.0, -2560.0, 0.0]])
    for row, product in ((ones, expected), (-ones, -expected), (2 * ones, expected)):
        torch.testing.assert_close(Int8Product(weight)(row), product)


def test_a_row_gives_the_same_in_any_product() -> None:
    random = torch.manual_seed(0)
    product = Int8Product(torch.rand(5200, 64, generator=random) - 0.5)
    rows = torch.rand(96, 64, generator=random) - 0.5
    whole = product(rows)
    for count in (1, 5, 8, 40):
        assert torch.equal(product(rows[-count:]), whole[-count:])
