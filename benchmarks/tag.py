"""How fast videos are tagged, against decoding alone and against one frame at a time.

    python benchmarks/tag.py                 # speed, on made 720p clips of five minutes
    python benchmarks/tag.py --memory        # peak memory on one minute and on ten (Linux)

The ratios are the result: all that is compared runs on the same clip, machine and threads, one
after the other. Decoding alone is the limit where every frame is decoded. One clip is cheap to
decode, the other is as x264 encodes by default, with B-frames. One frame at a time is what scripts
do that take a frame, call a captioner and then take the next frame.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

from captioner.files.finding import SourceFile
from captioner.model.caption_model import CaptionModel
from captioner.model.shipped import load_model
from captioner.tagging.videos import tag_videos
from captioner.video.opening import open_video
from captioner.video.options import READERS, SamplingOptions
from captioner.video.sampling import Cut, sample

EXAMPLES = Path(__file__).parents[1] / "data" / "examples"
SIZE = (1280, 720)  # (width, height) in pixels
FPS, SHOT_S = 25, 6
PRESETS = ("ultrafast", "medium")  # of x264
TAGGED = {
    "captioner tag": SamplingOptions(),
    "tag --no-shots": SamplingOptions(shots=False),
    "tag --no-shots --fps 0.1": SamplingOptions(shots=False, fps=0.1),
}

# ru_maxrss of a child counts what its parent held when it was forked: hence Linux' own books.
MEASURE_MEMORY = """
import os, pathlib, re, sys, threading, time
from captioner.cli.entry import main
def peak_mb(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\\s*(\\d+)", status)[1]) / 1024
decoder = [0.0]
def watch():
    while True:
        for task in pathlib.Path("/proc/self/task").iterdir():
            for child in (task / "children").read_text().split():
                decoder[0] = max(decoder[0], peak_mb(child))
        time.sleep(0.1)
threading.Thread(target=watch, daemon=True).start()
assert main(["tag", sys.argv[1], "--output-dir", sys.argv[2], "--quiet"]) == 0
print(peak_mb(os.getpid()), decoder[0])
"""


def make_clip(path: Path, seconds: int, preset: str = PRESETS[0]) -> Path:
    """Write a clip of photos under a moving camera, with a cut every `SHOT_S` seconds."""
    photos = [Image.open(file).convert("RGB") for file in sorted(EXAMPLES.glob("*.jpg"))]
    noise = np.random.default_rng(0).integers(0, 12, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        options = {"preset": preset, "crf": "26"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for index in range(seconds * FPS):
            photo = photos[index // (SHOT_S * FPS) % len(photos)]
            shift = index % (SHOT_S * FPS) / (SHOT_S * FPS)
            width, height = photo.width * 0.7, photo.width * 0.7 * SIZE[1] / SIZE[0]
            left, top = shift * (photo.width - width), (photo.height - height) / 2
            image = photo.resize(SIZE, box=(left, top, left + width, top + height))
            # Like a sensor's: without it a decoder has next to nothing to do.
            grainy = np.roll(noise, index * 7, axis=1) // 2 + np.asarray(image) // 12 * 11
            for packet in stream.encode(av.VideoFrame.from_ndarray(grainy, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def repeat(clip: Path, path: Path, times: int) -> Path:
    """Write a clip several times in a row, as it is encoded."""
    with av.open(str(path), "w") as output, av.open(str(clip)) as source:
        stream = output.add_stream_from_template(source.streams.video[0])
        length = source.streams.video[0].duration
        for number in range(times):
            source.seek(0)
            for packet in source.demux(source.streams.video[0]):
                if packet.dts is None:  # the end
                    continue
                packet.pts += number * length
                packet.dts += number * length
                packet.stream = stream
                output.mux(packet)
    return path


class Taken(NamedTuple):
    """What something took.

    Attributes:
        wall_s: in seconds.
        own_s: processor time of this process, in seconds.
        decoder_s: processor time of processes that it started and that have ended, likewise.
    """

    wall_s: float
    own_s: float
    decoder_s: float

    @classmethod
    def so_far(cls) -> Taken:
        """Since this process began."""
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent_s = children.ru_utime + children.ru_stime
        return cls(time.perf_counter(), time.process_time(), spent_s)


def timed(work: Callable[[], object], repeats: int) -> Taken:
    """The shortest of some runs."""
    runs = []
    for _ in range(repeats):
        before = Taken.so_far()
        work()
        runs.append(Taken(*(b - a for a, b in zip(before, Taken.so_far(), strict=True))))
    return min(runs)


def decode(clip: Path, reader: str) -> int:
    """Decode every frame and look at none."""
    with open_video(clip, reader) as video:
        return sum(1 for _ in video)


def find_shots(clip: Path) -> int:
    """Decode every frame and find the cuts."""
    with open_video(clip) as video:
        return sum(isinstance(found, Cut) for found in sample(video, video, SamplingOptions()))


def tag(model: CaptionModel, clip: Path, options: SamplingOptions) -> int:
    """Tag the clip."""
    (video,) = tag_videos(model, [SourceFile(clip, clip.name)], sampling=options)
    assert video.status == "ok", video.error
    return len(video.frames)


def one_at_a_time(model: CaptionModel, clip: Path) -> int:
    """Caption a frame of every second as soon as it is decoded."""
    frames = 0
    with open_video(clip, "opencv") as video:
        for frame in video:
            if frame.time_s >= frames:
                model.caption([frame.rgb()])
                frames += 1
    return frames


def speed(minutes: int, repeats: int, preset: str, precision: str) -> None:
    """Print the table of times and ratios of a clip."""
    model = load_model(device="cpu", precision=precision)
    with tempfile.TemporaryDirectory() as folder:
        minute = make_clip(Path(folder) / "minute.mp4", 60, preset)
        clip = repeat(minute, Path(folder) / "clip.mp4", minutes)
        works: dict[str, Callable[[], object]] = {
            f"decode only, {reader}": partial(decode, clip, reader) for reader in READERS
        }
        works["decode and find shots"] = partial(find_shots, clip)
        for name, options in TAGGED.items():
            works[name] = partial(tag, model, clip, options)
        works["one frame at a time"] = partial(one_at_a_time, model, clip)
        rows = {name: timed(work, repeats) for name, work in works.items()}
    print(f"{minutes} min of {SIZE[0]}x{SIZE[1]} at {FPS} fps, x264 {preset}")
    print("decode/it: time of decoding alone (pyav) over its time; s: seconds of processor time")
    heads = f"{'seconds':>9}{'x real time':>13}{'decode/it':>11}{'own s':>8}{'decoder s':>11}"
    print(f"{'':<26}{heads}")
    limit_s = rows[f"decode only, {READERS[0]}"].wall_s
    for name, taken in rows.items():
        print(
            f"{name:<26}{taken.wall_s:>9.2f}{60 * minutes / taken.wall_s:>13.1f}"
            f"{limit_s / taken.wall_s:>11.2f}{taken.own_s:>8.1f}{taken.decoder_s:>11.1f}"
        )


def memory() -> None:
    """Print the peak memory of `captioner tag` on a short and on a long clip."""
    peaks = {}
    for minutes in (1, 10):
        with tempfile.TemporaryDirectory() as folder:
            minute = make_clip(Path(folder) / "minute.mp4", 60)
            clip = repeat(minute, Path(folder) / "clip.mp4", minutes)
            run = subprocess.run(
                [sys.executable, "-c", MEASURE_MEMORY, str(clip), f"{folder}/tags"],
                capture_output=True,
                text=True,
                check=True,
            )
        own, decoder = map(float, run.stdout.split())
        peaks[minutes] = own + decoder
        print(f"{minutes:>2} min: {own:.0f} MB, and {decoder:.0f} MB in the decoding process")
    print(f"ratio {peaks[10] / peaks[1]:.3f}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=int, default=5, help="length of a clip (default: 5)")
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=PRESETS, help="of x264")
    parser.add_argument("--repeats", type=int, default=3, help="best of so many (default: 3)")
    parser.add_argument("--precision", default="auto", help="of the model (default: auto)")
    parser.add_argument("--memory", action="store_true", help="peak memory instead of speed")
    args = parser.parse_args(argv)
    if args.memory:
        memory()
    else:
        for preset in args.presets:
            speed(args.minutes, args.repeats, preset, args.precision)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
