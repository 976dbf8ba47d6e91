"""Training checkpoints: read safely, started from, averaged, exported as a model file."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError
from captioner.model.caption_model import CaptionModel
from captioner.model.description import read_decoding
from captioner.model.language_file import read_language, write_language
from captioner.model.model_file import entries_under, reason_of
from captioner.model.shipped import load_model
from captioner.networks.configs import DecoderConfig


def load_checkpoint(path: str | Path) -> CaptionModel:
    """Read the captioner out of a training checkpoint (.ckpt), without Lightning, onto the CPU.

    Raises:
        CaptionerError: when the file is missing, unsafe or no checkpoint of a captioner.
    """
    checkpoint = read_checkpoint(path)
    try:
        return CaptionModel.from_description(
            checkpoint["captioner"], entries_under(checkpoint["state_dict"], "model.")
        )
    except CaptionerError as error:
        raise CaptionerError(f"checkpoint {path}: {error}") from error


def read_checkpoint(path: str | Path, *, mmap: bool = False) -> dict[str, Any]:
    """Read all of a training checkpoint, running none of the code that such a file can hold.

    Args:
        path: a file that `captioner fit` wrote.
        mmap: leave the tensors on the disk until they are used.

    Returns:
        Lightning's entries, among them ``state_dict``, and ``captioner``, the description.

    Raises:
        CaptionerError: when the file is missing, damaged, unsafe or no checkpoint of a captioner.
    """
    if not Path(path).is_file():
        raise CaptionerError(f"checkpoint {path}: no such file")
    _check_not_compressed(Path(path))
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:
        # A pickle that would run code, a truncated file: torch has many names for "no".
        raise CaptionerError(
            f"checkpoint {path}: refused, it is not a plain checkpoint of `captioner fit`, or "
            "damaged"
        ) from error
    parts = ("captioner", "state_dict")
    if not isinstance(checkpoint, dict) or not all(
        isinstance(checkpoint.get(part), dict) and all(isinstance(n, str) for n in checkpoint[part])
        for part in parts
    ):
        raise CaptionerError(f"checkpoint {path}: it was not written by `captioner fit`")
    _check_size(Path(path), checkpoint["state_dict"])
    return checkpoint


def _check_not_compressed(path: Path) -> None:
    """Refuse what PyTorch never writes: parts that could be a thousand times what the file is."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # torch.load says what is wrong with it; before 2020 it wrote another format.
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise CaptionerError(
            f"checkpoint {path}: refused, it is compressed, and `captioner fit` writes none such"
        )


def _check_size(path: Path, state: Mapping[Any, Any]) -> None:
    """Refuse tensors that are larger than the file, such as one number as a billion."""
    tensors = [tensor for tensor in state.values() if isinstance(tensor, torch.Tensor)]
    if any(t.layout != torch.strided or t.device.type != "cpu" for t in tensors):
        raise CaptionerError(f"checkpoint {path}: refused, it has tensors of an unusual kind")
    # One tensor may have two names, as tied matrices do.
    storages = {
        storage.data_ptr(): storage.nbytes()
        for storage in (tensor.untyped_storage() for tensor in tensors)
    }
    expanded = any(t.nbytes > t.untyped_storage().nbytes() for t in tensors)
    if expanded or sum(storages.values()) > path.stat().st_size:
        raise CaptionerError(f"checkpoint {path}: refused, its tensors are larger than the file")


def load_any(path: str | Path) -> CaptionModel:
    """Read a shipped model by its name, a model file, or a checkpoint (.ckpt), onto the CPU.

    Raises:
        CaptionerError: when it cannot be read.
    """
    if Path(path).suffix == ".ckpt":
        return load_checkpoint(path)
    return load_model(path, device="cpu")


def decoding_of(checkpoint: str | Path) -> DecodingOptions:
    """A checkpoint's own way of captioning: that of the model it started from.

    Raises:
        CaptionerError: when it cannot be read.
    """
    found = read_checkpoint(checkpoint, mmap=True)["captioner"].get("decoding", {})
    try:
        return read_decoding(found)
    except (TypeError, ValueError, AttributeError) as error:
        raise CaptionerError(f"checkpoint {checkpoint}: {reason_of(error)}") from error


