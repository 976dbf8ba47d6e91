"""The memory of a caption job: a hidden file beside its output, a line for each finished image.

The first line says with which model and options the captions were made. Every other one holds a
whole record, with the size and time of modification of its image, or a mark: ``complete`` says
that the output holds all that stands above it, ``kept`` that the output was changed by hand and
stays as it was then. Lines are only added, in one write that has reached the disk before anything
is written into the output, so that the output never knows more than the journal: whatever ends the
process, the next one makes the output whole from here. A line that was cut short is cut off.

In memory an image takes some hundred bytes, whatever its record.
"""

from __future__ import annotations

import json
import os
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, Self

from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.resume import Fingerprint
from captioner.files.writing import cannot_read, cannot_write, replace_bytes, sync_file

SCHEMA = "captioner-captions-1"

_LONGEST_NAME = 255 - len("..captioner.part")  # bytes of an output's name, in that of its journal

Key = int
"""64 bits of the hash of a name: of a million images two share one with a probability of 3e-8."""


def key_of(name: str) -> Key:
    """The key of an image's name."""
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest())


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a finished image.

    Attributes:
        record: what `captioner.captioning.writers` write.
        path: where the image is, as it was given.
        source: identifies the image across runs.
    """

    record: Mapping[str, Any]
    path: str
    source: Fingerprint

    @property
    def name(self) -> str:
        """`captioner.files.finding.SourceFile.name`."""
        name: str = self.record["file_name"]
        return name

    @property
    def has_failed(self) -> bool:
        """Whether the image could not be read."""
        return self.record["error"] is not None

    def encoded(self) -> bytes:
        """Its line. In ASCII, which holds every name, also those that are not valid UTF-8."""
        line = {"record": self.record, "path": self.path, "source": self.source.to_dict()}
        return _line(line)

    @classmethod
    def decoded(cls, line: Mapping[str, Any]) -> Entry:
        """Out of its line; KeyError or TypeError if it is something else."""
        entry = cls(line["record"], line["path"], Fingerprint.from_dict(line["source"]))
        _ = entry.name, entry.has_failed, entry.record["text"]
        return entry


@dataclass(frozen=True, slots=True)
class Checksum:
    """Size and CRC-32 of a file, to detect changes."""

    size_bytes: int
    crc32: int

    @classmethod
    def of(cls, path: Path, size_bytes: int | None = None) -> Checksum:
        """Of a file, or of its first bytes."""
        total, crc = 0, 0
        with path.open("rb") as file:
            while size_bytes is None or total < size_bytes:
                left = 1 << 20 if size_bytes is None else min(1 << 20, size_bytes - total)
                data = file.read(left)
                if not data:
                    break
                total, crc = total + len(data), zlib.crc32(data, crc)
        return cls(total, crc)

    def to_dict(self) -> dict[str, int]:
        """JSON primitives."""
        return {"size_bytes": self.size_bytes, "crc32": self.crc32}


class Journal:
    """See the module's text.

    Attributes:
        about: the model and the options, JSON primitives.
        replaces: the checksum of the file that the output replaces; True for all existing text
            files; None for nothing. Of no meaning once the output is complete.
        kept: the start of the output that was changed by hand and stays as it is, if any.
        is_complete: whether the output holds all that stands here.
        was_complete: whether there has been a complete output already.
        has_redone: whether an image stands here twice; the later line counts.
    """

    def __init__(self, path: Path) -> None:
        """Read the journal; see `create` for a new one.

        Raises:
            CaptionerError: it is damaged or cannot be read.
        """
        self.path = path
        self.about: dict[str, Any] = {}
        self.replaces: Checksum | bool | None = None
        self.kept: Checksum | None = None
        self.is_complete = self.was_complete = self.has_redone = False
        self._live: dict[Key, int] = {}  # where the line is that counts
        self._keys = array("Q")  # in the order in which they first appear
        self._firsts = array("Q")  # where that is
        self._published = 0  # how many of them existed when the output was last complete
        self._unkept = 0  # the first that is not part of what was kept
        self._read()
        try:
            self._file: IO[bytes] = path.open("r+b", buffering=0)
        except OSError as error:
            raise cannot_write(path, error) from None
        self._reader = path.open("rb")

    @classmethod
    def create(
        cls, path: Path, about: Mapping[str, Any], replaces: Checksum | bool | None = None
    ) -> Journal:
        """Begin a journal in the place of one that may be there.

        Raises:
            CaptionerError: it cannot be written.
        """
        next_journal(path).unlink(missing_ok=True)
        replace_bytes(path, [_header(about, replaces)], part_of(path))
        return cls(path)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- reading ---------------------------------------------------------------------------

    def _read(self) -> None:
        self._end = 0
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if not line.endswith(b"\n"):
                        break  # cut short: what it was about is done again
                    self._take(line, number)
                    self._end += len(line)
        except OSError as error:
            raise cannot_read(self.path, error) from None
        if not self.about:
            raise self._damaged(1)

    def _take(self, text: bytes, number: int) -> None:
        try:
            line = json.loads(text)
            if number == 1:
                if line["schema"] != SCHEMA:
                    raise ValueError
                self.about, self.replaces = dict(line["about"]), _replaces(line["replaces"])
            elif "mark" in line:
                self._take_mark(line)
            else:
                self._take_entry(key_of(Entry.decoded(line).name), self._end)
        except (ValueError, KeyError, TypeError):
            raise self._damaged(number) from None

    def _take_mark(self, line: Mapping[str, Any]) -> None:
        if line["mark"] == "complete":
            self.is_complete = self.was_complete = True
            self._published = len(self._keys)
        else:
            self.kept = Checksum(line["size_bytes"], line["crc32"])
            self._unkept = len(self._keys)

    def _take_entry(self, key: Key, offset: int) -> None:
        self.is_complete = False
        if key in self._live:
            self.has_redone = True
        else:
            self._keys.append(key)
            self._firsts.append(offset)
        self._live[key] = offset

    def _damaged(self, number: int) -> CaptionerError:
        return CaptionerError(
            f"{shown(self.path)}: line {number} is damaged; start over with --overwrite, or name "
            "another --output"
        )

    def __len__(self) -> int:
        """The images that are known."""
        return len(self._live)

    def has_order(self, keys: Sequence[Key]) -> bool:
        """Whether it knows these images and no others, in this order."""
        return len(keys) == len(self._keys) and all(
            key == there for key, there in zip(keys, self._keys, strict=True)
        )

    @property
    def keys(self) -> Sequence[Key]:
        """The images in the order in which they first appear."""
        return self._keys

    def get(self, name: str) -> Entry | None:
        """What is known of an image, None if nothing is."""
        offset = self._live.get(key_of(name))
        return None if offset is None else self._entry(offset)

    def live(self, keys: Iterable[Key]) -> Iterator[Entry]:
        """The entries of these images, which are known."""
        for key in keys:
            yield self._entry(self._live[key])

    def streamed(self) -> Iterator[Entry]:
        """What an output holds to which each image was added when it first appeared.

        Without what was kept.
        """
        for offset in self._firsts[self._unkept :]:
            yield self._entry(offset)

    def published(self) -> Iterator[Entry]:
        """What the output held when it was last complete."""
        for offset in self._firsts[: self._published]:
            yield self._entry(offset)

    def _entry(self, offset: int) -> Entry:
        self._reader.seek(offset)
        return Entry.decoded(json.loads(self._reader.readline()))

    # --- writing ---------------------------------------------------------------------------

    def add(self, entries: Sequence[Entry]) -> None:
        """Add entries, on the disk when this returns. Called again after an error, it repairs it.

        Raises:
            CaptionerError: they cannot be written.
        """
        lines = [entry.encoded() for entry in entries]
        self._write(b"".join(lines))
        offset = self._end
        for entry, line in zip(entries, lines, strict=True):
            self._take_entry(key_of(entry.name), offset)
            offset += len(line)
        self._end = offset

    def mark_complete(self) -> None:
        """Say that the output holds all of it."""
        line = _line({"mark": "complete"})
        self._write(line)
        self._end += len(line)
        self._take_mark({"mark": "complete"})

    def mark_kept(self, output: Checksum) -> None:
        """Say that the output was changed by hand, and stays as it is now."""
        mark = {"mark": "kept", **output.to_dict()}
        line = _line(mark)
        self._write(line)
        self._end += len(line)
        self._take_mark(mark)

    def _write(self, data: bytes) -> None:
        write_at(self._file, self._end, data, self.path)

    def write_new(self, keys: Iterable[Key]) -> Journal:
        """Write a journal with these entries only, in this order, under the name of the next one.

        It is complete, and takes the place of this one with `adopt`, when the output is that.
        """
        new = next_journal(self.path)
        pieces = self._pieces(keys)
        replace_bytes(new, pieces, part_of(self.path))
        return Journal(new)

    def _pieces(self, keys: Iterable[Key]) -> Iterator[bytes]:
        yield _header(self.about, None)
        for entry in self.live(keys):
            yield entry.encoded()
        yield _line({"mark": "complete"})


def sources_of(path: Path) -> tuple[Mapping[str, Any], dict[str, tuple[str, str]]]:
    """What a journal says of the work and of where the images are, for those who only read.

    Returns:
        `Journal.about`, and for each image's name its path as it was given and its absolute,
        printable one. Both are empty where there is no journal that can be read.
    """
    about: Mapping[str, Any] = {}
    sources: dict[str, tuple[str, str]] = {}
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, start=1):
                line = json.loads(text)
                if number == 1:
                    about = dict(line["about"])
                elif "mark" not in line:
                    entry = Entry.decoded(line)
                    sources[entry.name] = entry.path, entry.source.path
    except (OSError, ValueError, KeyError, TypeError):
        pass  # what was cut short is not known: nothing depends on it
    return about, sources


def journal_beside(output: Path) -> Path:
    """Where the journal of an output file is: ``.NAME.captioner``, shorter where NAME is long.

    The longest of its names, with ``.new``, ``.part`` or ``.lock`` after it, may have 255 bytes.
    """
    name = output.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        digest = blake2b(os.fsencode(name), digest_size=8).hexdigest()
        short = os.fsencode(name)[: _LONGEST_NAME - len(digest) - 1].decode("utf-8", "ignore")
        name = f"{short}~{digest}"
    return output.with_name(f".{name}.captioner")


def adopt(path: Path) -> None:
    """Give the next journal the name of this one.

    Raises:
        CaptionerError: it cannot be renamed.
    """
    try:
        os.replace(next_journal(path), path)
    except OSError as error:
        raise cannot_write(path, error) from None


def next_journal(path: Path) -> Path:
    """What the journal is called that is to take a journal's place."""
    return path.with_name(f"{path.name}.new")


def write_at(file: IO[bytes], offset: int, data: bytes, named: Path) -> None:
    """Write at the end of what is valid; what lies after is cut off. It has reached the disk then.

    By place and not by appending: interrupted and called again, it writes nothing twice.

    Args:
        file: opened without a buffer.
        offset: where.
        data: what.
        named: the file's name in messages.

    Raises:
        CaptionerError: it cannot be written.
    """
    try:
        file.truncate(offset)
        file.seek(offset)
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise cannot_write(named, error) from None
    sync_file(file, named)


def part_of(path: Path) -> Path:
    """The temporary name of a journal and of the output that it is beside.

    It is the same in every run, so that a file left by a killed run is written over.
    """
    return path.with_name(f"{path.name}.part")


def _header(about: Mapping[str, Any], replaces: Checksum | bool | None) -> bytes:
    there = replaces.to_dict() if isinstance(replaces, Checksum) else replaces
    return _line({"schema": SCHEMA, "about": about, "replaces": there})


def _replaces(value: Any) -> Checksum | bool | None:
    return Checksum(value["size_bytes"], value["crc32"]) if isinstance(value, dict) else value


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, allow_nan=False).encode("ascii") + b"\n"
