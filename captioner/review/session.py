"""One review: captions and what people say of them, changed together and undone together.

A verdict is written down before the captions are changed and completed afterwards. A process that
was killed in between leaves it written down, and the next one completes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from captioner.errors import CaptionerError
from captioner.files.verdicts import (
    ACCEPTED,
    CORRECTED,
    REJECTED,
    Verdict,
    VerdictStore,
    stored_path,
    valid,
)
from captioner.review.captions import Captions, Item

LONGEST_TEXT = 2000
"""Characters of a caption that a person writes."""


class Conflict(Exception):
    """The caption is not what the page showed: somebody else has changed it, or it is gone."""


@dataclass(frozen=True, slots=True)
class Reviewed:
    """An image as a page shows it.

    Attributes:
        item: the image and its caption.
        verdict: the one that counts; None if there is none, or the caption was changed since.
        version: grows with every change.
    """

    item: Item
    verdict: Verdict | None
    version: int = 0


class Session:
    """All that a page can do, one thing after the other and in one thread, that of the files.

    Args:
        captions: under review; closed with the session.
        store: of the verdicts; closed with the session.
    """

    def __init__(self, captions: Captions, store: VerdictStore) -> None:
        self.captions = captions
        self._store = store
        self._version = 0
        self._complete_interrupted()
        self._verdicts = store.latest()
        self._versions: dict[str, int] = {}

    def close(self) -> None:
        """Let others change the captions."""
        self.captions.close()
        self._store.close()

    # --- what there is -----------------------------------------------------------------------

    @property
    def version(self) -> int:
        """How many changes there were."""
        return self._version

    def reviewed(self, since: int = -1) -> list[Reviewed]:
        """The images that changed after a version; all of them by default."""
        return [
            self._as_shown(item)
            for name, item in self.captions.items.items()
            if self._versions.get(name, 0) > since
        ]

    def item(self, name: str) -> Item | None:
        """An image."""
        return self.captions.items.get(name)

    def counts(self) -> Mapping[str, int]:
        """How many captions have each verdict."""
        return Counter(verdict.verdict for verdict in self._verdicts.values())

    def _as_shown(self, item: Item) -> Reviewed:
        verdict = self._verdicts.get(valid(item.name))
        if verdict is not None and _stored(item.text) != verdict.after:
            verdict = None
        return Reviewed(item, verdict, self._versions.get(item.name, 0))

    # --- what is done ------------------------------------------------------------------------

    def accept(self, name: str, seen: str | None) -> Reviewed:
        """Say that a caption is right.

        Args:
            name: of the image.
            seen: the caption that the page showed.

        Raises:
            Conflict: it is another one by now.
            CaptionerError: there is none, or it cannot be saved.
        """
        item = self._current(name, seen)
        if item.text is None:
            raise CaptionerError("nothing to accept: write a caption and save it")
        return self._decide(item, ACCEPTED, item.text)

    def correct(self, name: str, seen: str | None, text: str) -> Reviewed:
        """Put another caption in the place of one; the same one is accepted. See `accept`."""
        text = _clean(text)
        item = self._current(name, seen)
        return self._decide(item, ACCEPTED if text == item.text else CORRECTED, text)

    def reject(self, name: str, seen: str | None) -> Reviewed:
        """Take a wrong caption out of the captions. See `accept`."""
        return self._decide(self._current(name, seen), REJECTED, None)

    def undo(self) -> Reviewed | None:
        """Take the last verdict back, also one of an earlier review; None if there is none.

        Raises:
            CaptionerError: the caption was changed since, or cannot be written.
        """
        verdict = self._store.last()
        if verdict is None:
            return None
        item = self._item_of(verdict)
        if item is None or _stored(item.text) != verdict.after:
            raise CaptionerError(
                f"{verdict.image}: its caption was changed since by another program, and this "
                "cannot be undone; accept, correct or reject the caption as it is now"
            )
        self._store.begin_undo(verdict)
        try:
            self._write(item, verdict.before)
        except CaptionerError:
            self._store.complete(verdict)
            raise
        self._store.remove(verdict)
        self._verdicts = self._store.latest()
        return self._changed(item.name)

    def _current(self, name: str, seen: str | None) -> Item:
        item = self.captions.refresh(name)
        if item is None or item.text != seen:
            if item is not None:
                self._changed(name)
            raise Conflict
        if item.problem is not None:
            raise CaptionerError(item.problem)
        return item

    def _decide(self, item: Item, verdict: str, after: str | None) -> Reviewed:
        known = self._as_shown(item).verdict
        if known is not None and known.verdict == verdict and after == item.text:
            return self._as_shown(item)
        assert item.path is not None, "what can be changed has a path"
        given = self._store.begin(
            Verdict(
                captions=self.captions.key,
                image=item.name,
                path=stored_path(item.path, self.captions.folder),
                verdict=verdict,
                before=item.text,
                after=after,
                time=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        )
        try:
            self._write(item, after)
        except CaptionerError:
            self._store.remove(given)
            raise
        self._store.complete(given)
        self._verdicts[valid(item.name)] = replace(given, image=valid(item.name))
        return self._changed(item.name)

    def _write(self, item: Item, text: str | None) -> None:
        if text != item.text:
            self.captions.write(item.name, text)

    def _changed(self, name: str) -> Reviewed:
        self._version += 1
        self._versions[name] = self._version
        return self._as_shown(self.captions.items[name])

    # --- after a kill ------------------------------------------------------------------------

    def _complete_interrupted(self) -> None:
        saving, undoing = self._store.interrupted()
        for verdict in saving:
            self._complete(verdict, verdict.before, verdict.after, self._store.complete)
        for verdict in undoing:
            self._complete(verdict, verdict.after, verdict.before, self._store.remove)

    def _complete(
        self,
        verdict: Verdict,
        old: str | None,
        new: str | None,
        done: Callable[[Verdict], None],
    ) -> None:
        item = self._item_of(verdict)
        there = None if item is None else _stored(item.text)
        if item is not None and there == old and old != new:
            self.captions.write(item.name, new)
            there = new
        if item is not None and there == new:
            done(verdict)
        else:
            self._store.remove(verdict)  # The caption is somebody else's by now.

    def _item_of(self, verdict: Verdict) -> Item | None:
        names = (name for name in self.captions.items if valid(name) == verdict.image)
        name = verdict.image if verdict.image in self.captions.items else next(names, None)
        return None if name is None else self.captions.refresh(name)


def _stored(text: str | None) -> str | None:
    return None if text is None else valid(text)


def _clean(text: str) -> str:
    """A caption as it is written: one line, without halves of characters.

    Raises:
        CaptionerError: it is empty or too long.
    """
    clean = " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
    clean = "".join(each for each in clean if each.isprintable() or each == "\u200d")
    if not clean:
        raise CaptionerError("the caption is empty: write one, or reject the one there is")
    if len(clean) > LONGEST_TEXT:
        raise CaptionerError(
            f"the caption has {len(clean)} characters: write at most {LONGEST_TEXT}"
        )
    return clean
