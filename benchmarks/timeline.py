"""Which thread of `captioner caption` does what, over two seconds, and where threads wait.

    python benchmarks/timeline.py                        as text
    python benchmarks/timeline.py --precision int8       the faster one
    python benchmarks/timeline.py --output timeline.svg  drawn (needs the extra `plots`)

The job is that of `benchmarks/caption.py`, in this process, with the defaults of the command. The
first seconds, in which the threads start and the model warms up, are left out.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caption import BEAM, make_photos

from captioner.captioning.job import CaptionJob
from captioner.captioning.run import KeptRun, open_caption_job
from captioner.model.caption_model import CaptionModel
from captioner.model.options import BatchOptions
from captioner.model.shipped import load_model

WORK = {"read": "#4c72b0", "CNN": "#dd8452", "search": "#55a868", "write": "#c44e52"}
COLUMN_S = 0.02


@dataclass
class Recorder:
    """Notes what each thread does, from when to when, in seconds."""

    spans: list[tuple[str, str, float, float]] = field(default_factory=list)

    def watch(self, owner: Any, name: str, work: str) -> None:
        """Note each call of a method as some work."""
        method: Callable[..., Any] = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            begin_s = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                thread = threading.current_thread().name
                self.spans.append((thread, work, begin_s, time.perf_counter()))

        object.__setattr__(owner, name, watched)

    def between(self, begin_s: float, end_s: float) -> dict[str, list[tuple[str, float, float]]]:
        """Of each thread: work, begin and end, counted from begin_s on and cut at both ends."""
        found: dict[str, list[tuple[str, float, float]]] = {}
        for thread, work, first_s, last_s in sorted(self.spans):
            if first_s < end_s and last_s > begin_s:
                span = work, max(first_s - begin_s, 0.0), min(last_s, end_s) - begin_s
                found.setdefault(thread, []).append(span)
        return found


def record(model: CaptionModel, photos: Path, output: Path) -> Recorder:
    recorder = Recorder()
    recorder.watch(model, "read", "read")
    recorder.watch(model, "caption_features", "search")
    recorder.watch(model.fast_encoder(), "maps", "CNN")
    batches = BatchOptions()
    job = CaptionJob(
        (str(photos),),
        output,
        "jsonl",
        decoding=BEAM,
        batch_size=batches.batch_size,
        workers=batches.workers,
    )
    run = open_caption_job(job, model)
    assert isinstance(run, KeptRun)
    recorder.watch(run, "_flush", "write")
    with run:
        for _ in run.records():
            pass
    return recorder


def as_text(threads: dict[str, list[tuple[str, float, float]]], length_s: float) -> str:
    """A line for each thread, a letter for each 20 ms: of what took most of them."""
    lines = []
    for thread, spans in threads.items():
        line = ""
        for column in range(round(length_s / COLUMN_S)):
            begin_s = column * COLUMN_S
            shares = {"": COLUMN_S / 2}
            for work, first_s, last_s in spans:
                inside_s = min(last_s, begin_s + COLUMN_S) - max(first_s, begin_s)
                shares[work] = shares.get(work, 0.0) + max(inside_s, 0.0)
            line += max(shares, key=lambda work: shares[work])[:1].lower() or "."
        busy_s = sum(last_s - first_s for _, first_s, last_s in spans)
        lines.append(f"{thread:20} {busy_s / length_s:4.0%}  {line}")
    return "\n".join(lines)


def draw(threads: dict[str, list[tuple[str, float, float]]], length_s: float, output: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(12, 0.5 * len(threads) + 1.2), layout="constrained")
    for row, spans in enumerate(threads.values()):
        for work, first_s, last_s in spans:
            axes.broken_barh([(first_s, last_s - first_s)], (row - 0.4, 0.8), color=WORK[work])
    axes.set_yticks(range(len(threads)), threads)
    axes.invert_yaxis()
    axes.set_xlim(0, length_s)
    axes.set_xlabel("seconds")
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in WORK.values()]
    figure.legend(handles, WORK, ncols=len(WORK), loc="outside upper right", frameon=False)
    figure.savefig(output)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=400, help="JPEGs to make (default: 400)")
    parser.add_argument("--seconds", type=float, default=2.0, help="shown (default: 2)")
    parser.add_argument("--precision", default="auto", help="of the model (default: auto)")
    parser.add_argument("--output", type=Path, help="SVG or PNG file; text otherwise")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_photos(folder / "photos", args.images)
        model = load_model(device="cpu", precision=args.precision)
        recorder = record(model, folder / "photos", folder / "captions.jsonl")
    first_s, last_s = min(span[2] for span in recorder.spans), max(s[3] for s in recorder.spans)
    begin_s = max(first_s, (first_s + last_s - args.seconds) / 2)  # in the middle of the run
    length_s = min(args.seconds, last_s - begin_s)
    threads = recorder.between(begin_s, begin_s + length_s)
    print(f"{args.images / (last_s - first_s):.1f} images/s; {length_s:.1f} s of it:")
    print(as_text(threads, length_s))
    if args.output is not None:
        draw(threads, length_s, args.output)


if __name__ == "__main__":
    main()
