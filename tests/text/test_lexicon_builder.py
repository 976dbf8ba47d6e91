"""Lemmas of a vocabulary: read off real captions with the real tagger, also in training."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from captioner.errors import CaptionerError
from captioner.model.caption_model import CaptionModel
from captioner.model.checkpoints import export_checkpoint
from captioner.networks.configs import DecoderConfig, EncoderConfig
from captioner.text.lexicon import NO_LEMMA, TYPES, Lemma, Lexicon
from captioner.text.lexicon_builder import STOP_LEMMAS, build_lexicon, load_tagger
from captioner.text.tokenizer import tokenize
from captioner.training.datamodule import CaptionDataModule
from captioner.training.lightning_cli import main as train
from helpers.lexicons import CAPTIONS, WORDS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def no_tagger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installation without the `train` extra."""
    load_tagger.cache_clear()
    for name in ("HanTa", "HanTa.HanoverTagger"):  # what Python calls a module that is not there
        monkeypatch.setitem(sys.modules, name, None)
    yield
    load_tagger.cache_clear()


@pytest.mark.parametrize(
    ("word", "name", "kind"),
    [
        ("boy", "boy", "noun"),
        ("dogs", "dog", "noun"),
        ("men", "man", "noun"),
        ("women", "woman", "noun"),
        ("people", "person", "noun"),  # as "men" is "man"
        ("person", "person", "noun"),
        ("geese", "goose", "noun"),
        ("leaves", "leaf", "noun"),  # "leave" is a noun to the dictionary, and to no caption
        ("jeans", "jeans", "noun"),
        ("glasses", "glasses", "noun"),
        ("t-shirt", "t-shirt", "noun"),
        ("building", "building", "noun"),
        ("smiling", "smile", "verb"),  # beside a noun, and still what someone does
        ("smile", "smile", "verb"),
        ("swims", "swim", "verb"),
        ("swimming", "swim", "verb"),
        ("jump", "jump", "verb"),
        ("jumps", "jump", "verb"),
        ("jumping", "jump", "verb"),
        ("run", "run", "verb"),
        ("ran", "run", "verb"),
        ("watches", "watch", "verb"),
        ("water", "water", "noun"),
        ("white", "white", "adjective"),
        ("orange", "orange", "adjective"),
        ("larger", "large", "adjective"),
        ("brown", "brown", "adjective"),
    ],
)
def test_words_and_their_lemmas(lexicon: Lexicon, word: str, name: str, kind: str) -> None:
    lemma = lexicon.lemma_of(word)
    assert lemma is not None
    assert (lemma.name, lemma.type) == (name, kind)


@pytest.mark.parametrize(
    "word",
    ["a", "in", "of", "and", "two", "its", "is", "are", "'s"]
    + ["front", "group", "left", "photo", "takes", "wearing"],
)
def test_words_that_say_nothing_of_the_image(lexicon: Lexicon, word: str) -> None:
    assert word in WORDS
    assert lexicon.lemma_of(word) is None


def test_the_frequency_is_the_share_of_images(lexicon: Lexicon) -> None:
    frequencies = {(lemma.name, lemma.type): lemma.frequency for lemma in lexicon.lemmas}
    # A boy is in two captions of one image and in one of another: 2 of 6.
    assert frequencies["boy", "noun"] == 0.333333
    assert frequencies["dog", "noun"] == 0.333333
    assert frequencies["person", "noun"] == 0.333333  # "people" in one, "person" in the other
    assert frequencies["jump", "verb"] == 0.5
    assert frequencies["water", "noun"] == 0.5
    assert frequencies["smile", "verb"] == 0.333333
    assert frequencies["goose", "noun"] == 0.166667
    assert list(frequencies.values()) == sorted(frequencies.values(), reverse=True)


def test_only_the_vocabulary_is_read() -> None:
    lexicon = build_lexicon(["dogs", "the", "unicorn"], CAPTIONS)
    assert [(lemma.name, lemma.frequency) for lemma in lexicon.lemmas] == [("dog", 0.333333)]
    assert lexicon.lemma_of("dogs") == Lemma("dog", "noun", 0.333333)
    assert lexicon.lemma_of("dog") is None
    # No caption says it: nobody knows what it is there.
    assert lexicon.lemma_of("unicorn") is None
    assert lexicon.to_dict()["words"] == [0, NO_LEMMA, NO_LEMMA]


