"""A captioner that learnt four captions by heart, and its file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn import functional

from captioner.model.caption_model import CaptionModel
from captioner.networks.decoder import shift
from captioner.text.tokenizer import BOS_ID, EOS_ID, PAD_ID
from helpers.images import noise
from helpers.models import CAPTIONS, make_model


@pytest.fixture(scope="session")
def model() -> CaptionModel:
    """A model that learnt four captions of four images by heart. Not to be changed."""
    model = make_model(dropout=0.0)
    with torch.no_grad():
        features = model.encode(torch.stack([model.transform(noise(seed)) for seed in range(4)]))
    ids = [[BOS_ID, *model.tokenizer.encode(text), EOS_ID] for text in CAPTIONS]
    longest = max(map(len, ids))
    words = torch.tensor([each + [PAD_ID] * (longest - len(each)) for each in ids])
    inputs, targets = shift(words[:, None])
    optimizer = torch.optim.Adam(model.decoder.parameters(), lr=0.01)
    model.train()
    for _ in range(150):
        logits = model.decoder.logits(model.decoder(features, inputs))
        loss = functional.cross_entropy(logits.flatten(0, 2), targets.flatten(), ignore_index=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="session")
def file(model: CaptionModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    model.save(path)
    return path


@pytest.fixture
def images() -> list[Image.Image]:
    return [noise(seed) for seed in range(4)]


@pytest.fixture
def copy(file: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(file, tmp_path / "copy.safetensors"))
