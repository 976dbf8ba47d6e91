"""What was found about where words look, in a hidden store of a report's folder.

An interrupted report is resumed with it, and a later one of the same images finds it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

from captioner.files.escaping import shown
from captioner.files.resume import locked
from captioner.files.store import DamagedStore, Store, StoreKind

STATE = ".attention.captioner"
EARLIER = ".attention.jsonl"
"""What earlier versions kept attention weights in, which are not shown any more."""

ATTENTION = StoreKind("captioner-attention-2", "remove it", is_cache=True)


class AttentionCache:
    """Values under keys; a context manager, in which no other process may use the folder's.

    Args:
        folder: of a report's files, which is there.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / STATE
        self._earlier = folder / EARLIER
        self._in_use = (
            f"{shown(folder)} is in use by another captioner; wait for it, or name another --output"
        )
        self._numbers: dict[str, int] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(locked(self._path.with_name(f"{STATE}.lock"), self._in_use))
            self._store = stack.enter_context(self._open())
            self._numbers = {key: number for number, key in self._store.names()}
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def _open(self) -> Store:
        if self._path.exists():
            with suppress(DamagedStore):  # All of it can be found again.
                return Store(self._path, ATTENTION)
        store = Store.create(self._path, ATTENTION, {})
        self._earlier.unlink(missing_ok=True)
        return store

    @property
    def keys(self) -> Container[str]:
        """What is known; may be looked at from other threads."""
        return self._numbers

    def get(self, key: str) -> Mapping[str, Any] | None:
        """The values under a key, JSON primitives; None if it is not known."""
        number = self._numbers.get(key)
        return None if number is None else self._store.row(number)[1]

    def add(self, found: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep what was found.

        Raises:
            CaptionerError: it cannot be written.
        """
        first = self._store.last + 1
        self._store.add(list(found.items()))
        self._numbers |= {key: number for number, key in enumerate(found, start=first)}

    def keep(self, keys: Iterable[str]) -> None:
        """Forget all but these."""
        wanted = [self._numbers[key] for key in keys]
        if len(wanted) < self._store.last:
            self._store.arrange(wanted)
            self._numbers = {key: number for number, key in self._store.names()}
