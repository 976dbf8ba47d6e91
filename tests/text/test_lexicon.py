"""Lemmas of a vocabulary: read off real captions with the real tagger, and kept in model files."""

from __future__ import annotations

import copy
import json
import subprocess
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
from captioner.text import lexicon as lexicon_module
from captioner.text.lexicon import NO_LEMMA, STOP_LEMMAS, TYPES, Lemma, Lexicon
from captioner.text.tokenizer import Tokenizer, tokenize
from captioner.training.datamodule import CaptionDataModule
from captioner.training.lightning_cli import main as train

ROOT = Path(__file__).parents[2]

# One list for each picture.
CAPTIONS = [
    ["A smiling boy in blue jeans and glasses stands in front of a white building .", "A boy ."],
    ["Two men and three women smile in the water .", "People wearing orange shirts are swimming ."],
    ["A group of geese swims in a pond .", "The boy 's geese jump into the water ."],
    ["A person jumps over a rock .", "The man is jumping over rocks , leaves fall on a leaf ."],
    ["Dogs run and a brown dog ran through water .", "The larger dog is running on the left ."],
    ["A dog watches its ball .", "Three dogs jump while a girl takes a photo of a t-shirt ."],
]
WORDS = sorted({word for captions in CAPTIONS for text in captions for word in tokenize(text)})


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon.build(WORDS, CAPTIONS)


