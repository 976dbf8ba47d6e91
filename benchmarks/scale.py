"""What the process that hands out shards takes: memory and time, by the number of shards.

    python benchmarks/scale.py [--shards 1000 100000 1000000]

No image is captioned: a stub reports each shard as done. For each number of shards, in a process of
its own: the time until the first task (plan, settings, list of what is finished), the time for all
tasks and reports, and how much the memory of the process grew; for a new output, and for one in
which every shard is finished.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from captioner.captioning.job import CaptionJob
from captioner.shards.caption import CaptionWork
from captioner.shards.job import ShardJob
from captioner.shards.tasks import ShardReport, ShardTask

IMAGES = 1000  # of a shard, as the stub says


class Stub:
    """An engine in which every shard is done at once."""

    def run(self, tasks: Iterable[ShardTask]) -> Iterator[ShardReport]:
        for task in tasks:
            yield ShardReport(task, {"ok": IMAGES})


def memory_mb(field: str) -> float:
    """VmRSS: the memory of this process now; VmHWM: the most it had since `forget_peak`. Linux."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def measure(folder: Path, shards: int) -> dict[str, float]:
    import captioner
    from captioner.shards.run import ShardRun

    model = captioner.load_model(device="cpu")
    job = CaptionJob(paths=(f"{folder}/in/{{0000000..{shards - 1:07d}}}.tar",), format="jsonl")
    forget_peak()  # Loading the model took more than anything that follows.
    before_mb, start_s = memory_mb("VmRSS"), time.perf_counter()
    with ShardRun(ShardJob(CaptionWork(job), f"{folder}/out"), model) as run:
        tasks = run.tasks()
        first = next(tasks, None)
        first_s = time.perf_counter() - start_s
        if first is not None:
            run.take(ShardReport(first, {"ok": IMAGES}))
        for report in Stub().run(tasks):
            run.take(report)
    return {
        "first_s": first_s,
        "all_s": time.perf_counter() - start_s,
        "grown_mb": memory_mb("VmHWM") - before_mb,
        "done": run.done,
        "before": run.before,
    }


def measured(folder: Path, shards: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", str(folder), str(shards)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(run.stdout)
    return found


def show(what: str, shards: int, found: dict[str, float]) -> None:
    print(
        f"{shards:>9,} shards, {what}: first task after {found['first_s']:.2f} s, all after "
        f"{found['all_s']:.1f} s ({1e6 * found['all_s'] / shards:.0f} us each), memory grew by "
        f"{found['grown_mb']:.1f} MB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, nargs="+", default=[1000, 100_000, 1_000_000])
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(Path(args.measure[0]), int(args.measure[1]))))
        return
    for shards in args.shards:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "in").mkdir()
            tarfile.open(folder / "in" / "0000000.tar", "w").close()
            found = measured(folder, shards)
            assert found["done"] == shards
            show("a new output", shards, found)
            for number in range(shards):
                (folder / "out" / f"{number:07d}.jsonl").touch()
            found = measured(folder, shards)
            assert found["before"] == shards
            show("all finished ", shards, found)


if __name__ == "__main__":
    main()
