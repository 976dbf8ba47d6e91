"""Run documented commands, one after the other, in a copy of the repository."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

from documented.commands import Command

REVIEW = "captioner: review at "
"""What `captioner review` prints before the address of its page."""
INPUTS = ("photos", "videos")
"""Stand-ins beside whose files commands write."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command.

    Attributes:
        code: its exit code; None if it ran past its time.
        seconds: that it took.
        printed: on standard output and error, in this order.
        trouble: why it failed; None if it did what the document says.
    """

    code: int | None
    seconds: float
    printed: str
    trouble: str | None


class Reader:
    """Somebody who reads one document and types what it says.

    Args:
        root: a copy of the repository with the stand-ins, where the commands run.
        environment: of the commands.
        limit_s: seconds after which a command counts as hanging.
    """

    def __init__(self, root: Path, environment: dict[str, str], limit_s: float) -> None:
        self._root = root
        self._environment = environment
        self._limit_s = limit_s
        self._kept = {name: set((root / name).rglob("*")) for name in INPUTS}
        self._block, self._folder = -1, root

    def run(self, command: Command, text: str) -> Outcome:
        """Run a command.

        Args:
            command: as it is documented.
            text: what to run of it.
        """
        if command.block != self._block:
            self._block, self._folder = command.block, self._root
        words = shlex.split(text)
        if words[0] == "cd":
            self._folder = self._folder / words[1]
            return Outcome(0, 0.0, "", None if self._folder.is_dir() else "no such folder")
        if words[0] == "captioner" and words[1:2] in (["caption"], ["tag"], ["export"]):
            self._begin_afresh(words[2:])
        if command.script is not None:
            (self._root / "documented.py").write_text(command.script, encoding="utf-8")
            text = "python documented.py"
        start = time.perf_counter()
        if words[:2] == ["captioner", "review"]:
            code, output, printed = self._review(words)
        else:
            code, output, printed = self._shell(text)
        took = time.perf_counter() - start
        return Outcome(code, took, printed, _trouble(command, code, output))

    def _begin_afresh(self, words: Sequence[str]) -> None:
        """Remove what earlier commands wrote where this one writes.

        The lines of a block are examples more often than steps; the same output with other options
        is refused.
        """
        if {"--append", "--missing-only"} & set(words):
            return
        for name in INPUTS:
            if any(word.split("/")[0] == name for word in words):
                for path in set((self._root / name).rglob("*")) - self._kept[name]:
                    _remove(path)
        for option, name in zip(words, words[1:], strict=False):
            if option in ("-o", "--output", "--output-dir"):
                path = self._folder / name
                stem = path.stem if path.suffix == ".html" else path.name
                beside = "" if name.endswith("/") else "*"  # files that belong to a file
                for pattern in (f"{stem}{beside}", f".{stem}{beside}"):
                    for found in list(path.parent.glob(pattern)):
                        _remove(found)

    def _shell(self, text: str) -> tuple[int | None, str, str]:
        """Exit code, standard output, and that with standard error."""
        with subprocess.Popen(
            ["bash", "-c", text],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, errors = process.communicate(timeout=self._limit_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output, errors = process.communicate()
                return None, output, output + errors
        return process.returncode, output, output + errors

    def _review(self, words: Sequence[str]) -> tuple[int | None, str, str]:
        """Open the page of `captioner review`, accept every caption, and end it with Ctrl-C."""
        with subprocess.Popen(
            words, cwd=self._folder, env=self._environment, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            first = process.stderr.readline()
            try:
                if first.startswith(REVIEW):
                    _accept_all(first.removeprefix(REVIEW).split()[0])
                    process.send_signal(signal.SIGINT)
                rest = process.communicate(timeout=self._limit_s)[1]
            except BaseException:
                process.kill()
                raise
        return process.returncode, "", first + rest


def _accept_all(address: str) -> None:
    """What a browser and its user would send."""
    with urlopen(address) as page:
        assert page.status == 200
    with urlopen(f"{address}items") as answer:
        items = json.load(answer)["items"]
    headers = {"Origin": "/".join(address.split("/")[:3]), "Content-Type": "application/json"}
    for item in items:
        if item["text"] is not None:
            body = json.dumps({"name": item["name"], "seen": item["text"]}).encode()
            with urlopen(Request(f"{address}accept", body, headers)) as answer:
                assert answer.status == 200


def _trouble(command: Command, code: int | None, output: str) -> str | None:
    if code is None:
        return "runs too long"
    if code != 0:
        return f"exit code {code}"
    if command.output is not None and _words(command.output) != _words(output):
        return "prints something else than the document shows"
    return None


def _words(text: str) -> list[str]:
    """The text without its columns, which documents set apart with blanks."""
    return re.split(r"\s+", text.strip())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
