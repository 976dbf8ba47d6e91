"""Options of the encoder, and what of it is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from captioner.errors import CaptionerError
from captioner.model.caption_model import CaptionModel
from captioner.networks.configs import DecoderConfig, EncoderConfig
from captioner.networks.encoder import Encoder
from captioner.text.tokenizer import Tokenizer
from helpers.encoders import batch_norms, noise_images, trained

TINY = EncoderConfig("timm/test_resnet", "none", image_size=64)


def tiny(**options: Any) -> Encoder:
    torch.manual_seed(0)
    options = {"weights": "none", "image_size": 64, **options}
    encoder = Encoder(EncoderConfig(TINY.name, **options))
    for norm in batch_norms(encoder).values():
        norm.weight.data.fill_(1)  # timm begins with zeros, through which no gradient passes
    return encoder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet18"}, "name='resnet18': write timm/MODEL or torchvision/MODEL"),
        ({"name": "keras/resnet18"}, "name="),
        ({"name": "timm/"}, "name="),
        ({"name": 5}, "name=5"),
        ({"weights": ""}, "weights=''"),
        ({"weights": None}, "weights=None: use imagenet, none or a file"),
        ({"trainable": 0}, "trainable=0: use none, all, or a number of stages from 1"),
        ({"trainable": "-1"}, "trainable='-1'"),
        ({"trainable": True}, "trainable=True"),
        ({"trainable": "some"}, "trainable='some'"),
        ({"trainable": 1.5}, r"trainable=1\.5"),
        ({"freeze_batch_norm": "no"}, "freeze_batch_norm='no'"),
        ({"image_size": 8}, "image_size=8: give whole pixels from 16 to 1024"),
        ({"image_size": 1_000_000}, "image_size=1000000"),
        ({"image_size": "224"}, "image_size='224'"),
        ({"resize": "stretch"}, "resize='stretch': choose one of squash, crop, pad"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EncoderConfig(**options)


def test_a_number_of_stages_may_come_as_text() -> None:
    assert EncoderConfig(trainable="2") == EncoderConfig(trainable=2)


# --- what is trained -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("library", "trainable", "layers"),
    [
        ("timm", "none", ()),
        ("timm", 1, ("layer4",)),
        ("timm", 2, ("layer3", "layer4")),
        ("timm", 4, ("layer1", "layer2", "layer3", "layer4")),
        ("timm", 5, ("conv1", "layer1", "layer2", "layer3", "layer4")),
        ("timm", "all", ("conv1", "layer1", "layer2", "layer3", "layer4")),
        ("torchvision", 2, ("layer3", "layer4")),
        ("torchvision", "all", ("conv1", "layer1", "layer2", "layer3", "layer4")),
    ],
)
def test_trainable_stages(library: str, trainable: str | int, layers: tuple[str, ...]) -> None:
    encoder = Encoder(EncoderConfig(f"{library}/resnet18", "none", trainable=trainable))
    frozen_norms = batch_norms(encoder.backbone)
    expected = {
        name
        for name, _ in encoder.backbone.named_parameters()
        if name.startswith(layers or "?") and name.rpartition(".")[0] not in frozen_norms
    }
    assert trained(encoder) == expected
    assert encoder.config.frozen == (trainable == "none")


def test_batch_norm_is_trained_on_demand() -> None:
    encoder = Encoder(EncoderConfig("timm/resnet18", "none", trainable=1, freeze_batch_norm=False))
    names = {n for n, _ in encoder.backbone.named_parameters() if n.startswith("layer4.")}
    assert trained(encoder) == names
    assert "layer4.1.bn2.weight" in names


def test_too_many_stages() -> None:
    with pytest.raises(CaptionerError, match="trainable=6: timm/test_resnet has 5 stages"):
        tiny(trainable=6)


def test_lite0_stages() -> None:
    encoder = Encoder(EncoderConfig(trainable=2), load_weights=False)
    blocks = {".".join(name.split(".")[:2]) for name in trained(encoder)}
    assert blocks == {"blocks.3", "blocks.4", "blocks.5", "blocks.6", "conv_head.weight"}


def train_step(encoder: Encoder, side: int = 64) -> dict[str, Tensor]:
    """The state before a step of plain gradient descent on the encoder."""
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    encoder.train()
    optimizer = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=0.1)
    features = encoder(noise_images(side) * 3 + 1)
    (features.grid - 1).square().mean().backward()
    optimizer.step()
    return before


def changed(before: dict[str, Tensor], encoder: Encoder) -> set[str]:
    after = encoder.state_dict()
    return {n.removeprefix("backbone.") for n, t in before.items() if not torch.equal(t, after[n])}


def test_frozen_batch_norm_stays_frozen_in_training() -> None:
    encoder = tiny(trainable="all")
    norms = batch_norms(encoder.backbone)
    assert len(norms) > 10
    assert not any(norm.training for norm in norms.values()), "in training mode when new"
    before = train_step(encoder)
    assert encoder.training
    assert not any(norm.training for norm in norms.values())
    assert changed(before, encoder) == trained(encoder)
    assert not any(name.rpartition(".")[0] in norms for name in trained(encoder))


def test_stages_that_are_not_trained_stay_as_they_are() -> None:
    encoder = tiny(trainable=1)
    before = train_step(encoder)
    assert changed(before, encoder) == trained(encoder)
    assert {name.partition(".")[0] for name in trained(encoder)} == {"layer4"}


def test_batch_norm_that_is_not_frozen_learns_where_it_is_trained() -> None:
    encoder = tiny(trainable=2, freeze_batch_norm=False)
    before = train_step(encoder)
    norms = batch_norms(encoder.backbone)
    assert {name for name, norm in norms.items() if norm.training} == {
        name for name in norms if f"{name}.weight" in trained(encoder)
    }
    # A bottleneck's first layers work at the size of the stage before.
    assert {name for name in norms if name.startswith(("layer3", "layer4"))} - {
        name for name, norm in norms.items() if norm.training
    } == {"layer3.0.bn1"}
    statistics = {
        f"{name}.{part}"
        for name, norm in norms.items()
        if norm.training
        for part in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert changed(before, encoder) == trained(encoder) | statistics
    encoder.eval()
    assert not any(norm.training for norm in norms.values())


@pytest.mark.arithmetic
@pytest.mark.parametrize("freeze_batch_norm", [True, False])
def test_a_frozen_encoder_computes_the_same_in_training(freeze_batch_norm: bool) -> None:
    encoder = tiny(freeze_batch_norm=freeze_batch_norm)
    with torch.inference_mode():
        expected = encoder.eval()(noise_images(64)).grid
        state = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
        assert torch.equal(encoder.train()(noise_images(64)).grid, expected)
    assert changed(state, encoder) == set()
    model = CaptionModel.build(
        EncoderConfig("timm/test_resnet", "none", image_size=64),
        DecoderConfig(hidden_size=8, embed_size=8),
        Tokenizer(["dog"]),
    )
    model.train()
    assert model.decoder.training
    assert not any(module.training for module in model.encoder.modules())


@pytest.mark.slow
def test_drawn_depths_change_nothing_in_a_frozen_encoder() -> None:
    encoder = Encoder(EncoderConfig("torchvision/efficientnet_b0", "none"))
    with torch.inference_mode():
        expected = encoder.eval()(noise_images(224)).grid
        assert torch.equal(encoder.train()(noise_images(224)).grid, expected)


@pytest.mark.slow
def test_parameters_that_the_graph_reads_itself_belong_to_a_stage() -> None:
    encoder = Encoder(EncoderConfig("torchvision/convnext_tiny", "none", trainable=1))
    assert {name.split(".")[1] for name in trained(encoder)} == {"6", "7"}
    assert "features.7.2.layer_scale" in trained(encoder)
