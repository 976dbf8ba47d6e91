"""The models inside the package, by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from captioner.errors import CaptionerError
from captioner.model.caption_model import CaptionModel
from captioner.model.choices import check_language_file
from captioner.model.language_file import read_language
from captioner.model.options import LANGUAGE_SUFFIX, SHIPPED, SHIPPED_LANGUAGES, ModelOptions
from captioner.text.languages import language_of


def load_model(
    path_or_name: str | Path = ModelOptions.model,
    *,
    language: str | Sequence[str] = (),
    device: str = ModelOptions.device,
    precision: str = ModelOptions.precision,
) -> CaptionModel:
    """Load a captioner: one of `captioner.model.options.SHIPPED`, or a file of your own.

    Args:
        path_or_name: which.
        language: of its captions; see `captioner.model.options.ModelOptions`. Several give a model
            whose results have the captions in all of them.
        device: see :meth:`CaptionModel.load`.
        precision: likewise.

    Raises:
        CaptionerError: as :meth:`CaptionModel.load`; or a language is not shipped, is given
            twice, or is for another model.
    """
    name = str(path_or_name)
    if name in SHIPPED:
        with shipped_file(name) as path:
            base = CaptionModel.load(path, device=device, precision=precision)
            _keep_hash(base, path)
    else:
        base = CaptionModel.load(path_or_name, device=device, precision=precision)
    languages = (language,) if isinstance(language, str) else tuple(language)
    models = [_in_language(base, each) for each in languages]
    if not models:
        return base
    tags = [model.language for model in models]
    for tag in tags:
        if tags.count(tag) > 1:
            raise CaptionerError(f"language {tag}: it is given twice; give each once")
    models[0].others = tuple(models[1:])
    return models[0]


def _in_language(base: CaptionModel, language: str) -> CaptionModel:
    """The model itself where it has the language, or another one with the same CNN."""
    if language == base.language:
        return base
    if language.endswith(LANGUAGE_SUFFIX):
        check_language_file(language)
        return read_language(language, base)
    tag = language_of(language).tag
    if tag not in SHIPPED_LANGUAGES:
        raise CaptionerError(
            f"language {tag}: the model has {base.language}, and captioner brings "
            f"{', '.join(SHIPPED_LANGUAGES)}; choose one of them, or give the language file of "
            "another (docs/languages.md)"
        )
    with shipped_file(f"language_{tag}") as path:
        model = read_language(path, base)
        _keep_hash(model, path)
    return model


def _keep_hash(model: CaptionModel, path: Path) -> None:
    """Make the hash of a file out of a zipped package, which is gone later."""
    if path != _shipped(path.name):
        _ = model.sha256


def _shipped(file: str) -> Traversable:
    return resources.files("captioner") / "weights" / file


@contextmanager
def shipped_file(name: str) -> Iterator[Path]:
    """A file of the package, for as long as it is read.

    Args:
        name: one of `captioner.model.options.SHIPPED`, or ``language_`` and a tag.

    Raises:
        CaptionerError: it is missing.
    """
    file = f"{name}.safetensors"
    shipped = _shipped(file)
    if not shipped.is_file():
        raise CaptionerError(
            f"{name}: this installation has no weights/{file}; reinstall captioner, or give a file"
        )
    with resources.as_file(shipped) as path:
        yield path
