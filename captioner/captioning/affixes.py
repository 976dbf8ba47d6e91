"""Text of the user's own before and after every caption, such as the trigger words of a LoRA."""

from __future__ import annotations

from dataclasses import dataclass

from captioner.files.escaping import escaped


@dataclass(frozen=True)
class Affixes:
    """What stands around each caption. Checked when made; ValueError names what is wrong.

    Attributes:
        prefix: before it.
        suffix: after it.
    """

    prefix: str = ""
    suffix: str = ""

    def __post_init__(self) -> None:
        for name, text in (("caption_prefix", self.prefix), ("caption_suffix", self.suffix)):
            if escaped(text) != text:
                raise ValueError(
                    f"{name}={text!r}: a caption is one line: give text without line ends, tabs "
                    "and other control characters"
                )

    def around(self, caption: str) -> str:
        """The caption with its prefix and suffix.

        A space is added where two words would run into each other; all else is as it was given.
        """
        text = self.prefix
        for part in (caption, self.suffix):
            meet = text[-1:].isalnum() and part[:1].isalnum()
            text += f" {part}" if meet else part
        return text