def export_checkpoint(
    checkpoint: str | Path,
    output: str | Path,
    *others: str | Path,
    weights: Sequence[float] | None = None,
    decoding: DecodingOptions | None = None,
    without_cnn: bool = False,
) -> CaptionModel:
    """Turn a training checkpoint into a model file, and return the model read back from it.

    Args:
        checkpoint: the file that `captioner fit` wrote.
        output: the model file.
        others: further checkpoints or model files, whose weights are averaged with those of the
            first.
        weights: how much each counts in the mean, the first one first, from 0 on; None for equal
            parts. They are divided by their sum.
        decoding: the model's default options, instead of those of the model it started from.
        without_cnn: write a language file, for the models that have the checkpoint's CNN; see
            `captioner.model.language_file`.

    Raises:
        CaptionerError: when a checkpoint cannot be read or does not fit the first one, the weights
            are not one for each, or the output cannot be written.
    """
    count = 1 + len(others)
    if weights is not None and (len(weights) != count or min(weights) < 0 or sum(weights) == 0):
        raise CaptionerError(
            f"weights {', '.join(map(str, weights))}: a mean of {count} checkpoints needs "
            f"{count} numbers from 0 on, not all of them 0"
        )
    model = load_checkpoint(checkpoint)
    if others:
        model = _average(model, [(path, load_any(path)) for path in others], weights)
    if decoding is not None:
        model.decoder.style_numbers(decoding.style, 1)  # Refuse an unknown style now.
        model.decoding = decoding
    if without_cnn:
        write_language(model, output)
        return read_language(output, model)
    model.save(output)
    return CaptionModel.load(output, device="cpu")


def _average(
    first: CaptionModel,
    others: Sequence[tuple[str | Path, CaptionModel]],
    weights: Sequence[float] | None,
) -> CaptionModel:
    """The first model with the mean of all weights (a "soup", Wortsman et al. 2022).

    It works for models that were trained on from one and the same, as several runs of one
    configuration with other seeds are: between their weights the loss does not rise. The images'
    size is the first one's. Its decoder may have been given further layers since; these are the
    mean of those models that have them.
    """
    for path, other in others:
        for part, here, there in (
            ("vocabulary", first.tokenizer, other.tokenizer),
            ("encoder", first.encoder.config.name, other.encoder.config.name),
            ("decoder", first.decoder.config, _as_in(first.decoder.config, other.decoder.config)),
        ):
            if here != there:
                raise CaptionerError(
                    f"checkpoint {path}: its {part} is not that of the first checkpoint; average "
                    "runs of one configuration that started from one model"
                )
    models = [first, *(other for _, other in others)]
    shares = torch.tensor(weights or [1.0] * len(models), dtype=torch.float64)
    shares /= shares.sum()
    states = [model.state_dict() for model in models]
    # All before any is written: a tied matrix has two names.
    first.load_state_dict({**states[0], **_means(states, shares)})
    first.provenance = {"averaged": [model.provenance for model in models]}
    if weights is not None:
        first.provenance["weights"] = shares.tolist()
    return first


def _means(states: Sequence[Mapping[str, Tensor]], shares: Tensor) -> dict[str, Tensor]:
    """The mean of each weight of the first model over those that have it and count."""
    models, means = list(zip(states, shares, strict=True)), {}
    for name, first in states[0].items():
        found = [(state[name], share) for state, share in models if name in state]
        total = sum(share for _, share in found)
        if first.is_floating_point() and total:
            means[name] = sum(tensor.double() * share for tensor, share in found) / total
    return means


def _as_in(first: DecoderConfig, other: DecoderConfig) -> DecoderConfig:
    """A decoder's shape, with the dropout and, where it could grow to them, the layers of another.

    Dropout no longer matters to a mean of weights.
    """
    if other.can_grow_to(first.attention, first.layers):
        other = replace(other, attention=first.attention, layers=first.layers)
    return replace(other, dropout=first.dropout)