def test_words_that_are_no_english(lexicon: Lexicon) -> None:
    captions = [["犬 が 走る 3.5 x don't l'homme ½ über-straße", "", "..."], []]
    words = sorted({word for text in captions[0] for word in tokenize(text)})
    found = build_lexicon(words, captions)
    assert {found.lemma_of(word) for word in ("犬", "3.5", "x", "1")} == {None}
    assert Lexicon.from_dict(found.to_dict(), words) == found


def test_building_it_again_gives_the_same(lexicon: Lexicon) -> None:
    assert build_lexicon(WORDS, iter(CAPTIONS)) == lexicon


def test_the_stop_list_is_of_known_types_and_single_words() -> None:
    assert set(STOP_LEMMAS) == set(TYPES)
    for names in STOP_LEMMAS.values():
        assert [name for name in names if tokenize(name) != [name]] == []


def test_no_images_no_lexicon() -> None:
    with pytest.raises(CaptionerError, match="there are no images with captions"):
        build_lexicon(WORDS, [])


def test_a_missing_tagger_is_named_with_the_remedy(no_tagger: None) -> None:
    with pytest.raises(CaptionerError, match=r"needs HanTa, .*captioner\[train\].*lexicon none"):
        build_lexicon(WORDS, CAPTIONS)


# --- in training ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, make_shapes: Callable[[Path, int], Path]
) -> Path:
    return make_shapes(tmp_path_factory.mktemp("toy") / "shapes", 24)


TINY = EncoderConfig(name="timm/test_efficientnet", weights="none", image_size=64)
SMALL_DECODER = DecoderConfig(hidden_size=32, embed_size=32, heads=2)


def data_module(folder: Path, tmp_path: Path, **options: Any) -> CaptionDataModule:
    given = {"root": str(folder), "encoder": TINY, "min_count": 1, "cache_dir": str(tmp_path / "c")}
    return CaptionDataModule(**{**given, **options})


def test_training_data_bring_their_lexicon(folder: Path, tmp_path: Path) -> None:
    data = data_module(folder, tmp_path)
    data.setup("fit")
    assert data.lexicon == build_lexicon(
        data.tokenizer.words, [example.captions for example in data.examples["train"]]
    )
    assert {lemma.type for lemma in data.lexicon.lemmas} >= {"noun", "adjective"}


def test_scoring_builds_no_lexicon(folder: Path, tmp_path: Path, no_tagger: None) -> None:
    data = data_module(folder, tmp_path)
    data.setup("validate")
    assert data.lexicon is None


def test_a_lexicon_can_be_left_out(folder: Path, tmp_path: Path, no_tagger: None) -> None:
    data = data_module(folder, tmp_path, lexicon="none")
    data.setup("fit")
    assert data.lexicon is None


def test_another_language_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CaptionerError, match=r"data\.lexicon=de: use one of en, none"):
        data_module(folder, tmp_path, lexicon="de")


def test_the_initial_models_lexicon_goes_on(folder: Path, tmp_path: Path) -> None:
    first = data_module(folder, tmp_path)
    first.setup("fit")
    model = CaptionModel.build(TINY, SMALL_DECODER, first.tokenizer)
    model.save(tmp_path / "without.safetensors")
    model.lexicon = Lexicon(first.tokenizer.words, [], [NO_LEMMA] * len(first.tokenizer.words))
    model.save(tmp_path / "with.safetensors")
    for name, expected in (("with", model.lexicon), ("without", first.lexicon)):
        data = data_module(folder, tmp_path, init_from=str(tmp_path / f"{name}.safetensors"))
        data.setup("fit")
        assert data.tokenizer == first.tokenizer
        assert data.lexicon == expected


def test_a_trained_and_exported_model_has_the_lexicon_and_old_checkpoints_resume(
    folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options = [
        "fit",
        "--config",
        str(ROOT / "configs" / "shapes.yaml"),
        f"--data.root={folder}",
        f"--run_dir={run}",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
    ]
    assert train([*options, "--trainer.max_epochs=1"]) == 0
    last = run / "checkpoints" / "last.ckpt"
    model = export_checkpoint(last, tmp_path / "model.safetensors")
    assert model.lexicon is not None
    square = model.lexicon.lemma_of("square")
    assert square is not None
    assert square.type == "noun"

    old = torch.load(last, weights_only=True)
    del old["captioner"]["lexicon"]
    torch.save(old, last)
    assert export_checkpoint(last, tmp_path / "old.safetensors").lexicon is None
    assert train([*options, "--trainer.max_epochs=2", "--ckpt_path", "last"]) == 0
    resumed = export_checkpoint(last, tmp_path / "resumed.safetensors")
    assert resumed.lexicon == model.lexicon
