"""The rule for words, and the vocabulary built on it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unicodedata import category

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.errors import CaptionerError
from captioner.text.tokenizer import (
    BOS_ID,
    EOS_ID,
    PAD_ID,
    TOKENIZER_RULE,
    UNK_ID,
    Tokenizer,
    detokenize,
    tokenize,
)

FLICKR8K = Path(__file__).parents[3] / "shared" / "flickr8k" / "Flickr8k.token.txt"

# text, its words, and the words joined for display
RULE = [
    # case and plain punctuation
    ("Two DOGS run .", "two dogs run", "two dogs run"),
    ("wait,what?(no!)", "wait what no", "wait what no"),
    ("U.S. flag & a #1 sign", "u s flag a 1 sign", "u s flag a 1 sign"),
    ("", "", ""),
    (" ... -- ' \t\n", "", ""),
    # hyphens and dashes
    ("T-Shirt", "t-shirt", "t-shirt"),
    ("t\u2010shirt t\u2011shirt t\u2013shirt", "t-shirt t-shirt t-shirt", None),
    ("merry-go-round", "merry-go-round", "merry-go-round"),
    ("a - b -c d-", "a b c d", "a b c d"),
    ("dog--cat dog\u2014cat", "dog cat dog cat", None),
    # apostrophes
    ("Don't", "don't", "don't"),
    ("don\u2019t don`t don\u00b4t don\uff07t", "don't don't don't don't", None),
    ("'quoted' rock 'n' roll", "quoted rock n roll", None),
    ("l'homme o'clock", "l'homme o'clock", "l'homme o'clock"),
    # possessives
    ("a man 's hat", "a man 's hat", "a man's hat"),
    ("a man's hat", "a man 's hat", "a man's hat"),
    ("The MAN\u2019S hat", "the man 's hat", "the man's hat"),
    ("the dogs' toys", "the dogs toys", "the dogs toys"),
    ("a t-shirt's sleeve", "a t-shirt 's sleeve", "a t-shirt's sleeve"),
    ("a bull's-eye", "a bull's-eye", "a bull's-eye"),
    ("let's see 'small' 's", "let 's see small 's", "let's see small's"),
    ("x's's", "x 's 's", "x's's"),
    # numbers
    ("3.5 miles, 1,000 men. 12.", "3.5 miles 1,000 men 12", "3.5 miles 1,000 men 12"),
    ("number 7, 8", "number 7 8", "number 7 8"),
    ("a.5 5.a 3:30", "a 5 5 a 3 30", None),
    ("1990s 4x4 2nd", "1990s 4x4 2nd", "1990s 4x4 2nd"),
    ("2\u00bd", "2 1 2", "2 1 2"),
    ("\u0663\u066b\u0665", "\u0663\u066b\u0665", "\u0663\u066b\u0665"),
    # special words cannot be written
    ("<unk> <EOS> <pad><bos>", "unk eos pad bos", "unk eos pad bos"),
    # Unicode forms and invisible characters
    ("\uff34\uff25\uff33\uff34 \ufb01sh", "test fish", "test fish"),
    ("cafe\u0301 CAF\u00c9", "caf\u00e9 caf\u00e9", None),
    ("foot\u00adball \u200eright\u200f \ufeffa", "football right a", None),
    ("\u2764\ufe0f dog \U0001f469\u200d\U0001f680 1\ufe0f\u20e3", "dog 1", "dog 1"),
    # languages
    ("Stra\u00dfe STRASSE \u1e9e", "stra\u00dfe strasse \u00df", None),
    ("\u0130STANBUL \u0130\u0307 Istanbul", "istanbul i istanbul", None),
    ("\u0131\u015f\u0131k", "\u0131\u015f\u0131k", "\u0131\u015f\u0131k"),
    ("col\u00b7laborar", "col\u00b7laborar", "col\u00b7laborar"),
    ("Жінка п\u02bcє", "жінка п'є", "жінка п'є"),
    ("ΟΔΟΣ", "οδος", "οδος"),
    ("हिन्दी में लड़का।", "हिन्दी में लड़का", "हिन्दी में लड़का"),
    ("می\u200cخواهم\u200c ،کتاب", "می\u200cخواهم کتاب", "می\u200cخواهم کتاب"),
    ("한 남자가 뛰어요.", "한 남자가 뛰어요", "한 남자가 뛰어요"),
    # scripts without spaces
    ("一只黑狗,在跑。", "一 只 黑 狗 在 跑", "一只黑狗在跑"),
    ("スーパーで犬が", "ス ー パ ー で 犬 が", "スーパーで犬が"),
    ("か\u3099く", "が く", "がく"),
    ("2只dog跑", "2 只 dog 跑", "2 只 dog 跑"),
    ("他's", "他 's", "他's"),
    ("หมาวิ่ง", "ห ม า วิ่ ง", "หมาวิ่ง"),
    ("ឆ្កែ", "ឆ្ កែ", "ឆ្កែ"),
]


@pytest.mark.parametrize(("text", "words", "display"), RULE)
def test_rule(text: str, words: str, display: str | None) -> None:
    assert tokenize(text) == words.split(" ") if words else tokenize(text) == []
    if display is not None:
        assert detokenize(tokenize(text)) == display
    assert_round_trip(text)


def assert_round_trip(text: str) -> None:
    words = tokenize(text)
    assert tokenize(detokenize(words)) == words
    # A vocabulary accepts exactly such words.
    assert [word for word in words if tokenize(word) != [word]] == []


def test_round_trip_of_characters() -> None:
    # All but letters without case, of which there are 130,000, mostly Han and Hangul.
    codes = [c for c in range(sys.maxunicode) if category(chr(c)) not in ("Cn", "Co", "Cs", "Lo")]
    assert len(codes) > 15_000
    for code in [*codes, *range(0x100, 0x30000, 37)]:
        # Neighbours of different kinds, so that the character meets each of them.
        assert_round_trip("a{0}b 1{0}2 {0}'s 犬{0}犬".format(chr(code)))


TRICKY = "aSs1İΣ -'’.,·½犬ーกิ́̇ःक्ᄀ\u1161\u200b\u200c\u200d\u00ad\ufe0f—"


@settings(max_examples=1500, deadline=None, database=None)
@given(
    st.lists(
        st.one_of(st.sampled_from(TRICKY), st.just("'s"), st.integers(0, sys.maxunicode).map(chr))
    ).map("".join)
)
def test_round_trip_of_any_text(text: str) -> None:
    assert_round_trip(text)


@pytest.mark.skipif(not FLICKR8K.is_file(), reason="Flickr8k is not beside the repository")
def test_round_trip_of_flickr8k() -> None:
    lines = FLICKR8K.read_text(encoding="utf-8").splitlines()
    captions = [line.split("\t")[1] for line in lines]
    assert len(captions) > 30_000
    all_words = [tokenize(caption) for caption in captions]
    assert [words for words in all_words if tokenize(detokenize(words)) != words] == []


def test_detokenize_takes_any_iterable_and_special_words() -> None:
    assert detokenize(iter(["a", "<unk>", "man", "'s", "hat"])) == "a <unk> man's hat"
    assert detokenize([]) == ""


CAPTIONS = ["A man 's dog .", "The dog runs", "a dog!", "a cat"]


def test_build_orders_by_count_then_word() -> None:
    tokenizer = Tokenizer.build(CAPTIONS, min_count=1)
    assert tokenizer.words == ("a", "dog", "'s", "cat", "man", "runs", "the")
    assert len(tokenizer) == 11
    assert Tokenizer.build(CAPTIONS, min_count=3).words == ("a", "dog")
    assert Tokenizer.build(iter(reversed(CAPTIONS)), min_count=1) == tokenizer


def test_build_says_why_nothing_is_left() -> None:
    with pytest.raises(CaptionerError, match="min_count is 5, and none of the 7 words"):
        Tokenizer.build(CAPTIONS)
    with pytest.raises(CaptionerError, match="min_count is 0; it must be at least 1"):
        Tokenizer.build(CAPTIONS, min_count=0)


def test_ids() -> None:
    tokenizer = Tokenizer(["dog", "a", "'s"])
    assert (PAD_ID, BOS_ID, EOS_ID, UNK_ID) == (0, 1, 2, 3)
    assert tokenizer.encode("A dog's <eos>, unseen") == [5, 4, 6, UNK_ID, UNK_ID]
    assert [tokenizer.id_of(word) for word in ("dog", "cat", "<eos>", "<pad>")] == [4, 3, 3, 3]
    assert [tokenizer.word_of(i) for i in range(len(tokenizer))] == [
        "<pad>",
        "<bos>",
        "<eos>",
        "<unk>",
        "dog",
        "a",
        "'s",
    ]


def test_decode_stops_at_the_end_and_skips_padding() -> None:
    tokenizer = Tokenizer(["dog", "a"])
    assert tokenizer.decode([BOS_ID, 5, PAD_ID, 4, UNK_ID, EOS_ID, 4]) == ["a", "dog", "<unk>"]
    assert tokenizer.decode([]) == []
    assert tokenizer.decode(iter(tokenizer.encode("a dog"))) == ["a", "dog"]


@pytest.mark.parametrize("word_id", [-1, 5])
def test_ids_outside_the_vocabulary_are_refused(word_id: int) -> None:
    tokenizer = Tokenizer(["dog"])
    with pytest.raises(CaptionerError, match=rf"word id {word_id} is not one of the ids 0 to 4"):
        tokenizer.word_of(word_id)
    with pytest.raises(CaptionerError, match=rf"word id {word_id} "):
        tokenizer.decode([word_id])


def test_dict_round_trip_through_json() -> None:
    tokenizer = Tokenizer.build([*CAPTIONS, "一只狗 col\u00b7lega 3.5"], min_count=1)
    data = json.loads(json.dumps(tokenizer.to_dict()))
    assert data["rule"] == TOKENIZER_RULE
    again = Tokenizer.from_dict(data)
    assert again == tokenizer
    assert hash(again) == hash(tokenizer)
    assert again.encode("一只 dog") == tokenizer.encode("一只 dog")
    assert again != Tokenizer(tokenizer.words[:-1])
    assert again != tokenizer.words


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["dog"], "expected a table with 'rule' and 'words', not list"),
        ({"words": ["dog"]}, f"made with the rule None, and this version has '{TOKENIZER_RULE}'"),
        ({"rule": "ptb", "words": ["dog"]}, "made with the rule 'ptb'"),
        ({"rule": TOKENIZER_RULE}, "'words' must be a list of strings, not NoneType"),
        ({"rule": TOKENIZER_RULE, "words": "dog"}, "must be a list of strings, not str"),
        ({"rule": TOKENIZER_RULE, "words": ["a", "dog", "a"]}, "the word 'a' is listed twice"),
        ({"rule": TOKENIZER_RULE, "words": ["a", 3]}, "3 is not one word of the rule"),
        ({"rule": TOKENIZER_RULE, "words": ["a", ["b"]]}, r"\['b'\] is not one word"),
        ({"rule": TOKENIZER_RULE, "words": ["<eos>"]}, "'<eos>' is not one word"),
        ({"rule": TOKENIZER_RULE, "words": ["Dog"]}, "'Dog' is not one word"),
        ({"rule": TOKENIZER_RULE, "words": ["a dog"]}, "'a dog' is not one word"),
        ({"rule": TOKENIZER_RULE, "words": [""]}, "'' is not one word"),
    ],
)
def test_damaged_dicts_are_refused(data: object, message: str) -> None:
    with pytest.raises(CaptionerError, match=message):
        Tokenizer.from_dict(data)  # type: ignore[arg-type]
