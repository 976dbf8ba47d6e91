"""What pages know of the languages of the texts on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from captioner.errors import CaptionerError
from captioner.text.languages import language_of


def page_languages(records: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """The languages that records name, for a page's script: tag -> ``name`` and ``direction``.

    Args:
        records: with ``language`` and ``other_languages``, or without; perhaps others' records.
    """
    found: dict[str, dict[str, str]] = {}
    for record in records:
        others = record.get("other_languages")
        for tag in (record.get("language"), *(others if isinstance(others, Mapping) else ())):
            if isinstance(tag, str) and tag not in found:
                try:
                    language = language_of(tag)
                except CaptionerError:
                    continue  # Nobody's: the letters of the text say how it is written.
                found[tag] = {"name": language.own_name, "direction": language.direction}
    return found
