"""Fill in the blanks of a sentence for many images: a record for each file."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioner.decoding.blanks import FillResult
from captioner.decoding.constraints import read_sentence
from captioner.decoding.options import FillOptions
from captioner.files.finding import SourceFile
from captioner.files.given import Files, files_of
from captioner.images.kinds import find_images
from captioner.images.reading import ImageError
from captioner.model.caption_model import CaptionModel


@dataclass(frozen=True)
class FillRecord:
    """What became of one file: a result or an error.

    Attributes:
        file_name: `captioner.files.finding.SourceFile.name`.
        path: where the file is.
        sentence: with its blanks, as it was given.
        result: None if the file could not be read.
        error: why not, in a few words without the path; None if it could.
    """

    file_name: str
    path: Path
    sentence: str
    result: FillResult | None
    error: str | None

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives.

        ``fillings`` and ``blanks`` are None for a file that could not be read. Probabilities have
        six digits, ``log_prob`` (natural, of the whole sentence with its end) four.
        """
        record: dict[str, Any] = {"file_name": self.file_name, "sentence": self.sentence}
        found = self.result
        record["fillings"] = found and [
            {
                "words": list(filling.words),
                "text": filling.text,
                "probability": round(filling.probability, 6),
                "log_prob": round(filling.log_prob, 4),
            }
            for filling in found.fillings
        ]
        record["blanks"] = found and [
            [[word, round(probability, 6)] for word, probability in blank] for blank in found.blanks
        ]
        record["considered"] = found and found.considered
        record["unexplored"] = found and round(found.unexplored, 6)
        record["error"] = self.error
        return record


def fill_images(
    model: CaptionModel,
    files: Files,
    sentence: str,
    options: FillOptions | None = None,
) -> Generator[FillRecord, None, None]:
    """Fill in a sentence's blanks for files, in their order, one at a time.

    A file that cannot be read becomes a record with an error.

    Args:
        model: the captioner.
        files: images, folders, patterns, or what `captioner.images.kinds.find_images` lists.
        sentence: ``___`` stands for one word each; see `captioner.decoding.sentences.parse_blanks`.
        options: see `FillOptions`.

    Raises:
        CaptionerError: the sentence has no blank, or a word that is not in the vocabulary, or a
            path leads to no image; raised by the call itself.
    """
    read_sentence(sentence, model.tokenizer)
    return _fill(model, files_of(files, find_images), sentence, options)


def _fill(
    model: CaptionModel, files: Iterable[SourceFile], sentence: str, options: FillOptions | None
) -> Generator[FillRecord, None, None]:
    for file in files:
        try:
            result = model.fill(file.path, sentence, options)
        except ImageError as error:
            yield FillRecord(file.name, file.path, sentence, None, error.reason)
        else:
            yield FillRecord(file.name, file.path, sentence, result, None)
