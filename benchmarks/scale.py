"""What shards cost beside captions: the process that hands them out, Ray, and its workers.

    python benchmarks/scale.py plan [--shards 1000 100000 1000000]
    python benchmarks/scale.py ray [--shards 1000 100000 1000000] [--reports 5000]
    python benchmarks/scale.py speed --images PHOTOS [--workers 1 2]

`plan` captions no image: a stub reports each shard as done. For each number of shards, in a process
of its own: the time until the first task (plan, settings, list of what is finished), the time for
all tasks and reports, and how much the memory of the process grew; for a new output, and for one in
which every shard is finished.

`ray` compares the engine (plain actors) with Ray Data, as it is by default and with one block for
each shard, which a lost worker that costs its shard alone would need. Two workers on a cluster of
this machine, with a stub in place of the model: the time until the first report, the time of each
further one, and how much the memory of the driver grew since it was connected. It stops after so
many reports. Ray Data needs pandas: pip install pandas.

`speed` captions archives of these photos with the plain command and with Ray on the same
processors, images per second while all are at work: without start and end. Nothing else may run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from captioner.captioning.job import CaptionJob
from captioner.shards.caption import CaptionWork
from captioner.shards.job import EngineOptions, ShardJob
from captioner.shards.tasks import ShardReport, ShardTask

os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # the same priority for all

IMAGES = 1000  # of a shard, as the stub says
WORKERS = 2


# --- what is measured ----------------------------------------------------------------------


def memory_mb(field: str) -> float:
    """VmRSS: the memory of this process now; VmHWM: the most it had since `forget_peak`. Linux."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def measured(what: str, *arguments: object) -> dict[str, float]:
    """What a measurement gives in a process of its own."""
    command = [sys.executable, __file__, "measure", what, *map(str, arguments)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return found


# --- the process that hands out shards -----------------------------------------------------


class Stub:
    """An engine in which every shard is done at once."""

    workers = 1

    def run(self, tasks: Iterable[ShardTask]) -> Iterator[ShardReport]:
        for task in tasks:
            yield ShardReport(task, {"ok": IMAGES})


def measure_plan(folder: str, shards: str) -> dict[str, float]:
    import captioner
    from captioner.shards.run import ShardRun

    model = captioner.load_model(device="cpu")
    paths = (f"{folder}/in/{{0000000..{int(shards) - 1:07d}}}.tar",)
    work = CaptionWork(CaptionJob(paths, format="jsonl"))
    forget_peak()  # Loading the model took more than anything that follows.
    before_mb, start_s = memory_mb("VmRSS"), time.perf_counter()
    with ShardRun(ShardJob(work, f"{folder}/out"), model) as run:
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


def show_plan(what: str, shards: int, found: dict[str, float]) -> None:
    print(
        f"{shards:>9,} shards, {what}: first task after {found['first_s']:.2f} s, all after "
        f"{found['all_s']:.1f} s ({1e6 * found['all_s'] / shards:.0f} us each), memory grew by "
        f"{found['grown_mb']:.1f} MB",
        flush=True,
    )


def compare_plans(args: argparse.Namespace) -> None:
    for shards in args.shards:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "in").mkdir()
            tarfile.open(folder / "in" / "0000000.tar", "w").close()
            found = measured("plan", folder, shards)
            assert found["done"] == shards
            show_plan("a new output", shards, found)
            for number in range(shards):
                (folder / "out" / f"{number:07d}.jsonl").touch()
            found = measured("plan", folder, shards)
            assert found["before"] == shards
            show_plan("all finished ", shards, found)


# --- plain actors and Ray Data -------------------------------------------------------------


class StubModel:
    """In place of `captioner.shards.model_bytes.ModelBytes`."""

    def load(self) -> None:
        """There is nothing to load."""


def stub_work(task: ShardTask, model: None) -> ShardReport:
    return ShardReport(task, {"ok": IMAGES})


def tasks_of(shards: int) -> Iterator[ShardTask]:
    work = CaptionWork(CaptionJob(("in/{0000000..9999999}.tar",), format="jsonl"))
    for number in range(shards):
        name = f"{number:07d}"
        output = f"s3://bucket/captions/{name}.jsonl"
        yield ShardTask(name, "tar", f"s3://bucket/in/{name}.tar", output, "jsonl", work, "0" * 64)


def reports_of_actors(shards: int) -> Iterator[Any]:
    from captioner.shards.ray_engine import RayEngine

    options = EngineOptions("ray", num_workers=WORKERS)
    yield from RayEngine(StubModel(), options, stub_work).run(tasks_of(shards))


