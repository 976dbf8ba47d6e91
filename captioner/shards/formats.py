"""The output of one shard: how the records of its images become a file."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeAlias

from captioner.captioning.writers import JsonlWriter
from captioner.errors import CaptionerError
from captioner.files.escaping import encode_text
from captioner.files.finding import SourceFile
from captioner.files.recognising import HEAD_BYTES, recognised
from captioner.files.writing import cannot_write, sync_file
from captioner.shards.tasks import TAR, ShardTask

Captioned: TypeAlias = tuple[dict[str, Any], SourceFile]
"""The record of an image, and the image."""

_ROWS = 1000  # of a row group
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WebP": ".webp", "GIF": ".gif", "TIFF": ".tif"}


class CannotWrite(CaptionerError):
    """The output of a shard cannot be written, which no other try would change."""


@dataclass(frozen=True)
class ShardFormat:
    """A format of shards.

    Attributes:
        summary: one line for the help.
        write: writes a new file, of records in the order in which they are given.
        module: that has to be installed, if any.
        remedy: how.
    """

    summary: str
    write: Callable[[Path, Iterable[Captioned], ShardTask], None]
    module: str | None = None
    remedy: str = ""

    def check(self) -> None:
        """Refuse a format whose module is not installed.

        Raises:
            CaptionerError: says what to install.
        """
        if self.module is not None and find_spec(self.module) is None:
            raise CaptionerError(f"shards of this format need {self.module}: {self.remedy}")


# --- JSONL ---------------------------------------------------------------------------------


def _write_jsonl(path: Path, captioned: Iterable[Captioned], task: ShardTask) -> None:
    pieces = JsonlWriter().pieces((record, file.path) for record, file in captioned)
    with _created(path) as stream:
        for piece in pieces:
            stream.write(piece)


# --- Parquet -------------------------------------------------------------------------------


def _write_parquet(path: Path, captioned: Iterable[Captioned], task: ShardTask) -> None:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    schema = _schema(task)
    rows = (_row(record) for record, _ in captioned)
    with _created(path) as stream, ParquetWriter(stream, schema) as writer:
        while group := list(itertools.islice(rows, _ROWS)):
            writer.write_table(pyarrow.Table.from_pylist(group, schema))


def _schema(task: ShardTask) -> Any:
    """The columns that a job's records have; those of JSONL."""
    import pyarrow as pa

    job = task.job
    result = {"text": pa.string(), "confidence": pa.float64(), "calibrated": pa.bool_()}
    if job.candidates:
        word = pa.struct({"word": pa.string(), "prob": pa.float64()})
        numbers = {"log_prob": pa.float64(), "avg_logprob": pa.float64()}
        result["candidates"] = pa.list_(
            pa.struct({"text": pa.string(), **numbers, "words": pa.list_(word)})
        )
    columns = {"file_name": pa.string(), **result}
    if job.min_tag_confidence is not None:
        texts = {"name": pa.string(), "type": pa.string()}
        columns["tags"] = pa.list_(pa.struct({**texts, "confidence": pa.float64()}))
    if task.languages:
        columns["language"] = pa.string()
    if len(task.languages) > 1:
        columns["other_languages"] = pa.list_(pa.struct({"language": pa.string(), **result}))
    if job.partial_images:
        columns["partial"] = pa.bool_()
    columns["error"] = pa.string()
    return pa.schema(columns)


def _row(record: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {name: _as_text(value) for name, value in record.items()}
    if "other_languages" in row:
        others = row["other_languages"].items()
        row["other_languages"] = [{"language": name, **_row(each)} for name, each in others]
    if "candidates" in row:
        row["candidates"] = [
            {**each, "words": [{"word": word, "prob": prob} for word, prob in each["words"]]}
            for each in row["candidates"]
        ]
    return row


def _as_text(value: object) -> object:
    # What no encoding holds is escaped, as in JSONL.
    return encode_text(value).decode() if isinstance(value, str) else value


# --- tar -----------------------------------------------------------------------------------


def _write_tar(path: Path, captioned: Iterable[Captioned], task: ShardTask) -> None:
    with _created(path) as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
        for number, (record, file) in enumerate(captioned):
            if record["text"] is None:
                continue
            assert file.load is not None, "images for archives are loaded once"
            data = file.load()
            key, suffix = _key_and_suffix(number, file, data, task.kind)
            _add(archive, key + suffix, data)
            _add(archive, f"{key}.txt", encode_text(record["text"]))
            _add(archive, f"{key}.json", encode_text(json.dumps(record, ensure_ascii=False)))


def _key_and_suffix(number: int, file: SourceFile, data: bytes, kind: str) -> tuple[str, str]:
    """The name of a sample in its archive: its number; one out of an archive keeps its own."""
    name = PurePosixPath(file.name)
    if kind == TAR and not name.is_absolute() and ".." not in name.parts:
        return str(name.with_suffix("")), name.suffix
    found = recognised(data[:HEAD_BYTES], name.name) or ""
    return f"{number:08d}", _SUFFIXES.get(found, name.suffix.lower() or ".jpg")


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # without time and owner: the same bytes in every run
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


@contextmanager
def _created(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("wb") as stream:
            yield stream
            sync_file(stream, path)
    except OSError as error:
        raise CannotWrite(str(cannot_write(path, error))) from None


FORMATS: Mapping[str, ShardFormat] = {
    "jsonl": ShardFormat("one JSON object per line, as for one file", _write_jsonl),
    "parquet": ShardFormat(
        "a table with the same columns",
        _write_parquet,
        "pyarrow",
        'pip install "captioner[parquet]"',
    ),
    "tar": ShardFormat(
        "an archive for training, with the image, its caption (.txt) and its record (.json)",
        _write_tar,
    ),
}
"""Name -> format; the command line's choices, and the suffixes of the shards."""
