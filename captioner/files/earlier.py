"""Files of earlier versions, in which a job's memory was a file of JSON lines: they are converted.

A line that was cut short is left out: what it was about is done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.resume import Fingerprint
from captioner.files.store import Row, Store, StoreKind
from captioner.files.writing import cannot_read

_SCHEMA = "captioner-captions-1"


def is_earlier(path: Path) -> bool:
    """Whether a file holds JSON lines, and not what SQLite writes."""
    try:
        with path.open("rb") as file:
            return file.read(1) == b"{"
    except OSError:
        return False


def earlier_lines(
    path: Path, remedy: str, check: Callable[[Mapping[str, Any]], object] = lambda line: None
) -> Generator[dict[str, Any], None, None]:
    """The whole lines of a file.

    Args:
        path: the file.
        remedy: what to do about a damaged one.
        check: raises ValueError, KeyError or TypeError for a line that is something else.

    Raises:
        CaptionerError: a line is damaged, which is named, or the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, start=1):
                if not text.endswith(b"\n"):
                    return
                try:
                    line = json.loads(text)
                    check(line)
                except (ValueError, KeyError, TypeError):
                    raise CaptionerError(
                        f"{shown(path)}: line {number} is damaged; {remedy}"
                    ) from None
                yield line
    except OSError as error:
        raise cannot_read(path, error) from None


def convert_journal(path: Path, kind: StoreKind) -> None:
    """Put a store in the place of the journal of a caption job.

    Raises:
        CaptionerError: it is damaged, or cannot be read or written.
    """
    lines = earlier_lines(path, kind.remedy, _check_line)
    header = next(lines, None)
    if header is None or header.get("schema") != _SCHEMA:
        raise CaptionerError(f"{shown(path)}: line 1 is damaged; {kind.remedy}")
    marks = {"replaces": header["replaces"]}
    rows = _rows(lines, _pending_of(path), kind.remedy, marks)
    Store.create(path, kind, header["about"], rows, marks).close()
    forget_earlier(path)


def forget_earlier(path: Path) -> None:
    """Remove the journal that was to take the place of this one."""
    _pending_of(path).unlink(missing_ok=True)


def _pending_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _rows(
    lines: Iterator[dict[str, Any]], pending: Path, remedy: str, marks: dict[str, Any]
) -> Iterator[Row]:
    """The records; the marks are complete when they have been taken."""
    last = 0
    numbers: dict[str, int] = {}
    for line in lines:
        if line.get("mark") == "kept":
            size_bytes, crc32 = line["size_bytes"], line["crc32"]
            marks["kept"] = {"size_bytes": size_bytes, "crc32": crc32, "last": last}
        elif "mark" in line:
            marks["complete"] = last
        else:
            last += 1
            name = line["record"]["file_name"]
            numbers[name] = last
            yield name, line
    if pending.exists():
        waiting = earlier_lines(pending, remedy, _check_line)
        names = [line["record"]["file_name"] for line in waiting if "record" in line]
        marks["pending"] = [numbers[name] for name in names]


def _check_line(line: Mapping[str, Any]) -> None:
    if "schema" in line:
        _ = dict(line["about"]), line["replaces"]
    elif "mark" in line:
        _ = line["mark"] == "complete" or (line["size_bytes"], line["crc32"])
    else:
        record = line["record"]
        _ = record["file_name"], record["error"], record["text"], line["path"]
        Fingerprint.from_dict(line["source"])
