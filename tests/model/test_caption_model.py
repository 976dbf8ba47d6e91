"""The captioner as a whole: what it says, and the one file that it is kept in."""

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
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from captioner.cli.entry import main
from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError
from captioner.images.reading import ImageError
from captioner.images.transform import ImageTransform
from captioner.model.caption_model import CaptionModel
from captioner.model.checkpoints import export_checkpoint, load_any, load_checkpoint
from captioner.model.model_file import file_sha256
from captioner.model.results import CaptionResult
from captioner.model.shipped import load_model
from captioner.model.tags import TagCalibration
from captioner.networks.configs import DecoderConfig, EncoderConfig
from captioner.networks.decoder import shift
from captioner.networks.features import ImageFeatures
from captioner.text.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer, tokenize
from helpers.images import noise

CAPTIONS = [
    "a dog runs in the snow",
    "the man jumps",
    "a red ball on grass",
    "two men in blue water near the old red boat",
]
WORDS = sorted(set(tokenize(" ".join(CAPTIONS))))


def make_model(cell: str = "lstm", attention: str = "spatial", **more: Any) -> CaptionModel:
    torch.manual_seed(0)
    options: dict[str, Any] = {"hidden_size": 24, "embed_size": 16, "heads": 2}
    model = CaptionModel.build(
        EncoderConfig("timm/test_resnet", "none", image_size=64, resize="crop"),
        DecoderConfig(cell, attention, **(options | more)),
        Tokenizer(WORDS),
    )
    for parameter in model.decoder.parameters():
        parameter.data.mul_(3)  # Untrained weights are so small that no word stands out.
    model.provenance = {"data": {"name": "noise", "images": {"train": 3}}, "steps": 7}
    return model.eval()


@pytest.fixture(scope="module")
def model() -> CaptionModel:
    """A model that learnt four captions of four pictures by heart. Not to be changed."""
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


