"""The file that holds a whole model: safetensors, with its description as metadata.

No pickle is involved, and nothing in such a file is executed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from captioner.errors import CaptionerError
from captioner.files.escaping import escaped
from captioner.files.writing import replace_bytes

FILE_FORMAT = "captioner-model-1"
LANGUAGE_FORMAT = "captioner-language-1"
"""Of a file that holds all of a captioner but its CNN; see `captioner.model.language_file`."""

MAX_DESCRIPTION = 20_000_000
"""Characters of the description: enough for a million words, and the objects that JSON makes of
them, twenty times as large at worst, still fit into any memory."""


def write_model_file(
    path: Path,
    description: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    file_format: str = FILE_FORMAT,
) -> None:
    """Write description (JSON primitives) and tensors, under a temporary name first.

    Equal models give equal bytes.

    Raises:
        CaptionerError: when the file cannot be written.
    """
    metadata = {"format": file_format, "model": json.dumps(description)}
    replace_bytes(path, _in_order(save(dict(tensors), metadata)))


def _in_order(data: bytes) -> tuple[bytes, bytes]:
    """The bytes of a safetensors file with its metadata in order: header, tensors.

    The library writes them in an order that changes from call to call.
    """
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    assert len(text) <= size, "the same entries take the same room"
    return data[:8] + text.ljust(size), data[8 + size :]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def halved(tensor: Tensor) -> Tensor:
    """A matrix or kernel as float16, unless it has values that float16 has not."""
    if tensor.ndim < 2 or not tensor.is_floating_point():
        return tensor
    half = tensor.to(torch.float16)
    return half if torch.equal(half.isfinite(), tensor.isfinite()) else tensor


def read_model_file(
    path: Path, file_format: str = FILE_FORMAT
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and tensors of a model file; nothing in it is executed.

    Raises:
        CaptionerError: when it is damaged or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            description = _read_description(path, file.metadata() or {}, file_format)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return description, {
            name: tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in state.items()
        }
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise CaptionerError(
            f"model {path}: not a readable safetensors file ({reason_of(error)}); get it again, or "
            "make one from a checkpoint with `captioner export`"
        ) from error


def _read_description(path: Path, metadata: Mapping[str, str], file_format: str) -> dict[str, Any]:
    if (found := metadata.get("format")) != file_format:
        remedy = "make one from a checkpoint with `captioner export`"
        if file_format == LANGUAGE_FORMAT:
            remedy += " --without-cnn"
        if (found, file_format) == (LANGUAGE_FORMAT, FILE_FORMAT):
            remedy = f"it adds a language to a model: --language {path}"
        if (found, file_format) == (FILE_FORMAT, LANGUAGE_FORMAT):
            remedy = f"it is a whole model: --model {path}"
        raise CaptionerError(
            f"model {path}: its format is {found!r:.60}, wanted {file_format!r}; {remedy}"
        )
    try:
        text = metadata["model"]
        description = json.loads(text) if len(text) <= MAX_DESCRIPTION else None
    except (KeyError, ValueError, RecursionError):
        description = None
    if not isinstance(description, dict):
        raise CaptionerError(f"model {path}: its description is damaged; get the file again")
    return description


def reason_of(error: BaseException) -> str:
    """What an error says of a file, on one line and short: the file may have chosen the words."""
    return escaped(" ".join(str(error).split()))[:300]


Value = TypeVar("Value")


def entries_under(named: Mapping[str, Value], prefix: str) -> dict[str, Value]:
    """The entries whose names begin with the prefix, named without it."""
    return {n[len(prefix) :]: value for n, value in named.items() if n.startswith(prefix)}
