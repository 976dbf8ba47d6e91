"""The recurrent decoder: its two ways of running agree, and nothing leaks between captions."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from captioner.errors import CaptionerError
from captioner.networks.configs import ATTENTIONS, DecoderConfig
from captioner.networks.decoder import Decoder, shift
from captioner.networks.decoder_steps import DecoderState
from captioner.networks.fast_steps import FastSteps
from captioner.networks.features import ImageFeatures
from captioner.networks.layout import WordLayout
from captioner.text.tokenizer import PAD_ID

pytestmark = pytest.mark.arithmetic

B, R, D, C, T, V, H, E = 3, 6, 10, 2, 5, 23, 12, 8  # all different, so that no axis can be mixed up
KINDS = list(product(("rnn", "gru", "lstm"), ATTENTIONS, (1, 2), (True, False)))


def make_decoder(
    cell: str = "lstm", attention: str = "spatial", layers: int = 1, tied: bool = True, **more: Any
) -> Decoder:
    torch.manual_seed(0)
    options: dict[str, Any] = {"hidden_size": H, "embed_size": E, "heads": 3, "dropout": 0.5}
    config = DecoderConfig(cell, attention, layers, tied=tied, **(options | more))
    decoder = Decoder(config, V, D).eval()
    for layer in decoder.upper:  # which add nothing at first
        torch.nn.init.normal_(layer.readout.weight, std=0.3)
    for parameter in decoder.parameters():
        parameter.data.mul_(2)  # As large as trained ones: differences would show.
    return decoder


def make_features(seed: int = 1, images: int = B) -> ImageFeatures:
    generator = torch.Generator().manual_seed(seed)
    return ImageFeatures.from_grid(torch.randn(images, R, D, generator=generator))


def make_words(seed: int = 2) -> Tensor:
    return torch.randint(1, V, (B, C, T), generator=torch.Generator().manual_seed(seed))


def only(features: ImageFeatures, image: int) -> ImageFeatures:
    return ImageFeatures(features.grid[image : image + 1], features.pooled[image : image + 1])


def widen(state: DecoderState, beams: int) -> DecoderState:
    return state.select_beams(torch.zeros(len(state.memory.pooled), beams, dtype=torch.long))


def read(decoder: Decoder, features: ImageFeatures, words: Tensor) -> tuple[Tensor, DecoderState]:
    """Logits (B, C, T, V) of captions (B, C, T), word by word, and the state after them."""
    steps = FastSteps(decoder)
    state = widen(steps.start(features), words.shape[1])
    scores = []
    for t in range(words.shape[2]):
        logits, state = steps.step(words[:, :, t], state)
        scores.append(logits)
    return torch.stack(scores, dim=2), state


@pytest.mark.parametrize(("cell", "attention", "layers", "tied"), KINDS)
@torch.inference_mode()
def test_whole_sentences_equal_word_by_word(
    cell: str, attention: str, layers: int, tied: bool
) -> None:
    decoder = make_decoder(cell, attention, layers, tied)
    features, words = make_features(), make_words()
    readout = decoder(features, words)
    assert readout.shape == (B, C, T, E)
    whole = decoder.logits(readout)
    assert whole.shape == (B, C, T, V)
    steps, _ = read(decoder, features, words)
    assert torch.allclose(whole, steps, atol=1e-5)
    assert whole.std() > 0.1  # The comparison is no comparison of zeros.


@pytest.mark.parametrize(("cell", "attention", "layers", "tied"), KINDS)
@torch.inference_mode()
def test_words_change_only_what_follows(cell: str, attention: str, layers: int, tied: bool) -> None:
    decoder = make_decoder(cell, attention, layers, tied)
    features, words = make_features(), make_words()
    before = decoder(features, words)
    for t in range(T):
        changed = words.clone()
        changed[1, 0, t] = (changed[1, 0, t] + 1) % V
        difference = (decoder(features, changed) - before).abs().amax(dim=-1)  # (B, C, T)
        assert difference[1, 0, :t].eq(0).all()
        assert difference[1, 0, t:].gt(0).all()
        difference[1, 0] = 0
        assert difference.eq(0).all(), "another caption changed"


@pytest.mark.parametrize(("cell", "attention", "layers", "tied"), KINDS)
@torch.inference_mode()
def test_captions_in_one_batch_equal_one_by_one(
    cell: str, attention: str, layers: int, tied: bool
) -> None:
    decoder = make_decoder(cell, attention, layers, tied)
    features, words = make_features(), make_words()
    together = decoder(features, words)
    for image, caption in product(range(B), range(C)):
        alone = decoder(only(features, image), words[image, caption][None, None])
        assert torch.allclose(together[image, caption], alone[0, 0], atol=1e-5)


@pytest.mark.parametrize(("cell", "attention", "layers", "tied"), KINDS)
@torch.inference_mode()
def test_words_that_stand_together_are_read_as_with_padding(
    cell: str, attention: str, layers: int, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = make_decoder(cell, attention, layers, tied)
    features, words = make_features(), make_words()
    lengths = torch.tensor([[T, 2], [0, 4], [1, 2]])
    layout = WordLayout.of(lengths, T)
    whole = decoder(features, words)
    expected = whole.flatten(0, 2)[layout.places]
    assert torch.allclose(decoder.read(features, words, layout), expected, atol=1e-6)
    # As on a GPU.
    monkeypatch.setattr(Decoder, "_recur", Decoder._recur_in_library)
    monkeypatch.setattr(Decoder, "_recur_upper", Decoder._run_in_library)
    assert torch.allclose(decoder.read(features, words, layout), expected, atol=1e-6)


@pytest.mark.parametrize("attention", ATTENTIONS)
@torch.inference_mode()
def test_captions_depend_on_the_image(attention: str) -> None:
    decoder = make_decoder(attention=attention)
    words = make_words()
    difference = decoder(make_features(1), words) - decoder(make_features(5), words)
    assert difference.abs().amax(dim=-1).gt(1e-3).all()


@torch.inference_mode()
def test_attention_reads_the_grid_and_not_only_its_mean() -> None:
    features, words = make_features(), make_words()
    noise = torch.randn(B, R, D, generator=torch.Generator().manual_seed(7))
    same_mean = features._replace(grid=features.grid + noise - noise.mean(dim=1, keepdim=True))
    spatial, plain = make_decoder(), make_decoder(attention="none")
    assert (spatial(features, words) - spatial(same_mean, words)).abs().max() > 1e-2
    assert torch.equal(plain(features, words), plain(same_mean, words))


@torch.inference_mode()
def test_the_order_of_the_grid_does_not_matter() -> None:
    decoder, features, words = make_decoder(), make_features(), make_words()
    turned = ImageFeatures(features.grid.flip(1), features.pooled)
    assert torch.allclose(decoder(features, words), decoder(turned, words), atol=1e-5)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@torch.inference_mode()
def test_selected_beams_continue_the_chosen_captions(cell: str, attention: str) -> None:
    decoder = make_decoder(cell, attention, layers=2)
    features, words = make_features(), make_words()
    _, state = read(decoder, features, words)
    beams = torch.tensor([[1, 0, 0], [0, 0, 1], [1, 1, 1]])
    last = torch.tensor([[3, 4, 5], [6, 7, 8], [9, 10, 11]])
    logits, _ = FastSteps(decoder).step(last, state.select_beams(beams))
    histories = torch.stack([words[b][beams[b]] for b in range(B)])  # (B, 3, T)
    expected, _ = read(decoder, features, torch.cat([histories, last[:, :, None]], dim=2))
    assert torch.allclose(logits, expected[:, :, -1], atol=1e-5)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@torch.inference_mode()
def test_selected_images_keep_their_captions(cell: str, attention: str) -> None:
    decoder = make_decoder(cell, attention, layers=2)
    features, words = make_features(), make_words()
    _, state = read(decoder, features, words[..., :-1])
    kept = torch.tensor([2, 0])
    logits, _ = FastSteps(decoder).step(words[kept][..., -1], state.select_images(kept))
    expected, _ = read(decoder, features, words)
    assert torch.allclose(logits, expected[kept][:, :, -1], atol=1e-5)


@torch.inference_mode()
def test_a_state_is_not_changed_by_its_use() -> None:
    steps, words = FastSteps(make_decoder()), make_words()
    start = steps.start(make_features())
    first, _ = steps.step(words[:, :1, 0], start)
    steps.step(words[:, :1, 1], start)
    start.select_images(torch.tensor([1]))
    again, _ = steps.step(words[:, :1, 0], start)
    assert torch.equal(first, again)


@pytest.mark.parametrize(("attention", "layers"), [("spatial", 1), ("spatial", 2), ("layered", 2)])
@torch.inference_mode()
def test_a_cells_share_is_how_far_the_readout_moves_without_what_it_adds(
    attention: str, layers: int
) -> None:
    decoder = make_decoder(attention=attention, layers=layers)
    steps = FastSteps(decoder)
    state = widen(steps.start(make_features()), C)
    _, after = steps.step(make_words()[..., 0], state)
    attending = decoder.attending()
    states = after.hidden[0][-len(attending) :]
    shares = decoder.shares_of_cells(after.hidden[0], after.memory)

    def said(values: Tensor) -> Tensor:
        memory = state.memory._replace(values=values)
        parts = (decoder.read_out(n, states[n], memory) for n in range(len(attending)))
        return sum(parts, torch.zeros(()))  # (B, C, E)

    lengths = []
    for cell in range(R):
        without = state.memory.values.clone()  # (layers, B, heads, R, H / heads)
        without[:, :, :, cell] = 0
        lengths.append((said(state.memory.values) - said(without)).norm(dim=-1))
    expected = torch.stack(lengths, dim=-1)  # (B, C, R)
    assert torch.allclose(shares, expected / expected.sum(dim=-1, keepdim=True), atol=1e-5)
    assert shares.std() > 1e-3
    assert torch.allclose(shares.sum(dim=-1), torch.ones(B, C))


def test_without_attention_no_cell_has_a_share() -> None:
    decoder = make_decoder(attention="none")
    state = FastSteps(decoder).start(make_features())
    with pytest.raises(CaptionerError, match="attention=none"):
        decoder.shares_of_cells(state.hidden[0], state.memory)


@torch.inference_mode()
def test_what_is_kept_of_the_images() -> None:
    plain = make_decoder(attention="none").memory(make_features())
    assert [tuple(part.shape) for part in plain] == [(B, E), (0, B), (0, B)]
    spatial = make_decoder().memory(make_features())
    assert [tuple(part.shape) for part in spatial] == [(B, E), (1, B, 3, R, 4), (1, B, 3, R, 4)]
    layered = make_decoder(attention="layered", layers=2).memory(make_features())
    assert layered.keys.shape == layered.values.shape == (2, B, 3, R, 4)


@pytest.mark.parametrize(("cell", "states"), [("rnn", 1), ("gru", 1), ("lstm", 2)])
@torch.inference_mode()
def test_the_start_has_one_caption_for_each_image(cell: str, states: int) -> None:
    decoder = make_decoder(cell, layers=2)
    start = FastSteps(decoder).start(make_features())
    assert [tuple(state.shape) for state in start.hidden] == [(2, B, 1, H)] * states
    assert all(state.eq(0).all() for state in start.hidden)
    plain = FastSteps(make_decoder(cell, "none", layers=2)).start(make_features())
    assert [tuple(state.shape) for state in plain.hidden] == [(2, B, 1, H)] * states
    assert all(state.abs().max() > 0 for state in plain.hidden), "the image was not read"


@pytest.mark.parametrize(("cell", "attention", "layers", "tied"), KINDS)
def test_number_of_parameters(cell: str, attention: str, layers: int, tied: bool) -> None:
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[cell]
    attends = attention != "none"
    inputs = 2 * E if attends else E
    above = E if attention == "layered" else H
    expected = V * E + (D * E + E)  # embedding, projection of the pooled image
    for layer in range(layers):
        expected += gates * (H * (inputs if layer == 0 else above) + H * H + 2 * H)
    looks = {"none": 0, "spatial": 1, "layered": layers}[attention]
    if attends:
        expected += (D * H + H) + looks * 3 * H * H  # projection of the grid; key, value and query
    expected += max(looks, 1) * (2 * H if attends else H) * E + E  # before the output
    expected += V + (0 if tied else V * E)  # output
    decoder = make_decoder(cell, attention, layers, tied)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == expected


def test_tied_means_one_tensor() -> None:
    tied, untied = make_decoder(tied=True), make_decoder(tied=False)
    assert tied.output.weight is tied.embedding.weight
    assert untied.output.weight is not untied.embedding.weight
    with torch.no_grad():
        tied.embedding.weight[5] = 9.0
    assert tied.output.weight[5].eq(9).all()


@pytest.mark.parametrize(("cell", "attention", "layers", "tied"), KINDS)
def test_every_parameter_learns(cell: str, attention: str, layers: int, tied: bool) -> None:
    decoder = make_decoder(cell, attention, layers, tied).train()
    decoder.logits(decoder(make_features(), make_words())).square().mean().backward()
    idle = [
        name
        for name, parameter in decoder.named_parameters()
        if parameter.grad is None or parameter.grad.eq(0).all()
    ]
    assert idle == []


def test_dropout_works_in_training_only() -> None:
    decoder, features, words = make_decoder(), make_features(), make_words()
    with torch.inference_mode():
        assert torch.equal(decoder(features, words), decoder(features, words))
        decoder.train()
        assert not torch.equal(decoder(features, words), decoder(features, words))


@pytest.mark.parametrize("attention", ATTENTIONS)
@torch.no_grad()
def test_a_style_is_learnt_by_itself_and_the_first_one_is_the_default(attention: str) -> None:
    decoder = make_decoder(attention=attention, styles=("people", "web"))
    torch.nn.init.normal_(decoder.style_embedding.weight)
    features, words = make_features(), make_words()
    people = decoder(features, words, torch.zeros(B, dtype=torch.long))
    web = decoder(features, words, torch.ones(B, dtype=torch.long))
    assert torch.equal(decoder(features, words), people)
    assert not torch.allclose(web, people)
    # Each image has its own, and whole sentences equal word by word.
    mixed = torch.tensor([0, 1, 0])
    readout = decoder(features, words, mixed)
    assert torch.allclose(readout[1], web[1], atol=1e-6)
    assert torch.allclose(readout[2], people[2], atol=1e-6)
    steps = FastSteps(decoder)
    state = widen(steps.start(features, mixed), C)
    for t in range(T):
        logits, state = steps.step(words[:, :, t], state)
        assert torch.allclose(logits, decoder.logits(readout)[:, :, t], atol=1e-5)
    assert decoder.style_numbers("web", 2).tolist() == [1, 1]
    assert decoder.style_numbers(None, 2) is None
    with pytest.raises(CaptionerError, match="style 'film': this model knows people, web"):
        decoder.style_numbers("film", 2)


@torch.inference_mode()
def test_at_first_an_upper_layer_adds_nothing() -> None:
    torch.manual_seed(0)
    config = DecoderConfig(attention="layered", layers=3, hidden_size=H, embed_size=E, heads=3)
    decoder = Decoder(config, V, D).eval()
    below = make_decoder()
    below.load_state_dict(decoder.state_dict(), strict=False)
    features, words = make_features(), make_words()
    assert torch.equal(decoder(features, words), below(features, words))


@torch.inference_mode()
def test_captions_that_are_not_there_change_nothing() -> None:
    decoder = make_decoder()
    features, words = make_features(), make_words()
    words[0, 1] = words[2, 0] = PAD_ID
    together = decoder(features, words)
    for image, caption in ((0, 0), (1, 0), (1, 1), (2, 1)):
        alone = decoder(only(features, image), words[image : image + 1, caption : caption + 1])
        assert torch.allclose(together[image, caption], alone[0, 0], atol=1e-6)


def test_shift() -> None:
    captions = torch.tensor([[[1, 7, 8, 2], [1, 9, 2, 0]]])
    inputs, targets = shift(captions)
    assert inputs.tolist() == [[[1, 7, 8], [1, 9, 2]]]
    assert targets.tolist() == [[[7, 8, 2], [9, 2, 0]]]


def test_the_shipped_shape_is_the_default() -> None:
    decoder = Decoder(DecoderConfig(), 1000, 1280)
    shapes = {name: tuple(tensor.shape) for name, tensor in decoder.state_dict().items()}
    assert shapes == {
        "embedding.weight": (1000, 512),
        "pooled_projection.weight": (512, 1280),
        "pooled_projection.bias": (512,),
        "rnn.weight_ih_l0": (2048, 1024),
        "rnn.weight_hh_l0": (2048, 512),
        "rnn.bias_ih_l0": (2048,),
        "rnn.bias_hh_l0": (2048,),
        "grid_projection.weight": (512, 1280),
        "grid_projection.bias": (512,),
        "key.weight": (512, 512),
        "value.weight": (512, 512),
        "query.weight": (512, 512),
        "readout.weight": (512, 1024),
        "readout.bias": (512,),
        "output.weight": (1000, 512),
        "output.bias": (1000,),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "transformer"}, "cell='transformer': choose one of rnn, gru, lstm"),
        ({"cell": ["lstm"]}, "cell="),
        ({"attention": "additive"}, "attention='additive': choose one of none, spatial, layered"),
        ({"layers": 0}, "layers=0: give a whole number of at least 1"),
        ({"hidden_size": -512}, "hidden_size=-512"),
        ({"hidden_size": 512.0}, r"hidden_size=512\.0"),
        ({"embed_size": "512"}, "embed_size='512'"),
        ({"heads": 0}, "heads=0"),
        ({"heads": True}, "heads=True"),
        ({"heads": 7}, "heads=7: hidden_size=512 is not a multiple of it"),
        ({"dropout": 1.0}, r"dropout=1\.0: give a number from 0 to below 1"),
        ({"dropout": float("nan")}, "dropout=nan"),
        ({"dropout": "half"}, "dropout='half'"),
        ({"tied": "no"}, "tied='no': use true or false"),
        ({"styles": "people"}, "styles='people': give a list of names"),
        ({"styles": ("web", "")}, "styles=.*: give a list of names"),
        ({"styles": ("web", "web")}, "styles=.*: a name comes twice"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecoderConfig(**options)


def test_heads_matter_to_attention_only() -> None:
    assert DecoderConfig(attention="none", hidden_size=100, heads=8).hidden_size == 100
