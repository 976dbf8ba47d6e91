"""Captions of the same images in several languages, from what the CNN has seen once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError
from captioner.model.description import KEPT_OPTIONS
from captioner.model.results import CaptionResult

if TYPE_CHECKING:
    from captioner.model.caption_model import CaptionModel


def options_for(
    other: CaptionModel, options: DecodingOptions, main: CaptionModel
) -> DecodingOptions:
    """How one of a model's other languages is decoded.

    What was asked for holds for all languages; what was left as the main model has it is as the
    language's own model has it.
    """
    own = {
        name: getattr(other.decoding, name)
        for name in KEPT_OPTIONS
        if getattr(options, name) == getattr(main.decoding, name)
    }
    return replace(options, **own)


def check_other_languages(model: CaptionModel, options: DecodingOptions) -> None:
    """Refuse options that cannot hold for several languages at once.

    Raises:
        CaptionerError: they give words to say, or do not suit one of the languages.
    """
    for other in model.others:
        for name, given in (("prompt", options.prompt), ("must_include", options.must_include)):
            if given:
                raise CaptionerError(
                    f"{name}={given!r}: words to say are in one language; ask for one language"
                )
        other.check_options(options_for(other, options, model))


def add_other_languages(
    model: CaptionModel,
    results: Sequence[CaptionResult],
    options: DecodingOptions,
    caption: Callable[[CaptionModel, DecodingOptions], list[CaptionResult]],
) -> list[CaptionResult]:
    """Results in the main language, each with those of the other languages.

    Args:
        model: the captioner.
        results: of B images, in the main language.
        options: as they were asked for.
        caption: gives the results of the same images by another model.
    """
    found = {
        other.language: caption(other, options_for(other, options, model)) for other in model.others
    }
    return [
        replace(result, other_languages={language: each[n] for language, each in found.items()})
        for n, result in enumerate(results)
    ]
