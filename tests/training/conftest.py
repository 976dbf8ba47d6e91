"""A few images, short runs on them, and a finished one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from captioner.cli import entry as cli
from captioner.model.caption_model import CaptionModel
from captioner.networks.configs import DecoderConfig, EncoderConfig
from captioner.text.tokenizer import Tokenizer
from captioner.training.task import CaptionTask
from helpers.training import arguments


@pytest.fixture(scope="module")
def shapes(
    tmp_path_factory: pytest.TempPathFactory, make_shapes: Callable[[Path, int], Path]
) -> Path:
    """Forty images: 32 to train, 4 to validate, 4 to test."""
    return make_shapes(tmp_path_factory.mktemp("toy") / "shapes", 40)


@pytest.fixture
def fit(shapes: Path, tmp_path: Path) -> Callable[..., int]:
    """Run `captioner fit` with a tiny network on the forty images; four epochs of four steps."""

    def fit(run_dir: Path, *options: str) -> int:
        return cli.main(arguments(shapes, tmp_path, run_dir, *options))

    return fit


@pytest.fixture(scope="module")
def finished(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs."""
    folder = tmp_path_factory.mktemp("finished")
    options = arguments(shapes, folder, folder / "run", "--trainer.max_epochs=2")
    assert cli.main(options) == 0
    return folder / "run"


@pytest.fixture
def task() -> CaptionTask:
    torch.manual_seed(0)
    encoder = EncoderConfig(name="timm/test_resnet", weights="none", image_size=64, trainable=1)
    decoder = DecoderConfig(hidden_size=16, embed_size=16, heads=2)
    task = CaptionTask(encoder, decoder, label_smoothing=0.2)
    task.model = CaptionModel.build(encoder, decoder, Tokenizer(["a", "dog", "runs"]))
    return task
