"""Whether a checkpoint fits the configuration that resumes or scores it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from captioner.errors import CaptionerError
from captioner.model.caption_model import CaptionModel
from captioner.networks.configs import DecoderConfig, EncoderConfig


def check_checkpoint(
    checkpoint: Mapping[str, Any],
    model: CaptionModel,
    encoder_config: EncoderConfig,
    decoder_config: DecoderConfig,
) -> None:
    """Refuse a checkpoint of another model, or with another vocabulary or other features.

    Args:
        checkpoint: as Lightning has read it.
        model: that the configuration describes, before the checkpoint's weights are loaded.
        encoder_config: the configuration's.
        decoder_config: the configuration's.

    Raises:
        CaptionerError: it was not written by `captioner fit`, or does not fit the configuration.
    """
    if "captioner" not in checkpoint:
        raise CaptionerError("the checkpoint was not written by `captioner fit`")
    saved = checkpoint["captioner"]
    # Word ids would mean other words.
    if saved["tokenizer"] != model.tokenizer.to_dict():
        raise CaptionerError(
            f"the checkpoint's vocabulary ({len(saved['tokenizer']['words'])} words) is not "
            f"that of the data ({len(model.tokenizer.words)} words); use the data and "
            "the data.min_count that it was trained with"
        )
    for part, here in (("encoder", encoder_config), ("decoder", decoder_config)):
        for name, value in asdict(here).items():
            value = list(value) if isinstance(value, tuple) else value  # as JSON has it
            there = saved[part].get(name, value)
            if there != value and name not in ("weights", "dropout"):
                raise CaptionerError(
                    f"the checkpoint was trained with model.{part}.{name}={there}, the "
                    f"configuration says {value}; use the config.yaml of its run"
                )
    if encoder_config.frozen and not _has_weights_of(model.encoder, checkpoint["state_dict"]):
        raise CaptionerError(
            "the checkpoint's encoder has other weights than model.encoder.weights="
            f"{encoder_config.weights}, which the features of the images come from; "
            "give those that it was trained with"
        )


def check_processes(checkpoint: Mapping[str, Any], processes: int) -> None:
    """Refuse to resume the run of another number of processes.

    An epoch of theirs has other steps: the images seen and the learning rates would be wrong.

    Raises:
        CaptionerError: the run of the checkpoint has another number.
    """
    before = checkpoint["captioner"].get("provenance", {}).get("processes", 1)
    if before != processes:
        raise CaptionerError(
            f"the checkpoint's run has {before} process{'es' * (before > 1)}, this one "
            f"{processes}: resume with as many (trainer.devices times trainer.num_nodes), or start "
            "a new run from it with model.init_from"
        )


def _has_weights_of(encoder: nn.Module, state: Mapping[str, Tensor]) -> bool:
    return all(
        torch.equal(tensor.cpu(), state[f"model.encoder.{name}"].cpu())
        for name, tensor in encoder.state_dict().items()
    )
