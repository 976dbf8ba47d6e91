"""Build the lexicon of a language: which words of its captions name what an image shows.

Only training and calibration do this. German needs HanTa, Chinese rjieba, both of the extra
`train`. For Arabic there is no such tagger: content words are all but those of a list.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from captioner.errors import CaptionerError
from captioner.text.languages import primary_of
from captioner.text.lexicon import LANGUAGE, Lexicon, is_lemma
from captioner.text.lexicon_builder import assemble, build_lexicon, missing_tagger, word_set
from captioner.text.tokenizer import UNK_ID, Tokenizer

Reading = tuple[str, str]
"""Name and type of a lemma."""

OTHER = ("", "other")

GERMAN_STOPS = word_set(
    "Bild Foto Kamera Vordergrund Hintergrund Mitte Seite Gruppe Paar Reihe Anzahl Teil Art "
    "Stück Ende Rand Nähe Richtung Szene Ort Platz Stelle Weise Menge Versuch Begriff Blick "
    "Aktion Spaß sein haben werden machen tun gehen kommen stehen befinden sehen schauen "
    "blicken tragen halten lassen können wollen scheinen versuchen zeigen geben nehmen benutzen "
    "bereiten beginnen ander mehrere einig verschieden viel weit nah ganz beide gleich nächst "
    "letzt erst zweit dritt link recht ober unter vorder hinter offen einzeln"
)
CHINESE_STOPS = word_set(
    "是 有 没有 进行 正在 准备 穿 穿着 戴 戴着 站 站在 看 看着 拿 拿着 在 "
    "到 来 去 走 做 要 会 可以 想 像 使用 一起 地方 方向 样子 前 后 旁边 "
    "照片 镜头 背景 画面 东西 起来 时候 左右 着 过 向 对 给 用 让 把 不同 "
    "多 大家"
)
ARABIC_STOPS = word_set(
    "في من على إلى الى مع عن عند هو هي هم هذا هذه ذلك تلك التي الذي الذين بينما أمام خلف "
    "وراء بجانب بجوار تحت فوق داخل خارج حول نحو عبر بعض بعضهم بعضها بعضهما البعض آخر أخرى "
    "اخر اخرى اثنان اثنين اثنتان اثنتين ثلاثة ثلاث أربعة أربع خمسة مجموعة عدد زوج يرتدي "
    "ترتدي يرتدون يرتديان ترتديان يقف تقف يقفون واقفا واقفة هناك حيث بالقرب قرب قريب جدا "
    "كما لكن ليس يكون تكون كان كانت أثناء خلال بين لدى ذات ذو صورة الكاميرا كاميرا أعلى "
    "أسفل منتصف جانب الجانب وهو وهي وفي ومن وعلى"
)


def build_lexicon_of(
    tokenizer: Tokenizer, captions_by_image: Iterable[Sequence[str]]
) -> Lexicon | None:
    """Find the lemmas of a vocabulary in the captions that it comes from.

    Args:
        tokenizer: the vocabulary and its language.
        captions_by_image: for every training image its captions.

    Returns:
        None for a language of which nothing is known but its words.

    Raises:
        CaptionerError: a tagger is not installed, or there are no images.
    """
    if tokenizer.language == LANGUAGE:
        return build_lexicon(tokenizer.words, captions_by_image)
    readers = {"de": _read_german, "zh": _read_chinese, "ar": _read_arabic}
    read = readers.get(primary_of(tokenizer.language))
    if read is None:
        return None
    readings: defaultdict[str, Counter[Reading]] = defaultdict(Counter)
    images: Counter[frozenset[str]] = Counter()
    for captions in captions_by_image:
        said: set[str] = set()
        for text in captions:
            said.update(tokenizer.tokenize(text))
            for word, reading in read(tokenizer, text):
                readings[word][reading] += 1
        images[frozenset(said)] += 1
    if not images:
        raise CaptionerError("lexicon: there are no images with captions to learn it from")
    return assemble(tokenizer, _most_often(tokenizer, readings), images)


def _most_often(
    tokenizer: Tokenizer, readings: Mapping[str, Counter[Reading]]
) -> dict[str, Reading]:
    """Of each word of the vocabulary what it is most often, if that makes a tag."""
    found = {}
    for word in tokenizer.words:
        if word not in readings:
            continue
        counts = readings[word]
        reading = max(counts, key=lambda each: (counts[each], each))
        if reading != OTHER and is_lemma(reading[0], tokenizer.language):
            found[word] = reading
    return found


def _read_german(tokenizer: Tokenizer, text: str) -> Iterator[tuple[str, Reading]]:
    """The words of a caption as HanTa tags them, with the capitals that the vocabulary has."""
    types = {"NN": "noun", "VV": "verb", "AD": "adjective"}
    words = tokenizer.tokenize(text)
    written = [tokenizer.written(word) for word in words]
    for word, (_, name, tag) in zip(words, _german_tagger().tag_sent(written), strict=True):
        kind = types.get(tag[:2]) if tag[:3] != "ADV" else None
        is_tag = kind is not None and name not in GERMAN_STOPS and len(name) > 1
        yield word, (name, str(kind)) if is_tag else OTHER


def _read_chinese(tokenizer: Tokenizer, text: str) -> Iterator[tuple[str, Reading]]:
    """The words of a caption as rjieba tags them."""
    types = {"n": "noun", "v": "verb", "a": "adjective"}
    for word, tag in _chinese_tagger()(text.lower()):
        kind = types.get(tag[:1])
        is_tag = kind is not None and word not in CHINESE_STOPS
        yield word, (word, str(kind)) if is_tag else OTHER


def _read_arabic(tokenizer: Tokenizer, text: str) -> Iterator[tuple[str, Reading]]:
    """The content words of a caption, without the article where the vocabulary has them so."""
    for word in tokenizer.tokenize(text):
        bare = word.removeprefix("ال")
        name = bare if tokenizer.id_of(bare) != UNK_ID else word
        is_tag = len(name) > 2 and not {word, name} & ARABIC_STOPS
        yield word, (name, "noun") if is_tag else OTHER


@cache
def _german_tagger() -> Any:
    try:
        from HanTa.HanoverTagger import HanoverTagger
    except ModuleNotFoundError as error:
        raise missing_tagger("HanTa") from error
    return HanoverTagger("morphmodel_ger.pgz")


@cache
def _chinese_tagger() -> Callable[[str], list[tuple[str, str]]]:
    try:
        from rjieba import tag
    except ModuleNotFoundError as error:
        raise missing_tagger("rjieba") from error
    found: Callable[[str], list[tuple[str, str]]] = tag
    return found
