"""The output of one shard: how the records of its files become a file."""

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
from typing import IO

from captioner.captioning.writers import JsonlWriter
from captioner.errors import CaptionerError
from captioner.files.escaping import encode_text
from captioner.files.finding import SourceFile
from captioner.files.recognising import HEAD_BYTES, recognised
from captioner.files.writing import cannot_write, sync_file
from captioner.model.caption_model import CaptionModel
from captioner.shards.tasks import TAR, ShardTask
from captioner.shards.work import Done

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
    write: Callable[[Path, Iterable[Done], ShardTask, CaptionModel], None]
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


def _write_jsonl(path: Path, done: Iterable[Done], task: ShardTask, model: CaptionModel) -> None:
    pieces = JsonlWriter().pieces((each.record, each.file.path) for each in done)
    with _created(path) as stream:
        for piece in pieces:
            stream.write(piece)


# --- Parquet -------------------------------------------------------------------------------


def _write_parquet(path: Path, done: Iterable[Done], task: ShardTask, model: CaptionModel) -> None:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    schema = task.work.schema(model)
    rows = (task.work.row(each.record) for each in done)
    with _created(path) as stream, ParquetWriter(stream, schema) as writer:
        while group := list(itertools.islice(rows, _ROWS)):
            writer.write_table(pyarrow.Table.from_pylist(group, schema))


# --- tar -----------------------------------------------------------------------------------


def _write_tar(path: Path, done: Iterable[Done], task: ShardTask, model: CaptionModel) -> None:
    with _created(path) as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
        for number, (record, _, file) in enumerate(done):
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
