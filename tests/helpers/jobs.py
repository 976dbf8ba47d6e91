"""Caption jobs in processes that die, and what they leave behind."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from captioner.captioning import file_output
from captioner.captioning import run as caption_run
from captioner.cli import entry as cli
from captioner.errors import CaptionerError
from captioner.files import store
from captioner.files.journal import CAPTIONS
from captioner.files.store import Store

OUTPUTS = ["out.jsonl", "out.csv", "out.tsv", "out.json", "texts", "xmps"]
SIDECARS = {"texts": "txt", "xmps": "xmp"}
NAMES = ["a.png", "b.jpg", "c über.png", "d.png", "sub dir/a.png", "sub dir/ä b.png", "z.png"]
"""Of the images of the fixture `photos` that can be read, in their order."""


def into(output: str) -> list[str]:
    """The options for one of :data:`OUTPUTS`."""
    format = SIDECARS.get(Path(output).name)
    return ["--output", output, *([] if format is None else ["--format", format])]


def forked(work: Callable[[], int]) -> int:
    """Do it in a forked process, and return its id."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        code = work()
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """The exit code of a process, or minus the signal that ended it."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return -signal.SIGKILL if code == -signal.SIGXFSZ else code  # see `commit_half`


def tree(place: Path) -> dict[str, bytes]:
    """A file, or all files of a folder but the hidden ones, with what they hold."""
    if place.is_file():
        return {"": place.read_bytes()}
    return {
        path.relative_to(place).as_posix(): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob(".*"))


def names_in(output: Path) -> list[str]:
    """The images of an output, in its order."""
    text = output.read_text("utf-8")
    if output.suffix == ".jsonl":
        return [json.loads(line)["file_name"] for line in text.splitlines()]
    if output.suffix == ".json":
        return [item["image_id"] for item in json.loads(text)]
    if output.suffix == ".tsv":
        return [line.split("\t")[0] for line in text.splitlines()]
    with output.open(encoding="utf-8", newline="") as file:
        return [row["file_name"] for row in csv.DictReader(file)]


def die_at(moment: int, half: bool) -> None:
    """Let this process be killed at one of the moments at which something reaches the disk.

    Args:
        moment: which one, from 1.
        half: whether half of what is to be written is written first; a renaming is then over.
    """
    write_at, commit, rename = file_output.write_at, store.commit, os.replace
    moments = 0

    def is_over() -> bool:
        nonlocal moments
        moments += 1
        return moments == moment

    def deadly_write(file, offset, data, named):
        if is_over():
            if half:
                write_at(file, offset, data[: len(data) // 2], named)
            os.kill(os.getpid(), signal.SIGKILL)
        write_at(file, offset, data, named)

    def deadly_commit(db):
        if is_over():
            if half:
                commit_half(db, commit)
            os.kill(os.getpid(), signal.SIGKILL)
        commit(db)

    def deadly_rename(here, there):
        if is_over():
            if half:
                rename(here, there)
            os.kill(os.getpid(), signal.SIGKILL)
        rename(here, there)

    caption_run.SYNC_S = 0.0  # every batch is written at once
    file_output.write_at = deadly_write
    store.commit = deadly_commit
    os.replace = deadly_rename


def commit_half(db: sqlite3.Connection, commit: Callable[[sqlite3.Connection], None]) -> None:
    """Let this process be killed while SQLite writes, in the middle of a page.

    A transaction that adds no page ends as a whole.
    """
    size = Path(db.execute("PRAGMA database_list").fetchone()[2]).stat().st_size
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 2000, size + 2000))
    commit(db)


def known_in(state: Path) -> int:
    """How many records a journal holds, of which another process may just be writing."""
    with tempfile.TemporaryDirectory() as folder:
        for path in (state, state.with_name(f"{state.name}-journal")):
            if path.exists():
                shutil.copy(path, folder)
        try:
            with Store(Path(folder) / state.name, CAPTIONS) as copy:
                return copy.last
        except CaptionerError:
            return 0


def killed_at_each_write(folder: Path, start: Path, arguments: Sequence[str]) -> Iterator[int]:
    """Run a command killed at its first write, then at its second, until it ends, with 0.

    Args:
        folder: what it works in; before each run it is made a copy of ``start``.
        start: as the folder was.
        arguments: of the command line.

    Yields:
        The number of the write, after each run.
    """
    code, moment = -signal.SIGKILL, 0
    while code == -signal.SIGKILL:
        moment += 1
        shutil.rmtree(folder)
        shutil.copytree(start, folder)

        def work(moment: int = moment) -> int:
            die_at(moment, half=moment % 2 == 0)
            return cli.main(arguments)

        code = ended(forked(work))
        yield moment
    assert code == 0
