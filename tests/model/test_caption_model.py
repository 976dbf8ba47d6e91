"""The captioner as a whole: what it says, where it runs, and how sure it is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError
from captioner.images.reading import ImageError
from captioner.images.transform import ImageTransform
from captioner.model.caption_model import CaptionModel
from captioner.model.tags import TagCalibration
from captioner.networks.configs import DecoderConfig, EncoderConfig
from captioner.networks.decoder import shift
from captioner.networks.features import ImageFeatures
from captioner.text.tokenizer import BOS_ID, EOS_ID, Tokenizer, tokenize
from helpers.images import noise
from helpers.models import CAPTIONS, WORDS, make_model, texts

# --- captions ------------------------------------------------------------------------------


def test_images_get_the_captions_that_were_learnt(
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


def test_paths_images_and_arrays_are_the_same(model: CaptionModel, tmp_path: Path) -> None:
    image = noise(5)
    image.save(tmp_path / "a.png")
    given: list[Any] = [str(tmp_path / "a.png"), tmp_path / "a.png", image, np.asarray(image)]
    for each in given:
        assert model.caption([each]) == model.caption([image])


@pytest.mark.arithmetic
def test_a_batch_gets_what_each_image_gets(model: CaptionModel, images: list[Image.Image]) -> None:
    together = model.caption(images)
    for image, result in zip(images, together, strict=True):
        alone = model.caption([image])[0]
        assert alone.text == result.text
        assert alone.confidence == pytest.approx(result.confidence, abs=1e-5)


def test_no_images_get_no_captions(model: CaptionModel) -> None:
    assert model.caption([]) == []
    assert model.caption(np.zeros((0, 8, 8, 3), np.uint8)) == []  # type: ignore[arg-type]
    assert model.caption_batch(torch.zeros(0, 3, 64, 64)) == []


def test_an_array_of_images_is_a_list_of_them(model: CaptionModel) -> None:
    stack = np.stack([np.asarray(noise(1)), np.asarray(noise(2))])
    assert model.caption(stack) == model.caption([noise(1), noise(2)])  # type: ignore[arg-type]


def test_a_single_image_gives_a_single_result(model: CaptionModel, tmp_path: Path) -> None:
    image = noise(5)
    image.save(tmp_path / "a.png")
    (expected,) = model.caption([image])
    given: list[Any] = [str(tmp_path / "a.png"), tmp_path / "a.png", image, np.asarray(image)]
    for single in given:
        assert model.caption(single) == expected
    # Of a batch of another size, rounding can differ in the last bits.
    assert [str(each) for each in model.caption(each for each in given)] == [str(expected)] * 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, "5 is not an image: give paths"),
        ("https://example.org/a.jpg", "a.jpg is a URL, and captioner reads files"),
        (Path("https://example.org/a.jpg"), "a.jpg is a URL, and captioner reads files"),
        ("/", "/ is a folder, and this takes images: captioner.caption_images takes folders"),
    ],
)
def test_what_is_no_image(model: CaptionModel, given: Any, message: str) -> None:
    with pytest.raises(CaptionerError, match=message):
        model.caption(given)


def test_a_result_is_shown_on_one_line(model: CaptionModel, images: list[Image.Image]) -> None:
    result = model.caption(images[0], DecodingOptions(num_captions=2))
    for shown in (result, result.candidates[0]):
        assert str(shown) == f"{result.text} ({result.confidence:.2f})"
    assert result.tags == ()  # the model has no lexicon


def test_a_bad_image_is_an_error(model: CaptionModel, tmp_path: Path) -> None:
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
