"""The layers of a CNN's graph.

Maps are (B, C, height, width) before and after each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from captioner.networks.depthwise import TiledConv2d


class SameConv2d(TiledConv2d):
    """A convolution padded as TensorFlow's "same": ceil(input / stride) outputs, the odd zero last.

    (https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2)
    """

    def forward(self, images: Tensor, norm: nn.BatchNorm2d | None = None) -> Tensor:
        """Pad by the size of the input (B, C, height, width), and convolve."""
        return super().forward(functional.pad(images, self.margins(images.shape[-2:])), norm)

    def margins(self, size: Sequence[int]) -> list[int]:
        """Zeros at the left, right, top and bottom of an input (height, width)."""
        found: list[int] = []
        steps = zip(size, self.kernel_size, self.stride, self.dilation, strict=True)
        for length, kernel, stride, dilation in steps:
            outputs = -(-length // stride)
            missing = max(0, (outputs - 1) * stride + (kernel - 1) * dilation + 1 - length)
            found = [missing // 2, missing - missing // 2, *found]
        return found


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each cell (Liu et al. 2022, ConvNeXt)."""

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, height, width) of the same shape."""
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ChannelLinear(nn.Linear):
    """A linear layer over the channels of each cell; its weight is (outputs, inputs)."""

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, inputs, height, width) -> (B, outputs, height, width)."""
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResponseNorm(nn.Module):
    """Global response normalisation (Woo et al. 2023, ConvNeXt V2, section 4).

    Args:
        channels: C.
        eps: what the mean is raised by.
    """

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, height, width) of the same shape."""
        lengths = maps.norm(p=2, dim=(2, 3), keepdim=True)
        shares = lengths / (lengths.mean(dim=1, keepdim=True) + self.eps)
        scale, bias = self.weight[:, None, None], self.bias[:, None, None]
        return maps + torch.addcmul(bias, scale, maps * shares)


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "silu": functional.silu,
    "hardswish": functional.hardswish,
    "sigmoid": torch.sigmoid,
    "hardsigmoid": functional.hardsigmoid,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "tanh": torch.tanh,
    "mean": lambda maps: maps.mean((2, 3), keepdim=True),
    "add": torch.add,
    "subtract": torch.sub,
    "mul": torch.mul,
    "concatenate": lambda *maps: torch.cat(maps, dim=1),
}
"""Layers without weights, sizes or numbers; ``mean`` is that of a map's cells, (B, C, 1, 1)."""


def drop_depth(maps: Tensor, share: float, training: bool) -> Tensor:
    """Leave a share of the images' residuals out (Huang et al. 2016, "Stochastic depth")."""
    if not training or share == 0:
        return maps
    kept = torch.empty(len(maps), 1, 1, 1, device=maps.device, dtype=maps.dtype)
    return maps * kept.bernoulli_(1 - share) / (1 - share)
