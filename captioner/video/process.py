"""Decode videos in a process of its own, which can be replaced.

A damaged file can make a decoder spin for hours or take its process down. Here that costs the file
and not the batch: the process is ended, the file gets an error, and a new process goes on with the
next one. It also decodes on one core while the model works on another.

The two talk over the child's standard input and output. In go lines of JSON: first the settings,
then one line for each video. Out come messages: a line of JSON and, for pictures, so many bytes
of pixels as it says. No pickle: what a hostile video might do to the child ends there.
"""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from PIL import Image

from captioner.files.finding import SourceFile
from captioner.images.transform import MAX_SIDE, ImageTransform
from captioner.video.frames import Frame, Video, VideoError, VideoInfo, open_video
from captioner.video.sampling import Cut, SamplingOptions, sample

JOBS_AHEAD = 4  # videos that the child knows of, so that it never waits for the next one
PICTURES_AHEAD = 64  # messages read ahead: about 10 MB of pictures of 224x224 pixels
SIGN_OF_LIFE_S = 0.5
MAX_LINE = 100_000  # bytes: no message of ours is longer
MAX_DATA = 3 * MAX_SIDE**2
MAX_REASON = 200  # characters of an error that nobody has foreseen

REPEAT_SIDE = 32
REPEAT_DIFFERENCE = 8
"""A picture repeats the last one if, scaled to REPEAT_SIDE squared greys, none differs by more."""

