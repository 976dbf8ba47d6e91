"""Depthwise convolutions whose gradients are fast on a CPU in bf16.

oneDNN, which computes convolutions on CPUs, has fast gradients in bf16 for kernels of 3 x 3 and for
strides of 1, and falls back to plain loops for the rest: of a training step of EfficientNet-lite2's
last stages, four fifths went into them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

TILE = 3  # the side of the kernels whose gradients are fast


class TiledConv2d(nn.Conv2d):
    """A convolution that takes ``DepthwiseConvolution`` where that is faster."""

    def forward(self, images: Tensor, norm: nn.BatchNorm2d | None = None) -> Tensor:
        """(B, C, height, width) -> (B, C', height', width').

        Args:
            images: its input.
            norm: a frozen BatchNorm, computed with the convolution: its scales are multiplied into
                the weight in each step, and what is learnt is still the weight.
        """
        weight, bias = self.weight, self.bias
        if norm is not None:
            weight, bias = _folded(weight, bias, norm)
        if not self._is_slow(images):
            plain: Tensor = self._conv_forward(images, weight, bias)
            return plain
        margins = self.padding
        assert not isinstance(margins, str), "margins are numbers here"
        top, left = margins
        if top or left:
            images = functional.pad(images, (left, left, top, top))
        found: Tensor = DepthwiseConvolution.apply(images, weight, bias, self.stride)
        return found

    def _is_slow(self, images: Tensor) -> bool:
        """Whether the gradients of this layer would be computed by plain loops."""
        return (
            torch.is_grad_enabled()
            and images.device.type == "cpu"
            and torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") is torch.bfloat16
            and self.groups == self.in_channels == self.out_channels > 1
            and (self.bias is None or not self.bias.requires_grad)
            and self.dilation == (1, 1)
            and all(side % 2 == 1 and side > TILE for side in self.kernel_size)
        )


def _folded(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight (C, ...) and bias (C,) that do what the convolution and then the norm do."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None, "a frozen BatchNorm has statistics"
    scale = norm.weight * (variance + norm.eps).rsqrt()
    shift = norm.bias - mean * scale
    return weight * scale[:, None, None, None], shift if bias is None else shift + bias * scale


class DepthwiseConvolution(torch.autograd.Function):
    """A depthwise convolution of padded images in bf16, with gradients made of fast ones."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int]
    ) -> Tensor:
        """Images (B, C, height, width), weight (C, 1, k, l) -> (B, C, height', width').

        The bias (C,) is not learnt.
        """
        images, kernel = images.bfloat16(), weight.bfloat16()
        bias = None if bias is None else bias.bfloat16()
        ctx.save_for_backward(images, kernel)
        ctx.stride, ctx.precision = stride, weight.dtype
        with torch.autocast("cpu", enabled=False):
            return functional.conv2d(images, kernel, bias, stride, groups=len(kernel))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Gradients of the images and of the weight."""
        images, kernel = ctx.saved_tensors
        gradient = gradients[0].bfloat16().contiguous(memory_format=torch.channels_last)
        of_images, of_weight, *_ = ctx.needs_input_grad
        return (
            _gradient_of_images(images, kernel, gradient, ctx.stride) if of_images else None,
            _gradient_of_weight(images, kernel, gradient, ctx.stride).to(ctx.precision)
            if of_weight
            else None,
            None,
            None,
        )


def _gradient_of_images(
    images: Tensor, kernel: Tensor, gradient: Tensor, stride: tuple[int, int]
) -> Tensor:
    if stride == (1, 1):
        return _gradient(gradient, images, kernel, stride, of_weight=False)
    # Fast in float32 only.
    found = _gradient(gradient.float(), images.float(), kernel.float(), stride, of_weight=False)
    return found.to(images.dtype)


def _gradient_of_weight(
    images: Tensor, kernel: Tensor, gradient: Tensor, stride: tuple[int, int]
) -> Tensor:
    """Of each tile of the kernel by itself, as if it were a kernel; tiles may overlap."""
    found = torch.empty_like(kernel, memory_format=torch.contiguous_format)
    tile = kernel.new_empty(len(kernel), 1, TILE, TILE)
    height, width = (
        (steps - 1) * by + TILE for steps, by in zip(gradient.shape[-2:], stride, strict=True)
    )
    for top in _tiles(kernel.shape[-2]):
        for left in _tiles(kernel.shape[-1]):
            seen = images[..., top : top + height, left : left + width]
            seen = seen.contiguous(memory_format=torch.channels_last)
            found[..., top : top + TILE, left : left + TILE] = _gradient(
                gradient, seen, tile, stride, of_weight=True
            )
    return found


def _tiles(side: int) -> list[int]:
    """Where tiles begin that cover a side: 5 -> 0, 2; 7 -> 0, 3, 4."""
    return [*range(0, side - TILE, TILE), side - TILE]


def _gradient(
    gradient: Tensor, images: Tensor, kernel: Tensor, stride: tuple[int, int], of_weight: bool
) -> Tensor:
    of_images, of_kernel, _ = torch.ops.aten.convolution_backward(
        gradient,
        images,
        kernel,
        None,
        stride,
        (0, 0),
        (1, 1),
        False,
        (0, 0),
        len(kernel),
        (not of_weight, of_weight, False),
    )
    found: Tensor = of_kernel if of_weight else of_images
    return found
