"""What the jobs that can be left and taken up again have in common.

One process at a time works on an output, input files are known again by size and time of
modification, and results of another model or of other options are told apart.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from captioner.errors import CaptionerError
from captioner.files.finding import SourceFile, printable

if TYPE_CHECKING:
    from captioner.decoding.search import DecodingOptions
    from captioner.model.caption_model import CaptionModel


@contextmanager
def locked(path: Path, in_use: str, *, leave: bool = False) -> Generator[None, None, None]:
    """Hold a lock file, which the end of the process releases, however it ends.

    Args:
        path: the lock file, in a folder that is there.
        in_use: what to say if another process holds it: names the output and the remedy.
        leave: whether the file stays there afterwards.

    Raises:
        CaptionerError: another process holds it, or it cannot be made.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise CaptionerError(in_use) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CaptionerError(f"{printable(path)} cannot be written: {reason}") from None
    try:
        if not path.exists():  # Its last owner removed it while we were opening it.
            raise CaptionerError(in_use)
        yield
    finally:
        if not leave:
            # While it is held: removed later, it could be the next owner's.
            with suppress(OSError):
                path.unlink()
        lock.release()


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """By what an input file is known again.

    Attributes:
        path: where it is, absolute, printable.
        size_bytes: None if it could not be looked at.
        modified_ns: its time of modification, in nanoseconds; None if it could not be looked at.
    """

    path: str
    size_bytes: int | None
    modified_ns: int | None

    @classmethod
    def of(cls, file: SourceFile) -> Fingerprint:
        """Look at a file without opening it."""
        path = printable(os.path.abspath(file.path))
        try:
            found = file.path.stat()
        except OSError:
            return cls(path, None, None)
        return cls(path, found.st_size, found.st_mtime_ns)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Fingerprint:
        """What `to_dict` gave; KeyError or TypeError if it was something else."""
        return cls(values["path"], values["size_bytes"], values["modified_ns"])

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives."""
        return {
            "path": self.path,
            "size_bytes": self.size_bytes,
            "modified_ns": self.modified_ns,
        }

    def is_same(self, other: Fingerprint) -> bool:
        """Whether size and time are the same; the path is not looked at: a folder may move."""
        return (self.size_bytes, self.modified_ns) == (other.size_bytes, other.modified_ns)


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two nested settings: ``a.b: 1 there, 2 now``."""
    there, here = _flat(before), _flat(now)
    return [
        f"{key}: {there.get(key)} there, {here.get(key)} now"
        for key in sorted({*there, *here})
        if there.get(key) != here.get(key)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


# --- what produced it ----------------------------------------------------------------------


def describe_model(model: CaptionModel) -> dict[str, Any]:
    """What tells a model from others, JSON primitives.

    Raises:
        CaptionerError: it was not loaded from a file.
    """
    tags = "none" if model.lexicon is None else "raw"
    if model.lexicon is not None and model.tag_calibration is not None:
        tags = "calibrated"
    return {
        "sha256": model.sha256,
        "encoder": model.encoder.config.name,
        "tag_confidence": tags,
    }


def describe_decoding(options: DecodingOptions) -> dict[str, Any]:
    """The options as JSON primitives, as they are when they were read from a file."""
    values = {**asdict(options), "banned_words": list(options.banned_words)}
    # Jobs without them are those of versions that did not know them.
    prompt, included = values.pop("prompt"), values.pop("must_include")
    if prompt is not None:
        values["prompt"] = prompt
    if included:
        values["must_include"] = list(included)
    return values