_START = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from captioner.video.process import main
main()
"""


# --- what comes out ------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    """The video could be opened and its first frame decoded."""

    info: VideoInfo


@dataclass(frozen=True)
class Picture:
    """A frame that was chosen.

    Attributes:
        time_s: when it is shown, in seconds since the first frame.
        frame_index: its number among the frames that could be decoded.
        pixels: what the model's transform made of it, RGB, height * width * 3 bytes; None if it
            looks the same as the picture before, whose caption is its caption.
        until_s: when the next frame is shown, likewise; None if that is not known.
    """

    time_s: float
    frame_index: int
    pixels: bytes | None
    until_s: float | None = None


@dataclass(frozen=True)
class Ended:
    """The video is read.

    Attributes:
        duration_s: from the first frame to the end of the last one, in seconds, or to the end of
            the part that was asked for.
        frame_count: frames that were decoded.
        average_fps: frames per second, 1 over the mean distance between frames.
        is_vfr: whether the frame rate varies: more than one distance in a hundred between frames
            differs from the most common one by over a tenth (and 2 ms).
        decode_failures: packets and frames that could not be decoded.
        partial: why this is not all of the video, in a few words; None if it is.
    """

    duration_s: float
    frame_count: int
    average_fps: float
    is_vfr: bool
    decode_failures: int
    partial: str | None


@dataclass(frozen=True)
class Failed:
    """The video, or the rest of it, could not be read; see `captioner.video.frames.VideoError`."""

    code: str
    reason: str


Event = Opened | Picture | Cut | Ended | Failed


# --- the parent's side ---------------------------------------------------------------------


class VideoProcess:
    """Reads videos in a child process. Use it as a context, so that the child ends with it.

    Args:
        transform: of the model; the child resizes pictures with it.
        options: which frames are looked at.
    """

    def __init__(self, transform: ImageTransform, options: SamplingOptions) -> None:
        self.transform = transform
        self.options = options
        self._child: _Child | None = None

    def read(self, files: Iterable[SourceFile]) -> Iterator[tuple[SourceFile, Event]]:
        """The events of all videos, one after the other, in the order of the files.

        Each ends with `Ended` or `Failed`; after `Opened` and pictures a `Failed` means that the
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
            if asked:  # Left in the middle: what the child still sends is no answer to the next.
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
            event = _event(*message)
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
        # What the parent would import, but nothing in the current folder is taken for a module.
        folders = [folder for folder in sys.path if folder]
        folders.append(str(Path(__file__).resolve().parents[2]))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, json.dumps(folders)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_QUIET},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin = self._process.stdin
        self.messages: queue.Queue[tuple[dict[str, Any], bytes] | None] = queue.Queue(
            PICTURES_AHEAD
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
                message = _receive(stream)
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


def _receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """The next message; None at the end, also where it is torn or is none."""
    try:
        line = stream.readline(MAX_LINE)
        header: Any = json.loads(line) if line.endswith(b"\n") else None
        size = header["bytes"]
        if not 0 <= size <= MAX_DATA:
            return None
        data = stream.read(size)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return None if len(data) < size else (header, data)


def _event(header: dict[str, Any], data: bytes) -> Event | None:
    kind, values = header["event"], header.get("values", {})
    if kind == "opened":
        return Opened(VideoInfo(**values))
    if kind == "picture":
        return Picture(**values, pixels=data or None)
    if kind == "cut":
        return Cut(**values)
    if kind == "ended":
        return Ended(**values)
    if kind == "failed":
        return Failed(**values)
    assert kind == "alive", kind
    return None


# --- the child's side ----------------------------------------------------------------------


def main() -> None:
    """Serve standard input until it ends, which ends the process at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which decides.
    out = _Out(os.fdopen(os.dup(sys.stdout.fileno()), "wb"))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # A library's chatter is no message.
    settings = json.loads(sys.stdin.readline())
    transform = ImageTransform.from_dict(settings["transform"])
    options = SamplingOptions(**settings["sampling"])
    paths: queue.Queue[Path] = queue.Queue()
    threading.Thread(target=_take_jobs, args=(paths,), daemon=True).start()
    try:
        out.send("alive")  # The time limit is for videos, not for starting Python.
        while True:
            _serve(paths.get(), transform, options, out)
    except BrokenPipeError:
        os._exit(0)


def _serve(path: Path, transform: ImageTransform, options: SamplingOptions, out: _Out) -> None:
    """Send all that comes of one video, whatever happens while it is read."""
    try:
        with open_video(path, options.reader) as video:
            _read(video, transform, options, out)
    except BrokenPipeError:
        raise
    except VideoError as error:
        out.send("failed", {"code": error.code, "reason": error.reason})
    except Exception as error:
        # Readers know most of what a file can say, and none knows all. It costs this file alone.
        reason = " ".join(f"its decoder failed: {type(error).__name__}: {error}".split())
        out.send("failed", {"code": "decoder_died", "reason": reason[:MAX_REASON]})


def _take_jobs(paths: queue.Queue[Path]) -> None:
    for line in sys.stdin:
        paths.put(Path(json.loads(line)["path"]))
    os._exit(0)  # The parent is gone or has had enough; a decoder that hangs would keep us here.


class _Out:
    """The way to the parent."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._last_s = time.monotonic()

    def send(self, event: str, values: dict[str, Any] | None = None, data: bytes = b"") -> None:
        header = {"event": event, "values": values or {}, "bytes": len(data)}
        self._stream.write(json.dumps(header).encode() + b"\n" + data)
        self._stream.flush()
        self._last_s = time.monotonic()

    def sign_of_life(self) -> None:
        if time.monotonic() - self._last_s >= SIGN_OF_LIFE_S:
            self.send("alive")


def _read(video: Video, transform: ImageTransform, options: SamplingOptions, out: _Out) -> None:
    out.send("opened", asdict(video.info))
    measure = _Measure()
    last: np.ndarray[Any, Any] | None = None
    for found in sample(video, measure.watch(video, out), options, out.sign_of_life):
        if isinstance(found, Cut):
            out.send("cut", asdict(found))
            continue
        picture = transform.fit(Image.fromarray(found.rgb()))
        signature = _signature(picture)
        repeats = last is not None and int(np.abs(signature - last).max()) <= REPEAT_DIFFERENCE
        if not repeats:
            last = signature
        out.send(
            "picture",
            {"time_s": found.time_s, "frame_index": found.index, "until_s": found.until_s},
            b"" if repeats else picture.tobytes(),
        )
    ended = measure.ended(video, options.end_s)
    if last is None:
        reason = f"it ends at {ended.duration_s:.2f} s, before the start, {options.start_s:.2f} s"
        raise VideoError("out_of_range", ended.partial or reason, video.path)
    out.send("ended", asdict(ended))


def _signature(picture: Image.Image) -> np.ndarray[Any, Any]:
    grey = picture.convert("L").resize((REPEAT_SIDE, REPEAT_SIDE), Image.Resampling.BOX)
    return np.asarray(grey, dtype=np.int16)


class _Measure:
    """What is known of a video only after all of it was decoded."""

    def __init__(self) -> None:
        self._frames = 0
        self._time_s = 0.0
        self._frame_duration_s: float | None = None
        self._claimed_s = 0.0  # how long all frames but the last are shown, says the file
        self._longest_s = 0.0  # distance between two frames
        self._counts: Counter[int] = Counter()  # by distance to the frame before, in whole ms
        self._sums_s: defaultdict[int, float] = defaultdict(float)

    def watch(self, frames: Iterable[Frame], out: _Out) -> Iterator[Frame]:
        for frame in frames:
            if self._frames > 0:
                distance_s = frame.time_s - self._time_s
                self._counts[round(1000 * distance_s)] += 1
                self._sums_s[round(1000 * distance_s)] += distance_s
                self._claimed_s += self._frame_duration_s or 0.0
                self._longest_s = max(self._longest_s, distance_s)
            self._frames += 1
            self._time_s, self._frame_duration_s = frame.time_s, frame.duration_s
            out.sign_of_life()
            yield frame

    def ended(self, video: Video, end_s: float | None = None) -> Ended:
        """What is known now; ``end_s`` is where reading was to stop, in seconds."""
        usual_ms = self._counts.most_common(1)[0][0] if self._counts else 0
        tolerance_ms = max(2.0, usual_ms / 10)
        # Where frames were lost, the gaps they left say nothing of the rate.
        longest_ms = 1.5 * usual_ms if video.decode_failures else math.inf
        counted = {ms: count for ms, count in self._counts.items() if ms <= longest_ms}
        other = sum(count for ms, count in counted.items() if abs(ms - usual_ms) > tolerance_ms)
        mean_s = sum(self._sums_s[ms] for ms in counted) / max(1, sum(counted.values()))
        last_s = self._last_s(video.info.announced_s) or mean_s or 0.04
        duration_s = self._time_s + last_s
        partial = video.ended_early or _shortfall(duration_s, video.info.announced_s)
        if end_s is not None and duration_s >= end_s:
            duration_s, partial = end_s, None
        return Ended(
            duration_s=duration_s,
            frame_count=self._frames,
            average_fps=1 / (mean_s or last_s),
            is_vfr=other > 0.01 * sum(counted.values()),
            decode_failures=video.decode_failures,
            partial=partial,
        )

    def _last_s(self, announced_s: float | None) -> float | None:
        """How long the last frame is shown, in seconds; None if that is not known.

        A file can say 0.04 s of each frame of a slide show. Then the announced length tells more,
        if the last frame need not have been shown much longer than any other.
        """
        if 2 * self._claimed_s >= self._time_s:
            return self._frame_duration_s
        rest_s = (announced_s or 0.0) - self._time_s
        return rest_s if 0 < rest_s <= 1.5 * self._longest_s else None


def _shortfall(duration_s: float, announced_s: float | None) -> str | None:
    """Whether clearly less was there than announced: the file is cut off, or announces nonsense."""
    if announced_s is None or announced_s - duration_s <= max(0.5, 0.02 * announced_s):
        return None
    return f"it ends after {duration_s:.2f} s, and {announced_s:.2f} s were announced"
