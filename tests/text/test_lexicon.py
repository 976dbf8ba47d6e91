"""A lexicon in model files: described, read, refused where it is damaged."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from captioner.errors import CaptionerError
from captioner.model.caption_model import CaptionModel
from captioner.text.lexicon import Lemma, Lexicon
from captioner.text.lexicon_builder import build_lexicon
from captioner.text.tokenizer import Tokenizer, tokenize
from helpers.lexicons import CAPTIONS, WORDS


def test_it_is_described_with_every_lemma_once(lexicon: Lexicon) -> None:
    text = json.dumps(lexicon.to_dict())
    assert text.count('"jump"') == 1
    read = Lexicon.from_dict(json.loads(text), WORDS)
    assert read == lexicon
    assert hash(read) == hash(lexicon)
    assert read.to_dict() == lexicon.to_dict()
    assert [read.lemma_of(word) for word in WORDS] == [lexicon.lemma_of(word) for word in WORDS]
    assert repr(read) == repr(lexicon)
    assert read != build_lexicon(WORDS, CAPTIONS[:5])


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
        (lambda d: d["words"].__setitem__(0, 2), "2 is not the place of a lemma"),
        (lambda d: d["words"].__setitem__(0, -2), "-2 is not the place of a lemma"),
        (lambda d: d["words"].__setitem__(0, True), "True is not the place of a lemma"),
        (lambda d: d["words"].__setitem__(0, 0.0), "0.0 is not the place of a lemma"),
        (lambda d: d["words"].__setitem__(0, None), "None is not the place of a lemma"),
        (lambda d: d["lemmas"].append("dog"), "'dog' is not [name, type, frequency]"),
        (lambda d: d["lemmas"][0].append(1), "is not [name, type, frequency]"),
        (lambda d: d["lemmas"].append(["dog", "noun", 0.1]), "a lemma is listed twice"),
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
        (lambda d: d.update(language=5), "5 is not the name of a language"),
        (lambda d: d.update(language=""), "'' is not the name of a language"),
        (lambda d: d.update(language="e\n"), "is not the name of a language"),
        (lambda d: d.pop("language"), "'' is not the name of a language"),
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


def test_reading_a_model_and_making_tags_needs_no_tagger(
    tiny_model: CaptionModel, tmp_path: Path
) -> None:
    words = tiny_model.tokenizer.words
    # The fixture is everybody's: its parts are put together anew.
    model = CaptionModel(
        tiny_model.encoder,
        tiny_model.decoder,
        tiny_model.tokenizer,
        lexicon=build_lexicon(words, [["a man runs in red snow", "a dog jumps on grass"]]),
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


def test_the_tokenizer_rule_is_the_lexicons(lexicon: Lexicon) -> None:
    assert Tokenizer(sorted({lemma.name for lemma in lexicon.lemmas}))
