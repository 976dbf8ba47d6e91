"""Build a lexicon: part of speech and lemma of English words, from the captions they stand in.

Only training and calibration do this; it needs HanTa and lemminflect, of the extra `train`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from captioner.errors import CaptionerError
from captioner.text.lexicon import NO_LEMMA, TYPES, Lemma, Lexicon
from captioner.text.tokenizer import Tokenizer, tokenize

# Parts of speech by the beginning of HanTa's tags (C5, the tag set of the British National Corpus).
# "be", "do" and "have" have tags of their own (VB, VD, VH) and are left out with them; so are names
# (NP0). What it cannot classify (UNC) is nearly always a noun too new for it: "atv", "igloo".
_TYPE_OF_TAG = {"NN": "noun", "UN": "noun", "VV": "verb", "AJ": "adjective"}
_UD = {"noun": "NOUN", "verb": "VERB", "adjective": "ADJ"}


def word_set(text: str) -> frozenset[str]:
    """The words of a list with blanks between them."""
    return frozenset(text.split())


# Content words by their form that say nothing about what an image shows: where something is in it
# ("in front of"), how much of it there is ("a group of", "a pair of"), that it is an image at all
# ("poses for the camera"), and verbs and adjectives that only carry others ("gets ready").
STOP_LEMMAS: Mapping[str, frozenset[str]] = {
    "noun": word_set(
        # places in the image and relations in space
        "front back side top middle background foreground center centre bottom end edge corner "
        "rear midst left right distance direction way part area place spot position location "
        "space point inside outside upside base surface surrounding opposite "
        # quantities and sorts
        "group bunch pair couple lot piece kind number set series type sort variety half dozen bit "
        "rest amount other row style shape size color colour item thing object member example "
        # the image, its making and its time
        "picture photo photograph image shot camera close-up closeup view scene frame display "
        "moment time day "
        # what only carries a verb
        "look use try attempt turn action motion progress fun life show start stop finish help "
        "move attention act advertising"
    ),
    "verb": word_set(
        "be have do get go come take make look seem appear show use try attempt give put set let "
        "keep start begin continue stop end wear dress cover surround fill see face attach locate "
        "contain include place need want become say ask enjoy prepare allow happen involve line "
        "mark head own turn lead follow leave meet tie return bring position create operate "
        "participate interact interest oppose close shape extend advertise clothe clad star "
        # what captions say of whoever does nothing else ("standing in front of")
        "stand"
    ),
    "adjective": word_set(
        "other another same several many few various different multiple certain such own next last "
        "first second third only open full ready similar identical single left right front back "
        "top middle bottom rear opposite opposing main entire whole real nice good great fair "
        "interesting visible nearby close far near able available light special particular aged "
        "sized shaped official free incoming hind extreme"
    ),
}

# Words with no singular of the same meaning; a dictionary would make "glass" of "glasses".
_ONLY_PLURAL = word_set(
    "binoculars bleachers clothes crossbones dreadlocks earphones eyeglasses fireworks glasses "
    "goggles gymnastics headphones jeans khakis leggings overalls pajamas pants pyjamas rapids "
    "scissors shorts slacks sunglasses sweatpants tights trousers trunks underpants woods"
)

# Readings that tagger or dictionary get wrong however often the word comes: "santa" counts as a
# name, "surfs" as a plural, and captions know neither "haired" without "long" nor a "bathing" that
# is not of a suit.
_KNOWN: Mapping[str, tuple[str, str] | None] = {
    word: (name, kind)
    for kind, readings in {
        "noun": "people:person peoples:person jean:jeans sled:sled sleds:sled graffiti:graffiti "
        "santa:santa tutu:tutu tutus:tutu floaties:floatie overpass:overpass windsurfer:windsurfer "
        "halloween:halloween dalmatian:dalmatian spider-man:spider-man husky:husky "
        "pedestrian:pedestrian rival:rival piggy:piggy lighting:lighting seating:seating",
        "verb": "sledding:sled seated:sit dances:dance surfs:surf bounds:bound barks:bark "
        "rollerblading:rollerblade wakeboarding:wakeboard waterskiing:waterski ridding:ride "
        "rollerskating:rollerskate canoeing:canoe rafting:raft sparring:spar melting:melt "
        "watering:water hooping:hoop",
        "adjective": "matching:matching barefoot:barefoot pointy:pointy flowery:flowery "
        "leashed:leashed hi-viz:hi-viz aqua:aqua evil:evil winding:winding "
        "flaming:flaming flowing:flowing knit:knit",
    }.items()
    for word, name in (reading.split(":") for reading in readings.split())
} | dict.fromkeys(
    word_set(
        "haired skinned shirted bathing bearing living sporting onstage headfirst hello "
        "whist lease sooners outstreached"
    )
)


def build_lexicon(words: Sequence[str], captions_by_image: Iterable[Sequence[str]]) -> Lexicon:
    """Find part of speech and lemma of English words in the captions they come from.

    Every caption is tagged in context with HanTa (Wartena 2019, "A Probabilistic Morphology
    Model for German Lemmatization", KONVENS); the majority decides a word's part of speech, and
    lemminflect's dictionary gives its lemma. About 20 s for 30,000 captions.

    Args:
        words: the vocabulary, as in ``Tokenizer.words``.
        captions_by_image: for every training image its captions.

    Raises:
        CaptionerError: HanTa or lemminflect is not installed, or there are no images.
    """
    tagger = load_tagger()
    tags: defaultdict[str, Counter[str]] = defaultdict(Counter)
    images: Counter[frozenset[str]] = Counter()
    for captions in captions_by_image:
        said: set[str] = set()
        for sentence in map(tokenize, captions):
            for word, (_, _, tag) in zip(sentence, tagger.tag_sent(sentence), strict=True):
                tags[word][tag] += 1
            said.update(sentence)
        images[frozenset(said)] += 1
    if not images:
        raise CaptionerError("lexicon: there are no images with captions to learn it from")
    read = _Reader(tags).read
    found = {word: lemma for word in words if (lemma := read(word)) is not None}
    return assemble(Tokenizer(words), found, images)


def assemble(
    tokenizer: Tokenizer,
    found: Mapping[str, tuple[str, str]],
    images: Mapping[frozenset[str], int],
) -> Lexicon:
    """A lexicon of what was found out about words, the most frequent lemmas first.

    Args:
        tokenizer: the vocabulary.
        found: name and type of the lemma of each word that makes a tag.
        images: how many training images are described with exactly these words.
    """
    shares: Counter[tuple[str, str]] = Counter()
    for said_words, count in images.items():
        for lemma in {found[word] for word in said_words if word in found}:
            shares[lemma] += count
    # A vocabulary can be older than the captions: a lemma that no image has is left out.
    order = sorted(shares, key=lambda lemma: (-shares[lemma], lemma))
    places = {lemma: place for place, lemma in enumerate(order)}
    total = sum(images.values())
    lemmas = [Lemma(*lemma, _share(shares[lemma], total)) for lemma in order]
    words = tokenizer.words
    indices = [places.get(found.get(word, ("", "")), NO_LEMMA) for word in words]
    return Lexicon(words, lemmas, indices, tokenizer.language, tokenizer.segmentation)


def _share(count: int, total: int) -> float:
    """A share with six digits, which keep the model file small, and never 0."""
    return max(round(count / total, 6), 1e-6)


@cache
def load_tagger() -> Any:
    """HanTa's tagger with its English model, which lies inside its wheel."""
    try:
        import lemminflect  # noqa: F401 - asked for here, before minutes of work
        from HanTa.HanoverTagger import HanoverTagger
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("HanTa", "lemminflect"):
            raise
        raise missing_tagger(package) from error
    return HanoverTagger("morphmodel_en.pgz")


def missing_tagger(package: str) -> CaptionerError:
    """The error to raise where a package that reads captions is not installed."""
    return CaptionerError(
        f"the lexicon of tags needs {package}, which is not installed; "
        'pip install "captioner[train]", or train without one (--data.lexicon none)'
    )


class _Reader:
    """Decides which lemma a word is, from how often it was tagged as what.

    Args:
        tags: for every word of the captions how often it had each of HanTa's tags.
    """

    def __init__(self, tags: Mapping[str, Counter[str]]) -> None:
        self.tags = tags
        self.votes = {word: _votes(counts) for word, counts in tags.items()}
        # "jumping" and "jumps" show that "jump", which a tagger takes for a noun, is mostly a verb.
        self.families: Counter[tuple[str, str]] = Counter()
        for word, votes in self.votes.items():
            for kind in TYPES:
                if votes[kind]:
                    self.families[self._lemma(word, kind), kind] += votes[kind]

    def read(self, word: str) -> tuple[str, str] | None:
        """Name and type of the lemma of ``word``; None if it makes no tag."""
        if word in _KNOWN:
            return _KNOWN[word]
        # One letter ("t"), a number and the possessive say nothing by themselves.
        if word not in self.votes or len(word) < 2 or not word[0].isalpha():
            return None
        kind = self._type(word)
        if kind is None:
            return None
        name = self._lemma(word, kind)
        if name in STOP_LEMMAS[kind] or len(name) < 2 or tokenize(name) != [name]:
            return None
        return name, kind

    def _type(self, word: str) -> str | None:
        votes = self.votes[word]
        total = votes.total()
        kind = votes.most_common(1)[0][0]
        if kind == "other":
            return None
        verb = self._known_lemma(word, "verb")
        if word.endswith("ing") and verb not in (None, word):
            # "swimming", "surfing": before a noun the tagger calls a participle what it likes.
            if kind == "adjective" or votes["verb"] + votes["adjective"] >= 0.15 * total:
                return "verb"
        elif kind == "noun" or verb == word:
            # Only a word that is a verb at times: the "waves" of the sea are not "waving".
            other = self.families[self._lemma(word, kind), kind]
            if votes["verb"] >= 0.2 * total and self.families[verb or word, "verb"] > other:
                return "verb"
        return kind

    def _lemma(self, word: str, kind: str) -> str:
        tags = self.tags[word]
        if kind == "noun" and (word in _ONLY_PLURAL or tags["NN2"] + tags["NN0"] <= tags["NN1"]):
            return word
        if kind == "adjective" and not tags["AJC"] + tags["AJS"] > tags["AJ0"]:
            return word
        return self._known_lemma(word, kind) or _new_lemma(word, kind)

    def _known_lemma(self, word: str, kind: str) -> str | None:
        """The dictionary's lemma; of several ("leaves") the one that the captions use most."""
        from lemminflect import getLemma

        names = getLemma(word, _UD[kind], lemmatize_oov=False)
        if kind == "noun" and len(names) > 1:
            names = [name for name in names if name != word]  # "things" is also listed as itself
        return max(
            (name.lower() for name in names),
            key=lambda name: self.votes[name][kind] if name in self.votes else 0,
            default=None,
        )


def _votes(tags: Counter[str]) -> Counter[str]:
    """How often a word was a noun, a verb, an adjective, and anything else."""
    votes: Counter[str] = Counter()
    for tag, count in tags.items():
        votes[_TYPE_OF_TAG.get(tag[:2], "other")] += count
    return votes


def _new_lemma(word: str, kind: str) -> str:
    """A lemma for a word that the dictionary lacks, by its ending."""
    from lemminflect import getLemma

    names = getLemma(word, _UD[kind], lemmatize_oov=True)
    return names[0].lower() if names else word