class StubMapper:
    """What Ray Data's actors do with a row."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"name": row["item"], "ok": IMAGES}


def reports_of_data(shards: int, blocks: int | None) -> Iterator[Any]:
    import ray

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    names = [task.address for task in tasks_of(shards)]
    found = ray.data.from_items(names, override_num_blocks=blocks)
    yield from found.map(StubMapper, concurrency=WORKERS, num_cpus=1).iter_rows()


def measure_ray(engine: str, shards: str, most: str) -> dict[str, float]:
    import ray

    from captioner.shards import ray_engine  # noqa: F401  # Ray's statistics are off

    sources: dict[str, Callable[[int], Iterator[Any]]] = {
        "actors": reports_of_actors,
        "data": lambda count: reports_of_data(count, None),
        "blocks": lambda count: reports_of_data(count, count),
    }
    ray.init(
        "local",
        num_cpus=WORKERS + 1,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    forget_peak()
    before_mb, start_s = memory_mb("VmRSS"), time.perf_counter()
    reports = sources[engine](int(shards))
    next(reports)
    first_s = time.perf_counter() - start_s
    count = 1 + sum(1 for _ in itertools.islice(reports, int(most) - 1))
    further_s = time.perf_counter() - start_s - first_s
    return {
        "first_s": first_s,
        "each_s": further_s / max(count - 1, 1),
        "grown_mb": memory_mb("VmHWM") - before_mb,
        "count": count,
    }


def compare_rays(args: argparse.Namespace) -> None:
    names = {"actors": "actors", "data": "Ray Data", "blocks": "Ray Data, a block for each"}
    for shards, engine in itertools.product(args.shards, args.engines):
        if engine == "blocks" and shards > args.most_blocks:
            continue
        found = measured("ray", engine, shards, args.reports)
        print(
            f"{shards:>9,} shards, {names[engine]}: first report after {found['first_s']:.2f} s, "
            f"{1e3 * found['each_s']:.2f} ms for each of {found['count']:.0f}, driver grew by "
            f"{found['grown_mb']:.0f} MB",
            flush=True,
        )


# --- images per second ---------------------------------------------------------------------


def make_archives(photos: Path, folder: Path, shards: int, each: int) -> str:
    files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise SystemExit(f"{photos}: there are no JPEG files in it")
    names = itertools.cycle(files)
    for number in range(shards):
        with tarfile.open(folder / f"{number:04d}.tar", "w") as archive:
            for place in range(each):
                archive.add(next(names), f"{number:04d}-{place:05d}.jpg")
    return f"{folder}/{{0000..{shards - 1:04d}}}.tar"


def images_per_s(command: list[str], output: Path, workers: int, each: int) -> float:
    """From the moment when every worker has ended a shard to that when the first has no more."""
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    ends_s = sorted(path.stat().st_mtime for path in output.glob("*.jsonl"))
    first, last = workers - 1, len(ends_s) - workers
    return (last - first) * each / (ends_s[last] - ends_s[first])


def compare_speeds(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pattern = make_archives(args.images, folder, args.shards, args.each)
        best: dict[int, float] = {}
        for attempt, workers in itertools.product(range(args.repeats), (0, *args.workers)):
            output = folder / f"out{attempt}-{workers}"
            command = [sys.executable, "-m", "captioner", "caption", pattern, "--quiet"]
            command += ["--output", f"{output}/", "--device", "cpu"]
            if workers:
                command += ["--engine", "ray", "--num-workers", str(workers)]
            found = images_per_s(command, output, workers or 1, args.each)
            best[workers] = max(found, best.get(workers, 0.0))
        print(f"plain command, {len(os.sched_getaffinity(0))} processors: {best[0]:.1f} images/s")
        for workers in args.workers:
            print(
                f"Ray, {workers} workers with one thread each: {best[workers]:.1f} images/s, "
                f"{best[workers] / best[0]:.2f} of the plain command"
            )


# --- the command line ----------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    plan = commands.add_parser("plan", help="the process that hands out shards, without Ray")
    plan.add_argument("--shards", type=int, nargs="+", default=[1000, 100_000, 1_000_000])
    plan.set_defaults(command=compare_plans)
    rays = commands.add_parser("ray", help="plain actors and Ray Data, without a model")
    rays.add_argument("--shards", type=int, nargs="+", default=[1000, 100_000, 1_000_000])
    rays.add_argument("--reports", type=int, default=5000, help="after which it stops")
    engines = ["actors", "data", "blocks"]
    rays.add_argument("--engines", nargs="+", choices=engines, default=engines)
    rays.add_argument("--most-blocks", type=int, default=100_000, help="for Ray Data")
    rays.set_defaults(command=compare_rays)
    speed = commands.add_parser("speed", help="images per second, with the shipped model")
    speed.add_argument("--images", type=Path, required=True, metavar="PHOTOS")
    speed.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    speed.add_argument("--shards", type=int, default=24)
    speed.add_argument("--each", type=int, default=200, help="images in a shard")
    speed.add_argument("--repeats", type=int, default=2, help="of which the best counts")
    speed.set_defaults(command=compare_speeds)
    measure = commands.add_parser("measure")
    measure.add_argument("what", choices=("plan", "ray"))
    measure.add_argument("arguments", nargs="*")
    measure.set_defaults(command=None)
    args = parser.parse_args()
    if args.command is None:
        found = {"plan": measure_plan, "ray": measure_ray}[args.what](*args.arguments)
        print(json.dumps(found))
        return
    args.command(args)


if __name__ == "__main__":
    main()
