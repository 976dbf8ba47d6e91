"""The encoder as inference runs it: BatchNorm folded into the convolutions, weights cast once."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from captioner.encoder import Encoder, ImageFeatures, as_cells, as_grid

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
SAME = 1e-4
"""Largest relative difference of features that is rounding and no mistake."""


class FastEncoder:
    """A copy of an encoder for inference; computes what the encoder does, up to rounding.

    Args:
        encoder: whose weights are taken as they are now.
        precision: one of :data:`PRECISIONS`.
    """

    def __init__(self, encoder: Encoder, precision: str) -> None:
        self.made_of = versions(encoder), precision
        self._dtype = PRECISIONS[precision]
        self._device = next(encoder.parameters()).device
        height_width = encoder.transform.size[::-1]
        example = torch.zeros(1, 3, *height_width, device=self._device)
        self._backbone = folded(encoder.backbone, example)
        # bfloat16 has the range of float32, so that all can be cast; of float16 torch knows better.
        self._cast = self._dtype is torch.bfloat16
        if self._cast:
            self._backbone.to(torch.bfloat16)
        self._backbone.to(memory_format=torch.channels_last)

    def is_of(self, encoder: Encoder, precision: str) -> bool:
        """Whether it still is the copy of this encoder, with the weights that it has now."""
        return self.made_of == (versions(encoder), precision)

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> ImageFeatures:
        """Features, float32, of transformed pictures (B, 3, height, width)."""
        pixels = pixels.to(self._device, torch.bfloat16 if self._cast else None, non_blocking=True)
        autocast = self._dtype is not None and not self._cast
        with torch.autocast(self._device.type, self._dtype, enabled=autocast):
            grid = as_grid(self._backbone(pixels.contiguous(memory_format=torch.channels_last)))
        return ImageFeatures.from_grid(as_cells(grid.float()))


def versions(network: nn.Module) -> tuple[tuple[int, int], ...]:
    """What changes when a weight or statistic of the network does, or moves."""
    return tuple((each.data_ptr(), each._version) for each in network.state_dict().values())


def folded(network: nn.Module, example: Tensor) -> nn.Module:
    """A CNN whose BatchNorms are part of the convolutions before them (Jacob et al. 2018, 3.2).

    Args:
        network: in eval mode; it is left as it is.
        example: an input; which convolution feeds which BatchNorm shows when it runs.

    Returns:
        The folded network in eval mode, or a plain copy where folding would change the result.
    """
    # A traced network's copy forgets that it was in eval mode.
    plain = copy.deepcopy(network).eval().requires_grad_(False)
    simpler = copy.deepcopy(plain).eval()
    with torch.no_grad():
        for conv, norm in _pairs(simpler, example):
            _fold(simpler, conv, norm)
        noise = torch.rand(example.shape, generator=torch.Generator().manual_seed(0))
        before, after = (as_grid(each(noise.to(example.device))) for each in (plain, simpler))
    same = (before - after).norm() <= SAME * before.norm()
    return simpler if same else plain


def _pairs(network: nn.Module, example: Tensor) -> list[tuple[str, str]]:
    """Names of convolutions and of the BatchNorms that alone read what they give."""
    made_by: dict[int, tuple[str, Tensor]] = {}  # the tensor is kept, so that its id is its own
    feeds: dict[str, str] = {}
    calls: Counter[str] = Counter()
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):

            def made(_: nn.Module, __: Any, output: Tensor, name: str = name) -> None:
                calls[name] += 1
                made_by[id(output)] = (name, output)

            hooks.append(module.register_forward_hook(made))
        elif _is_plain(module):

            def reads(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                calls[name] += 1
                if id(inputs[0]) in made_by:
                    feeds[name] = made_by[id(inputs[0])][0]

            hooks.append(module.register_forward_pre_hook(reads))
    try:
        network(example)
    finally:
        for hook in hooks:
            hook.remove()
    readers = Counter(feeds.values())
    return [
        (conv, norm)
        for norm, conv in feeds.items()
        if calls[conv] == calls[norm] == readers[conv] == 1
    ]


def _is_plain(module: nn.Module) -> bool:
    """A BatchNorm with statistics of its own; timm's kind has dropout and activation behind it."""
    known = type(module) is nn.BatchNorm2d or type(module).__name__ == "BatchNormAct2d"
    return known and isinstance(module, _BatchNorm) and module.running_mean is not None


def _fold(network: nn.Module, conv_name: str, norm_name: str) -> None:
    conv, norm = network.get_submodule(conv_name), network.get_submodule(norm_name)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    statistics = norm.running_mean, norm.running_var, norm.eps
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, *statistics, norm.weight, norm.bias
    )
    behind = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]
    parent, _, name = norm_name.rpartition(".")
    setattr(network.get_submodule(parent), name, nn.Sequential(*behind))
