"""What captions are scored with, by name; imports nothing heavy, for the command line."""

from __future__ import annotations

from dataclasses import dataclass

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

    tokenizer: str = TOKENIZERS[0]
    metrics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.tokenizer not in TOKENIZERS:
            raise ValueError(
                f"tokenizer={self.tokenizer!r} is unknown; choose from {', '.join(TOKENIZERS)}"
            )
        for name in self.metrics:
            if name not in EXTRA_METRICS:
                raise ValueError(
                    f"metrics: {name!r} is unknown; choose from {', '.join(EXTRA_METRICS)}"
                )
