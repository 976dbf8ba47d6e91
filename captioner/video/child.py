"""The process that decodes: it reads one video after another and sends what comes of them."""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from captioner.images.transform import ImageTransform
from captioner.video.events import Ended
from captioner.video.frames import Frame, Video, VideoError
from captioner.video.opening import open_video
from captioner.video.options import SamplingOptions
from captioner.video.pyav import PyAvVideo
from captioner.video.sampling import Cut, sample
from captioner.video.skipping import Watch, sample_skipping

SIGN_OF_LIFE_S = 0.5


MAX_REASON = 200  # characters of an error that nobody has foreseen


SLIDE_S = 0.5
"""Frames that are this far apart in the mean are slides, and do not end before the sound does."""


REPEAT_SIDE = 32
REPEAT_DIFFERENCE = 8
"""An image repeats the last one if, scaled to REPEAT_SIDE squared greys, none differs by more."""


def main() -> None:
    """Serve standard input until it ends, which ends the process at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which decides.
    out = Out(os.fdopen(os.dup(sys.stdout.fileno()), "wb"))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # A library's output is not a message.
    settings = json.loads(sys.stdin.readline())
    transform = ImageTransform.from_dict(settings["transform"])
    options = SamplingOptions(**settings["sampling"])
    paths: queue.Queue[Path] = queue.Queue()
    threading.Thread(target=_take_jobs, args=(paths,), daemon=True).start()
    try:
        out.send("alive")  # The time limit is for videos, not for starting Python.
        while True:
            serve(paths.get(), transform, options, out)
    except BrokenPipeError:
        os._exit(0)


def serve(path: Path, transform: ImageTransform, options: SamplingOptions, out: Out) -> None:
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


class Out:
    """The way to the parent."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._last_s = time.monotonic()

    def send(self, event: str, values: dict[str, Any] | None = None, data: bytes = b"") -> None:
        """Send a message, as `captioner.video.events` reads it."""
        header = {"event": event, "values": values or {}, "bytes": len(data)}
        self._stream.write(json.dumps(header).encode() + b"\n" + data)
        self._stream.flush()
        self._last_s = time.monotonic()

    def sign_of_life(self) -> None:
        """Say that nothing hangs, if nothing was sent for a while."""
        if time.monotonic() - self._last_s >= SIGN_OF_LIFE_S:
            self.send("alive")


def _read(video: Video, transform: ImageTransform, options: SamplingOptions, out: Out) -> None:
    out.send("opened", asdict(video.info))
    measure = _Measure()

    def watch(frames: Iterable[Frame]) -> Iterator[Frame]:
        nonlocal measure
        measure = _Measure()  # a new one, if all frames are watched again
        return measure.watch(frames, out)

    last: np.ndarray[Any, Any] | None = None
    for found in _sample(video, watch, options, out.sign_of_life):
        if isinstance(found, Cut):
            out.send("cut", asdict(found))
            continue
        image = found.fitted(transform)
        signature = _signature(image)
        repeats = last is not None and int(np.abs(signature - last).max()) <= REPEAT_DIFFERENCE
        if not repeats:
            last = signature
        out.send(
            "frame",
            {"time_s": found.time_s, "frame_index": found.index, "until_s": found.until_s},
            b"" if repeats else image.tobytes(),
        )
    ended = measure.ended(video, options.end_s, out.sign_of_life)
    if last is None:
        reason = f"it ends at {ended.duration_s:.2f} s, before the start, {options.start_s:.2f} s"
        raise VideoError("out_of_range", ended.partial or reason, video.path)
    out.send("ended", asdict(ended))


def _sample(
    video: Video, watch: Watch, options: SamplingOptions, alive: Callable[[], object]
) -> Iterator[Frame | Cut]:
    if isinstance(video, PyAvVideo) and not options.shots:
        return sample_skipping(video, watch, options, alive)
    return sample(video, watch(video), options, alive)


