"""The file that holds a captioner: what is in it, and what is refused."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import shutil
import socket
import stat
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from captioner.errors import CaptionerError
from captioner.model.caption_model import CaptionModel
from captioner.model.model_file import file_sha256
from captioner.model.shipped import load_model
from captioner.networks.configs import ATTENTIONS, DecoderConfig, EncoderConfig
from captioner.text.tokenizer import Tokenizer
from helpers.images import noise
from helpers.models import WORDS, make_model, memory_limit, of_library, refusal, rewrite, texts

# --- the file ------------------------------------------------------------------------------


@pytest.mark.arithmetic
def test_a_saved_model_says_the_same(
    model: CaptionModel, file: Path, images: list[Image.Image]
) -> None:
    loaded = CaptionModel.load(file, device="cpu")
    assert texts(loaded.caption(images)) == texts(model.caption(images))
    assert not loaded.training
    assert loaded.encoder.config == model.encoder.config
    assert loaded.decoder.config == model.decoder.config
    assert loaded.tokenizer == model.tokenizer
    assert loaded.transform == model.transform == loaded.encoder.transform
    assert loaded.transform.resize == "crop"
    assert loaded.provenance == model.provenance
    assert loaded.path == file
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {
        torch.float32,
        torch.int64,
    }


def test_matrices_are_rounded_and_vectors_exact(model: CaptionModel, file: Path) -> None:
    loaded, original = CaptionModel.load(file, device="cpu").state_dict(), model.state_dict()
    assert list(loaded) == list(original)
    rounded = 0
    for name, tensor in original.items():
        if tensor.ndim > 1:
            assert torch.equal(loaded[name], tensor.half().float()), name
            rounded += not torch.equal(loaded[name], tensor)
        else:
            assert torch.equal(loaded[name], tensor), name
    assert rounded > 20


@pytest.mark.arithmetic
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_full_precision_is_exact(cell: str, tied: bool, attention: str, tmp_path: Path) -> None:
    model = make_model(cell, attention, tied=tied, layers=2)
    model.save(tmp_path / "model.safetensors", half=False)
    loaded = CaptionModel.load(tmp_path / "model.safetensors", device="cpu")
    assert loaded.caption([noise(0)]) == model.caption([noise(0)])
    assert all(torch.equal(t, loaded.state_dict()[n]) for n, t in model.state_dict().items())
    assert (loaded.decoder.output.weight is loaded.decoder.embedding.weight) == tied
    stored = load_file(tmp_path / "model.safetensors")
    assert ("decoder.output.weight" in stored) == (not tied)


def test_values_beyond_half_precision_are_kept(tmp_path: Path) -> None:
    model = make_model()
    with torch.no_grad():
        model.decoder.key.weight[0, 0] = 1e6
    model.save(tmp_path / "model.safetensors")
    loaded = CaptionModel.load(tmp_path / "model.safetensors", device="cpu")
    assert torch.equal(loaded.decoder.key.weight, model.decoder.key.weight)
    assert torch.equal(loaded.decoder.query.weight, model.decoder.query.weight.half().float())


def test_equal_models_make_equal_files(file: Path, tmp_path: Path) -> None:
    loaded = CaptionModel.load(file, device="cpu")
    for number in range(5):  # the safetensors library alone would choose one of two orders
        loaded.save(tmp_path / f"{number}.safetensors")
        assert (tmp_path / f"{number}.safetensors").read_bytes() == file.read_bytes()


def test_words_of_all_scripts_are_kept(tmp_path: Path) -> None:
    model = make_model()
    model.tokenizer = Tokenizer(["straße", "日", "สุ", "col·lega", *WORDS[4:]])
    model.provenance = {'quotes " and \n lines': "\x1f\x7f\u2028é"}
    model.save(tmp_path / "model.safetensors")
    loaded = CaptionModel.load(tmp_path / "model.safetensors", device="cpu")
    assert loaded.tokenizer == model.tokenizer
    assert loaded.provenance == model.provenance


def test_what_is_in_the_file(model: CaptionModel, file: Path) -> None:
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
        assert set(opened.keys()) == set(model.state_dict()) - {"decoder.output.weight"}
    assert metadata["format"] == "captioner-model-1"
    assert set(metadata) == {"format", "model"}
    assert json.loads(metadata["model"]) == {
        "encoder": {
            "name": "timm/test_resnet",
            "weights": "none",
            "trainable": "none",
            "freeze_batch_norm": True,
            "image_size": 64,
            "resize": "crop",
        },
        "decoder": {**asdict(model.decoder.config), "styles": []},
        "tokenizer": {"rule": "captioner-words-1", "words": WORDS},
        "transform": {
            "size": [64, 64],
            "resize": "crop",
            "interpolation": "bilinear",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        },
        "provenance": {"data": {"name": "noise", "images": {"train": 3}}, "steps": 7},
        "encoder_graph": json.loads(json.dumps(model.encoder.graph.to_dict())),
    }


def test_a_file_without_the_layers_of_its_cnn_has_them_from_the_library(
    model: CaptionModel, copy: Path, images: list[Image.Image]
) -> None:
    rewrite(copy, lambda d: of_library(d, "timm/test_resnet"))
    found = CaptionModel.load(copy, device="cpu")
    assert found.encoder.graph == model.encoder.graph
    assert [r.text for r in found.caption(images)] == [r.text for r in model.caption(images)]


def test_loading_needs_the_file_alone(
    model: CaptionModel,
    file: Path,
    images: list[Image.Image],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("network or pickle used")

    for owner, name in (
        (socket.socket, "connect"),
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (torch, "load"),
    ):
        monkeypatch.setattr(owner, name, refuse)
    shutil.copy(file, tmp_path / "alone.safetensors")
    monkeypatch.chdir(tmp_path)
    # As a model trained from ImageNet weights or from a file that is elsewhere would say.
    for weights in ("imagenet", "/no/such/file.pth"):

        def set_weights(description: dict[str, Any], weights: str = weights) -> None:
            description["encoder"]["weights"] = weights

        rewrite(Path("alone.safetensors"), set_weights)
        loaded = CaptionModel.load("alone.safetensors", device="cpu")
        assert loaded.encoder.config.weights == weights
        assert texts(loaded.caption(images)) == texts(model.caption(images))


def test_a_model_of_torchvision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = CaptionModel.build(
        EncoderConfig("torchvision/squeezenet1_1", "none", image_size=64),
        DecoderConfig("gru", "none", hidden_size=16, embed_size=16),
        Tokenizer(WORDS),
    ).eval()
    model.save(tmp_path / "model.safetensors", half=False)
    loaded = CaptionModel.load(tmp_path / "model.safetensors", device="cpu")
    assert loaded.caption([noise(1)]) == model.caption([noise(1)])


def test_hash(file: Path, model: CaptionModel) -> None:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert file_sha256(file) == digest
    assert CaptionModel.load(file, device="cpu").sha256 == digest
    with pytest.raises(CaptionerError, match="save the model and load it"):
        _ = model.sha256


def test_load_model_takes_a_path(file: Path) -> None:
    assert load_model(str(file), device="cpu").path == file
    assert load_model(file, device="cpu", precision="bf16").precision == "bf16"


# --- writing it ----------------------------------------------------------------------------


def test_saving_makes_the_folder_and_leaves_nothing_else(
    model: CaptionModel, tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "folder"
    model.save(folder / "model.safetensors")
    assert [path.name for path in folder.iterdir()] == ["model.safetensors"]


def test_a_saved_model_can_be_read_by_others(model: CaptionModel, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        model.save(tmp_path / "model.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == 0o644


def test_a_failed_save_keeps_the_old_file(tmp_path: Path) -> None:
    model = make_model()
    model.save(tmp_path / "model.safetensors")
    before = (tmp_path / "model.safetensors").read_bytes()
    model.provenance = {"path": Path("not JSON")}
    with pytest.raises(TypeError):
        model.save(tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_places_that_cannot_be_written(model: CaptionModel, tmp_path: Path) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "file").write_text("")
    for path, message in (
        (tmp_path / "folder.safetensors", "folder.safetensors cannot be written: is a directory"),
        (tmp_path / "file" / "m.safetensors", "file cannot be created: a file has its name"),
        (tmp_path / ("x" * 300), "xxx cannot be written: file name too long"),
    ):
        with pytest.raises(CaptionerError, match=message):
            model.save(path)
    assert {path.name for path in tmp_path.iterdir()} == {"folder.safetensors", "file"}
    assert list((tmp_path / "folder.safetensors").iterdir()) == []


def test_a_folder_without_permission(
    model: CaptionModel,
    shared_folder: Path,
    without_privileges: Callable[[], AbstractContextManager[None]],
) -> None:
    locked = shared_folder / "locked"
    locked.mkdir(mode=0o555)
    with (
        without_privileges(),
        pytest.raises(CaptionerError, match="cannot be written: permission denied"),
    ):
        model.save(locked / "model.safetensors")


# --- files that are no model ---------------------------------------------------------------


def test_a_missing_model(tmp_path: Path) -> None:
    assert "no such file; `default` is the model that ships" in refusal(tmp_path / "no.safetensors")
    assert "no such file" in refusal(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.00005, 0.001, 0.1, 0.5, 0.9999])
def test_a_truncated_file(copy: Path, share: float) -> None:
    data = copy.read_bytes()
    copy.write_bytes(data[: int(len(data) * share)])
    assert "not a readable safetensors file" in refusal(copy)


def test_a_file_with_something_after_its_end(copy: Path) -> None:
    copy.write_bytes(copy.read_bytes() + b"more")
    assert "not a readable safetensors file" in refusal(copy)


@pytest.mark.parametrize(
    "content",
    [
        bytes(1000),
        bytes(range(256)) * 40,
        b"\xff" * 1000,
        b"<!DOCTYPE html><html>404</html>" * 30,
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 64) + b"[" * 64,
        pickle.dumps({"a": 1}),
    ],
)
def test_files_of_other_kinds(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "other.safetensors").write_bytes(content)
    message = refusal(tmp_path / "other.safetensors")
    assert "not a readable safetensors file" in message
    assert "`captioner export`" in message


def test_tensors_of_a_kind_without_numbers(copy: Path) -> None:
    data = copy.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    entry = header["decoder.key.weight"]
    entry["dtype"], entry["shape"] = "F4", [2 * math.prod(entry["shape"]) * 2]
    text = json.dumps(header).encode()
    copy.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    refusal(copy)


def test_another_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    assert "its format is None, wanted 'captioner-model-1'" in refusal(path)
    save_file({"weight": torch.zeros(3)}, path, {"format": "pt"})
    assert "its format is 'pt', wanted 'captioner-model-1'; make one from a" in refusal(path)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "3", '"text"', "[" * 100_000, "\0"])
def test_a_description_that_is_none(copy: Path, text: str) -> None:
    rewrite(copy, model=text)
    assert "its description is damaged; get the file again" in refusal(copy)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.pop("tokenizer"), "'tokenizer' is missing"),
        (lambda d: d.pop("encoder"), "'encoder' is missing"),
        (lambda d: d.pop("decoder"), "'decoder' is missing"),
        (lambda d: d.pop("transform"), "'transform' is missing"),
        (lambda d: d.pop("provenance"), "'provenance' is missing"),
        (lambda d: d.update(tokenizer=[]), "tokenizer: expected a table"),
        (lambda d: d.update(encoder=[]), "not a model that this version can use"),
        (lambda d: d.update(decoder=None), "not a model that this version can use"),
        (lambda d: d.update(transform="squash"), "image transform cannot be used"),
        (lambda d: d.update(provenance=5), "not a model that this version can use"),
        (lambda d: d["tokenizer"].update(rule="captioner-words-9"), "captioner-words-9"),
        (lambda d: d["tokenizer"]["words"].append("two words"), "not one word"),
        (lambda d: of_library(d, "timm/no_such_model"), "has no such model"),
        (lambda d: d["encoder"].update(name=["timm/x"]), "write timm/MODEL"),
        (lambda d: d["encoder"].update(future_option=1), "future_option"),
        (lambda d: d["encoder"].update(trainable={}), "trainable={}"),
        (lambda d: d["encoder"].update(image_size=-5), "image_size=-5"),
        (lambda d: d["decoder"].update(cell="mamba"), "cell='mamba'"),
        (lambda d: d["decoder"].update(dropout="0.5"), "dropout='0.5'"),
        (lambda d: d["decoder"].update(tied=1), "tied=1"),
        (lambda d: d["transform"].pop("std"), "std missing"),
        (lambda d: d["transform"].update(mean=["a", "b", "c"]), "mean="),
    ],
)
def test_a_description_that_cannot_be_used(
    copy: Path, edit: Callable[[dict[str, Any]], Any], message: str
) -> None:
    def in_place(description: dict[str, Any]) -> None:
        edit(description)

    rewrite(copy, in_place)
    assert message in refusal(copy)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (lambda s: s.clear(), "of the decoder are missing"),
        (lambda s: s.pop("decoder.readout.weight"), "(readout.weight)"),
        (lambda s: s.pop("decoder.embedding.weight"), "(embedding.weight, output.weight)"),
        (lambda s: s.pop("decoder.pooled_projection.weight"), "pooled_projection.weight"),
        (lambda s: s.update({"decoder.pooled_projection.weight": torch.zeros(3)}), "pooled_proj"),
        (lambda s: s.pop("encoder.backbone.conv1.0.weight"), "(conv1.0.weight)"),
        (lambda s: s.update({"decoder.key.weight": torch.zeros(24)}), "(key.weight)"),
        (lambda s: s.update({"decoder.output.bias": torch.zeros(5)}), "(output.bias)"),
        (lambda s: s.update({"encoder.backbone.conv1.0.weight": torch.zeros(2, 2)}), "conv1.0"),
        (lambda s: s.update({"decoder.extra": torch.zeros(2)}), "decoder.extra"),
        (lambda s: s.update({"encoder.extra": torch.zeros(2)}), "encoder.extra"),
        (lambda s: s["decoder.key.weight"].fill_(math.nan), "key.weight is not finite"),
        (lambda s: s["decoder.output.bias"].fill_(math.inf), "output.bias is not finite"),
        (
            lambda s: s.update({"decoder.key.weight": torch.zeros(24, 24, dtype=torch.int32)}),
            "decoder.key.weight is of type torch.int32, wanted torch.float32",
        ),
        (
            lambda s: s.update({"decoder.key.weight": torch.zeros(24, 24, dtype=torch.complex64)}),
            "decoder.key.weight is of type torch.complex64, wanted torch.float32",
        ),
    ],
)
def test_tensors_that_do_not_fit(
    copy: Path, tensors: Callable[[dict[str, Tensor]], Any], message: str
) -> None:
    assert message in refusal(rewrite(copy, tensors=tensors))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d["decoder"].update(hidden_size=60_000), "of the decoder are missing"),
        (lambda d: d["decoder"].update(hidden_size=2**62), "this version can use"),
        (lambda d: d["decoder"].update(embed_size=2_000_000), "of the decoder are missing"),
        (lambda d: d["decoder"].update(layers=10**9), "of the decoder are missing"),
        (lambda d: d["decoder"].update(heads=2**70, attention="none"), "this version can use"),
        (lambda d: of_library(d, "timm/convnext_xxlarge"), "timm/convnext_xxlarge"),
        (lambda d: of_library(d, "torchvision/regnet_y_128gf"), "regnet_y_128gf"),
        (lambda d: d["encoder"].update(image_size=100_000), "image_size=100000"),
        (lambda d: d["transform"].update(size=[100_000, 100_000]), "size=(100000, 100000)"),
        (
            lambda d: d["tokenizer"]["words"].extend(f"word{i}" for i in range(20_000)),
            "of the decoder are missing or of another shape (embedding.weight, output.weight",
        ),
    ],
)
def test_a_description_of_something_huge_takes_no_memory(
    copy: Path, edit: Callable[[dict[str, Any]], Any], message: str
) -> None:
    def in_place(description: dict[str, Any]) -> None:
        edit(description)

    rewrite(copy, in_place)
    with memory_limit(400_000_000):
        assert message in refusal(copy)


def test_what_a_file_says_is_quoted_on_one_line_and_short(copy: Path) -> None:
    words = ["\x1b[31m two\nlines " * 1000]
    message = refusal(rewrite(copy, lambda d: d["tokenizer"].update(words=words)))
    assert message.isprintable() and len(message) < 900


def test_a_description_without_end(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioner.model.model_file.MAX_DESCRIPTION", 100)
    assert "its description is damaged" in refusal(copy)
