"""A small captioner, and model files that were tampered with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from captioner.errors import CaptionerError
from captioner.model.caption_model import CaptionModel
from captioner.model.results import CaptionResult
from captioner.networks.configs import DecoderConfig, EncoderConfig
from captioner.text.tokenizer import Tokenizer, tokenize

CAPTIONS = [
    "a dog runs in the snow",
    "the man jumps",
    "a red ball on grass",
    "two men in blue water near the old red boat",
]
WORDS = sorted(set(tokenize(" ".join(CAPTIONS))))


TALK_WORDS = ["a", "dog", "runs", "in", "the", "snow", "man", "red", "ball", "on", "grass", "jumps"]


def make_talker() -> CaptionModel:
    """A captioner that says something else of every image, in :data:`TALK_WORDS`."""
    torch.manual_seed(0)
    model = CaptionModel.build(
        EncoderConfig(name="timm/test_efficientnet", weights="none", image_size=64),
        DecoderConfig(hidden_size=32, embed_size=32, heads=2),
        Tokenizer(TALK_WORDS),
    )
    # Untrained weights are so small that every image would get the same caption.
    for name, parameter in model.decoder.named_parameters():
        parameter.data.mul_(240 if name.endswith("projection.weight") else 4)
    return model.eval()


def make_model(cell: str = "lstm", attention: str = "spatial", **more: Any) -> CaptionModel:
    torch.manual_seed(0)
    options: dict[str, Any] = {"hidden_size": 24, "embed_size": 16, "heads": 2}
    model = CaptionModel.build(
        EncoderConfig("timm/test_resnet", "none", image_size=64, resize="crop"),
        DecoderConfig(cell, attention, **(options | more)),
        Tokenizer(WORDS),
    )
    for parameter in model.decoder.parameters():
        parameter.data.mul_(3)  # Untrained weights are so small that no word stands out.
    model.provenance = {"data": {"name": "noise", "images": {"train": 3}}, "steps": 7}
    return model.eval()


def texts(results: list[CaptionResult]) -> list[str]:
    return [result.text for result in results]


def rewrite(
    path: Path,
    edit: Callable[[dict[str, Any]], Any] = lambda description: None,
    tensors: Callable[[dict[str, Tensor]], Any] = lambda tensors: None,
    **metadata: str,
) -> Path:
    """Change a model file's description (in place, or by what `edit` returns) and tensors."""
    with safe_open(path, framework="pt") as opened:
        old = opened.metadata()
    state = load_file(path)
    description = json.loads(old["model"])
    description = edit(description) or description
    tensors(state)
    path.unlink()
    save_file(state, path, old | {"model": json.dumps(description)} | metadata)
    return path


def of_library(description: dict[str, Any], name: str) -> None:
    """As files of before describe a CNN whose layers were not known: by its name alone."""
    del description["encoder_graph"]
    description["encoder"]["name"] = name


def refusal(path: Path) -> str:
    with pytest.raises(CaptionerError) as caught:
        CaptionModel.load(path, device="cpu")
    assert str(caught.value).startswith(f"model {path}: ")
    return str(caught.value)


@contextmanager
def memory_limit(more_bytes: int) -> Iterator[None]:
    resource = pytest.importorskip("resource")
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("needs /proc")
    used = int(statm.read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + more_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
