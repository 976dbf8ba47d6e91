"""Features of a batch are the encoder's, whatever the batch holds of its images."""

from __future__ import annotations

import pytest
import torch

from captioner.networks.configs import EncoderConfig
from captioner.networks.encoder import Encoder
from captioner.networks.fast_encoder import frozen_part
from captioner.training.batch_features import BatchFeatures
from helpers.encoders import difference, noise_images, trained_norms

pytestmark = pytest.mark.arithmetic


@pytest.mark.parametrize("trainable", ["none", 2, "all"])
def test_pixels_give_the_features_and_gradients_of_the_encoder(trainable: str | int) -> None:
    torch.manual_seed(0)
    name = "timm/tf_efficientnet_lite0"
    encoder = Encoder(EncoderConfig(name=name, weights="none", trainable=trainable, image_size=64))
    trained_norms(encoder.backbone)
    images = noise_images(64)
    learnt = [each for each in encoder.parameters() if each.requires_grad]
    found, expected = BatchFeatures(encoder)(images), encoder(images)
    with torch.no_grad():
        assert difference(found.grid, expected.grid) < 1e-4
        assert difference(found.pooled, expected.pooled) < 1e-4
    assert found.grid.requires_grad == bool(learnt)
    if learnt:
        towards = torch.randn(found.grid.shape)
        pairs = zip(
            torch.autograd.grad(found.grid, learnt, towards),
            torch.autograd.grad(expected.grid, learnt, towards),
            strict=True,
        )
        assert max(difference(*pair) for pair in pairs) < 1e-2


def test_statistics_that_are_learnt_stay_as_they_are_until_there_are_images() -> None:
    torch.manual_seed(0)
    name = "timm/tf_efficientnet_lite0"
    config = EncoderConfig(
        name=name, weights="none", trainable=2, image_size=64, freeze_batch_norm=False
    )
    encoder = Encoder(config)
    before = {name: each.clone() for name, each in encoder.state_dict().items()}
    BatchFeatures(encoder)
    assert encoder.training
    assert all(torch.equal(each, before[name]) for name, each in encoder.state_dict().items())


def test_maps_that_are_kept_give_what_pixels_do() -> None:
    torch.manual_seed(0)
    name = "timm/tf_efficientnet_lite0"
    encoder = Encoder(EncoderConfig(name=name, weights="none", trainable=2, image_size=64))
    images = noise_images(64)
    features = BatchFeatures(encoder)
    kept = frozen_part(encoder)(images).permute(0, 2, 3, 1).half()
    assert difference(features(kept).grid, features(images).grid) < 1e-2
    grids = features(images).grid.half()
    assert torch.equal(features(grids).grid, grids.float())
