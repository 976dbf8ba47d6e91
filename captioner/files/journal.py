"""The memory of a caption job: a hidden store beside its output, a record for each finished image.

It says with which model and options the captions were made. A record is a whole one of
`captioner.captioning.writers`, with the size and time of modification of its image. Marks say that
the output holds all records so far (``complete``), or that it was changed by hand and stays as it
was then (``kept``). Records are only added, and have reached the disk before anything is written
into the output, so that the output never knows more than the journal: whatever ends the process,
the next one makes the output whole from here.

In memory an image takes some hundred bytes, whatever its record.
"""

from __future__ import annotations

import os
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

from captioner.errors import CaptionerError
from captioner.files.earlier import convert_journal, earlier_lines, forget_earlier, is_earlier
from captioner.files.resume import Fingerprint
from captioner.files.store import SECOND_SUFFIX, Store, StoreKind

CAPTIONS = StoreKind(
    "captioner-captions-2", "start over with --overwrite, or name another --output"
)

_LONGEST_NAME = 255 - len(f"..captioner{SECOND_SUFFIX}")  # bytes of an output's name, in ours

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

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives."""
        return {"record": self.record, "path": self.path, "source": self.source.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Entry:
        """What `to_dict` gave; KeyError or TypeError if it was something else."""
        entry = cls(values["record"], values["path"], Fingerprint.from_dict(values["source"]))
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
        has_redone: whether an image stands here twice; the later record counts.
    """

    def __init__(self, path: Path) -> None:
        """Open the journal, which may be one of an earlier version; see `create` for a new one.

        Raises:
            CaptionerError: it is damaged, or cannot be read or written.
        """
        if is_earlier(path):
            convert_journal(path, CAPTIONS)
        self._store = Store(path, CAPTIONS)
        self._read()

    @classmethod
    def create(
        cls, path: Path, about: Mapping[str, Any], replaces: Checksum | bool | None = None
    ) -> Journal:
        """Begin a journal in the place of one that may be there.

        Raises:
            CaptionerError: it cannot be written.
        """
        there = replaces.to_dict() if isinstance(replaces, Checksum) else replaces
        Store.create(path, CAPTIONS, about, marks={"replaces": there}).close()
        forget_earlier(path)
        return cls(path)

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- reading ---------------------------------------------------------------------------

    def _read(self) -> None:
        store = self._store
        self.about = store.about
        there = store.mark_of("replaces")
        self.replaces: Checksum | bool | None = (
            Checksum(**there) if isinstance(there, Mapping) else there
        )
        self.has_redone = False
        self._live: dict[Key, int] = {}  # the number of the record that counts
        self._keys = array("Q")  # in the order in which they first appear
        self._firsts = array("Q")  # the numbers of these records
        try:
            for number, name in store.names():
                self._take(key_of(name), number)
        except BaseException:
            store.close()
            raise

    def _take(self, key: Key, number: int) -> None:
        if key in self._live:
            self.has_redone = True
        else:
            self._keys.append(key)
            self._firsts.append(number)
        self._live[key] = number

    @property
    def is_complete(self) -> bool:
        """Whether the output holds all that stands here."""
        return bool(self._store.mark_of("complete") == self._store.last)

    @property
    def was_complete(self) -> bool:
        """Whether there has been a complete output already."""
        return self._store.mark_of("complete") is not None

    @property
    def kept(self) -> Checksum | None:
        """The start of the output that was changed by hand and stays as it is, if any."""
        kept = self._store.mark_of("kept")
        return None if kept is None else Checksum(kept["size_bytes"], kept["crc32"])

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
        number = self._live.get(key_of(name))
        return None if number is None else self._entry(number)

    def live(self, keys: Iterable[Key]) -> Iterator[Entry]:
        """The entries of these images, which are known."""
        for key in keys:
            yield self._entry(self._live[key])

    def streamed(self) -> Iterator[Entry]:
        """What an output holds to which each image was added when it first appeared.

        Without what was kept.
        """
        kept = self._store.mark_of("kept")
        first = 0 if kept is None else bisect_right(self._firsts, kept["last"])
        return map(self._entry, self._firsts[first:])

    def published(self) -> Iterator[Entry]:
        """What the output held when it was last complete."""
        end = bisect_right(self._firsts, self._store.mark_of("complete") or 0)
        return map(self._entry, self._firsts[:end])

    def _entry(self, number: int) -> Entry:
        _, values = self._store.row(number)
        try:
            return Entry.from_dict(values)
        except (KeyError, TypeError):
            raise self._store.damaged() from None

    # --- writing ---------------------------------------------------------------------------

    def add(self, entries: Sequence[Entry]) -> None:
        """Add entries, on the disk when this returns. Called again after an error, it repairs it.

        Raises:
            CaptionerError: they cannot be written.
        """
        first = self._store.last + 1
        self._store.add([(entry.name, entry.to_dict()) for entry in entries])
        for number, entry in enumerate(entries, start=first):
            self._take(key_of(entry.name), number)

    def mark_complete(self) -> None:
        """Say that the output holds all of it."""
        self._store.mark(complete=self._store.last)

    def mark_kept(self, output: Checksum) -> None:
        """Say that the output was changed by hand, and stays as it is now."""
        self._store.mark(kept={**output.to_dict(), "last": self._store.last})

    # --- another order ---------------------------------------------------------------------

    def prepare(self, keys: Iterable[Key]) -> None:
        """Say that an output with these images only, in this order, is about to be written.

        It is `pending` until `promote` or `drop_pending`.
        """
        self._store.mark(pending=[self._live[key] for key in keys])

    @property
    def has_pending(self) -> bool:
        """Whether such an output was about to be written."""
        return self._store.mark_of("pending") is not None

    def pending(self) -> Iterator[Entry]:
        """What it holds, in its order."""
        return map(self._entry, self._store.mark_of("pending"))

    def promote(self) -> None:
        """Keep what is pending, and nothing else: the output is that, and complete."""
        self._arrange(self._store.mark_of("pending"))

    def fold(self, key: Key) -> None:
        """The same where the newest record is all that is new: it takes the place of the first."""
        number, first = self._live[key], self._firsts[self._keys.index(key)]
        assert number == self._store.last != first, "the newest record is of this image"
        self._store.fold(first, pending=None)
        self._live[key] = first
        self.has_redone = self._store.last != len(self._live)

    def drop_pending(self) -> None:
        """Forget it: the output is what it was."""
        self._store.mark(pending=None)

    def keep(self, keys: Iterable[Key]) -> None:
        """Keep these images only, in this order; the output is complete."""
        self._arrange([self._live[key] for key in keys])

    def _arrange(self, numbers: Sequence[int]) -> None:
        self._store.arrange(numbers, complete=len(numbers))
        self._read()


