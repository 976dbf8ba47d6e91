"""Which words of a vocabulary name what a picture shows, and by which lemma.

The decoder's vocabulary is closed, so lemma and part of speech are found once, when the vocabulary
is built, from the training captions in which the words stand. They are kept in the model file:
making tags out of captions needs no tagger, no dictionary and no network.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from captioner.errors import CaptionerError
from captioner.text.tokenizer import tokenize

LANGUAGE = "en"
TYPES = ("noun", "verb", "adjective")
NO_LEMMA = -1

# Parts of speech by the beginning of HanTa's tags (C5, the tag set of the British National Corpus).
# "be", "do" and "have" have tags of their own (VB, VD, VH) and are left out with them; so are names
# (NP0). What it cannot classify (UNC) is nearly always a noun too new for it: "atv", "igloo".
_TYPE_OF_TAG = {"NN": "noun", "UN": "noun", "VV": "verb", "AJ": "adjective"}
_UD = {"noun": "NOUN", "verb": "VERB", "adjective": "ADJ"}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Content words by their form that say nothing about what a picture shows: where something is in it
# ("in front of"), how much of it there is ("a group of", "a pair of"), that it is a picture at all
# ("poses for the camera"), and verbs and adjectives that only carry others ("gets ready").
STOP_LEMMAS: Mapping[str, frozenset[str]] = {
    "noun": _words(
        # places in the picture and relations in space
        "front back side top middle background foreground center centre bottom end edge corner "
        "rear midst left right distance direction way part area place spot position location "
        "space point inside outside upside base surface surrounding opposite "
        # quantities and sorts
        "group bunch pair couple lot piece kind number set series type sort variety half dozen bit "
        "rest amount other row style shape size color colour item thing object member example "
        # the picture, its making and its time
        "picture photo photograph image shot camera close-up closeup view scene frame display "
        "moment time day "
        # what only carries a verb
        "look use try attempt turn action motion progress fun life show start stop finish help "
        "move attention act advertising"
    ),
    "verb": _words(
        "be have do get go come take make look seem appear show use try attempt give put set let "
        "keep start begin continue stop end wear dress cover surround fill see face attach locate "
        "contain include place need want become say ask enjoy prepare allow happen involve line "
        "mark head own turn lead follow leave meet tie return bring position create operate "
        "participate interact interest oppose close shape extend advertise clothe clad star "
        # what captions say of whoever does nothing else ("standing in front of")
        "stand"
    ),
    "adjective": _words(
        "other another same several many few various different multiple certain such own next last "
        "first second third only open full ready similar identical single left right front back "
        "top middle bottom rear opposite opposing main entire whole real nice good great fair "
        "interesting visible nearby close far near able available light special particular aged "
        "sized shaped official free incoming hind extreme"
    ),
}

# Words with no singular of the same meaning; a dictionary would make "glass" of "glasses".
_ONLY_PLURAL = _words(
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
    _words(
        "haired skinned shirted bathing bearing living sporting onstage headfirst hello "
        "whist lease sooners outstreached"
    )
)


@dataclass(frozen=True)
class Lemma:
    """What several forms of a word have in common, as a dictionary lists it.

    Attributes:
        name: the lemma: "dog" for "dogs", "run" for "running".
        type: ``noun``, ``verb`` or ``adjective``.
        frequency: share in (0, 1] of the training pictures that at least one caption describes
            with it.
    """

    name: str
    type: str
    frequency: float

    def __hash__(self) -> int:
        # Hundreds for each picture are looked up; a string keeps its hash.
        return hash(self.name)


class Lexicon:
    """The lemma of every vocabulary word that says something about a picture.

    Args:
        words: the vocabulary, as in ``Tokenizer.words``.
        lemmas: all lemmas, each once.
        indices: for every word the place of its lemma in ``lemmas``, or ``NO_LEMMA``.
        language: of the words; what stop-list and lemmas are made for.

    Raises:
        CaptionerError: the parts do not fit together, or a lemma cannot be one.
    """

    def __init__(
        self,
        words: Sequence[str],
        lemmas: Sequence[Lemma],
        indices: Sequence[int],
        language: str = LANGUAGE,
    ) -> None:
        self.lemmas = tuple(lemmas)
        self.language = language
        self._indices = tuple(indices)
        if len(self._indices) != len(words):
            raise _damaged(f"{len(self._indices)} entries for {len(words)} words")
        if not isinstance(language, str) or not (language.isascii() and language.isalpha()):
            raise _damaged(f"{language!r:.40} names no language")
        for lemma in self.lemmas:
            _check_lemma(lemma)
        if len({(lemma.name, lemma.type) for lemma in self.lemmas}) != len(self.lemmas):
            raise _damaged("a lemma is there twice")
        for index in self._indices:
            if type(index) is not int or not NO_LEMMA <= index < len(self.lemmas):
                raise _damaged(f"{index!r:.40} is the place of no lemma")
        self._lemma_of = {
            word: self.lemmas[index]
            for word, index in zip(words, self._indices, strict=True)
            if index != NO_LEMMA
        }

    @classmethod
    def build(cls, words: Sequence[str], captions_by_image: Iterable[Sequence[str]]) -> Lexicon:
        """Find part of speech and lemma of English words in the captions they come from.

        Every caption is tagged in context with HanTa (Wartena 2019, "A Probabilistic Morphology
        Model for German Lemmatization", KONVENS); the majority decides a word's part of speech, and
        lemminflect's dictionary gives its lemma. About 20 s for 30,000 captions.

        Args:
            words: the vocabulary, as in ``Tokenizer.words``.
            captions_by_image: for every training picture its captions.

        Raises:
            CaptionerError: HanTa or lemminflect is not installed, or there are no pictures.
        """
        tagger = _tagger()
        tags: defaultdict[str, Counter[str]] = defaultdict(Counter)
        pictures: Counter[frozenset[str]] = Counter()
        for captions in captions_by_image:
            said: set[str] = set()
            for sentence in map(tokenize, captions):
                for word, (_, _, tag) in zip(sentence, tagger.tag_sent(sentence), strict=True):
                    tags[word][tag] += 1
                said.update(sentence)
            pictures[frozenset(said)] += 1
        if not pictures:
            raise CaptionerError("lexicon: there are no pictures with captions to learn it from")
        read = _Reader(tags).read
        found = {word: lemma for word in words if (lemma := read(word)) is not None}
        shares: Counter[tuple[str, str]] = Counter()
        for said_words, count in pictures.items():
            for lemma in {found[word] for word in said_words if word in found}:
                shares[lemma] += count
        # A vocabulary can be older than the captions: a lemma that no picture has is left out.
        order = sorted(shares, key=lambda lemma: (-shares[lemma], lemma))
        places = {lemma: place for place, lemma in enumerate(order)}
        lemmas = [Lemma(*lemma, _share(shares[lemma], pictures.total())) for lemma in order]
        indices = [places.get(found.get(word, ("", "")), NO_LEMMA) for word in words]
        return cls(words, lemmas, indices)

    @property
    def places(self) -> tuple[int, ...]:
        """For each vocabulary word the place of its lemma in ``lemmas``, or ``NO_LEMMA``."""
        return self._indices

    def lemma_of(self, word: str) -> Lemma | None:
        """The lemma of a vocabulary word; None for any word that makes no tag."""
        return self._lemma_of.get(word)

    def lemmas_of(self, words: Iterable[str]) -> set[Lemma]:
        """The lemmas of all words that make a tag."""
        return {lemma for word in words if (lemma := self.lemma_of(word)) is not None}

    def lemmas_in(self, captions: Iterable[str]) -> set[Lemma]:
        """The lemmas that people's captions of one picture say."""
        return self.lemmas_of(word for caption in captions for word in tokenize(caption))

    def __len__(self) -> int:
        """Return the number of lemmas."""
        return len(self.lemmas)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Lexicon):
            return NotImplemented
        return (self.language, self.lemmas, self._lemma_of) == (
            other.language,
            other.lemmas,
            other._lemma_of,
        )

    def __hash__(self) -> int:
        return hash((self.language, self.lemmas, self._indices))

    def __repr__(self) -> str:
        return f"Lexicon({len(self)} lemmas of {len(self._lemma_of)} words)"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON primitives from which ``from_dict`` makes an equal lexicon.

        ``lemmas`` holds ``[name, type, frequency]`` of every lemma once, and ``words`` a number for
        each vocabulary word, in the vocabulary's order: a place in ``lemmas``, or -1.
        """
        return {
            "language": self.language,
            "lemmas": [[lemma.name, lemma.type, lemma.frequency] for lemma in self.lemmas],
            "words": list(self._indices),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], words: Sequence[str]) -> Lexicon:
        """Make the lexicon that ``to_dict`` described, of the vocabulary ``words``.

        Raises:
            CaptionerError: the description is damaged, or another vocabulary's.
        """
        if not isinstance(data, Mapping):
            raise _damaged(f"a table was expected, not {type(data).__name__}")
        lemmas, indices = data.get("lemmas"), data.get("words")
        if not isinstance(lemmas, list) or not isinstance(indices, list):
            raise _damaged("'lemmas' and 'words' must be lists")
        for entry in lemmas:
            if not isinstance(entry, list) or len(entry) != 3:
                raise _damaged(f"{entry!r:.60} is not [name, type, frequency]")
        return cls(words, [Lemma(*entry) for entry in lemmas], indices, data.get("language", ""))


def _damaged(reason: str) -> CaptionerError:
    return CaptionerError(f"lexicon: {reason}; the file is damaged, get it again")


def _check_lemma(lemma: Lemma) -> None:
    # The rule of the tokenizer keeps out whatever could not be shown on a screen or in a page.
    if not isinstance(lemma.name, str) or tokenize(lemma.name) != [lemma.name]:
        raise _damaged(f"{lemma.name!r:.60} is not one word")
    if lemma.type not in TYPES:
        raise _damaged(f"the type of {lemma.name!r} is {lemma.type!r:.40}, not {', '.join(TYPES)}")
    # Comparisons with NaN are false.
    if type(lemma.frequency) not in (int, float) or not 0 < lemma.frequency <= 1:
        raise _damaged(f"the frequency of {lemma.name!r} is {lemma.frequency!r:.40}, not in (0, 1]")


def _share(count: int, total: int) -> float:
    """A share with six digits, which keep the model file small, and never 0."""
    return max(round(count / total, 6), 1e-6)


@cache
def _tagger() -> Any:
    """HanTa's tagger with its English model, which lies inside its wheel."""
    try:
        import lemminflect  # noqa: F401 - asked for here, before minutes of work
        from HanTa.HanoverTagger import HanoverTagger
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("HanTa", "lemminflect"):
            raise
        raise CaptionerError(
            f"the lexicon of tags needs {package}, which is not installed; "
            'pip install "captioner[train]", or train without one (--data.lexicon none)'
        ) from error
    return HanoverTagger("morphmodel_en.pgz")


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
