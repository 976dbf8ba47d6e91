"""One image with its captions, as it is read out of an archive or a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from captioner.data.entries import clean_caption
from captioner.data.fields import text_fields, texts_in

NO_IMAGES = 1 << 62
"""Instead of the place of the first sample that is wanted with its image: none is."""

WITHOUT_CAPTION = "sample{s} without a caption left out"

Count: TypeAlias = Callable[[str, str], None]
"""Counts what is left out, as `captioner.data.entries.LeftOut.count` does."""


@dataclass(frozen=True)
class Sample:
    """An image with its captions.

    Attributes:
        name: of the image in its archive or table.
        captions: at least one.
        image: all bytes of its file; None where there are none, too many, or they are not wanted.
    """

    name: str
    captions: tuple[str, ...]
    image: bytes | None


def captions_in(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The captions of a record whose fields are in lower case, each once; often there are none."""
    texts = [text for field in text_fields(record) for text in texts_in(record[field])]
    cleaned = (clean_caption(text) for text in texts if isinstance(text, str))
    return tuple(dict.fromkeys(filter(None, cleaned)))