def sources_of(path: Path) -> tuple[Mapping[str, Any], dict[str, tuple[str, str]]]:
    """What a journal says of the work and of where the images are, for those who only read.

    Returns:
        `Journal.about`, and for each image's name its path as it was given and its absolute,
        printable one. Both are empty where there is no journal that can be read.
    """
    about: Mapping[str, Any] = {}
    sources: dict[str, tuple[str, str]] = {}
    # What cannot be read, or is just being written, is not known: nothing depends on it.
    with suppress(CaptionerError, KeyError, TypeError):
        if is_earlier(path):
            lines = earlier_lines(path, CAPTIONS.remedy)
            about = next(lines, {}).get("about", {})
            _take_sources((line for line in lines if "mark" not in line), sources)
        else:
            with Store(path, CAPTIONS, only_read=True) as store:
                about = store.about
                _take_sources((record for _, record in store.rows()), sources)
    return about, sources


def _take_sources(
    records: Iterable[Mapping[str, Any]], sources: dict[str, tuple[str, str]]
) -> None:
    for values in records:
        entry = Entry.from_dict(values)
        sources[entry.name] = entry.path, entry.source.path


def journal_beside(output: Path) -> Path:
    """Where the journal of an output file is: ``.NAME.captioner``, shorter where NAME is long.

    The longest of its names, with ``-journal`` after it, may have 255 bytes.
    """
    name = output.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        digest = blake2b(os.fsencode(name), digest_size=8).hexdigest()
        short = os.fsencode(name)[: _LONGEST_NAME - len(digest) - 1].decode("utf-8", "ignore")
        name = f"{short}~{digest}"
    return output.with_name(f".{name}.captioner")
