"""A language follows its model to a CNN that was trained on, without being trained itself."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captioner.model.caption_model import CaptionModel
from captioner.model.language_file import read_language, write_language
from captioner.model.new_language import start_language
from captioner.networks.encoder import Encoder
from captioner.text.tokenizer import Tokenizer
from helpers.models import make_model, texts

SCRIPT = Path(__file__).parents[1] / "data" / "move_language.py"
LAST = ("conv2.weight", "bn2", "downsample.1.weight", "downsample.2")
"""Parts of the last block of test_resnet with one entry or row for each channel that it gives."""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(96):
        pixels = np.random.default_rng(index).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((80, 60)).save(folder / f"{index:02d}.jpg")
    return sorted(folder.iterdir())


@torch.no_grad()
def shuffle_and_double(model: CaptionModel) -> None:
    """Let the CNN give the same features in another order, twice as large."""
    order = torch.randperm(model.encoder.feature_size)
    for name, tensor in model.encoder.state_dict().items():
        if name.startswith(tuple(f"backbone.layer4.0.{part}" for part in LAST)) and tensor.ndim:
            is_scaled = tensor.ndim == 1 and "running" not in name
            tensor.copy_(tensor[order] * (2 if is_scaled else 1))


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def make_sized(size: int) -> CaptionModel:
    """The model of `make_model`, looking at larger images."""
    model = make_model()
    encoder = Encoder(replace(model.encoder.config, image_size=size), load_weights=False)
    encoder.load_state_dict(model.encoder.state_dict())
    model.encoder, model.transform = encoder.eval(), encoder.transform
    return model


@pytest.mark.parametrize("size", [64, 96], ids=["of the same size", "larger images"])
def test_the_captions_stay_with_a_cnn_that_sees_the_same(
    tmp_path: Path, photos: list[Path], size: int
) -> None:
    old, new, german = make_sized(size), make_sized(size), make_model()
    make_model().save(tmp_path / "old.safetensors", half=False)
    shuffle_and_double(new)
    new.save(tmp_path / "new.safetensors", half=False)
    torch.manual_seed(5)
    start_language(german, Tokenizer(["ein", "hund", "läuft", "auf", "gras"], "de"))
    for layer in (german.decoder.grid_projection, german.decoder.pooled_projection):
        layer.weight.data.mul_(8)
    write_language(german, tmp_path / "de.safetensors")
    german = read_language(tmp_path / "de.safetensors", make_model())
    german.encoder, german.transform = old.encoder, old.transform
    before = german.caption(photos[:12])
    assert len(set(texts(before))) > 3  # the image matters
    moved = tmp_path / "moved.safetensors"
    files = ["--language", tmp_path / "de.safetensors", "--model", tmp_path / "old.safetensors"]
    to = ["--to", tmp_path / "new.safetensors", "--photos", photos[0].parent, "--output", moved]
    done = run(*files, *to)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.partition("%")[0]) > 99
    assert (tmp_path / "moved.safetensors").stat().st_size == pytest.approx(
        (tmp_path / "de.safetensors").stat().st_size, abs=64
    )
    after = read_language(moved, new).caption(photos[:12])
    assert texts(after) == texts(before)
    scores = [[each.candidates[0].log_prob for each in results] for results in (before, after)]
    assert scores[1] == pytest.approx(scores[0], abs=0.2)


def test_mistakes_are_named(tmp_path: Path) -> None:
    model = make_model()
    model.save(tmp_path / "model.safetensors", half=False)
    write_language(model, tmp_path / "en.safetensors")
    models = [f"--{name}={tmp_path / 'model.safetensors'}" for name in ("model", "to")]
    done = run(
        f"--language={tmp_path / 'en.safetensors'}",
        *models,
        f"--photos={tmp_path / 'none here'}",
        f"--output={tmp_path / 'out.safetensors'}",
    )
    assert done.returncode == 2
    assert done.stderr == f"--photos {tmp_path / 'none here'}: no *.jpg there\n"
    finer = tmp_path / "finer.safetensors"
    encoder = replace(model.encoder.config, name="torchvision/squeezenet1_1")
    CaptionModel.build(encoder, model.decoder.config, model.tokenizer).save(finer)
    done = run(
        f"--language={tmp_path / 'en.safetensors'}",
        models[0],
        f"--to={finer}",
        f"--photos={tmp_path}",
        f"--output={tmp_path / 'out.safetensors'}",
    )
    assert done.returncode == 2
    assert done.stderr == f"--to {finer}: its grid is (3, 3), that of --model (2, 2)\n"
    assert not (tmp_path / "out.safetensors").exists()
