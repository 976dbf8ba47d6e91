"""What `captioner tag` wrote into a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from captioner.files.store import Store
from captioner.tagging.ledger import STATE, TAGS


def tree(folder: Path) -> dict[str, bytes]:
    """All files of a folder with what they hold, but the lock; of the store, its records."""
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".captioner.lock"
    }
    if STATE in found:
        with Store(folder / STATE, TAGS) as store:
            found[STATE] = json.dumps([store.about, *store.rows()]).encode()
    return found


def about_of(output: Path) -> dict[str, Any]:
    """The model and the settings of a batch."""
    with Store(output / STATE, TAGS) as store:
        return store.about


def lines(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "tags.jsonl").read_text("utf-8").splitlines()]
