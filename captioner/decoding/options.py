"""The options of decoding as they are kept in files. Loads no torch."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captioner.decoding.search import DecodingOptions


def describe_decoding(options: DecodingOptions) -> dict[str, Any]:
    """The options as JSON primitives, as they are when they were read from a file."""
    values = {**asdict(options), "banned_words": list(options.banned_words)}
    # Jobs without them are those of versions that did not know them.
    prompt, included = values.pop("prompt"), values.pop("must_include")
    if prompt is not None:
        values["prompt"] = prompt
    if included:
        values["must_include"] = list(included)
    if options.style is None:
        del values["style"]
    return values
