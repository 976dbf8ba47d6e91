"""Depthwise convolutions with gradients of tiles."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from captioner.networks.depthwise import DepthwiseConvolution, TiledConv2d
from helpers.encoders import difference, trained_norms

pytestmark = pytest.mark.arithmetic

EPS = 2**-7  # of bf16, twice: some processors round sums on their way too

KERNELS = [  # kernel, stride, padding
    pytest.param((5, 5), (1, 1), (2, 2), id="5x5"),
    pytest.param((5, 5), (2, 2), (0, 0), id="5x5, stride 2, no padding"),
    pytest.param((7, 7), (1, 1), (3, 3), id="7x7: three tiles a side"),
    pytest.param((5, 9), (2, 1), (2, 4), id="5x9, unequal strides"),
]


@pytest.mark.parametrize(("kernel", "stride", "padding"), KERNELS)
def test_gradients_are_those_of_the_plain_convolution(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    layer = TiledConv2d(6, 6, kernel, stride, padding, groups=6, bias=False)
    # Numbers that bf16 holds exactly: what differs then is the rounding of results alone.
    layer.weight.data.copy_(torch.randint(-3, 4, layer.weight.shape) / 4)
    images = (torch.randint(-8, 9, (2, 6, 13, 11)) / 8).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = layer(images)
    assert type(outputs.grad_fn).__name__ == f"{DepthwiseConvolution.__name__}Backward"
    assert outputs.dtype is torch.bfloat16
    towards = torch.randint(-4, 5, outputs.shape) / 4
    found = torch.autograd.grad(outputs, [images, layer.weight], towards.bfloat16())

    expected = functional.conv2d(images, layer.weight, None, stride, padding, groups=6)
    torch.testing.assert_close(outputs.float(), expected, rtol=EPS, atol=EPS)
    right = torch.autograd.grad(expected, [images, layer.weight], towards)
    for each, true in zip(found, right, strict=True):
        assert each.dtype is torch.float32
        torch.testing.assert_close(each, true, rtol=EPS, atol=EPS * float(true.abs().max()))


def test_a_norm_is_computed_with_a_tiled_convolution() -> None:
    torch.manual_seed(0)
    layer = TiledConv2d(4, 4, 5, padding=2, groups=4, bias=False)
    norm = nn.BatchNorm2d(4).eval().requires_grad_(False)
    trained_norms(norm)
    images = torch.randn(2, 4, 8, 8)
    expected = norm(layer(images))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(images, norm)
    assert type(found.grad_fn).__name__ == f"{DepthwiseConvolution.__name__}Backward"
    torch.testing.assert_close(found.float(), expected, rtol=4 * EPS, atol=4 * EPS)
    gradients = [torch.autograd.grad(each.sum(), layer.weight)[0] for each in (found, expected)]
    assert difference(*gradients) < 4 * EPS


def test_other_layers_and_other_precisions_are_left_alone() -> None:
    images = torch.randn(1, 4, 8, 8)
    wide = TiledConv2d(4, 4, 5, padding=2, groups=4, bias=False)
    plain = nn.Conv2d(4, 4, 5, padding=2, groups=4, bias=False)
    plain.load_state_dict(wide.state_dict())
    assert type(wide(images).grad_fn).__name__ == "ConvolutionBackward0"
    torch.testing.assert_close(wide(images), plain(images), rtol=0, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for layer in (
            TiledConv2d(4, 4, 3, padding=1, groups=4, bias=False),
            TiledConv2d(4, 8, 5, padding=2, bias=False),
            TiledConv2d(4, 4, 5, padding=2, groups=4),
        ):
            assert type(layer(images).grad_fn).__name__ == "ConvolutionBackward0"
        with torch.no_grad():
            assert wide(images).grad_fn is None
