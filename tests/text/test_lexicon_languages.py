"""Which words of captions in other languages name what an image shows."""

from __future__ import annotations

import json

import pytest

from captioner.errors import CaptionerError
from captioner.text.lexicon import Lexicon
from captioner.text.lexicon_languages import build_lexicon_of
from captioner.text.tokenizer import Tokenizer

CAPTIONS = {
    "de": [
        ("Zwei schwarze Hunde laufen über die Straße.", "Ein Hund läuft im Vordergrund."),
        ("Ein Mann trägt einen roten Hut.",),
    ],
    "zh": [("一个男人在雪地上骑自行车。", "男人穿着红色的衣服"), ("黑色的狗在跑",)],
    "ar": [("الكلب يركض في الثلج", "كلب أسود في الثلج"), ("رجل يرتدي قبعة حمراء",)],
}
LEMMAS = {
    "de": {
        *{("Hund", "noun"), ("Straße", "noun"), ("Mann", "noun"), ("Hut", "noun")},
        *{("laufen", "verb"), ("schwarz", "adjective"), ("rot", "adjective")},
    },
    "zh": {
        *{("男人", "noun"), ("雪地", "noun"), ("骑", "verb"), ("自行车", "noun"), ("红色", "noun")},
        *{("衣服", "noun"), ("黑色", "noun"), ("狗", "noun"), ("跑", "verb")},
    },
    "ar": {
        *{("كلب", "noun"), ("يركض", "noun"), ("الثلج", "noun"), ("أسود", "noun")},
        *{("رجل", "noun"), ("قبعة", "noun"), ("حمراء", "noun")},
    },
}


def made(language: str) -> tuple[Tokenizer, Lexicon]:
    captions = CAPTIONS[language]
    tokenizer = Tokenizer.build([text for each in captions for text in each], 1, language)
    lexicon = build_lexicon_of(tokenizer, captions)
    assert lexicon is not None
    return tokenizer, lexicon


@pytest.mark.parametrize("language", CAPTIONS)
def test_content_words_make_lemmas_and_others_do_not(language: str) -> None:
    _, lexicon = made(language)
    assert {(lemma.name, lemma.type) for lemma in lexicon.lemmas} == LEMMAS[language]
    assert lexicon.language == language


def test_a_lemma_is_of_all_its_forms_and_of_a_share_of_the_images() -> None:
    _, german = made("de")
    dog = german.lemma_of("hunde")
    assert dog is not None and dog == german.lemma_of("hund")
    assert (dog.name, dog.frequency) == ("Hund", 0.5)
    assert {lemma.name for lemma in german.lemmas_in(["Der Mann sieht HUNDE"])} == {"Mann", "Hund"}
    _, chinese = made("zh")
    assert {lemma.name for lemma in chinese.lemmas_in(["男人骑狗"])} == {"男人", "骑", "狗"}
    _, arabic = made("ar")
    assert {lemma.name for lemma in arabic.lemmas_in(["الكلب في البيت"])} == {"كلب"}


@pytest.mark.parametrize("language", CAPTIONS)
def test_a_lexicon_survives_json(language: str) -> None:
    tokenizer, lexicon = made(language)
    data = json.loads(json.dumps(lexicon.to_dict()))
    again = Lexicon.from_dict(data, tokenizer.words, tokenizer.segmentation)
    assert again == lexicon
    for captions in CAPTIONS[language]:
        assert again.lemmas_in(captions) == lexicon.lemmas_in(captions)


def test_a_language_without_a_tagger_has_no_lexicon() -> None:
    tokenizer = Tokenizer.build(["un chien court"], 1, "fr")
    assert build_lexicon_of(tokenizer, [("un chien court",)]) is None


def test_no_images_make_no_lexicon() -> None:
    tokenizer, _ = made("de")
    with pytest.raises(CaptionerError, match="there are no images with captions"):
        build_lexicon_of(tokenizer, [])


@pytest.mark.parametrize(
    ("language", "name"), [("en", "Dog"), ("de", "der Hund"), ("de", "\x1b[1m"), ("zh", "狗 狗")]
)
def test_a_name_that_is_not_a_word_is_refused(language: str, name: str) -> None:
    data = {"language": language, "lemmas": [[name, "noun", 0.5]], "words": [0]}
    with pytest.raises(CaptionerError, match="is not one word"):
        Lexicon.from_dict(data, ["a"])
