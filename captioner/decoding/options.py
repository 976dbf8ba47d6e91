"""The options of decoding, and how they are kept in files. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class DecodingOptions:
    """How captions are searched for. Checked in full when made; ValueError names what is wrong.

    Attributes:
        beam_size: beams kept per image; 1 is greedy decoding. Sampling does not use it.
        num_captions: captions wanted per image. Beam search gives the best distinct ones, so at
            most `beam_size`; sampling gives that many independent samples.
        max_length: most words a caption may have, the end of sentence not counted.
        length_penalty: alpha in score = log_prob / length**alpha, with the end of sentence counted
            in the length (Wu et al. 2016, equation 14, with length**alpha for their lp). 0 ranks
            by probability, 1 by the mean per word.
        sample: draw words at random instead of searching for the most probable caption.
        temperature: divides the log-probabilities before sampling; below 1 is more conservative.
        top_k: sample from the k most probable words only; 0 for all (Fan et al. 2018).
        top_p: sample from the fewest words whose probability reaches p (Holtzman et al. 2020).
        seed: of the random numbers. The same seed gives the same samples.
        no_repeat_ngram: no n words in a row occur twice in a caption; 0 allows it
            (Paulus et al. 2018, section 2.5). Self-critical training likes "a man and a man".
            Where it is not 0, no word stands on both sides of a joining word either.
        joining_words: words that join unlike things: "a hat and a hat" and "white and white" are
            not said. Those that the vocabulary lacks change nothing.
        tag_weight: times the evidence of the model's tag classifier is added to the scores of its
            lemmas' words, each until it is said (Gulcehre et al. 2015, section 4.1); 0 leaves the
            decoder alone. What a caption's words are said to be worth includes it.
        banned_words: words that never occur. The caller turns them into `forbidden` ids.
        prompt: the words every caption begins with. They count in its length and in `max_length`,
            and their probabilities in its probability. `no_repeat_ngram` holds for what follows.
            The caller turns them into `prompt` ids.
        must_include: words that every caption says, each at least once, anywhere; those of the
            prompt count. Beam search only. The caller turns them into `required` ids.
        style: how the captions are written, one of the model's styles; None: its first. The caller
            starts the decoder in it.
    """

    beam_size: int = 3
    num_captions: int = 1
    max_length: int = 20
    length_penalty: float = 0.7
    sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    no_repeat_ngram: int = 2
    joining_words: tuple[str, ...] = ("and",)
    tag_weight: float = 0.0
    banned_words: tuple[str, ...] = ()
    prompt: str | None = None
    must_include: tuple[str, ...] = ()
    style: str | None = None

    def __post_init__(self) -> None:
        for name, minimum in (
            ("beam_size", 1),
            ("num_captions", 1),
            ("max_length", 1),
            ("top_k", 0),
            ("seed", 0),
            ("no_repeat_ngram", 0),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
                raise ValueError(f"{name}={value!r}: give a whole number of at least {minimum}")
        # Beyond 10 the power of the length leaves the range of a float.
        self._check_number("length_penalty", lambda x: 0 <= x <= 10, "from 0 to 10")
        self._check_number("temperature", lambda x: 0 < x < math.inf, "above 0, say 0.7")
        self._check_number("tag_weight", lambda x: 0 <= x <= 10, "from 0 to 10")
        self._check_number("top_p", lambda x: 0 < x <= 1, "above 0 and at most 1")
        self._check_together()

    def _check_number(self, name: str, in_range: Callable[[float], bool], remedy: str) -> None:
        value = getattr(self, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not in_range(value):  # NaN is in no range
            raise ValueError(f"{name}={value!r}: give a number {remedy}")

    def _check_together(self) -> None:
        if not self.sample:
            if self.num_captions > self.beam_size:
                raise ValueError(
                    f"num_captions={self.num_captions}: beam search gives at most beam_size="
                    f"{self.beam_size}; raise beam_size or set sample=True"
                )
            for name, neutral in (("temperature", 1.0), ("top_k", 0), ("top_p", 1.0)):
                if (value := getattr(self, name)) != neutral:
                    raise ValueError(
                        f"{name}={value!r} works on sampling only: set sample=True or leave it out"
                    )
        self._check_words()

    def _check_words(self) -> None:
        for name in ("banned_words", "must_include", "joining_words"):
            words = getattr(self, name)
            if isinstance(words, str) or not all(isinstance(word, str) and word for word in words):
                raise ValueError(f"{name}={words!r}: give a list of words, such as ['blurry']")
            # A list from a configuration file would make the options unhashable.
            object.__setattr__(self, name, tuple(words))
        if self.prompt is not None and not (isinstance(self.prompt, str) and self.prompt.strip()):
            raise ValueError(f"prompt={self.prompt!r}: give the first words, such as 'two dogs'")
        if self.style is not None and not (isinstance(self.style, str) and self.style):
            raise ValueError(f"style={self.style!r}: give the name of a style, or None")
        if self.must_include and self.sample:
            raise ValueError(
                f"must_include={self.must_include!r} works on the search only: leave it or sample "
                "out"
            )


@dataclass(frozen=True)
class FillOptions:
    """How blanks are filled. Checked in full when made; ValueError names what is wrong.

    Attributes:
        top: fillings that are listed, and words that are listed for each blank.
        beam_size: sentences begun that are kept at the second blank and at each one after it. The
            first blank is always tried with every word.
    """

    top: int = 5
    beam_size: int = 5000

    def __post_init__(self) -> None:
        for name in ("top", "beam_size"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name}={value!r}: give a whole number of at least 1")


def describe_decoding(options: DecodingOptions) -> dict[str, Any]:
    """The options as JSON primitives, as they are when they were read from a file."""
    values = asdict(options)
    for name in ("banned_words", "joining_words"):
        values[name] = list(values[name])
    # Jobs without them are those of versions that did not know them.
    prompt, included = values.pop("prompt"), values.pop("must_include")
    if prompt is not None:
        values["prompt"] = prompt
    if included:
        values["must_include"] = list(included)
    if options.style is None:
        del values["style"]
    return values
