"""New captions of one image, from the words that a person begins with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from captioner.captioning.affixes import Affixes
from captioner.errors import CaptionerError

if TYPE_CHECKING:
    from captioner.model.caption_model import CaptionModel

MOST = 3
"""Captions that are proposed at once."""


class Proposer:
    """Captions images with a model, which is loaded when the first one is wanted.

    Args:
        load: gives the model.
        affixes: what stands around each caption.
    """

    def __init__(self, load: Callable[[], CaptionModel], affixes: Affixes) -> None:
        self._load = load
        self._affixes = affixes
        self._model: CaptionModel | None = None
        self._lock = Lock()

    def propose(self, path: Path, prompt: str) -> Sequence[str]:
        """Captions of an image, best first, each once.

        Args:
            path: where it is.
            prompt: the words they begin with; empty for none.

        Raises:
            CaptionerError: the model cannot be loaded, knows a word of the prompt not, or the
                image cannot be read.
        """
        with self._lock:
            if self._model is None:
                self._model = self._load()
            own = self._model.decoding
            try:
                beams = max(own.beam_size, MOST)
                options = replace(
                    own, prompt=prompt.strip() or None, num_captions=MOST, beam_size=beams
                )
            except ValueError as error:
                raise CaptionerError(f"the words to begin with: {error}") from None
            (result,) = self._model.caption([path], options)
        texts = (self._affixes.around(candidate.text) for candidate in result.candidates)
        return list(dict.fromkeys(texts))
