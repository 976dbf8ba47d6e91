"""`captioner explain`: one PNG, with a map for every word and the captions that lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captioner.cli.entry import main
from captioner.decoding.options import DecodingOptions
from captioner.model.caption_model import CaptionModel
from captioner.networks.configs import DecoderConfig, EncoderConfig
from captioner.pages.explain import WIDTH, draw_figure, explain, overlaid
from captioner.text.tokenizer import Tokenizer
from helpers.images import noise


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    noise(3, 160, 120).save(tmp_path / "ein Foto ü.jpg")
    return tmp_path / "ein Foto ü.jpg"


def run(model: CaptionModel, *arguments: str | Path) -> int:
    return main(["explain", "--model", str(model.path), "--device", "cpu", *map(str, arguments)])


def test_the_command_writes_a_figure(
    tagging_model: CaptionModel, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tagging_model, photo, "--beam-size", "4") == 0
    text = tagging_model.caption([photo], DecodingOptions(beam_size=4))[0].text
    assert capsys.readouterr().out == f"{text}\n"
    with Image.open("explain.png") as image:
        assert image.format == "PNG" and image.width == WIDTH and image.height > 400
    before = Path("explain.png").read_bytes()
    assert run(tagging_model, photo) == 2
    assert "explain.png already exists; pass --overwrite" in capsys.readouterr().err
    assert Path("explain.png").read_bytes() == before
    assert run(tagging_model, photo, "--overwrite", "--beam-size", "1") == 0
    assert Path("explain.png").read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.jpg"], "gone.jpg does not exist"),
        (["broken.jpg"], "broken.jpg: not an image Pillow can read"),
        (["photo.jpg", "--output", "out.jpg"], "output out.jpg: the image is a PNG"),
        (["photo.jpg", "--output", "folder.png"], "output folder.png is a folder"),
    ],
)
def test_what_cannot_be_explained_is_named(
    tagging_model: CaptionModel,
    photo: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("folder.png").mkdir()
    Path("broken.jpg").write_text("not an image")
    photo.rename("photo.jpg")
    assert run(tagging_model, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("captioner: error: ")
    assert not Path("explain.png").exists()


def test_it_shows_what_the_search_ended_with(tagging_model: CaptionModel, photo: Path) -> None:
    options = DecodingOptions(beam_size=3, length_penalty=0.5)
    found = explain(tagging_model, photo, options)
    result = tagging_model.caption([photo], DecodingOptions(beam_size=3, length_penalty=0.5))[0]
    assert found.text == result.text and found.result.confidence == result.confidence
    assert len(found.result.candidates) == len(found.scores) == 3
    assert list(found.scores) == sorted(found.scores, reverse=True)
    first = found.result.candidates[0]
    assert found.scores[0] == pytest.approx(first.log_prob / len(first.word_probs) ** 0.5)
    assert found.attention.words == first.words


def test_a_map_is_light_where_the_word_looked() -> None:
    cells = np.zeros((2, 4), np.uint8)
    cells[1, 0] = 255
    grey = Image.new("RGB", (80, 40), (128, 128, 128))
    light = np.asarray(overlaid(grey, cells, (0, 0, 1, 1))).astype(int).sum(axis=-1)
    assert light[30, 10] > 450 > light[10, 50]
    assert np.unravel_index(light.argmax(), light.shape)[1] <= 10
    # The grid over the middle half of the width only: nothing was read beside it.
    light = np.asarray(overlaid(grey, cells, (0.25, 0, 0.5, 1))).astype(int).sum(axis=-1)
    assert light[30, 25] > 450 and light[30, 10] == light[10, 75] == light.min()


def test_a_captioner_without_attention_shows_its_words(photo: Path) -> None:
    torch.manual_seed(0)
    model = CaptionModel.build(
        EncoderConfig(name="timm/test_efficientnet", weights="none", image_size=64),
        DecoderConfig(attention="none", hidden_size=16, embed_size=16),
        Tokenizer(["a", "dog"]),
    ).eval()
    found = explain(model, photo)
    assert found.attention.weights is None
    assert draw_figure(found).width == WIDTH
