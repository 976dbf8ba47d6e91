"""Captions under review, made and read without the code that is tested."""

from __future__ import annotations

import csv
import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

_HEAD = "captioner: review at "

Place = Callable[[str], Path]
Caption = Callable[..., tuple[int, str]]

NAMES = ["a.png", "b.jpg", "c über.png", "sub/a.png", "z.jpg"]
"""The photos that can be read."""

OUTPUTS = {
    "jsonl": ["--output", "{folder}/captions.jsonl", "--tags", "0.05"],
    "csv": ["--output", "{folder}/captions.csv"],
    "bom": ["--output", "{folder}/captions.csv", "--csv-bom"],
    "txt": ["--format", "txt"],
    "xmp": ["--format", "xmp"],
    "apart": ["--format", "txt", "--output", "{folder}/texts"],
}
"""Where captions live -> the options that put them there."""

_PATHS = {"jsonl": "captions.jsonl", "csv": "captions.csv", "bom": "captions.csv"}


def path_of(output: str) -> Path:
    """What is reviewed of one of `OUTPUTS`, in the folder of the test."""
    return Path(_PATHS.get(output, "texts" if output == "apart" else "photos"))


def texts_of(output: str) -> dict[str, str | None]:
    """The captions of the photos that can be read, as their files hold them."""
    if output == "jsonl":
        lines = Path("captions.jsonl").read_text("utf-8").splitlines()
        rows = {row["file_name"]: row["text"] for row in map(json.loads, lines)}
    elif output in ("csv", "bom"):
        with open("captions.csv", encoding="utf-8-sig", newline="") as file:
            rows = {row["file_name"]: row["text"] or None for row in csv.DictReader(file)}
    else:
        rows = {name: _text_of(output, name) for name in NAMES}
    return {name: rows[name] for name in NAMES}


def _text_of(output: str, name: str) -> str | None:
    if output == "xmp":
        path = Path("photos", f"{name}.xmp")
        found = (
            re.search("<rdf:li[^>]*>(.*?)</rdf:li>", path.read_text("utf-8"))
            if path.exists()
            else None
        )
        return found[1] if found else None
    path = Path("texts" if output == "apart" else "photos", name).with_suffix(".txt")
    return path.read_text("utf-8").removesuffix("\n") if path.exists() else None


def verdicts_in(folder: Path) -> list[tuple[str, str, str | None, str | None, str]]:
    """Image, verdict, text before and after, and state of each row."""
    with sqlite3.connect(folder / ".captioner-review.sqlite") as database:
        return database.execute(
            "SELECT image, verdict, before, after, state FROM verdicts ORDER BY id"
        ).fetchall()


class Server:
    """`captioner review` in a process of its own.

    Attributes:
        address: of the page.
    """

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "captioner", "review", *arguments, "--no-browser"]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        assert line.startswith(_HEAD), line
        self.address = line.removeprefix(_HEAD).split()[0]

    @property
    def port(self) -> int:
        port = urlsplit(self.address).port
        assert port is not None
        return port

    @property
    def path(self) -> str:
        """Of the page, with the token."""
        return urlsplit(self.address).path

    def interrupt(self) -> tuple[int, str]:
        """Ctrl-C; the exit code, and what it says."""
        self._process.send_signal(signal.SIGINT)
        _, said = self._process.communicate(timeout=30)
        return self._process.returncode, said

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()


@contextmanager
def serving(*arguments: str) -> Iterator[Server]:
    """The command, until the end of the context."""
    server = Server(*arguments)
    try:
        yield server
    finally:
        server.kill()