@pytest.fixture
def no_tagger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installation without the `train` extra."""
    lexicon_module._tagger.cache_clear()
    for name in ("HanTa", "HanTa.HanoverTagger"):  # what Python calls a module that is not there
        monkeypatch.setitem(sys.modules, name, None)
    yield
    lexicon_module._tagger.cache_clear()


# --- building ------------------------------------------------------------------------------


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
def test_words_that_say_nothing_of_the_picture(lexicon: Lexicon, word: str) -> None:
    assert word in WORDS
    assert lexicon.lemma_of(word) is None


def test_the_frequency_is_the_share_of_pictures(lexicon: Lexicon) -> None:
    frequencies = {(lemma.name, lemma.type): lemma.frequency for lemma in lexicon.lemmas}
    # A boy is in two captions of one picture and in one of another: 2 of 6.
    assert frequencies["boy", "noun"] == 0.333333
    assert frequencies["dog", "noun"] == 0.333333
    assert frequencies["person", "noun"] == 0.333333  # "people" in one, "person" in the other
    assert frequencies["jump", "verb"] == 0.5
    assert frequencies["water", "noun"] == 0.5
    assert frequencies["smile", "verb"] == 0.333333
    assert frequencies["goose", "noun"] == 0.166667
    assert list(frequencies.values()) == sorted(frequencies.values(), reverse=True)


def test_only_the_vocabulary_is_read() -> None:
    lexicon = Lexicon.build(["dogs", "the", "unicorn"], CAPTIONS)
    assert [(lemma.name, lemma.frequency) for lemma in lexicon.lemmas] == [("dog", 0.333333)]
    assert lexicon.lemma_of("dogs") == Lemma("dog", "noun", 0.333333)
    assert lexicon.lemma_of("dog") is None
    # No caption says it: nobody knows what it is there.
    assert lexicon.lemma_of("unicorn") is None
    assert lexicon.to_dict()["words"] == [0, NO_LEMMA, NO_LEMMA]


def test_words_that_are_no_english(lexicon: Lexicon) -> None:
    captions = [["犬 が 走る 3.5 x don't l'homme ½ über-straße", "", "..."], []]
    words = sorted({word for text in captions[0] for word in tokenize(text)})
    found = Lexicon.build(words, captions)
    assert {found.lemma_of(word) for word in ("犬", "3.5", "x", "1")} == {None}
    assert Lexicon.from_dict(found.to_dict(), words) == found


def test_building_it_again_gives_the_same(lexicon: Lexicon) -> None:
    assert Lexicon.build(WORDS, iter(CAPTIONS)) == lexicon


def test_the_stop_list_is_of_known_types_and_single_words() -> None:
    assert set(STOP_LEMMAS) == set(TYPES)
    for names in STOP_LEMMAS.values():
        assert [name for name in names if tokenize(name) != [name]] == []


def test_no_pictures_no_lexicon() -> None:
    with pytest.raises(CaptionerError, match="there are no pictures with captions"):
        Lexicon.build(WORDS, [])


def test_a_missing_tagger_is_named_with_the_remedy(no_tagger: None) -> None:
    with pytest.raises(CaptionerError, match=r"needs HanTa, .*captioner\[train\].*lexicon none"):
        Lexicon.build(WORDS, CAPTIONS)


# --- the description -----------------------------------------------------------------------


def test_it_is_described_with_every_lemma_once(lexicon: Lexicon) -> None:
    text = json.dumps(lexicon.to_dict())
    assert text.count('"jump"') == 1
    read = Lexicon.from_dict(json.loads(text), WORDS)
    assert read == lexicon
    assert hash(read) == hash(lexicon)
    assert read.to_dict() == lexicon.to_dict()
    assert [read.lemma_of(word) for word in WORDS] == [lexicon.lemma_of(word) for word in WORDS]
    assert repr(read) == repr(lexicon)
    assert read != Lexicon.build(WORDS, CAPTIONS[:5])


SMALL: dict[str, Any] = {
    "language": "en",
    "lemmas": [["dog", "noun", 0.5], ["run", "verb", 1.0]],
    "words": [0, 0, 1, -1],
}
SMALL_WORDS = ("dog", "dogs", "runs", "the")


def edited(edit: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    data = copy.deepcopy(SMALL)
    edit(data)
    return data


def test_a_description_by_hand() -> None:
    lexicon = Lexicon.from_dict(SMALL, SMALL_WORDS)
    assert lexicon.lemma_of("dogs") == Lemma("dog", "noun", 0.5)
    assert lexicon.lemma_of("runs") == Lemma("run", "verb", 1.0)
    assert lexicon.lemma_of("the") is None
    assert lexicon.lemma_of("never heard") is None
    assert lexicon.language == "en"
    assert len(lexicon) == 2
    assert repr(lexicon) == "Lexicon(2 lemmas of 3 words)"
    assert lexicon.to_dict() == SMALL


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.clear(), "must be lists"),
        (lambda d: d.update(lemmas={}), "must be lists"),
        (lambda d: d.update(words="0012"), "must be lists"),
        (lambda d: d["words"].pop(), "3 entries for 4 words"),
        (lambda d: d["words"].append(0), "5 entries for 4 words"),
        (lambda d: d["words"].__setitem__(0, 2), "2 is the place of no lemma"),
        (lambda d: d["words"].__setitem__(0, -2), "-2 is the place of no lemma"),
        (lambda d: d["words"].__setitem__(0, True), "True is the place of no lemma"),
        (lambda d: d["words"].__setitem__(0, 0.0), "0.0 is the place of no lemma"),
        (lambda d: d["words"].__setitem__(0, None), "None is the place of no lemma"),
        (lambda d: d["lemmas"].append("dog"), "'dog' is not [name, type, frequency]"),
        (lambda d: d["lemmas"][0].append(1), "is not [name, type, frequency]"),
        (lambda d: d["lemmas"].append(["dog", "noun", 0.1]), "a lemma is there twice"),
        (lambda d: d["lemmas"][0].__setitem__(0, "two dogs"), "'two dogs' is not one word"),
        (lambda d: d["lemmas"][0].__setitem__(0, "<b>dog</b>"), "is not one word"),
        (lambda d: d["lemmas"][0].__setitem__(0, ""), "'' is not one word"),
        (lambda d: d["lemmas"][0].__setitem__(0, ["dog"]), "is not one word"),
        (lambda d: d["lemmas"][0].__setitem__(1, "adverb"), "type of 'dog' is 'adverb', not noun"),
        (lambda d: d["lemmas"][0].__setitem__(1, ["noun"]), "type of 'dog' is ['noun']"),
        (lambda d: d["lemmas"][0].__setitem__(2, 0), "is 0, not in (0, 1]"),
        (lambda d: d["lemmas"][0].__setitem__(2, 1.01), "is 1.01, not in (0, 1]"),
        (lambda d: d["lemmas"][0].__setitem__(2, float("nan")), "is nan, not in (0, 1]"),
        (lambda d: d["lemmas"][0].__setitem__(2, "0.5"), "is '0.5', not in (0, 1]"),
        (lambda d: d["lemmas"][0].__setitem__(2, True), "is True, not in (0, 1]"),
        (lambda d: d.update(language=5), "5 names no language"),
        (lambda d: d.update(language=""), "'' names no language"),
        (lambda d: d.update(language="e\n"), "names no language"),
        (lambda d: d.pop("language"), "'' names no language"),
    ],
)
def test_a_damaged_description_is_refused(
    edit: Callable[[dict[str, Any]], Any], message: str
) -> None:
    with pytest.raises(CaptionerError) as caught:
        Lexicon.from_dict(edited(edit), SMALL_WORDS)
    assert message in str(caught.value)
    assert str(caught.value).startswith("lexicon: ")


@pytest.mark.parametrize("data", [None, [], "en", 3])
def test_a_description_that_is_no_table(data: Any) -> None:
    with pytest.raises(CaptionerError, match="lexicon: a table was expected"):
        Lexicon.from_dict(data, SMALL_WORDS)


# --- in models and in training -------------------------------------------------------------


def test_reading_a_model_and_making_tags_needs_no_tagger(
    tiny_model: CaptionModel, tmp_path: Path
) -> None:
    words = tiny_model.tokenizer.words
    # The fixture is everybody's: its parts are put together anew.
    model = CaptionModel(
        tiny_model.encoder,
        tiny_model.decoder,
        tiny_model.tokenizer,
        lexicon=Lexicon.build(words, [["a man runs in red snow", "a dog jumps on grass"]]),
    )
    model.save(tmp_path / "model.safetensors")
    code = """
import sys
import captioner
from captioner.model.tags import tags_of
from PIL import Image
model = captioner.load_model(sys.argv[1], device="cpu")
result = model.caption([Image.new("RGB", (80, 60), "red")])[0]
print(len(tags_of(result, model.lexicon)), result.text)
assert sys.modules.keys().isdisjoint({"HanTa", "lemminflect", "HanTa.HanoverTagger"})
"""
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.safetensors")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    count, text = run.stdout.split(maxsplit=1)
    expected = {model.lexicon.lemma_of(word) for word in tokenize(text)} - {None}
    assert len(expected) == int(count) > 0


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
    assert data.lexicon == Lexicon.build(
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


def test_the_tokenizer_rule_is_the_lexicons(lexicon: Lexicon) -> None:
    assert Tokenizer(sorted({lemma.name for lemma in lexicon.lemmas}))
