"""The memory of a batch of videos, and ``tags.jsonl``, which is written from it.

A record for each finished video stands in a hidden store (`captioner.files.store`), which also says
with which model and options the batch is made. A video's record has reached the disk before its
line is added, so that the next run can make the file whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from captioner.errors import CaptionerError
from captioner.files.earlier import earlier_lines
from captioner.files.resume import Fingerprint, changes
from captioner.files.store import Row, Store, StoreKind
from captioner.files.writing import cannot_read, cannot_write, replace_bytes

STATE, LINES = ".tags.captioner", "tags.jsonl"
EARLIER = ".captioner-tag.json"
"""What earlier versions knew of a batch, beside the lines."""

MIN_CONFIDENCE = "min_caption_confidence"
"""A setting that batches of earlier versions have not."""

TAGS = StoreKind("captioner-tags-1", "choose another --output-dir, or start over with --overwrite")


class Ledger:
    """What is known of the finished videos; a context manager that closes it.

    Args:
        store: of the folder; closed with this.
        rows: what it holds.

    Attributes:
        lines: file name -> its latest line; after `sort` in the order of the videos.
    """

    def __init__(self, store: Store, rows: Iterable[Row] = ()) -> None:
        self._store = store
        self._path = store.path.with_name(LINES)
        self.lines: dict[str, dict[str, Any]] = {}
        self._order: list[str] = []  # as in the file, with repetitions
        for name, line in rows:
            self._take(name, dict(line))

    @classmethod
    def create(cls, output_dir: Path, about: Mapping[str, Any]) -> Self:
        """Begin one, and forget another that may be there.

        Args:
            output_dir: the batch's folder.
            about: the model and the options, JSON primitives.

        Raises:
            CaptionerError: it cannot be written.
        """
        # The lines first: others than those of the store would be somebody else's.
        (output_dir / LINES).unlink(missing_ok=True)
        store = Store.create(output_dir / STATE, TAGS, about)
        (output_dir / EARLIER).unlink(missing_ok=True)
        return cls(store)

    @classmethod
    def find(cls, output_dir: Path, about: Mapping[str, Any]) -> Self | None:
        """That of an earlier run in this folder, None if there is none.

        Raises:
            CaptionerError: it is of another model or other options, it is damaged, or its lines
                were changed; names the remedy.
        """
        state, earlier = output_dir / STATE, output_dir / EARLIER
        if not state.exists():
            if not earlier.exists():
                return None
            _check_same(_read_earlier(earlier), about, output_dir)
            Store.create(state, TAGS, about, _earlier_rows(output_dir / LINES)).close()
        earlier.unlink(missing_ok=True)
        store = Store(state, TAGS)
        try:
            _check_same(store.about, about, output_dir)
            rows = list(store.rows())
            ledger = cls(store, rows)
            ledger._restore(rows)
        except BaseException:
            store.close()
            raise
        return ledger

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _take(self, name: str, line: dict[str, Any]) -> None:
        self.lines[name] = line
        self._order.append(name)

    def _restore(self, rows: Iterable[Row]) -> None:
        """Make the file what it should hold, if nobody has changed it."""
        known = [_encoded(line) for _, line in rows]
        try:
            there = self._path.read_bytes()
        except FileNotFoundError:
            there = b""
        except OSError as error:
            raise cannot_read(self._path, error) from None
        whole = there.splitlines(keepends=True)
        if whole and not whole[-1].endswith(b"\n"):
            whole.pop()  # It was cut short.
        # In whatever order: a run may have been killed before the store was put into that of the
        # file.
        ours = set(known)
        for number, line in enumerate(whole, start=1):
            if line not in ours:
                raise CaptionerError(
                    f"{self._path}: line {number} was changed since captioner wrote it; rename the "
                    "file to keep it, and the next run writes it again, or start over with "
                    "--overwrite"
                )
        if there != b"".join(known):
            replace_bytes(self._path, known)

    def add(self, line: dict[str, Any]) -> None:
        """Add a video's line, on the disk when this returns.

        Raises:
            CaptionerError: it cannot be written.
        """
        name = line["file_name"]
        self._store.add([(name, line)])
        self._take(name, line)
        try:
            with self._path.open("ab") as file:
                file.write(_encoded(line))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self._path, error) from None

    def sort(self, names: Sequence[str]) -> None:
        """Put the lines into the order of the videos; those of other runs stay before them."""
        current = set(names)
        others = [name for name in dict.fromkeys(self._order) if name not in current]
        wanted = [*others, *(name for name in names if name in self.lines)]
        if wanted != self._order:
            numbers = {name: number for number, name in enumerate(self._order, start=1)}
            replace_bytes(self._path, (_encoded(self.lines[name]) for name in wanted))
            self._store.arrange([numbers[name] for name in wanted])
            self._order = wanted
        self.lines = {name: self.lines[name] for name in wanted}


def _check_same(there: Mapping[str, Any], about: Mapping[str, Any], output_dir: Path) -> None:
    changed = changes(there, about)
    if not changed:
        return
    remedy = "use those"
    if MIN_CONFIDENCE not in there.get("settings", {}):
        # As before there was such a setting.
        without = {name: x for name, x in about["settings"].items() if name != MIN_CONFIDENCE}
        if not changes(there, {**about, "settings": without}):
            remedy = "resume with the old settings by --min-caption-confidence 0"
    raise CaptionerError(
        f"{output_dir} was filled with another model or other options "
        f"({'; '.join(changed[:3])}); {remedy}, choose another --output-dir, or start over with "
        "--overwrite"
    )


def _encoded(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n"


# --- earlier versions ----------------------------------------------------------------------


def _read_earlier(path: Path) -> dict[str, Any]:
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        there = None
    if not isinstance(there, dict):
        raise CaptionerError(f"{path} is damaged; {TAGS.remedy}")
    return there


def _earlier_rows(lines: Path) -> Iterator[Row]:
    if lines.exists():
        remedy = "remove it and its video is done again, or start over with --overwrite"
        for line in earlier_lines(lines, remedy, _check_line):
            yield line["file_name"], line


def _check_line(line: Mapping[str, Any]) -> None:
    _ = line["file_name"], line["status"], Fingerprint.from_dict(line["source"])
