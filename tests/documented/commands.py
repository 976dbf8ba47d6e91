"""The commands that a document shows, in their order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_FENCED = re.compile(r"^```(?P<label>[^\n]*)\n(?P<text>.*?)^```$", re.M | re.S)
_PROGRAMS = ("captioner", "python", "pip")
"""What a block without a label begins with if it shows commands, and not files or output."""
_COMMENT = re.compile(r"""("[^"]*"|'[^']*')|(?:^|\s+)\#\s.*$""")
"""A comment, or what is quoted and holds none."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command as a document shows it.

    Attributes:
        page: the document, relative to the repository.
        line: where it begins there, from 1.
        block: number of its block in the document: a `cd` holds until the end of the block.
        text: for a shell, without comments; what `&&` joins are commands of their own.
        output: what the document says that it prints; None if it says nothing.
        script: Python that it runs, of all Python examples of the document.
    """

    page: str
    line: int
    block: int
    text: str
    output: str | None = None
    script: str | None = None


def commands_of(page: str, text: str) -> list[Command]:
    """The commands of a document in Markdown: of shell blocks, and one for its Python examples.

    Args:
        page: what the document is called in the commands.
        text: of the document.
    """
    commands: list[Command] = []
    python: list[tuple[int, str]] = []
    for number, block in enumerate(_FENCED.finditer(text)):
        line = text.count("\n", 0, block.start()) + 2
        label, body = block["label"].strip(), block["text"]
        if label == "python":
            python.append((line, body))
        elif label in ("bash", "sh", "console") or (
            not label and body.removeprefix("$ ").startswith(_PROGRAMS)
        ):
            read = _with_output if body.startswith("$ ") else _without_output
            commands += [
                Command(page, line + offset, number, part, output)
                for offset, command, output in read(body.splitlines())
                for part in command.split(" && ")
            ]
    if python:
        script = "\n".join(body for _, body in python)
        command = Command(page, python[0][0], -1, "python (all examples)", script=script)
        commands = sorted([*commands, command], key=lambda each: each.line)
    return commands


def _without_output(lines: list[str]) -> Iterator[tuple[int, str, None]]:
    """Each line a command, unless it continues one."""
    first, parts = 0, list[str]()
    for offset, line in enumerate(lines):
        if not parts:
            first = offset
        parts.append(_COMMENT.sub(r"\1", line).rstrip())
        if parts[-1].endswith("\\"):
            parts[-1] = parts[-1].removesuffix("\\").rstrip()
            continue
        if command := " ".join(part.strip() for part in parts).strip():
            yield first, command, None
        parts = []


def _with_output(lines: list[str]) -> Iterator[tuple[int, str, str]]:
    """Commands behind a prompt, and below each what it prints."""
    starts = [offset for offset, line in enumerate(lines) if line.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield start, _COMMENT.sub(r"\1", lines[start][2:]), "\n".join(lines[start + 1 : end])
