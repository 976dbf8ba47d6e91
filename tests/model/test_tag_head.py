"""The classifier of lemmas: the fit is at the optimum, names are counted, damage is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from captioner.errors import CaptionerError
from captioner.evaluation.calibration_scores import score_seen
from captioner.model.caption_model import CaptionModel
from captioner.model.tag_head import RIDGE, ROWS, TagHead, learnable, named_lemmas
from captioner.text.lexicon import NO_LEMMA, Lemma, Lexicon

pytestmark = pytest.mark.arithmetic

WORDS = ["a", "dog", "dogs", "runs", "unicorn"]
LEXICON = Lexicon(
    WORDS,
    [
        Lemma("dog", "noun", 0.5),
        Lemma("run", "verb", 0.002),
        Lemma("unicorn", "noun", 0.001),
    ],
    [NO_LEMMA, 0, 0, 1, 2],
)


def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features (N, 16), and two lemmas that two of their directions decide, with some chance."""
    random = torch.Generator().manual_seed(seed)
    pooled = 1 + torch.randn(count, 16, generator=random)
    scaled = functional.normalize(pooled, dim=1)
    logits = 12 * (scaled[:, :2] - scaled[:, :2].mean(dim=0))
    return pooled, torch.rand(count, 2, generator=random) < logits.sigmoid()


def test_the_fit_is_where_the_gradient_is_0() -> None:
    pooled, named = images(400, seed=1)
    head = TagHead.fit(pooled, named)
    scaled = functional.normalize(pooled, dim=1)
    spread = scaled.std(dim=0, correction=0)
    weight = (head.linear.weight.detach() * spread).requires_grad_()
    bias = head.linear.bias.detach().clone().requires_grad_()
    logits = (scaled / spread) @ weight.T + bias
    loss = functional.binary_cross_entropy_with_logits(logits, named.float(), reduction="none")
    (loss.sum(dim=1).mean() + RIDGE * weight.square().sum()).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert float(weight.grad.abs().max()) < 2e-3
    assert float(bias.grad.abs().max()) < 2e-3


def test_other_images_are_told_apart() -> None:
    head = TagHead.fit(*images(ROWS + 900, seed=2))
    pooled, named = images(1000, seed=3)
    probabilities = head(pooled)
    assert score_seen(probabilities.numpy(), named.numpy()).mean_average_precision > 0.85
    # Probabilities, not only an order; the length of an image's features says nothing.
    assert float(probabilities.mean()) == pytest.approx(float(named.double().mean()), abs=0.03)
    assert torch.allclose(head(3 * pooled), probabilities, atol=1e-5)


def test_names_that_everyone_and_nobody_says_are_fitted() -> None:
    named = torch.tensor([[True, False]] * 5)
    probabilities = TagHead.fit(torch.rand(5, 4), named)(torch.rand(3, 4))
    assert (probabilities[:, 0] > 0.99).all()
    assert (probabilities[:, 1] < 0.01).all()


def test_lemmas_are_looked_up_in_all_captions_of_an_image() -> None:
    # 60% of the images, 0.2% and 0.1%: few images count by their share, many by their number.
    assert [learnable(LEXICON, images) for images in (100, 9_999, 10_000, 20_000)] == [1, 1, 2, 3]
    captions = [("Two DOGS", "it runs"), ("a unicorn",), ("a dog and a dog",)]
    assert named_lemmas(captions, LEXICON, 2).tolist() == (
        [[True, True], [False, False], [True, False]]
    )
    assert named_lemmas([], LEXICON, 2).shape == (0, 2)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"linear.weight": torch.ones(2, 3)}, "its tensors are linear.weight"),
        ({"linear.weight": torch.ones(2, 3), "linear.bias": torch.ones(3)}, "do not fit"),
        ({"linear.weight": torch.ones(6), "linear.bias": torch.ones(6)}, "do not fit"),
        (
            {"linear.weight": torch.full((2, 3), torch.inf), "linear.bias": torch.ones(2)},
            "a value is not finite",
        ),
    ],
)
def test_damaged_tensors_are_refused(state: dict[str, Tensor], message: str) -> None:
    with pytest.raises(CaptionerError, match=message):
        TagHead.from_state(state)


@pytest.fixture
def tagging_model(tiny_model: CaptionModel) -> CaptionModel:
    """The tiny model with a lexicon of its first words and a classifier of them."""
    words = tiny_model.tokenizer.words
    lemmas = [Lemma(f"thing{letter}", "noun", 0.5) for letter in "abc"]
    places = [0, 1, 2] + [NO_LEMMA] * (len(words) - 3)
    lexicon = Lexicon(words, lemmas, places)
    parts = tiny_model.encoder, tiny_model.decoder, tiny_model.tokenizer
    model = CaptionModel(*parts, lexicon=lexicon)
    pooled = torch.rand(40, model.encoder.feature_size)
    model.tag_head = TagHead.fit(pooled, torch.rand(40, 2) < 0.5)
    return model.eval()


def test_a_model_file_keeps_it_and_says_what_it_sees(
    tagging_model: CaptionModel, tmp_path: Path
) -> None:
    tagging_model.save(tmp_path / "m.safetensors", half=False)
    loaded = CaptionModel.load(tmp_path / "m.safetensors", device="cpu")
    features = tagging_model.encode(torch.rand(3, 3, *tagging_model.transform.size))
    assert tagging_model.tag_head is not None
    assert tagging_model.lexicon is not None
    probabilities = tagging_model.tag_head(features.pooled).tolist()
    for row, result in zip(probabilities, loaded.caption_features(features), strict=True):
        expected = dict(zip(tagging_model.lexicon.lemmas, row, strict=False))
        assert result.seen == expected
        assert list(result.seen.items()) == list(expected.items())


def test_a_classifier_of_other_features_is_refused(
    tagging_model: CaptionModel, tmp_path: Path
) -> None:
    tagging_model.tag_head = TagHead.fit(torch.rand(9, 5), torch.rand(9, 2) < 0.5)
    tagging_model.save(tmp_path / "m.safetensors")
    with pytest.raises(CaptionerError, match="its tag classifier is of 2 lemmas and 5 features"):
        CaptionModel.load(tmp_path / "m.safetensors", device="cpu")


def test_a_classifier_without_a_lexicon_is_refused(
    tagging_model: CaptionModel, tmp_path: Path
) -> None:
    tagging_model.lexicon = None
    tagging_model.save(tmp_path / "m.safetensors")
    with pytest.raises(CaptionerError, match="the lexicon has 0 and the encoder"):
        CaptionModel.load(tmp_path / "m.safetensors", device="cpu")