@pytest.fixture(scope="module")
def file(model: CaptionModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    model.save(path)
    return path


@pytest.fixture
def images() -> list[Image.Image]:
    return [noise(seed) for seed in range(4)]


def texts(results: list[CaptionResult]) -> list[str]:
    return [result.text for result in results]


# --- captions ------------------------------------------------------------------------------


def test_pictures_get_the_captions_that_were_learnt(
    model: CaptionModel, images: list[Image.Image]
) -> None:
    results = model.caption(images)
    assert texts(results) == CAPTIONS
    for result in results:
        assert len(result.candidates) == 1
        best = result.candidates[0]
        assert (result.text, result.confidence) == (best.text, best.confidence)
        assert best.words == tuple(tokenize(best.text))
        assert len(best.word_probs) == len(best.words) + 1
        assert best.confidence > 0.8


def test_paths_pictures_and_arrays_are_the_same(model: CaptionModel, tmp_path: Path) -> None:
    image = noise(5)
    image.save(tmp_path / "a.png")
    given: list[Any] = [str(tmp_path / "a.png"), tmp_path / "a.png", image, np.asarray(image)]
    for each in given:
        assert model.caption([each]) == model.caption([image])


@pytest.mark.arithmetic
def test_a_batch_gets_what_each_picture_gets(
    model: CaptionModel, images: list[Image.Image]
) -> None:
    together = model.caption(images)
    for image, result in zip(images, together, strict=True):
        alone = model.caption([image])[0]
        assert alone.text == result.text
        assert alone.confidence == pytest.approx(result.confidence, abs=1e-5)


def test_no_pictures_get_no_captions(model: CaptionModel) -> None:
    assert model.caption([]) == []
    assert model.caption(np.zeros((0, 8, 8, 3), np.uint8)) == []  # type: ignore[arg-type]
    assert model.caption_batch(torch.zeros(0, 3, 64, 64)) == []


def test_an_array_of_pictures_is_a_list_of_them(model: CaptionModel) -> None:
    stack = np.stack([np.asarray(noise(1)), np.asarray(noise(2))])
    assert model.caption(stack) == model.caption([noise(1), noise(2)])  # type: ignore[arg-type]


@pytest.mark.parametrize("single", ["a.jpg", Path("a.jpg"), noise(1), np.asarray(noise(1))])
def test_a_single_picture_is_no_list(model: CaptionModel, single: Any) -> None:
    with pytest.raises(CaptionerError, match=r"write caption\(\[picture\]\)"):
        model.caption(single)


def test_a_bad_picture_is_an_error(model: CaptionModel, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    with pytest.raises(ImageError, match="a.jpg"):
        model.caption([noise(0), tmp_path / "a.jpg"])
    with pytest.raises(ImageError):
        model.caption([tmp_path / "missing.jpg"])


@pytest.mark.parametrize("max_length", [3, 20])
def test_confidence_is_the_geometric_mean(
    model: CaptionModel, images: list[Image.Image], max_length: int
) -> None:
    options = DecodingOptions(beam_size=3, num_captions=3, max_length=max_length)
    for result in model.caption(images, options):
        assert len(result.candidates) == 3
        for candidate in result.candidates:
            probs = candidate.word_probs
            assert len(probs) in (len(candidate.words), len(candidate.words) + 1)
            assert all(0 <= prob <= 1 for prob in probs)
            assert candidate.confidence == pytest.approx(math.prod(probs) ** (1 / len(probs)))
            assert candidate.log_prob == pytest.approx(sum(map(math.log, probs)), rel=1e-5)
            assert 0 < candidate.confidence < 1


@torch.inference_mode()
def test_probabilities_are_those_of_the_decoder(
    model: CaptionModel, images: list[Image.Image]
) -> None:
    pixels = torch.stack([model.transform(image) for image in images])
    features = model.encode(pixels)
    for i, result in enumerate(model.caption(images, DecodingOptions(max_length=12))):
        candidate = result.candidates[0]
        ids = [BOS_ID, *map(model.tokenizer.id_of, candidate.words), EOS_ID]
        inputs, targets = shift(torch.tensor(ids)[None, None])
        readout = model.decoder(ImageFeatures(*(part[i : i + 1] for part in features)), inputs)
        log_probs = model.decoder.logits(readout).log_softmax(-1)
        said = log_probs.gather(-1, targets[..., None]).flatten().exp()
        expected = said[: len(candidate.word_probs)].tolist()
        assert candidate.word_probs == pytest.approx(expected, abs=1e-5)


def test_features_captions_and_pixels_agree(model: CaptionModel, images: list[Image.Image]) -> None:
    pixels = torch.stack([model.transform(image) for image in images])
    expected = model.caption(images)
    assert model.caption_batch(pixels) == expected
    assert model.caption_features(model.encode(pixels)) == expected


@pytest.mark.arithmetic
def test_features_kept_in_half_precision_can_be_captioned(
    model: CaptionModel, images: list[Image.Image]
) -> None:
    features = model.encode(torch.stack([model.transform(image) for image in images]))
    half = ImageFeatures(features.grid.half(), features.pooled.half())
    assert texts(model.caption_features(half)) == texts(model.caption(images))


@pytest.mark.parametrize("attention", ["none", "spatial"])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_every_decoder_speaks(cell: str, attention: str) -> None:
    speaker = make_model(cell, attention)
    results = speaker.caption([noise(0), noise(1)], DecodingOptions(num_captions=2))
    assert [len(result.candidates) for result in results] == [2, 2]


# --- modes ---------------------------------------------------------------------------------


def test_captions_do_not_depend_on_the_mode(images: list[Image.Image]) -> None:
    model = make_model(dropout=0.9)
    expected = model.caption(images)
    model.train()
    assert model.caption(images) == expected
    assert model.training
    assert model.decoder.training
    pixels = torch.stack([model.transform(image) for image in images])
    assert model.caption_batch(pixels) == expected


def test_a_trained_encoder_does_not_drop_out_either(images: list[Image.Image]) -> None:
    torch.manual_seed(0)
    encoder = EncoderConfig(
        "timm/test_resnet", "none", "all", image_size=64, freeze_batch_norm=False
    )
    model = CaptionModel.build(encoder, DecoderConfig(hidden_size=8), Tokenizer(WORDS)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = model.caption(images)
    assert model.encoder.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.eval().caption(images) == trained


def test_the_mode_is_restored_after_an_error() -> None:
    model = make_model().train()
    with torch.no_grad():
        model.decoder.output.bias.fill_(float("nan"))
    with pytest.raises(CaptionerError, match="NaN"):
        model.caption([noise(0)])
    assert model.training
    assert model.decoder.training


# --- banned words --------------------------------------------------------------------------


def test_banned_words_are_not_said(model: CaptionModel, images: list[Image.Image]) -> None:
    said = model.caption(images)[2].candidates[0].words
    assert said == ("a", "red", "ball", "on", "grass")
    banned = ("RED", "ball", "Grass,")  # the tokenizer's rule applies to them too
    best = model.caption(images, DecodingOptions(banned_words=banned))[2].candidates[0]
    assert best.words
    assert not {"red", "ball", "grass"} & set(best.words)


def test_banned_words_that_the_model_does_not_know_change_nothing(
    model: CaptionModel, images: list[Image.Image]
) -> None:
    options = DecodingOptions(banned_words=("zebra", "日"))
    assert model.caption(images, options) == model.caption(images)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("hot dog", r"'hot dog': it is 2 words \(hot, dog\); give single words"),
        ("man's", r"is 2 words \(man, 's\)"),
        ("!?", "'!\\?': it has no letter; give single words"),
    ],
)
def test_banned_words_must_be_single_words(model: CaptionModel, word: str, message: str) -> None:
    with pytest.raises(CaptionerError, match=message):
        model.caption([noise(0)], DecodingOptions(banned_words=("dog", word)))


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
@pytest.mark.parametrize("attention", ["none", "spatial"])
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


def rewrite(
    path: Path,
    edit: Callable[[dict[str, Any]], Any] = lambda description: None,
    tensors: Callable[[dict[str, Tensor]], Any] = lambda tensors: None,
    **metadata: str,
) -> Path:
    """Change a model file's description (in place, or by what `edit` returns) and tensors."""
    with safe_open(path, framework="pt") as opened:
        old = opened.metadata()
    state = load_file(path)
    description = json.loads(old["model"])
    description = edit(description) or description
    tensors(state)
    path.unlink()
    save_file(state, path, old | {"model": json.dumps(description)} | metadata)
    return path


def of_library(description: dict[str, Any], name: str) -> None:
    """As files of before describe a CNN whose layers were not known: by its name alone."""
    del description["encoder_graph"]
    description["encoder"]["name"] = name


@pytest.fixture
def copy(file: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(file, tmp_path / "copy.safetensors"))


def refusal(path: Path) -> str:
    with pytest.raises(CaptionerError) as caught:
        CaptionModel.load(path, device="cpu")
    assert str(caught.value).startswith(f"model {path}: ")
    return str(caught.value)


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


@contextmanager
def memory_limit(more_bytes: int) -> Iterator[None]:
    resource = pytest.importorskip("resource")
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("needs /proc")
    used = int(statm.read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + more_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


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


def test_exporting_the_mean_of_several_checkpoints(model: CaptionModel, tmp_path: Path) -> None:
    paths, added = [], (0.0, 0.5, 1.0)
    for number, value in enumerate(added):
        moved = copy_of(model)
        moved.provenance = {"seed": number}
        with torch.no_grad():
            for parameter in moved.parameters():
                parameter.add_(value)
        paths.append(make_checkpoint(moved, tmp_path / f"{number}.ckpt"))
    mean = export_checkpoint(paths[0], tmp_path / "mean.safetensors", *paths[1:])
    assert mean.provenance == {"averaged": [{"seed": 0}, {"seed": 1}, {"seed": 2}]}
    for (name, here), there in zip(mean.named_parameters(), model.parameters(), strict=True):
        assert torch.allclose(here, there + 0.5, atol=2e-3), name  # stored in half precision
    for (name, here), there in zip(mean.named_buffers(), model.buffers(), strict=True):
        assert torch.equal(here, there), name


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
    assert main([*arguments, "--output", str(tmp_path / "mean.safetensors")]) == 2
    assert "its vocabulary is not that" in capsys.readouterr().err
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


# --- where it runs -------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["gpu", "", "meta", "opengl", "cuda:99", "hpu"])
def test_devices_that_cannot_be_used(file: Path, device: str) -> None:
    with pytest.raises(CaptionerError) as caught:
        CaptionModel.load(file, device=device)
    message = str(caught.value)
    assert message.startswith(f"device {device!r} cannot be used (")
    assert message.endswith("; use auto, cpu, cuda or mps")
    assert "\n" not in message


def test_unknown_precisions(file: Path) -> None:
    with pytest.raises(CaptionerError, match="'fp8': use one of auto, fp32, bf16, fp16"):
        CaptionModel.load(file, device="cpu", precision="fp8")


@pytest.mark.arithmetic
def test_full_precision_is_what_a_processor_gets(file: Path) -> None:
    loaded = CaptionModel.load(file, device="cpu")
    assert loaded.precision == "fp32"
    assert loaded.device == torch.device("cpu")


@pytest.mark.arithmetic
def test_lower_precision_changes_the_encoder_only_a_little(
    file: Path, images: list[Image.Image]
) -> None:
    full = CaptionModel.load(file, device="cpu")
    low = CaptionModel.load(file, device="cpu", precision="bf16")
    pixels = torch.stack([full.transform(image) for image in images])
    with torch.inference_mode():
        exact, rounded = full.encode(pixels), low.encode(pixels)
    assert rounded.grid.dtype == rounded.pooled.dtype == torch.float32
    assert not torch.equal(exact.grid, rounded.grid)
    assert (exact.grid - rounded.grid).abs().mean() < 0.02 * exact.grid.abs().mean()
    assert len(low.caption(images)) == 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device(file: Path, images: list[Image.Image]) -> None:
    loaded = CaptionModel.load(file, device="cuda", precision="fp32")
    assert loaded.device.type == "cuda"
    cpu = CaptionModel.load(file, device="cpu")
    assert texts(loaded.caption(images)) == texts(cpu.caption(images))


def test_the_transform_may_be_another(model: CaptionModel) -> None:
    other = ImageTransform((64, 64), "pad")
    changed = CaptionModel(model.encoder, model.decoder, model.tokenizer, other)
    assert changed.transform is other
    assert changed.caption([noise(1)])[0].candidates[0].words


def test_the_vocabulary_is_the_tokenizers(model: CaptionModel) -> None:
    assert model.tokenizer == Tokenizer(WORDS)
    assert model.decoder.embedding.num_embeddings == len(WORDS) + 4


# --- confidence ----------------------------------------------------------------------------


def test_a_calibrated_model_considers_three_captions_and_shows_those_asked_for(
    tagging_model: CaptionModel, photo_folder: Path
) -> None:
    model = CaptionModel.load(tagging_model.path)
    model.tag_calibration = TagCalibration((0.1, 0.2, 0.4, 0.3, 0.8, 1.0, 0.5, 0.0, 0.0))
    paths = sorted(photo_folder.glob("*.*"))
    full = model.caption(paths, DecodingOptions(num_captions=3, max_length=6))
    for result, more in zip(model.caption(paths, DecodingOptions(max_length=6)), full, strict=True):
        assert [c.text for c in result.candidates] == [more.text]
        assert [c.text for c in result.considered] == [c.text for c in more.candidates]
        assert len(result.considered) == 3
        assert result.calibrated == pytest.approx(more.calibrated, abs=1e-5)
        assert result.confidence == result.calibrated
    (greedy,) = model.caption(paths[:1], DecodingOptions(beam_size=1, max_length=6))
    assert len(greedy.considered) == 1
    assert greedy.calibrated is not None
    # Nothing was measured of captions that are drawn at random.
    (drawn,) = model.caption(paths[:1], DecodingOptions(sample=True, max_length=6))
    assert drawn.calibrated is None
    assert drawn.confidence == drawn.candidates[0].confidence