def _signature(image: Image.Image) -> np.ndarray[Any, Any]:
    grey = image.convert("L").resize((REPEAT_SIDE, REPEAT_SIDE), Image.Resampling.BOX)
    return np.asarray(grey, dtype=np.int16)


class _Measure:
    """What is known of a video only after the last of its frames."""

    def __init__(self) -> None:
        self._frames = 0
        self._time_s = 0.0
        self._frame_duration_s: float | None = None
        self._claimed_s = 0.0  # how long all frames but the last are shown, says the file
        self._longest_s = 0.0  # distance between two frames
        self._counts: Counter[int] = Counter()  # by distance to the frame before, in whole ms
        self._sums_s: defaultdict[int, float] = defaultdict(float)

    def watch(self, frames: Iterable[Frame], out: Out) -> Iterator[Frame]:
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

    def ended(
        self, video: Video, end_s: float | None, alive: Callable[[], object] = lambda: None
    ) -> Ended:
        """What is known now.

        Args:
            video: which has ended.
            end_s: where reading was to stop, in seconds.
            alive: called now and then while the file is read once more, where that is needed.
        """
        usual_ms = self._counts.most_common(1)[0][0] if self._counts else 0
        tolerance_ms = max(2.0, usual_ms / 10)
        # Where frames were lost, the gaps they left say nothing of the rate.
        longest_ms = 1.5 * usual_ms if video.decode_failures else math.inf
        counted = {ms: count for ms, count in self._counts.items() if ms <= longest_ms}
        other = sum(count for ms, count in counted.items() if abs(ms - usual_ms) > tolerance_ms)
        mean_s = sum(self._sums_s[ms] for ms in counted) / max(1, sum(counted.values()))
        last_s = self._last_s(video, mean_s, alive) or mean_s or 0.04
        duration_s = self._time_s + last_s
        if end_s is not None and duration_s >= end_s:
            duration_s, partial = end_s, None
        else:
            partial = video.ended_early or _shortfall(duration_s, video, alive)
        return Ended(
            duration_s=duration_s,
            frame_count=self._frames,
            average_fps=1 / (mean_s or last_s),
            is_vfr=other > 0.01 * sum(counted.values()),
            decode_failures=video.decode_failures,
            partial=partial,
        )

    def _last_s(self, video: Video, mean_s: float, alive: Callable[[], object]) -> float | None:
        """How long the last frame is shown, in seconds; None if that is not known.

        A file can say 0.04 s of each frame of a slide show. Then the last slide stays for as long
        as was announced, if that is not much longer than any other. Slides, and an image that is
        the only one, stay until the sound ends.
        """
        if 2 * self._claimed_s >= self._time_s:
            rest_s = self._frame_duration_s or 0.0
        else:
            rest_s = (video.info.announced_s or 0.0) - self._time_s
            if rest_s > 1.5 * self._longest_s:
                rest_s = 0.0
        is_whole = not video.decode_failures and video.ended_early is None
        if is_whole and (mean_s >= SLIDE_S or self._frames == 1):
            rest_s = max(rest_s, video.lengths(alive).end_s - self._time_s)
        return rest_s if rest_s > 0 else None


def _shortfall(duration_s: float, video: Video, alive: Callable[[], object]) -> str | None:
    """Whether clearly less was there than announced: the file is cut off, or announces nonsense.

    Not if the images end before the sound does, whose end was announced.
    """
    announced_s = video.info.expected_s
    if announced_s is None or not _is_less(duration_s, announced_s):
        return None
    if not video.info.is_exact:
        lengths = video.lengths(alive)
        is_all_there = not _is_less(lengths.end_s + lengths.lead_s, announced_s)
        if is_all_there and not _is_less(duration_s, lengths.video_s):
            return None
    return f"it ends after {duration_s:.2f} s, and {announced_s:.2f} s were announced"


def _is_less(length_s: float, than_s: float) -> bool:
    return than_s - length_s > max(0.5, 0.02 * than_s)
