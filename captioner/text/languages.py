"""The languages of captions, by their BCP 47 tags: how each is written."""

from __future__ import annotations

import re
from dataclasses import dataclass

from captioner.errors import CaptionerError

DEFAULT_LANGUAGE = "en"
"""Of a model that names none."""

_TAG = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{1,8})*")


@dataclass(frozen=True)
class Language:
    """What there is to know of a language.

    Attributes:
        tag: BCP 47, such as ``en``.
        name: in English, for messages and help.
        own_name: what its speakers call it, for pages.
        direction: in which its lines run: ``ltr`` or ``rtl``, as HTML's ``dir`` has it.
    """

    tag: str
    name: str
    own_name: str
    direction: str = "ltr"


LANGUAGES = {
    each.tag: each
    for each in (
        Language("en", "English", "English"),
        Language("zh", "Chinese", "中文"),
        Language("de", "German", "Deutsch"),
        Language("ar", "Arabic", "العربية", "rtl"),
        Language("fr", "French", "Français"),
        Language("cs", "Czech", "Čeština"),
    )
}
"""Those with a name; a model can be trained in others."""

TAG_REMEDY = (
    f"give a tag such as {', '.join(LANGUAGES)} (BCP 47: two or three small letters, then perhaps "
    "a region or script)"
)
_RIGHT_TO_LEFT = ("ar", "fa", "he", "ps", "ur", "yi")


def is_tag(tag: object) -> bool:
    """Whether it is the tag of a language, as far as its form goes."""
    return isinstance(tag, str) and _TAG.fullmatch(tag) is not None


def primary_of(tag: str) -> str:
    """The language itself, without the region or script of a tag: ``zh-TW`` gives ``zh``."""
    return tag.partition("-")[0]


def language_of(tag: str) -> Language:
    """The language of a tag; one without an entry is called by its tag.

    Raises:
        CaptionerError: it is not a BCP 47 tag.
    """
    if not is_tag(tag):
        raise CaptionerError(f"language {tag!r}: {TAG_REMEDY}")
    direction = "rtl" if primary_of(tag) in _RIGHT_TO_LEFT else "ltr"
    known = LANGUAGES.get(tag)
    return known or Language(tag, tag, tag, direction)
