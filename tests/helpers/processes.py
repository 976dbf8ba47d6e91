"""Which processes a test has started."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_others: set[int] = set()


def ignore_running_children() -> None:
    """Leave out those of earlier tests: processes that decode images wait for further ones."""
    _others.update(children())


def children(pid: int | None = None) -> list[int]:
    """The processes that a process has started, but for the ignored ones; Linux only."""
    found: list[int] = []
    for task in Path(f"/proc/{pid or os.getpid()}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            found += map(int, (task / "children").read_text().split())
    return [child for child in found if child not in _others]
