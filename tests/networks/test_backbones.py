"""CNNs of timm and torchvision by name: their grids, and which are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from captioner.errors import CaptionerError
from captioner.images.transform import ImageTransform
from captioner.networks.backbones import check_encoder_fits
from captioner.networks.configs import EncoderConfig
from captioner.networks.encoder import Encoder
from captioner.networks.features import ImageFeatures
from helpers.encoders import batch_norms, noise_images, trained

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def tiny(**options: Any) -> Encoder:
    torch.manual_seed(0)
    options = {"weights": "none", "image_size": 64, **options}
    encoder = Encoder(EncoderConfig("timm/test_resnet", **options))
    for norm in batch_norms(encoder).values():
        norm.weight.data.fill_(1)  # timm begins with zeros, through which no gradient passes
    return encoder


# --- networks by name ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "transform", "grid", "features"),
    [
        ("timm/test_resnet", ((160, 160), "bilinear", (0.5,) * 3, (0.5,) * 3), (5, 5), 96),
        ("timm/resnet18", ((224, 224), "bicubic", IMAGENET_MEAN, IMAGENET_STD), (7, 7), 512),
        ("timm/convnext_atto", ((224, 224), "bicubic", IMAGENET_MEAN, IMAGENET_STD), (7, 7), 320),
        (
            "torchvision/resnet18",
            ((224, 224), "bilinear", IMAGENET_MEAN, IMAGENET_STD),
            (7, 7),
            512,
        ),
        (
            "torchvision/mobilenet_v3_small",
            ((224, 224), "bilinear", IMAGENET_MEAN, IMAGENET_STD),
            (7, 7),
            576,
        ),
        (
            "torchvision/squeezenet1_1",
            ((224, 224), "bilinear", IMAGENET_MEAN, IMAGENET_STD),
            (13, 13),
            512,
        ),
    ],
)
def test_grid_and_transform_are_the_backbones(
    name: str, transform: tuple[Any, ...], grid: tuple[int, int], features: int
) -> None:
    encoder = Encoder(EncoderConfig(name, "none")).eval()
    size, interpolation, mean, std = transform
    assert encoder.transform == ImageTransform(size, "squash", interpolation, mean, std)
    assert (encoder.grid_shape, encoder.feature_size) == (grid, features)
    with torch.inference_mode():
        result = encoder(noise_images(size[0]))
    assert isinstance(result, ImageFeatures)
    assert result.grid.shape == (2, grid[0] * grid[1], features)
    assert torch.allclose(result.pooled, result.grid.mean(dim=1), atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "side", "grid", "features"),
    [
        ("timm/densenet121", 224, 7, 1024),
        ("timm/inception_v3", 299, 8, 2048),
        ("timm/vgg11", 224, 7, 512),
        ("torchvision/alexnet", 224, 6, 256),
        ("torchvision/convnext_tiny", 224, 7, 768),
        ("torchvision/densenet121", 224, 7, 1024),
        ("torchvision/efficientnet_b0", 224, 7, 1280),
        ("torchvision/googlenet", 224, 7, 1024),
        ("torchvision/inception_v3", 299, 8, 2048),
        ("torchvision/mnasnet0_5", 224, 7, 1280),
        ("torchvision/regnet_y_400mf", 224, 7, 440),
        ("torchvision/shufflenet_v2_x0_5", 224, 7, 1024),
        ("torchvision/vgg11", 224, 7, 512),
    ],
)
def test_more_networks(name: str, side: int, grid: int, features: int) -> None:
    encoder = Encoder(EncoderConfig(name, "none", trainable="all"))
    assert encoder.transform.size == (side, side)
    assert (encoder.grid_shape, encoder.feature_size) == ((grid, grid), features)
    normalised = {
        f"{layer}.{part}" for layer in batch_norms(encoder.backbone) for part in ("weight", "bias")
    }
    names = {name for name, _ in encoder.backbone.named_parameters()}
    assert trained(encoder) == names - normalised
    # Nothing that is trained is without use.
    encoder(noise_images(side, 1)).pooled.square().sum().backward()
    idle = [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []


@pytest.mark.arithmetic
def test_a_torchvision_grid_is_the_models_own(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model = resnet18(weights=None).eval()
    torch.save(model.state_dict(), tmp_path / "resnet18.pth")
    encoder = Encoder(EncoderConfig("torchvision/resnet18", str(tmp_path / "resnet18.pth"))).eval()
    images = noise_images(224)
    with torch.inference_mode():
        x = model.maxpool(model.relu(model.bn1(model.conv1(images))))
        x = model.layer4(model.layer3(model.layer2(model.layer1(x))))
        grid = encoder(images).grid
        logits = model.fc(encoder(images).pooled)
        assert torch.allclose(grid, x.flatten(2).transpose(1, 2), atol=1e-4)
        assert torch.allclose(logits, model(images), atol=1e-4)


@pytest.mark.arithmetic
def test_cells_are_row_by_row() -> None:
    encoder = tiny(image_size=96).eval()
    assert encoder.grid_shape == (3, 3)
    with torch.inference_mode():
        grid = encoder.backbone(noise_images(96))  # (B, D, h, w)
        assert torch.allclose(encoder(noise_images(96)).grid[:, 5], grid[:, :, 1, 2], atol=1e-6)


@pytest.mark.parametrize("name", ["timm/test_resnet", "torchvision/resnet18"])
def test_image_size_changes_the_grid_only(name: str) -> None:
    encoder = Encoder(EncoderConfig(name, "none", trainable=2, image_size=32))
    own = Encoder(EncoderConfig(name, "none", trainable=2))
    assert encoder.transform.size == (32, 32)
    assert encoder.transform.mean == own.transform.mean
    assert (encoder.grid_shape, encoder.feature_size) == ((1, 1), own.feature_size)
    assert encoder(noise_images(32)).grid.shape == (2, 1, own.feature_size)
    assert list(encoder.state_dict()) == list(own.state_dict())
    assert trained(encoder) == trained(own)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/resnet19", r"timm/resnet19: timm \S+ has no such model.*lists them"),
        ("timm/hf-hub:someone/something", "has no such model"),
        ("timm/resnet18.no_such_tag", r"timm/resnet18\.no_such_tag: .*Invalid pretrained tag"),
        ("timm/inception_next_atto", "cannot be built as a grid encoder.*choose another CNN"),
        ("timm/test_vit", r"timm/test_vit: it gives no grid.*choose another CNN"),
        ("timm/mambaout_femto", "it gives no grid"),  # channels last: (B, h, w, D)
        ("torchvision/resnet19", "torchvision/resnet19: no such classification model"),
        ("torchvision/fcn_resnet50", "no such classification model"),
    ],
)
def test_networks_that_cannot_be_used(name: str, message: str) -> None:
    with pytest.raises(CaptionerError, match=message):
        Encoder(EncoderConfig(name, "none"))


@pytest.mark.slow
def test_a_vision_transformer_of_torchvision_is_refused() -> None:
    # Its first convolution makes a grid of 14 x 14, which is not what it knows of the image.
    with pytest.raises(CaptionerError, match="vit_b_16: it gives no grid.*choose another CNN"):
        Encoder(EncoderConfig("torchvision/vit_b_16", "none"))


@pytest.mark.slow
def test_an_image_can_be_too_small() -> None:
    with pytest.raises(CaptionerError, match="inception_v3: cannot look at 32 x 32 pixels"):
        Encoder(EncoderConfig("timm/inception_v3", "none", image_size=32))


# --- the shapes of a file's tensors --------------------------------------------------------


@pytest.mark.parametrize("name", ["timm/test_resnet", "torchvision/squeezenet1_1"])
def test_shapes_are_compared_without_building(name: str) -> None:
    encoder = Encoder(EncoderConfig(name, "none"))
    shapes = {layer: tensor.shape for layer, tensor in encoder.state_dict().items()}
    check_encoder_fits(encoder.config, shapes)
    changed_shape = next(layer for layer in shapes if layer.endswith("weight"))
    for wrong in (
        {layer: shape for layer, shape in shapes.items() if layer != changed_shape},
        shapes | {changed_shape: torch.Size([1])},
    ):
        with pytest.raises(CaptionerError, match=rf"1 of the tensors of {name} .*shape \("):
            check_encoder_fits(encoder.config, wrong)


@pytest.mark.parametrize("name", ["timm/vit_giant_patch14_clip_224", "torchvision/regnet_y_128gf"])
def test_a_giant_takes_no_memory(name: str) -> None:
    resource = pytest.importorskip("resource")
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 500_000_000, limits[1]))
    try:
        with pytest.raises(CaptionerError, match=r"\d+ of the tensors"):
            check_encoder_fits(EncoderConfig(name), {})
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
