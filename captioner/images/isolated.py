"""Decode images of the extras in processes of their own, which can be replaced.

The libraries that read HEIC, JPEG XL and raw photos take a whole file and come back when they are
done: no limit reaches into them, and a damaged file may take their process down. Here that costs
the file alone. A process is started when the first such file is met, and kept for the next one.

The two talk over the child's standard input and output: in goes a line of JSON for each file, out
comes a line of JSON, pixels or a JPEG file, and a colour profile. No pickle: what a hostile image
might do to the child ends there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from captioner.files.child import python_command
from captioner.images.colour_spaces import profile_of_numbers
from captioner.images.limits import MAX_PROFILE_BYTES

MAX_WAIT_S = 600.0
"""Time on the clock after which a child that does nothing is given up."""

MAX_LINE = 10_000  # bytes
BANDS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "I;16": 2, "F": 4}  # bytes of a pixel


class DecoderFailed(Exception):
    """The file was not decoded; the message is the reason, in a few words."""


class NotRaw(DecoderFailed):
    """It is not a raw photo that LibRaw knows."""


@dataclass(frozen=True)
class Request:
    """What a child is asked for.

    Attributes:
        kind: of the file, a key of `captioner.images.kinds.EXTRAS`.
        path: of the file.
        max_pixels: width * height above which nothing is decoded.
        max_bytes: of an embedded JPEG.
        max_seconds: processor time.
    """

    kind: str
    path: Path
    max_pixels: int
    max_bytes: int
    max_seconds: float


@dataclass(frozen=True)
class Decoded:
    """What a child has found.

    Attributes:
        image: the pixels, upright but for the orientation, with their profile in `info`; None if
            the file holds a JPEG.
        jpeg: that file.
        orientation: as in EXIF; of a JPEG if it says nothing itself.
    """

    image: Image.Image | None
    jpeg: bytes
    orientation: int


def decode(request: Request) -> Decoded:
    """Decode a file in a child process.

    Raises:
        DecoderFailed: it cannot be decoded within the limits.
    """
    child = _take_idle() or _Child()
    timer = threading.Timer(MAX_WAIT_S, child.end)
    timer.daemon = True
    timer.start()
    try:
        answer = child.ask(request)
        if answer is None:
            raise DecoderFailed(child.how_it_ended(request))
    except BaseException:
        child.end()
        raise
    finally:
        timer.cancel()
    with _lock:
        _idle.append(child)
    header, data, profile = answer
    return _decoded(header, data, profile)


def _decoded(header: dict[str, Any], data: bytes, profile: bytes) -> Decoded:
    if "failed" in header:
        raise (NotRaw if header.get("is_raw") is False else DecoderFailed)(str(header["failed"]))
    orientation = int(header["orientation"])
    if "mode" not in header:
        return Decoded(None, data, orientation)
    mode, size = header["mode"], tuple(header["size"])
    image = Image.frombytes(mode, size, data)
    if not profile and "colours" in header:
        primaries, transfer = map(int, header["colours"])
        profile = profile_of_numbers(primaries, transfer, mode in ("L", "LA")) or b""
    if profile:
        image.info["icc_profile"] = profile
    return Decoded(image, b"", orientation)


class _Child:
    """A running process that decodes one file after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            python_command("captioner.images.decoder_process"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what libraries say of damaged files
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    def ask(self, request: Request) -> tuple[dict[str, Any], bytes, bytes] | None:
        """Header, data and profile; None if the child died or sends something else."""
        assert self._process.stdin is not None and self._process.stdout is not None
        # Absolute: this process may have another folder by now than the child.
        line = json.dumps({**vars(request), "path": os.path.abspath(request.path)})
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline(MAX_LINE)
            header = json.loads(answer)
            sizes = int(header["bytes"]), int(header["profile_bytes"])
            if sizes[0] != _expected(header, request) or not 0 <= sizes[1] <= MAX_PROFILE_BYTES:
                return None
            data, profile = (self._process.stdout.read(size) for size in sizes)
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return None if (len(data), len(profile)) != sizes else (header, data, profile)

    def how_it_ended(self, request: Request) -> str:
        """The reason for which there is no answer."""
        self._process.kill()
        code = self._process.wait()
        if code == -getattr(signal, "SIGXCPU", 0):
            return f"too much work to decode (more than {request.max_seconds:g} s)"
        return f"damaged {request.kind} (its decoder's process ended)"

    def end(self) -> None:
        """End it at once, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


def _expected(header: dict[str, Any], request: Request) -> int:
    """How many bytes of data belong to a header; -1 for what cannot be."""
    if "failed" in header:
        return 0
    if "mode" not in header:
        return int(header["bytes"]) if header["bytes"] <= request.max_bytes else -1
    width, height = header["size"]
    return int(width * height * BANDS[header["mode"]])


# --- the children that wait for the next file ----------------------------------------------

_lock = threading.Lock()
_idle: list[_Child] = []


def _take_idle() -> _Child | None:
    with _lock:
        return _idle.pop() if _idle else None


def _forget() -> None:
    """After a fork: the children, and perhaps the lock, are the other process's."""
    global _lock, _idle
    _lock, _idle = threading.Lock(), []


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
