from __future__ import annotations

import pytest

from captioner.errors import CaptionerError
from captioner.text.languages import LANGUAGES, Language, language_of


def test_the_languages_with_a_name() -> None:
    assert {tag: (each.name, each.direction) for tag, each in LANGUAGES.items()} == {
        "en": ("English", "ltr"),
        "zh": ("Chinese", "ltr"),
        "de": ("German", "ltr"),
        "ar": ("Arabic", "rtl"),
        "fr": ("French", "ltr"),
        "cs": ("Czech", "ltr"),
    }


@pytest.mark.parametrize(
    ("tag", "direction"), [("es", "ltr"), ("he", "rtl"), ("fa-IR", "rtl"), ("pt-BR", "ltr")]
)
def test_another_language_is_called_by_its_tag(tag: str, direction: str) -> None:
    assert language_of(tag) == Language(tag, tag, tag, direction)


@pytest.mark.parametrize("tag", ["", "German", "d", "de_DE", "de ", None])
def test_what_is_no_tag_is_refused(tag: str) -> None:
    with pytest.raises(CaptionerError, match="give a tag such as en, zh, de, ar"):
        language_of(tag)
