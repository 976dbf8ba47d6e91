"""Words that are added to a captioner: which, with which weights, and that nothing else moves."""

from __future__ import annotations

import pytest
import torch

from captioner.errors import CaptionerError
from captioner.model.new_words import add_words, find_new_words
from captioner.networks.decoder import shift
from captioner.networks.features import ImageFeatures
from captioner.text.tokenizer import BOS_ID, Tokenizer
from helpers.models import WORDS, make_model


def test_new_words_are_frequent_and_unknown() -> None:
    captions = ["a lynx and a Lynx", "an ibex, an ibex", "a lynx!", "one yak"]
    tokenizer = Tokenizer(["a", "and"])
    assert find_new_words(tokenizer, captions, 2) == ("lynx", "an", "ibex")
    assert find_new_words(tokenizer, captions, 4) == ()
    assert find_new_words(tokenizer, captions, 1)[-2:] == ("one", "yak")


@pytest.mark.parametrize("tied", [True, False])
def test_a_new_word_begins_as_probable_as_the_words_akin_to_it(tied: bool) -> None:
    model = make_model(tied=tied)
    model.tokenizer = Tokenizer([*WORDS[:-2], "waterfall", "rainfall"])
    model.decoder.output.bias.data.normal_()
    old = model.decoder
    features = ImageFeatures.from_grid(torch.rand(2, 4, old.pooled_projection.in_features))
    captions = torch.tensor([[[BOS_ID, 5, 6]], [[BOS_ID, 7, 8]]])
    with torch.inference_mode():
        before = old.logits(old(features, shift(captions)[0]))
    add_words(model, ["windfall", "water", "ox"])
    assert model.tokenizer.words[-5:] == ("waterfall", "rainfall", "windfall", "water", "ox")
    decoder = model.decoder
    assert (decoder.output.weight is decoder.embedding.weight) is tied
    with torch.inference_mode():
        logits = decoder.logits(decoder(features, shift(captions)[0]))
    torch.testing.assert_close(logits[..., :-3], before)
    # The falls share four letters and half of the word, "water" is the beginning of one of them.
    torch.testing.assert_close(logits[..., -3], before[..., -2:].mean(dim=-1))
    torch.testing.assert_close(logits[..., -2], before[..., -2])
    torch.testing.assert_close(logits[..., -1], before[..., 4:].mean(dim=-1))
    rows = decoder.embedding.weight
    torch.testing.assert_close(rows[-1], old.embedding.weight[4:].mean(dim=0))


def test_a_word_that_is_known_is_not_added() -> None:
    model = make_model()
    with pytest.raises(CaptionerError, match="'dog' is listed twice"):
        add_words(model, ["dog"])
