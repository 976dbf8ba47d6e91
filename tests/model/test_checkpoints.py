"""Captioners out of training checkpoints."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from captioner.cli.entry import main
from captioner.errors import CaptionerError
from captioner.model.caption_model import CaptionModel
from captioner.model.checkpoints import export_checkpoint, load_any, load_checkpoint
from captioner.text.tokenizer import Tokenizer
from helpers.models import make_model, memory_limit, refusal, texts

# --- checkpoints ---------------------------------------------------------------------------


def make_checkpoint(model: CaptionModel, path: Path, **more: Any) -> Path:
    content = {
        "state_dict": {f"model.{name}": t for name, t in model.state_dict().items()},
        "captioner": model.description(),
        "epoch": 3,
        "optimizer_states": [{"state": {}, "param_groups": []}],
    }
    torch.save(content | more, path)
    return path


@pytest.mark.arithmetic
def test_a_checkpoint_says_the_same(
    model: CaptionModel, images: list[Image.Image], tmp_path: Path
) -> None:
    path = make_checkpoint(model, tmp_path / "last.ckpt")
    for loaded in (load_checkpoint(path), load_any(path), load_any(str(path))):
        assert loaded.caption(images) == model.caption(images)
        assert loaded.provenance == model.provenance
        assert not loaded.training
        assert loaded.path is None


def test_exporting_a_checkpoint(
    model: CaptionModel, file: Path, images: list[Image.Image], tmp_path: Path
) -> None:
    path = make_checkpoint(model, tmp_path / "last.ckpt")
    exported = export_checkpoint(path, tmp_path / "out" / "model.safetensors")
    assert exported.path == tmp_path / "out" / "model.safetensors"
    assert exported.path.read_bytes() == file.read_bytes()
    assert texts(exported.caption(images)) == texts(model.caption(images))
    assert load_any(exported.path).sha256 == exported.sha256


@pytest.mark.parametrize(
    ("weights", "shares"),
    [(None, None), ((0.5, 0.25, 0.25), (0.5, 0.25, 0.25)), ((2, 0, 6), (0.25, 0.0, 0.75))],
)
def test_exporting_the_mean_of_several_checkpoints(
    model: CaptionModel,
    tmp_path: Path,
    weights: Sequence[float] | None,
    shares: Sequence[float] | None,
) -> None:
    paths, added = [], (0.0, 0.5, 1.0)
    for number, value in enumerate(added):
        moved = copy_of(model)
        moved.provenance = {"seed": number}
        with torch.no_grad():
            for parameter in moved.parameters():
                parameter.add_(value)
        paths.append(make_checkpoint(moved, tmp_path / f"{number}.ckpt"))
    paths[2] = export_checkpoint(paths[2], tmp_path / "2.safetensors").path  # as a model file
    mean = export_checkpoint(paths[0], tmp_path / "mean.safetensors", *paths[1:], weights=weights)
    origin: dict[str, object] = {"averaged": [{"seed": 0}, {"seed": 1}, {"seed": 2}]}
    if shares is not None:
        origin["weights"] = list(shares)
    assert mean.provenance == origin
    moved_by = sum(np.multiply(added, shares or [1 / 3] * 3))
    for (name, here), there in zip(mean.named_parameters(), model.parameters(), strict=True):
        assert torch.allclose(here, there + moved_by, atol=2e-3), name  # stored in half precision
    for (name, here), there in zip(mean.named_buffers(), model.buffers(), strict=True):
        assert torch.equal(here, there), name


@pytest.mark.parametrize("weights", [None, (0, 0.25, 0.75)])
def test_a_further_layer_is_the_mean_of_the_models_that_have_it(
    tmp_path: Path, weights: Sequence[float] | None
) -> None:
    models = [make_model(attention="layered", layers=2) for _ in range(2)] + [make_model()]
    paths = []
    for number, each in enumerate(models):
        with torch.no_grad():
            for parameter in each.decoder.parameters():
                parameter.fill_(number)
        paths.append(make_checkpoint(each, tmp_path / f"{number}.ckpt"))
    mean = export_checkpoint(paths[0], tmp_path / "mean.safetensors", *paths[1:], weights=weights)
    decoder = mean.decoder
    assert decoder.config == models[0].decoder.config
    shared, upper = (1.0, 0.5) if weights is None else (1.75, 1.0)
    assert torch.all(decoder.readout.weight == shared)
    assert torch.all(next(decoder.upper.parameters()) == upper)
    with pytest.raises(CaptionerError, match="its decoder is not that of the first"):
        export_checkpoint(paths[2], tmp_path / "other.safetensors", paths[0])


def copy_of(model: CaptionModel) -> CaptionModel:
    return CaptionModel.from_description(model.description(), model.state_dict())


def test_only_runs_that_fit_are_averaged(
    model: CaptionModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = make_checkpoint(model, tmp_path / "first.ckpt")
    other = copy_of(model)
    other.tokenizer = Tokenizer(tuple(reversed(model.tokenizer.words)))
    second = make_checkpoint(other, tmp_path / "second.ckpt")
    with pytest.raises(
        CaptionerError, match=r"second\.ckpt: its vocabulary is not that of the fir"
    ):
        export_checkpoint(first, tmp_path / "mean.safetensors", second)
    arguments = ["export", "--checkpoint", str(first), str(second)]
    output = ["--output", str(tmp_path / "mean.safetensors")]
    for weights, message in (
        ([], "its vocabulary is not that"),
        (["0.5"], "weights 0.5: a mean of 2 checkpoints needs 2 numbers from 0 on, not all"),
        (
            ["0", "0"],
            "weights 0.0, 0.0: a mean of 2 checkpoints needs 2 numbers from 0 on, not all",
        ),
    ):
        given = ["--weights", *weights] if weights else []
        assert main([*arguments, *given, *output]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "mean.safetensors").exists()


@pytest.mark.parametrize(
    "content",
    [
        5,
        [],
        {},
        {"state_dict": {}},
        {"captioner": {}},
        {"state_dict": 5, "captioner": {}},
        {"state_dict": {}, "captioner": "text"},
        {"state_dict": {5: torch.zeros(1)}, "captioner": {}},
    ],
)
def test_other_checkpoints(content: object, tmp_path: Path) -> None:
    path = tmp_path / "other.ckpt"
    torch.save(content, path)
    with pytest.raises(CaptionerError) as caught:
        load_checkpoint(path)
    assert str(caught.value) == f"checkpoint {path}: it was not written by `captioner fit`"


def test_a_checkpoint_that_does_not_fit_is_named(model: CaptionModel, tmp_path: Path) -> None:
    path = make_checkpoint(model, tmp_path / "a.ckpt", state_dict={"model.encoder.x": 5})
    with pytest.raises(CaptionerError, match=rf"checkpoint {path}: not a model that this version"):
        load_checkpoint(path)
    path = make_checkpoint(model, tmp_path / "b.ckpt", captioner={})
    with pytest.raises(CaptionerError, match=rf"checkpoint {path}: .*'tokenizer' is missing"):
        load_checkpoint(path)


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CaptionerError, match=r"last\.ckpt: no such file"):
        load_any(tmp_path / "last.ckpt")


def test_a_damaged_checkpoint(model: CaptionModel, tmp_path: Path) -> None:
    path = make_checkpoint(model, tmp_path / "last.ckpt")
    data = path.read_bytes()
    for damaged in (b"", data[: len(data) // 2], b"text" * 50):
        path.write_bytes(damaged)
        with pytest.raises(CaptionerError, match="refused, it is not a plain checkpoint"):
            load_checkpoint(path)


class Evil:
    """Its pickle makes a folder when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("place", ["captioner", "state_dict", "callbacks", "file"])
