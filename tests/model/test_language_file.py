"""The file that adds a language to a model: what is in it, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from captioner.errors import CaptionerError
from captioner.model.caption_model import CaptionModel
from captioner.model.language_file import cnn_sha256, read_language, write_language
from captioner.model.new_language import start_language
from captioner.text.tokenizer import Tokenizer
from helpers.models import make_model, rewrite

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = ["ein", "hund", "läuft"]


@pytest.fixture
def german() -> CaptionModel:
    """A captioner with the CNN of `make_model`, in German."""
    model = make_model(styles=("people", "web"))
    torch.manual_seed(5)
    start_language(model, Tokenizer(WORDS, "de", None, {"hund": "Hund"}))
    return model


def test_all_but_the_words_is_kept_with_the_default_style() -> None:
    model = make_model(styles=("people", "web"))
    model.decoder.style = 1
    with torch.no_grad():
        model.decoder.style_embedding.weight.normal_()
    old = {name: tensor.clone() for name, tensor in model.decoder.state_dict().items()}
    start_language(model, Tokenizer(WORDS, "de"))
    new = model.decoder.state_dict()
    assert model.decoder.config.styles == ()
    assert new["embedding.weight"].shape == (4 + 3, 16)
    web = old.pop("style_embedding.weight")[1]
    old["pooled_projection.bias"] += web
    words = {"embedding.weight", "output.weight", "output.bias"}
    assert set(new) == set(old)
    assert all(torch.equal(new[name], old[name]) for name in set(new) - words)


def test_a_language_comes_back_with_eight_bits_for_each_weight(
    german: CaptionModel, tmp_path: Path
) -> None:
    file = tmp_path / "de.safetensors"
    write_language(german, file)
    base = make_model()
    model = read_language(file, base)
    assert model.encoder is base.encoder
    assert model.tokenizer == german.tokenizer
    assert (model.language, model.is_language) == ("de", True)
    wanted, found = german.decoder.state_dict(), model.decoder.state_dict()
    for name, tensor in wanted.items():
        step = tensor.abs().amax(dim=1, keepdim=True) / 127 if tensor.ndim == 2 else torch.zeros(1)
        assert ((tensor - found[name]).abs() <= step / 2 + 1e-7).all(), name
    stored = load_file(file)
    assert stored["decoder.readout.weight"].dtype == torch.int8
    assert (
        stored["decoder.readout.weight.scale"].shape == stored["decoder.readout.weight"].shape[:1]
    )
    assert "decoder.output.weight" not in stored  # tied
    write_language(model, tmp_path / "again.safetensors")
    assert read_language(tmp_path / "again.safetensors", base).tokenizer == german.tokenizer


def test_equal_languages_give_equal_bytes(german: CaptionModel, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_language(german, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_changed_cnn_is_another_one() -> None:
    model = make_model()
    before = cnn_sha256(model)
    assert cnn_sha256(make_model()) == before
    with torch.no_grad():
        next(model.encoder.parameters()).add_(1e-3)
    assert cnn_sha256(model) != before


SCALES = "decoder.readout.weight.scale"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: state.pop(SCALES), "readout.weight and its scales do not fit together"),
        (
            lambda state: state.update({SCALES: state[SCALES][:2].clone()}),
            "readout.weight and its scales do not fit together",
        ),
        (
            lambda state: state.update({SCALES: state[SCALES] * torch.nan}),
            "a value of decoder.readout.weight is not finite",
        ),
        (
            lambda state: state.pop("decoder.readout.bias"),
            "tensors of the decoder are missing or of another shape",
        ),
    ],
)
def test_a_damaged_file_is_refused(
    german: CaptionModel,
    tmp_path: Path,
    damage: Callable[[dict[str, Tensor]], object],
    message: str,
) -> None:
    file = tmp_path / "de.safetensors"
    write_language(german, file)
    rewrite(file, tensors=damage)
    with pytest.raises(CaptionerError, match=message) as caught:
        read_language(file, make_model())
    assert str(caught.value).startswith(f"language {file}: ")
