"""Attention word by word: the probabilities are those of the search, the maps those of the grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from captioner.decoding.options import DecodingOptions
from captioner.images.transform import ImageTransform
from captioner.model.attention import attend, grid_window
from captioner.model.caption_model import CaptionModel
from captioner.networks.configs import DecoderConfig, EncoderConfig
from captioner.networks.features import ImageFeatures
from captioner.text.tokenizer import BOS_ID, Tokenizer
from helpers.images import noise

pytestmark = [pytest.mark.arithmetic, pytest.mark.usefixtures("one_thread")]


def features_of(model: CaptionModel, count: int) -> ImageFeatures:
    pixels = torch.stack([model.transform(noise(seed)) for seed in range(count)])
    with torch.inference_mode():
        return model.encode(pixels)


@pytest.mark.parametrize("max_length", [3, 20])
def test_probabilities_are_those_of_the_search(tiny_model: CaptionModel, max_length: int) -> None:
    features = features_of(tiny_model, 5)
    options = DecodingOptions(beam_size=4, num_captions=4, max_length=max_length)
    results = tiny_model.caption_features(features, options)
    assert len({result.candidates[0].log_prob for result in results}) == 5
    for place in range(4):
        candidates = [result.candidates[place] for result in results]
        found = attend(tiny_model, features, [candidate.words for candidate in candidates])
        for attention, candidate in zip(found, candidates, strict=True):
            assert attention.words == candidate.words
            said = [*attention.word_probs, attention.end_prob]
            # One that was cut off at the greatest length has no end.
            assert said[: len(candidate.word_probs)] == pytest.approx(
                candidate.word_probs, rel=1e-4
            )
            assert len(candidate.word_probs) >= len(candidate.words)


def test_weights_are_those_of_each_step(tiny_model: CaptionModel) -> None:
    features = features_of(tiny_model, 2)
    words = ("a", "red", "ball")
    _, found = attend(tiny_model, features, [("dog",), words])
    assert found.weights is not None
    rows, columns = tiny_model.encoder.grid_shape
    assert found.weights.shape == (3, rows * columns)
    one = ImageFeatures(*(part[1:] for part in features))
    with torch.inference_mode():
        steps = tiny_model.decoder_steps()
        state = steps.start(one)
        for place, word in enumerate((BOS_ID, *map(tiny_model.tokenizer.id_of, words[:2]))):
            _, state = steps.step(torch.tensor([[word]]), state)
            expected = tiny_model.decoder.shares_of_cells(state.hidden[0], state.memory)
            np.testing.assert_allclose(found.weights[place], expected[0, 0], rtol=1e-4)
    assert np.ptp(found.weights, axis=0).max() > 1e-4  # not the same for every word
    levels = found.levels()
    assert levels.dtype == np.uint8 and (levels.max(axis=1) == 255).all()
    np.testing.assert_array_equal(levels.argmax(axis=1), found.weights.argmax(axis=1))


def test_words_that_are_unknown_and_captions_that_are_empty(tiny_model: CaptionModel) -> None:
    features = features_of(tiny_model, 2)
    empty, odd = attend(tiny_model, features, [(), ("a", "zeppelin")])
    assert empty.words == () and empty.word_probs == ()
    assert empty.weights is not None and len(empty.weights) == 0
    assert 0 < empty.end_prob < 1
    assert odd.word_probs[0] is not None and odd.word_probs[1] is None
    assert attend(tiny_model, ImageFeatures(*(part[:0] for part in features)), []) == []


def test_a_decoder_without_attention_gives_probabilities() -> None:
    torch.manual_seed(1)
    model = CaptionModel.build(
        EncoderConfig(name="timm/test_efficientnet", weights="none", image_size=64),
        DecoderConfig(attention="none", hidden_size=16, embed_size=16, cell="gru"),
        Tokenizer(["a", "dog"]),
    ).eval()
    features = features_of(model, 1)
    candidate = model.caption_features(features)[0].candidates[0]
    (found,) = attend(model, features, [candidate.words])
    assert found.weights is None
    assert [*found.word_probs, found.end_prob][: len(candidate.word_probs)] == pytest.approx(
        candidate.word_probs, rel=1e-4
    )


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(300, 100), (100, 300), (200, 200)])
def test_the_window_is_where_the_transform_puts_the_image(
    resize: str, size: tuple[int, int]
) -> None:
    transform = ImageTransform(size=(120, 120), resize=resize, interpolation="bilinear")
    # Red grows from left to right and green from top to bottom: a colour says where it came from.
    x = np.linspace(0, 255, size[0])[None, :].repeat(size[1], 0)
    y = np.linspace(0, 255, size[1])[:, None].repeat(size[0], 1)
    pixels = np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8)
    fitted = np.asarray(transform.fit(Image.fromarray(pixels))).astype(float)
    left, top, width, height = grid_window(transform, size)
    assert grid_window(transform, size) == (0, 0, 1, 1) or resize != "squash"
    for u, v in ((0.5, 0.5), (0.4, 0.6), (0.6, 0.45)):
        red, green = fitted[int(120 * v), int(120 * u), :2] / 255
        assert left + u * width == pytest.approx(red, abs=0.03)
        assert top + v * height == pytest.approx(green, abs=0.03)
