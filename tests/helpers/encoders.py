"""Encoders that look trained, and how far their results are apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from captioner.networks.configs import EncoderConfig
from captioner.networks.encoder import Encoder


def trained_norms(network: nn.Module, seed: int = 0) -> None:
    """Statistics and scales as training leaves them: none is 0 or 1."""
    random = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            for tensor in (module.weight, module.running_var):
                tensor.data.uniform_(0.5, 1.5, generator=random)
            for tensor in (module.bias, module.running_mean):
                tensor.data.uniform_(-0.3, 0.3, generator=random)


def difference(found: Tensor, expected: Tensor) -> float:
    """Length of the difference as a share of the expected tensor's."""
    return float((found - expected).norm() / expected.norm())


def make_encoder(name: str) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(name=name, weights="none", image_size=64)).eval()
    trained_norms(encoder.backbone)
    return encoder


def noise_images(side: int, count: int = 2) -> Tensor:
    """Images of noise (count, 3, side, side), always the same."""
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3))


def batch_norms(module: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorms of a network, by name."""
    return {name: m for name, m in module.named_modules() if isinstance(m, _BatchNorm)}


def trained(encoder: Encoder) -> set[str]:
    """Names of the backbone's parameters that are trained."""
    return {name for name, p in encoder.backbone.named_parameters() if p.requires_grad}
