"""Write what `captioner.captioning.fill` found: one class per format."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from captioner.captioning.writers import JsonlWriter, LineWriter, Record
from captioner.files.escaping import escaped, isolated
from captioner.files.finding import printable


class FillTextWriter(LineWriter):
    """A block of lines for each image; images that failed have none."""

    format = "text"
    summary = "some lines for each image"
    is_escaped = True

    def _choose_encoding(self) -> str:
        return sys.stdout.encoding or "utf-8"

    def _line(self, record: Record, path: Path | None) -> str | None:
        if record["fillings"] is None:
            return None
        safe = isolated if self._is_on_terminal else escaped
        lines = [safe(record["file_name"] if path is None else printable(path))]
        lines += [
            f"  {_percent(filling['probability'])}  {safe(filling['text'])}"
            for filling in record["fillings"]
        ]
        if len(record["blanks"]) > 1:  # of a single one, the fillings say it all
            lines += [
                _blank_line(number, [(safe(word), share) for word, share in blank])
                for number, blank in enumerate(record["blanks"], start=1)
            ]
        if record["unexplored"] > 0:
            lines.append(
                f"  {record['considered']:,} fillings were looked at; at most "
                f"{_percent(record['unexplored']).strip()} of the probability lies in others"
            )
        return "\n".join(lines) + "\n"


FILL_WRITERS: dict[str, type[LineWriter]] = {"text": FillTextWriter, "jsonl": JsonlWriter}


def _blank_line(number: int, words: Iterable[tuple[str, float]]) -> str:
    listed = ", ".join(f"{word} {_percent(share).strip()}" for word, share in words)
    return f"  blank {number}: {listed}"


def _percent(share: float) -> str:
    """Six wide; a positive share is never shown as 0.0%."""
    return " <0.1%" if 0 < share < 0.0005 else f"{share:6.1%}"
