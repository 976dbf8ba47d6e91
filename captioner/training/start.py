"""What a training takes from the model that it starts from: settings, words, what still holds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from pytorch_lightning.utilities import rank_zero_info
from torch import nn

from captioner.errors import CaptionerError
from captioner.model.caption_model import CaptionModel
from captioner.model.checkpoints import load_any
from captioner.model.new_words import add_words, find_new_words
from captioner.text.lexicon import Lexicon
from captioner.text.lexicon_languages import build_lexicon_of
from captioner.text.tokenizer import Tokenizer

ENCODER_SETTINGS = ("name", "image_size", "resize")
DECODER_SETTINGS = (
    "cell",
    "attention",
    "layers",
    "hidden_size",
    "embed_size",
    "heads",
    "dropout",
    "tied",
)
SETTINGS = (
    *(f"model.encoder.{name}" for name in ENCODER_SETTINGS),
    *(f"model.decoder.{name}" for name in DECODER_SETTINGS),
)
"""What the weights depend on, and the dropout; the networks' other options are a training's own."""
FREE = ("model.decoder.dropout",)
"""Settings that need not be the model's."""
IMAGE_SIZE = "model.encoder.image_size"
"""Need not be the model's either where the CNN is trained."""
GROWTH = ("model.decoder.attention", "model.decoder.layers")
"""Need not be the model's where its decoder is to have further layers; see :func:`load_weights`."""
UPPER_LAYERS = "decoder.upper."  # what the names of their weights begin with
SHOWN_WORDS = 10  # in the line that names new words


def settings_of_start(
    init_from: str, given: Collection[str], value_of: Callable[[str], Any]
) -> Mapping[str, Any]:
    """The settings of the networks that the model to start from has.

    Args:
        init_from: a shipped model's name, a model file or a checkpoint.
        given: those of :data:`SETTINGS` that the user named.
        value_of: the value of a setting in the configuration.

    Returns:
        A value for each of :data:`SETTINGS` that is to be taken from the model.

    Raises:
        CaptionerError: the model cannot be read, or a setting that was given is not the model's.
    """
    model = load_any(init_from)
    parts = {"encoder": model.encoder.config, "decoder": model.decoder.config}
    # Familiarity and tag classifier are of the features, which images of another size change; they
    # are kept where the CNN is frozen, and only there.
    free = FREE if value_of("model.encoder.trainable") == "none" else (*FREE, IMAGE_SIZE)
    if set(given).issuperset(GROWTH) and model.decoder.config.can_grow_to(*map(value_of, GROWTH)):
        free = (*free, *GROWTH)
    found = {}
    for setting in SETTINGS:
        _, part, name = setting.split(".")
        value = getattr(parts[part], name)
        if setting not in given:
            found[setting] = value
        elif setting not in free and value_of(setting) != value:
            raise CaptionerError(
                f"{setting}={value_of(setting)}: the model of init_from={init_from} has "
                f"{'null' if value is None else value}; leave {setting} out, or start from "
                "another model"
            )
    return found


def load_start(init_from: str, *, frozen: bool) -> CaptionModel:
    """The model to start from, without what its training makes untrue.

    The calibration measured what the old weights say. Familiarity and tag classifier know the
    features alone: they hold as long as the encoder is frozen.

    Raises:
        CaptionerError: it cannot be read.
    """
    model = load_any(init_from)
    model.tag_calibration = model.int8 = None
    if not frozen:
        model.familiarity = model.tag_head = None
    return model


def styles_of_start(model: CaptionModel, styles: Sequence[str], init_from: str) -> tuple[str, ...]:
    """The styles that a model to start from knows.

    Args:
        model: it.
        styles: of the sources, which must be among them.
        init_from: what it is called in messages.

    Raises:
        CaptionerError: it does not know one of the sources' styles.
    """
    known = model.decoder.config.styles
    if unknown := [style for style in styles if style not in known]:
        raise CaptionerError(
            f"data.sources: init_from={init_from} does not know the style {unknown[0]!r}; "
            + (f"it knows {', '.join(known)}" if known else "it knows none: leave style out")
        )
    return known


def load_weights(module: nn.Module, source: nn.Module, name: str) -> None:
    """Copy all weights of ``source`` to ``module``, which must have the same shape.

    Only a decoder whose layers attend may have more layers than that of ``source``. Those add
    nothing at first, so that ``module`` says what ``source`` says until it is trained (Chen et al.
    2016, "Net2Net", section 2.2).

    Raises:
        CaptionerError: when the shapes differ; the message begins with ``name``.
    """
    given = source.state_dict()
    added = {
        key: weight
        for key, weight in module.state_dict().items()
        if key.startswith(UPPER_LAYERS) and key not in given
    }
    try:
        module.load_state_dict(given | added)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise CaptionerError(
            f"{name}: its shapes differ from model.encoder and model.decoder: {first}"
        ) from error


def teach_new_words(
    model: CaptionModel, captions_by_image: Sequence[Sequence[str]], min_count: int
) -> None:
    """Extend a model's vocabulary and lexicon by the words that occur often enough.

    Args:
        model: changed in place.
        captions_by_image: for every training image its captions.
        min_count: how often that is.
    """
    new = find_new_words(model.tokenizer, _all(captions_by_image), min_count)
    if not new:
        return
    some = ", ".join(new[:SHOWN_WORDS]) + (", ..." if len(new) > SHOWN_WORDS else "")
    rank_zero_info(f"words that are new to the model: {len(new)} ({some})")
    add_words(model, new)
    if model.lexicon is not None:
        words = model.tokenizer.words
        found = _lexicon(model.tokenizer, captions_by_image)
        model.lexicon = model.lexicon.extended(words, found)


def _lexicon(tokenizer: Tokenizer, captions_by_image: Sequence[Sequence[str]]) -> Lexicon | None:
    try:
        return build_lexicon_of(tokenizer, captions_by_image)
    except CaptionerError as error:
        rank_zero_info(f"the new words make no tags: {error}")
        return None


def _all(captions_by_image: Iterable[Sequence[str]]) -> Iterable[str]:
    return (text for captions in captions_by_image for text in captions)
