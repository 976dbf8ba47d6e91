"""What captions are scored with, by name; imports nothing heavy, for the command line."""

from __future__ import annotations

from dataclasses import dataclass

from captioner.options import check_options, option

TOKENIZERS = ("captioner", "ptb")
EXTRA_METRICS = ("METEOR", "METEOR-stem", "SPICE")


@dataclass(frozen=True)
class ScoringOptions:
    """How captions are compared with people's.

    Attributes:
        tokenizer: one of :data:`TOKENIZERS`: ``captioner`` is the rule of
            `captioner.text.tokenizer`, ``ptb`` that of `captioner.text.ptb_tokenizer`.
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

    def __post_init__(self) -> None:
        check_options(self)
