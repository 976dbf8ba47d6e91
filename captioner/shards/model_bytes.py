"""A captioner on its way to other machines: the content of its files, and how it is loaded."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from captioner.errors import CaptionerError
from captioner.files.writing import cannot_read
from captioner.model.caption_model import CaptionModel
from captioner.model.description import describe_model
from captioner.model.options import LANGUAGE_SUFFIX, SHIPPED, ModelOptions
from captioner.model.shipped import load_model, shipped_file


@dataclass(frozen=True)
class ModelBytes:
    """What another process needs to load a model: no path, because it may have other files.

    Attributes:
        file: the content of the model's file.
        languages: of each language that is asked for, its tag where the model has it, otherwise the
            content of its file.
        device: see `captioner.model.shipped.load_model`.
        precision: the same.
        about: what `captioner.model.description.describe_model` says of the model, hashes included.
    """

    file: bytes
    languages: tuple[str | bytes, ...]
    device: str
    precision: str
    about: Mapping[str, Any]

    @classmethod
    def read(cls, options: ModelOptions, model: CaptionModel) -> Self:
        """Read the files that the options name.

        Args:
            options: the model, and where it shall compute.
            model: the same one, as it has been loaded here; `load` gives no other.

        Raises:
            CaptionerError: a file cannot be read.
        """
        languages = tuple(
            _content(Path(each)) if each.endswith(LANGUAGE_SUFFIX) else each
            for each in options.language
        )
        if options.model in SHIPPED:
            with shipped_file(options.model) as path:
                file = _content(path)
        else:
            file = _content(Path(options.model))
        return cls(file, languages, options.device, options.precision, describe_model(model))

    def load(self) -> CaptionModel:
        """Load the model.

        Raises:
            CaptionerError: the device cannot be used, or the files have changed since they were
                loaded where the job was started.
        """
        with tempfile.TemporaryDirectory(prefix="captioner-") as folder:
            file = Path(folder, f"model{LANGUAGE_SUFFIX}")
            file.write_bytes(self.file)
            languages = []
            for number, each in enumerate(self.languages):
                if isinstance(each, bytes):
                    path = Path(folder, f"{number}{LANGUAGE_SUFFIX}")
                    path.write_bytes(each)
                    each = str(path)
                languages.append(each)
            model = load_model(
                file, language=languages, device=self.device, precision=self.precision
            )
            about = describe_model(model)  # With the hashes, as long as the files are there.
        if about != self.about:
            raise CaptionerError(
                "the model file or a language file has changed since the job was started: run the "
                "same command again"
            )
        return model


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from None
