"""Decode videos in a process of its own, which can be replaced.

A damaged file can make a decoder spin for hours or take its process down. Here that costs the file
and not the batch: the process is ended, the file gets an error, and a new process continues with
the next one. It also decodes on one core while the model works on another.

The two talk over the child's standard input and output. In go lines of JSON: first the settings,
then one line for each video. Out come messages: a line of JSON and, for images, as many
bytes of pixels as it says. No pickle: what a hostile video might do to the child ends there.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Self

from captioner.files.child import python_command
from captioner.files.finding import SourceFile
from captioner.images.transform import ImageTransform
from captioner.video.events import Ended, Event, Failed, event_of, receive
from captioner.video.options import SamplingOptions

JOBS_AHEAD = 4  # videos that the child knows of, so that it never waits for the next one
MESSAGES_AHEAD = 64  # messages read ahead: about 10 MB of images of 224x224 pixels


class VideoProcess:
    """Reads videos in a child process. Use it as a context, so that the child ends with it.

    Args:
        transform: of the model; the child resizes images with it.
        options: which frames are looked at.
    """

    def __init__(self, transform: ImageTransform, options: SamplingOptions) -> None:
        self.transform = transform
        self.options = options
        self._child: _Child | None = None

    def read(self, files: Iterable[SourceFile]) -> Iterator[tuple[SourceFile, Event]]:
        """The events of all videos, one after the other, in the order of the files.

        Each ends with `Ended` or `Failed`; after `Opened` and images a `Failed` means that the
        rest could not be read.
        """
        asked: deque[SourceFile] = deque()
        coming = iter(files)
        try:
            while True:
                while len(asked) < JOBS_AHEAD and (file := next(coming, None)) is not None:
                    asked.append(file)
                    self._ask(file)
                if not asked:
                    return
                for event in self._events():
                    yield asked[0], event
                asked.popleft()
                if self._child is None:
                    for file in asked:
                        self._ask(file)
        finally:
            if asked:  # Left in the middle: what the child still sends does not answer the next.
                self.close()

    def _ask(self, file: SourceFile) -> None:
        if self._child is None:
            self._child = _Child(self.transform, self.options)
        self._child.ask(file.path)

    def _events(self) -> Iterator[Event]:
        assert self._child is not None
        while True:
            try:
                message = self._child.messages.get(timeout=self.options.time_limit_s)
            except queue.Empty:
                self.close()
                limit = f"{self.options.time_limit_s:g} s"
                yield Failed("time_limit", f"its decoder delivered nothing for {limit}")
                return
            if message is None:
                code = self._child.wait()
                self.close()
                yield Failed("decoder_died", f"its decoder's process ended with code {code}")
                return
            event = event_of(*message)
            if event is not None:
                yield event
            if isinstance(event, Ended | Failed):
                return

    def close(self) -> None:
        """End the child at once, whatever it is doing."""
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _Child:
    """A running child process and the messages that it has sent."""

    def __init__(self, transform: ImageTransform, options: SamplingOptions) -> None:
        self._process = subprocess.Popen(
            python_command("captioner.video.child"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_QUIET},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin = self._process.stdin
        self.messages: queue.Queue[tuple[dict[str, Any], bytes] | None] = queue.Queue(
            MESSAGES_AHEAD
        )
        self._closed = threading.Event()
        self._send({"transform": transform.to_dict(), "sampling": asdict(options)})
        threading.Thread(
            target=self._pump, args=(self._process.stdout,), name="captioner-video", daemon=True
        ).start()

    def ask(self, path: Path) -> None:
        self._send({"path": os.fspath(path)})

    def _send(self, message: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # It died: that is seen where its messages are read.
            self._stdin.write(json.dumps(message).encode() + b"\n")
            self._stdin.flush()

    def _pump(self, stream: IO[bytes]) -> None:
        """Move messages from the pipe into the queue until the child or `close` ends it."""
        with stream:
            while not self._closed.is_set():
                message = receive(stream)
                while not self._closed.is_set():
                    with suppress(queue.Full):
                        self.messages.put(message, timeout=0.1)
                        break
                if message is None:
                    return

    def wait(self) -> int:
        return self._process.wait()

    def close(self) -> None:
        self._closed.set()
        self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):
            self._stdin.close()


_QUIET = {
    "OPENCV_LOG_LEVEL": "SILENT",
    "OPENCV_FFMPEG_LOGLEVEL": "-8",
}
