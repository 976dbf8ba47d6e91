"""Model files with damage of all kinds: each loads and speaks, or is refused with a message."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from captioner.errors import CaptionerError
from captioner.model.caption_model import CaptionModel
from helpers.images import noise

CASES = 60  # of every kind

VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 2, 7, 2**31, 2**63, 2**70, -(2**63), 0.5, -0.0, 1e308, 1e-300),
    *("", "a", "none", "\0", "\ud800", "../x", "timm/resnet18", "a" * 5000, "ß" * 40),
    *([], {}, [[]], [1, 2], [None] * 3, [0.1, 0.2, 0.3], {"a": {}}, float("nan"), float("inf")),
)


@pytest.fixture(scope="module")
def data(tagging_model: CaptionModel, one_thread: None) -> bytes:
    assert tagging_model.path is not None
    return tagging_model.path.read_bytes()


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def joined(header: dict[str, Any], tensors: bytes) -> bytes:
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + tensors


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys."""
    if not isinstance(value, dict | list):
        return []
    keys = list(value) if isinstance(value, dict) else range(min(3, len(value)))
    return [(value, key) for key in keys] + [p for key in keys for p in places(value[key])]


def edit(value: Any, rng: random.Random) -> None:
    """Replace, remove or add something in a JSON value."""
    container, key = rng.choice(places(value))
    way = rng.randrange(5)
    if way == 0:
        del container[key]
    elif way == 1 and isinstance(container, dict):
        container[rng.choice(("x", "", "decoder.", "name"))] = rng.choice(VALUES)
    elif way == 2 and isinstance(container[key], int | float):
        container[key] *= rng.choice((-1, 2, 1000, 10**9, 0.5))
    else:
        container[key] = rng.choice(VALUES)


def bytes_of_the_header(data: bytes, rng: random.Random) -> bytes:
    (size,) = struct.unpack("<Q", data[:8])
    result = bytearray(data)
    for _ in range(rng.choice((1, 2, 8))):
        result[rng.randrange(rng.choice((8, 200, 8 + size)))] = rng.randrange(256)
    return bytes(result)


def blocks(data: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(data)), rng.choice((1, 8, 100, 10_000))
    return rng.choice(
        (data[:at], data[:at] + data[at + size :], data[:at] + bytes(size) + data[at:])
    )


def entries_of_tensors(data: bytes, rng: random.Random) -> bytes:
    header, tensors = split(data)
    metadata = header.pop("__metadata__")
    edit(header, rng)
    if rng.random() < 0.5:
        entry = header[rng.choice(list(header))]
        if isinstance(entry, dict):
            kinds = ("F64", "F32", "BF16", "F8_E4M3", "F4", "C64", "I64", "U8", "BOOL", "X")
            entry["dtype"] = rng.choice(kinds)
    return joined({"__metadata__": metadata} | header, tensors)


def values_of_the_description(data: bytes, rng: random.Random) -> bytes:
    header, tensors = split(data)
    description = json.loads(header["__metadata__"]["model"])
    for _ in range(rng.choice((1, 1, 2))):
        edit(description, rng)
    header["__metadata__"]["model"] = json.dumps(description)
    return joined(header, tensors)


def values_of_tensors(data: bytes, rng: random.Random) -> bytes:
    header, tensors = split(data)
    result = bytearray(tensors)
    for _ in range(rng.choice((1, 10, 1000))):
        at = rng.randrange(len(result) - 4) & ~3
        odd = rng.choice((math.nan, math.inf, -math.inf, 3e38, -3e38, 1e-45))
        result[at : at + 4] = struct.pack("<f", odd)
    return joined(header, bytes(result))


@pytest.mark.parametrize(
    "damage",
    [
        bytes_of_the_header,
        blocks,
        entries_of_tensors,
        values_of_the_description,
        values_of_tensors,
    ],
)
@pytest.mark.filterwarnings("error:Casting complex")
def test_a_damaged_model_file_speaks_or_is_refused(
    data: bytes, damage: Callable[[bytes, random.Random], bytes], tmp_path: Path
) -> None:
    refused = 0
    for case in range(CASES):
        path = tmp_path / f"{case}.safetensors"
        path.write_bytes(damage(data, random.Random(f"{damage.__name__} {case}")))
        try:
            model = CaptionModel.load(path, device="cpu")
        except CaptionerError as error:
            assert str(error).startswith(f"model {path}: "), case
            assert str(error).isprintable() and len(str(error)) < 900, case
            refused += 1
        else:
            try:
                (result,) = model.caption([noise(0)])
            except CaptionerError as error:  # Finite weights can be too large to compute with.
                assert "scores for word 1 are not numbers" in str(error), case
            else:
                assert 0 <= result.confidence <= 1, case
        path.unlink()
    assert refused > CASES // 10


def test_the_undamaged_file_is_not_refused(data: bytes, tmp_path: Path) -> None:
    header, tensors = split(data)
    (tmp_path / "m.safetensors").write_bytes(joined(header, tensors))
    model = CaptionModel.load(tmp_path / "m.safetensors", device="cpu")
    assert all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())
    assert isinstance(model.decoder.embedding.weight, torch.Tensor)
