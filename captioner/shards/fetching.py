"""The videos of a shard as files on this machine: those of stores are fetched, one after the other.

Decoders need a file that they can read at any place. A copy lies in a temporary folder until its
video is done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from captioner.files.finding import SourceFile
from captioner.files.kinds import suffix_of
from captioner.files.stores import StoreUnreachable, is_on_web, local_path, pieces_of
from captioner.files.writing import cannot_write
from captioner.shards.tasks import ShardTask
from captioner.video.events import Failed

MAX_BYTES = 100_000_000_000
"""Of a video that is fetched."""

_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")


@dataclass(frozen=True)
class Fetched:
    """A video of a shard.

    Attributes:
        file: where it lies, and its name in the records.
        problem: why it does not lie there; None if it does, or if nobody has looked.
        is_copy: whether it is removed when it is done.
    """

    file: SourceFile
    problem: Failed | None = None
    is_copy: bool = False

    def discard(self) -> None:
        """Remove what was fetched."""
        if self.is_copy:
            self.file.path.unlink(missing_ok=True)


def fetched_videos(
    task: ShardTask, folder: Path, is_wanted: Callable[[], bool]
) -> Generator[Fetched, None, None]:
    """The videos of a shard, in its order, each fetched when it is asked for.

    Args:
        task: the shard.
        folder: an empty one, for the copies.
        is_wanted: whether somebody still waits for them; a copy is not finished otherwise.

    Raises:
        CaptionerError: a copy cannot be written.
        captioner.files.stores.StoreUnreachable: a store does not answer.
    """
    for number, (address, name) in enumerate(task.files):
        path = local_path(address)
        if path is not None:
            yield Fetched(SourceFile(path, name))
            continue
        suffix = suffix_of(address.partition("?")[0] if is_on_web(address) else address)
        place = folder / f"{number:06d}{suffix if _SUFFIX.fullmatch(suffix) else ''}"
        problem = _fetch(address, place, is_wanted)
        if problem is not None:
            place.unlink(missing_ok=True)
        yield Fetched(SourceFile(place, name), problem, is_copy=problem is None)


def _fetch(address: str, place: Path, is_wanted: Callable[[], bool]) -> Failed | None:
    """Copy a video; where there is nothing to copy, that is this video's error."""
    try:
        return _copy(address, place, is_wanted)
    except FileNotFoundError:
        return Failed("not_found", "file not found")
    except PermissionError:
        return Failed("unreadable", "permission denied")
    except StoreUnreachable as error:
        if not is_on_web(address):
            raise
        # Of the web's servers, some are gone for good.
        return Failed("unreadable", f"cannot be fetched ({error.reason})")
    except OSError as error:
        return Failed("unreadable", f"cannot be fetched ({error})")


def _copy(address: str, place: Path, is_wanted: Callable[[], bool]) -> Failed | None:
    left = MAX_BYTES
    with closing(pieces_of(address)) as pieces:
        _add(place, b"")
        for piece in pieces:
            left -= len(piece)
            if left < 0:
                return Failed("unreadable", f"too large (limit {MAX_BYTES} bytes)")
            if not is_wanted():
                return Failed("unreadable", "not wanted any more")
            _add(place, piece)
    return None


def _add(place: Path, piece: bytes) -> None:
    try:
        with place.open("ab") as file:
            file.write(piece)
    except OSError as error:
        # Not the video's fault: a full disk, mostly.
        raise cannot_write(place, error) from None
