"""The languages of a record, as `captioner.captioning.batches.CaptionRecord.to_dict` has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from captioner.text.languages import DEFAULT_LANGUAGE

if TYPE_CHECKING:
    from captioner.model.caption_model import CaptionModel


def written_languages(first: str, others: Iterable[str] = ()) -> tuple[str, ...]:
    """The languages that outputs name, the first one first; empty for English alone."""
    languages = (first, *others)
    return () if languages == (DEFAULT_LANGUAGE,) else languages


def languages_of(model: CaptionModel) -> tuple[str, ...]:
    """`written_languages` of a captioner and those beside it."""
    return written_languages(model.language, (other.language for other in model.others))


def described_languages(about: Mapping[str, Any]) -> tuple[str, ...]:
    """`written_languages` of what `captioner.model.description.describe_model` says."""
    first, others = about.get("language", DEFAULT_LANGUAGE), about.get("other_languages", {})
    return written_languages(str(first), map(str, others if isinstance(others, Mapping) else ()))


def captions_of(record: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What a record says in each language, the first one first; nothing of an image that failed.

    Args:
        record: of one image; with what was read from a file, others' records as well.

    Returns:
        Language -> mapping with ``text`` (None where it is not sure enough), ``confidence`` and
        perhaps ``candidates``; the record itself is that of its first language.
    """
    if record.get("error") is not None:
        return {}
    return {language_in(record): record, **(record.get("other_languages") or {})}


def language_in(record: Mapping[str, Any]) -> str:
    """The language of a record's ``text``."""
    return str(record.get("language") or DEFAULT_LANGUAGE)


def alternatives_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Language -> caption, of a record that names its language; empty for one in English alone."""
    if "language" not in record:
        return {}
    return {
        language: each["text"]
        for language, each in captions_of(record).items()
        if each["text"] is not None
    }


def foremost(record: Mapping[str, Any]) -> str | None:
    """The caption in the first language that has one."""
    texts = (each["text"] for each in captions_of(record).values())
    return next((text for text in texts if text is not None), None)


def tag_names(record: Mapping[str, Any]) -> list[str]:
    """The names of a record's tags in all its languages, each once, surest first."""
    return list(dict.fromkeys(_tag_names(record)))


def _tag_names(record: Mapping[str, Any]) -> Iterator[str]:
    for each in captions_of(record).values():
        yield from (tag["name"] for tag in each.get("tags") or ())


def flattened(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record for a table: ``text_de`` and ``confidence_de`` for each further language."""
    row = dict(record)
    for language, each in row.pop("other_languages", {}).items():
        row |= {f"text_{language}": each["text"], f"confidence_{language}": each["confidence"]}
    return row