def test_a_crafted_checkpoint_is_refused_and_not_executed(
    model: CaptionModel, place: str, tmp_path: Path
) -> None:
    path, folder = tmp_path / "last.ckpt", tmp_path / "executed"
    if place == "file":
        path.write_bytes(pickle.dumps(Evil(folder), protocol=2))
    else:
        make_checkpoint(model, path, **{place: {"x": Evil(folder)}})
    with pytest.raises(CaptionerError, match=f"checkpoint {path}: refused"):
        load_checkpoint(path)
    with pytest.raises(CaptionerError, match="refused"):
        export_checkpoint(path, tmp_path / "model.safetensors")
    assert not folder.exists()
    assert not (tmp_path / "model.safetensors").exists()
    # The trap is real: an unsafe reader falls into it.
    if place == "file":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert folder.exists()


def test_a_crafted_pickle_named_as_a_model_is_not_executed(
    model: CaptionModel, tmp_path: Path
) -> None:
    path = make_checkpoint(model, tmp_path / "a.ckpt", callbacks=Evil(tmp_path / "executed"))
    assert zipfile.is_zipfile(path)
    path = path.rename(tmp_path / "model.safetensors")
    assert "not a readable safetensors file" in refusal(path)
    assert not (tmp_path / "executed").exists()


class Nested:
    """Its pickle reads another pickle, of bytes in it."""

    def __init__(self, inner: bytes) -> None:
        self.inner = inner

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (self.inner,)


@pytest.mark.parametrize("kind", ["pickle in a pickle", "old format", "other entry of the zip"])
def test_a_hidden_pickle_is_refused_and_not_executed(
    model: CaptionModel, kind: str, tmp_path: Path
) -> None:
    path, folder = tmp_path / "last.ckpt", tmp_path / "executed"
    content = {"state_dict": {}, "captioner": {}}
    inner = pickle.dumps(Evil(folder), protocol=2)
    if kind == "pickle in a pickle":
        torch.save(content | {"loops": Nested(inner)}, path)
    elif kind == "old format":
        torch.save(content | {"x": Evil(folder)}, path, _use_new_zipfile_serialization=False)
    else:
        make_checkpoint(model, path)
        with zipfile.ZipFile(path, "a") as archive:
            top = archive.namelist()[0].partition("/")[0]
            archive.writestr(f"{top}/constants.pkl", inner)  # what makes it TorchScript to torch
    with pytest.raises(CaptionerError, match=f"checkpoint {path}: "):
        load_checkpoint(path)
    assert not folder.exists()
    if kind != "other entry of the zip":  # The trap is real.
        torch.load(path, weights_only=False)
    else:
        pickle.loads(inner)
    assert folder.exists()


def test_a_compressed_checkpoint_is_refused_before_it_takes_memory(
    model: CaptionModel, tmp_path: Path
) -> None:
    path = make_checkpoint(model, tmp_path / "a.ckpt")
    packed = tmp_path / "packed.ckpt"
    with (
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    torch.load(packed, weights_only=True)  # PyTorch would take it.
    with pytest.raises(CaptionerError, match="refused, it is compressed"):
        load_checkpoint(packed)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(1).expand(10**6, 10**6), "its tensors are larger than the file"),
        (torch.zeros(2, 2).to_sparse(), "it has tensors of an unusual kind"),
        (torch.zeros(10**9, device="meta"), "it has tensors of an unusual kind"),
    ],
)
def test_a_checkpoint_of_something_huge_takes_no_memory(
    model: CaptionModel, tensor: Tensor, message: str, tmp_path: Path
) -> None:
    path = make_checkpoint(model, tmp_path / "a.ckpt", state_dict={"model.decoder.x": tensor})
    with memory_limit(400_000_000), pytest.raises(CaptionerError, match=message):
        load_checkpoint(path)
