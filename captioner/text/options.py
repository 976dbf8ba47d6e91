"""What captions are scored with, by name; imports nothing heavy, for the command line."""

from __future__ import annotations

from dataclasses import dataclass

from captioner.options import check_options, option
from captioner.text.languages import DEFAULT_LANGUAGE, primary_of

TOKENIZERS = ("captioner", "ptb")
EXTRA_METRICS = ("METEOR", "METEOR-stem", "SPICE")


@dataclass(frozen=True)
class ScoringOptions:
    """How captions are compared with people's.

    Attributes:
        tokenizer: one of :data:`TOKENIZERS`: ``captioner`` is the rule of
            `captioner.text.tokenizer`, ``ptb`` that of `captioner.text.ptb_tokenizer`.
        language: of the captions, a BCP 47 tag. ``captioner`` splits them as
            `captioner.text.segmentation.tokenize_to_score` says; ``ptb`` is for English.
        metrics: of :data:`EXTRA_METRICS`, in addition to BLEU, ROUGE-L and CIDEr-D.

    Raises:
        ValueError: a name is not one of these.
    """

    tokenizer: str = option(
        TOKENIZERS[0],
        "how captions and references are split into words: captioner, as the model does; ptb, "
        "nearly as papers do, with NLTK instead of Java",
        choices=TOKENIZERS,
    )
    metrics: tuple[str, ...] = option(
        (),
        "beyond BLEU, ROUGE-L and CIDEr-D: METEOR, SPICE (they need Java), METEOR-stem (words and "
        "stems alone, not comparable with METEOR)",
        choices=EXTRA_METRICS,
        metavar="NAME",
    )

    language: str = DEFAULT_LANGUAGE

    def __post_init__(self) -> None:
        check_options(self)
        is_english = primary_of(self.language) == DEFAULT_LANGUAGE
        if not is_english and self.tokenizer == "ptb":
            raise ValueError(f"tokenizer='ptb': is for English, not for {self.language}")
        if not is_english and self.metrics:
            raise ValueError(f"metrics={self.metrics!r}: are for English, not for {self.language}")
