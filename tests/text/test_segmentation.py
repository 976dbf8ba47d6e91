"""How captions of each language become words, and words a text again."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from captioner.errors import CaptionerError
from captioner.text.segmentation import (
    ArabicSegmentation,
    ChineseSegmentation,
    Segmentation,
    choose_segmentation,
    scoring_rule,
    tokenize_to_score,
)
from captioner.text.tokenizer import UNK_ID, Tokenizer

CHINESE = ["一个男人在雪地上骑自行车。", "男人穿着T恤,骑自行车!", "雪地上的狗"]
GERMAN = [
    "Zwei Hunde laufen über die Straße.",
    "ein hund und eine frau auf der straße",
    "Ein Hund läuft über die grüne Wiese",
    "EIN HUND",
    "Die Frau sieht den Hund.",
]
ARABIC = ["كلبٌ أسودُ يركُض", "كـلـب أسود يجري", "كلب أسود"]


@pytest.mark.parametrize(
    ("language", "by", "kind"),
    [
        ("en", None, Segmentation),
        ("en", "words", Segmentation),
        ("zh", None, ChineseSegmentation),
        ("zh-Hant", None, ChineseSegmentation),
        ("zh", "characters", Segmentation),
        ("ar", None, ArabicSegmentation),
        ("fr", None, Segmentation),
    ],
)
def test_the_segmentation_of_a_language(
    language: str, by: str | None, kind: type[Segmentation]
) -> None:
    assert choose_segmentation(language, by) is kind


@pytest.mark.parametrize(
    ("language", "by", "message"),
    [
        ("de", "characters", "captions in 'de' are split by words$"),
        ("zh", "letters", "captions in 'zh' are split by words, or by characters"),
    ],
)
def test_a_segmentation_that_a_language_lacks_is_refused(
    language: str, by: str, message: str
) -> None:
    with pytest.raises(CaptionerError, match=message):
        choose_segmentation(language, by)


# --- Chinese -------------------------------------------------------------------------------


def test_chinese_words_are_those_of_the_dictionary_that_come_often() -> None:
    tokenizer = Tokenizer.build(CHINESE, min_count=2, language="zh")
    assert tokenizer.words == ("上", "男人", "自行车", "雪地", "骑")
    assert tokenizer.tokenize("一个男人在雪地上") == ["一", "个", "男人", "在", "雪地", "上"]
    assert tokenizer.encode("男人骑狗") == [5, 8, UNK_ID]


def test_chinese_is_joined_without_blanks_but_between_other_words() -> None:
    tokenizer = Tokenizer(["男人", "t恤", "穿", "的", "3", "km"], "zh")
    assert tokenizer.detokenize(["穿", "t恤", "的", "男人"]) == "穿t恤的男人"
    assert tokenizer.detokenize(["3", "km"]) == "3 km"
    assert tokenizer.tokenize("穿T恤的男人") == ["穿", "t恤", "的", "男人"]


def test_chinese_by_characters_needs_no_dictionary() -> None:
    tokenizer = Tokenizer.build(CHINESE, 2, "zh", "characters")
    assert set(tokenizer.words) == set("男人雪地上骑自行车")
    assert tokenizer.to_dict()["rule"] == "captioner-words-1"
    assert tokenizer.detokenize(tokenizer.tokenize("雪地上的狗。")) == "雪地上的狗"


# --- German --------------------------------------------------------------------------------


def test_german_words_have_the_capitals_that_most_people_write() -> None:
    tokenizer = Tokenizer.build(GERMAN, 1, "de")
    assert tokenizer.spelling == {
        "frau": "Frau",
        "hund": "Hund",
        "hunde": "Hunde",
        "straße": "Straße",
        "wiese": "Wiese",
    }
    assert tokenizer.tokenize("EIN Hund über") == ["ein", "hund", "über"]
    assert (
        tokenizer.detokenize(["die", "frau", "sieht", "den", "hund"]) == "die Frau sieht den Hund"
    )


# --- Arabic --------------------------------------------------------------------------------


def test_arabic_words_have_no_marks() -> None:
    tokenizer = Tokenizer.build(ARABIC, 2, "ar")
    assert tokenizer.words == ("أسود", "كلب")
    assert tokenizer.tokenize("كَلْبٌ") == ["كلب"]
    assert tokenizer.detokenize(["كلب", "أسود"]) == "كلب أسود"


# --- scores --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "rule", "text", "words"),
    [
        ("en", "captioner-words-1", "A dog's ball.", ["a", "dog", "'s", "ball"]),
        ("de", "captioner-words-1", "Über die Straße", ["über", "die", "straße"]),
        ("zh", "captioner-words-1", "男人骑车。", ["男", "人", "骑", "车"]),
        ("ar", "captioner-arabic-score-1", "إلى الأَرض", ["الي", "الارض"]),
    ],
)
def test_captions_are_split_to_be_scored(
    language: str, rule: str, text: str, words: list[str]
) -> None:
    assert scoring_rule(language) == rule
    assert tokenize_to_score(text, language) == words


# --- files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("captions", "language", "by"),
    [
        (CHINESE, "zh", None),
        (CHINESE, "zh", "characters"),
        (GERMAN, "de", None),
        (ARABIC, "ar", None),
    ],
)
def test_a_tokenizer_survives_json(captions: list[str], language: str, by: str | None) -> None:
    tokenizer = Tokenizer.build(captions, 1, language, by)
    again = Tokenizer.from_dict(json.loads(json.dumps(tokenizer.to_dict())))
    assert again == tokenizer
    assert again.language == language
    for text in captions:
        words = tokenizer.tokenize(text)
        assert again.encode(text) == tokenizer.encode(text)
        assert UNK_ID not in again.encode(text)
        assert tokenizer.tokenize(tokenizer.detokenize(words)) == words


def test_tokenizers_of_different_languages_differ() -> None:
    made = [Tokenizer(["a"]), Tokenizer(["a"], "de"), Tokenizer(["a"], "de", None, {"a": "A"})]
    assert all(one != other for one, other in pairwise(made))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"rule": "captioner-chinese-1", "words": ["一 只"]},
            "'一 只' is not one word of the rule",
        ),
        ({"rule": "captioner-arabic-1", "words": ["كَلب"]}, "is not one word of the rule"),
        ({"language": "German"}, "language 'German': give a tag"),
        ({"spelling": ["Hund"]}, "'spelling' must be a table, not list"),
        ({"spelling": {"hund": "Katze"}}, "'Katze' is not a spelling of a word"),
        ({"spelling": {"hund": "\x1b[31mHund"}}, "is not a spelling of a word"),
        ({"spelling": {"katze": "Katze"}}, "'Katze' is not a spelling of a word"),
    ],
)
def test_damaged_vocabularies_are_refused(data: dict[str, object], message: str) -> None:
    whole = {"rule": "captioner-words-1", "words": ["hund"], **data}
    with pytest.raises(CaptionerError, match=message):
        Tokenizer.from_dict(whole)
