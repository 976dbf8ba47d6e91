"""The file that adds a language to a model: all of a captioner but its CNN.

It names the CNN that it belongs to by the hash of its weights, and stores matrices with 8 bits for
each number and a scale for each row, so that a language costs a few megabytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.model.caption_model import CaptionModel
from captioner.model.model_file import (
    LANGUAGE_FORMAT,
    halved,
    read_model_file,
    reason_of,
    write_model_file,
)

SCALE = ".scale"
"""Ends the name of the tensor that holds the scales of a matrix's rows."""
LARGEST = 127
OF_THE_CNN = ("encoder", "encoder_graph", "transform")
"""Parts of a model's description that its languages share."""


def cnn_sha256(model: CaptionModel) -> str:
    """Hash of a model's CNN and of what it makes of an image, in hexadecimal digits."""
    digest = hashlib.sha256(json.dumps(model.transform.to_dict(), sort_keys=True).encode())
    for name, tensor in sorted(model.encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_language(model: CaptionModel, path: str | Path) -> None:
    """Write what a captioner adds to others with the same CNN.

    Args:
        model: with the decoder of the new language.
        path: the file; written under a temporary name first, then renamed.

    Raises:
        CaptionerError: the file cannot be written.
    """
    description = {
        name: value for name, value in model.description().items() if name not in OF_THE_CNN
    }
    description["cnn"] = {"name": model.encoder.config.name, "sha256": cnn_sha256(model)}
    tied = {"decoder.output.weight"} if model.decoder.config.tied else set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if not name.startswith(("encoder.", "int8.")) and name not in tied:
            tensors |= _packed(name, tensor.detach().cpu().contiguous())
    write_model_file(Path(path), description, tensors, LANGUAGE_FORMAT)


def read_language(path: str | Path, base: CaptionModel) -> CaptionModel:
    """Read a captioner that shares the CNN of another one.

    Args:
        path: a file that :func:`write_language` wrote.
        base: the model that it is for.

    Raises:
        CaptionerError: the file is missing or damaged, or is for a model with another CNN.
    """
    path = Path(path)
    description, state = read_model_file(path, LANGUAGE_FORMAT)
    _check_cnn(path, description, base)
    own = base.description()
    description |= {name: own[name] for name in OF_THE_CNN if name in own}
    try:
        state = _unpacked(state)
        state |= {f"encoder.{name}": t.cpu() for name, t in base.encoder.state_dict().items()}
        model = CaptionModel.from_description(description, state)
    except (CaptionerError, ValueError) as error:
        raise CaptionerError(f"language {shown(path)}: {reason_of(error)}") from error
    model.encoder = base.encoder
    model.to(base.device)
    if model.familiarity is None:
        model.familiarity = base.familiarity
    model.int8 = base.int8
    model.precision, model.path, model.is_language = base.precision, path, True
    return model


def _check_cnn(path: Path, description: Mapping[str, Any], base: CaptionModel) -> None:
    cnn = description.get("cnn")
    wanted = cnn.get("sha256") if isinstance(cnn, Mapping) else None
    if wanted == cnn_sha256(base):
        return
    model = "the model" if base.path is None else f"the model {shown(base.path)}"
    raise CaptionerError(
        f"language {shown(path)}: it was trained on another CNN ({str(wanted)[:12]!r}) than that "
        f"of {model}; give --model the model that it is for, or train the language again with "
        "`captioner fit` and model.init_from naming this model"
    )


def _packed(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A matrix as whole numbers from -127 to 127 and a scale for each row; others as they are.

    Familiarity is computed from products of small differences: its matrices keep 16 bits.
    """
    if tensor.ndim != 2 or not tensor.is_floating_point() or name.startswith("familiarity."):
        return {name: halved(tensor)}
    scales = (tensor.abs().amax(dim=1) / LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
    return {
        name: (tensor / scales[:, None]).round().to(torch.int8),
        name + SCALE: scales.to(torch.float32),
    }


def _unpacked(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as they were, up to rounding.

    Raises:
        ValueError: a matrix and its scales do not fit together.
    """
    tensors = {}
    for name, tensor in state.items():
        if name.endswith(SCALE):
            continue
        if tensor.dtype == torch.int8:
            scales = state.get(name + SCALE)
            if tensor.ndim != 2 or scales is None or scales.shape != tensor.shape[:1]:
                raise ValueError(f"{name} and its scales do not fit together")
            tensor = tensor.float() * scales.float()[:, None]
        tensors[name] = tensor
    return tensors
