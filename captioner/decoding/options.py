"""The options of decoding, and how they are kept in files. Loads no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from captioner.options import check_options, option


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

    beam_size: int = option(3, "beams of the search; 1 is greedy", metavar="K", minimum=1)
    num_captions: int = option(
        1,
        "captions for each image in jsonl and tsv, best first; the beam is at least as large, "
        "unless --beam-size says otherwise",
        metavar="N",
        minimum=1,
    )
    max_length: int = option(20, "maximum number of words in a caption", metavar="T", minimum=1)
    length_penalty: float = option(
        0.7,
        "score = log-probability / length**A; 0 prefers short captions",
        metavar="A",
        minimum=0,
        maximum=10,  # beyond, the power of the length leaves the range of a float
    )
    sample: bool = option(
        False, "draw the words at random instead of searching for the best caption"
    )
    temperature: float = option(
        1.0, "below 1 more cautious, above 1 bolder", metavar="X", above=0, maximum=1e6
    )
    top_k: int = option(0, "draw from the N most probable words; 0 for all", metavar="N", minimum=0)
    top_p: float = option(
        1.0,
        "draw from the words that make up P of the probability",
        metavar="P",
        above=0,
        maximum=1,
    )
    seed: int = option(0, "the same seed gives the same captions", metavar="N", minimum=0)
    no_repeat_ngram: int = option(
        2,
        "never repeat N words in a row, nor say 'white and white'; 0 allows both",
        metavar="N",
        minimum=0,
    )
    joining_words: tuple[str, ...] = option(
        ("and",), "comma-separated words that never join a word with itself", metavar="WORDS"
    )
    tag_weight: float = option(
        0.0,
        "weight of the model's tag classifier in the choice of words",
        metavar="W",
        minimum=0,
        maximum=10,
    )
    banned_words: tuple[str, ...] = option(
        (), "never say this word; may be given again", metavar="WORD", flag="--ban"
    )
    prompt: str | None = option(
        None,
        "begin every caption with these words; they count in --max-length",
        kind=str,
        metavar="TEXT",
    )
    must_include: tuple[str, ...] = option(
        (),
        "say this very word somewhere; may be given again. The search then keeps the beam size for "
        "each number of words said; not with --sample",
        metavar="WORD",
    )
    style: str | None = option(
        None,
        "how captions are written, for a model that knows several styles",
        kind=str,
        metavar="NAME",
        default_text="its first",
    )

    def __post_init__(self) -> None:
        # A list from a configuration file would make the options unhashable.
        for name in ("banned_words", "must_include", "joining_words"):
            if isinstance(words := getattr(self, name), list):
                object.__setattr__(self, name, tuple(words))
        check_options(self)
        self._check_together()

    def _check_together(self) -> None:
        if not self.sample:
            if self.num_captions > self.beam_size:
                raise ValueError(
                    f"num_captions={self.num_captions}: beam search gives at most beam_size="
                    f"{self.beam_size}; raise beam_size or set sample=True"
                )
            for name in ("temperature", "top_k", "top_p"):
                if (value := getattr(self, name)) != getattr(DecodingOptions, name):
                    raise ValueError(
                        f"{name}={value!r} works on sampling only: set sample=True or leave it out"
                    )
        if self.prompt is not None and not self.prompt.strip():
            raise ValueError(f"prompt={self.prompt!r}: give the first words, such as 'two dogs'")
        if self.style == "":
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

    top: int = option(
        5, "list the N likeliest fillings, and words of each blank", metavar="N", minimum=1
    )
    beam_size: int = option(
        5000, "beginnings that are kept from the second blank on", metavar="K", minimum=1
    )

    def __post_init__(self) -> None:
        check_options(self)


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
