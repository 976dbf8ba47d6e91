"""The folded encoder computes what the encoder does, notices new weights, and touches nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from captioner.encoder import Encoder, EncoderConfig
from captioner.fast_encoder import FastEncoder, folded, versions
from captioner.model import CaptionModel


def trained_norms(network: nn.Module, seed: int = 0) -> None:
    """Statistics and scales as training leaves them: none is 0 or 1."""
    random = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            for tensor in (module.weight, module.running_var):
                tensor.data.uniform_(0.5, 1.5, generator=random)
            for tensor in (module.bias, module.running_mean):
                tensor.data.uniform_(-0.3, 0.3, generator=random)


def norms_in(network: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in network.modules())


def difference(found: Tensor, expected: Tensor) -> float:
    """Length of the difference as a share of the expected tensor's."""
    return float((found - expected).norm() / expected.norm())


def make_encoder(name: str) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(name=name, weights="none", image_size=64)).eval()
    trained_norms(encoder.backbone)
    return encoder


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("timm/tf_efficientnet_lite0", 0),
        ("timm/resnet18", 0),
        ("torchvision/mobilenet_v3_small", 0),
        # What a dense block gathers is normalised before the next convolution, not behind one.
        ("torchvision/densenet121", 62),
        # No BatchNorm anywhere.
        ("timm/convnext_atto", 0),
    ],
)
def test_features_are_those_of_the_encoder(name: str, left: int) -> None:
    encoder = make_encoder(name)
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    fast = FastEncoder(encoder, "fp32")
    with torch.inference_mode():
        expected, found = encoder(pictures), fast(pictures)
    assert found.grid.shape == expected.grid.shape
    assert difference(found.grid, expected.grid) < 1e-4
    assert difference(found.pooled, expected.pooled) < 1e-4
    assert norms_in(fast._backbone) == left


def test_bfloat16_is_a_little_less_exact() -> None:
    encoder = make_encoder("timm/tf_efficientnet_lite0")
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    exact, rounded = (FastEncoder(encoder, each)(pictures).grid for each in ("fp32", "bf16"))
    assert rounded.dtype == torch.float32
    assert 0 < difference(rounded, exact) < 0.1


class ReadTwice(nn.Module):
    """The convolution's output is read by a BatchNorm and by the sum behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, pictures: Tensor) -> Tensor:
        found: Tensor = self.conv(pictures)
        return found + self.norm(found)


class UsedTwice(nn.Module):
    """One convolution with a BatchNorm for each of its two uses."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(3)])

    def forward(self, pictures: Tensor) -> Tensor:
        for norm in self.norms:
            pictures = norm(self.conv(pictures))
        return pictures


@pytest.mark.parametrize("kind", [ReadTwice, UsedTwice])
def test_what_cannot_be_folded_is_copied(kind: type[nn.Module]) -> None:
    network = kind().eval()
    trained_norms(network)
    pictures = torch.rand(2, 3, 16, 16)
    same = folded(network, pictures)
    assert same is not network
    assert norms_in(same) == norms_in(network) > 0
    with torch.no_grad():
        assert torch.equal(same(pictures), network(pictures))


def test_the_encoder_stays_as_it_is() -> None:
    encoder = make_encoder("timm/resnet18")
    before, modes = copy.deepcopy(encoder.state_dict()), [m.training for m in encoder.modules()]
    FastEncoder(encoder, "bf16")
    after = encoder.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert [module.training for module in encoder.modules()] == modes


def test_a_change_of_weights_is_noticed(tiny_model: CaptionModel) -> None:
    model = CaptionModel(
        copy.deepcopy(tiny_model.encoder), tiny_model.decoder, tiny_model.tokenizer
    ).eval()
    pictures = torch.rand(2, 3, *model.transform.size)
    with torch.inference_mode():
        before = model.encode(pictures).grid
        assert torch.equal(model.encode(pictures).grid, before)
    first = versions(model.encoder)
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.mul_(1.5)
    assert versions(model.encoder) != first
    with torch.inference_mode():
        after, expected = model.encode(pictures).grid, model.encoder(pictures).grid
    assert difference(after, before) > 0.1
    assert difference(after, expected) < 1e-4
    assert set(model.state_dict()) == set(tiny_model.state_dict())
