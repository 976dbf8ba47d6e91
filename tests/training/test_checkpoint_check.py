"""Checkpoints that do not fit the configuration are refused."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl

from captioner.errors import CaptionerError
from captioner.model.caption_model import CaptionModel
from captioner.networks.configs import EncoderConfig
from captioner.text.tokenizer import Tokenizer
from captioner.training.task import CaptionTask


@pytest.fixture
def task(task: CaptionTask) -> CaptionTask:
    """The task of the tests, with a trainer that does not train."""
    task.trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    return task


def test_a_checkpoint_of_another_model_is_refused(task: CaptionTask) -> None:
    description = task.model.description()
    state = {f"model.{name}": tensor for name, tensor in task.model.state_dict().items()}
    task.on_load_checkpoint({"captioner": description, "state_dict": state})  # its own is accepted
    with pytest.raises(CaptionerError, match="was not written by `captioner fit`"):
        task.on_load_checkpoint({"state_dict": state})
    words = Tokenizer(["a", "cat"]).to_dict()
    with pytest.raises(CaptionerError, match=r"vocabulary \(2 words\) is not that .* \(3 words\)"):
        task.on_load_checkpoint({"captioner": {**description, "tokenizer": words}})
    for part, name, value in (
        ("encoder", "trainable", "all"),
        ("encoder", "image_size", 96),
        ("decoder", "cell", "gru"),
    ):
        other = {**description, part: {**description[part], name: value}}
        with pytest.raises(
            CaptionerError, match=rf"trained with model\.{part}\.{name}={value}, the"
        ):
            task.on_load_checkpoint({"captioner": other})


def test_a_checkpoint_with_another_frozen_encoder_is_refused(task: CaptionTask) -> None:
    task.encoder_config = EncoderConfig(name="timm/test_resnet", weights="none", image_size=64)
    task.model = CaptionModel.build(task.encoder_config, task.decoder_config, task.model.tokenizer)
    description = task.model.description()
    state = {f"model.{name}": t.clone() for name, t in task.model.state_dict().items()}
    task.on_load_checkpoint({"captioner": description, "state_dict": state})
    name = next(name for name in state if name.startswith("model.encoder."))
    state[name] += 1e-3
    with pytest.raises(CaptionerError, match=r"other weights than model\.encoder\.weights=none"):
        task.on_load_checkpoint({"captioner": description, "state_dict": state})
