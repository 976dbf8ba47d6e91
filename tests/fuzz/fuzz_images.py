"""Damage thousands of images and see what becomes of reading them.

    python tests/fuzz/fuzz_images.py [--cases 3000] [--first 0] [--formats JPEG PNG ...]
                                     [--keep FOLDER]

Each file is read, and brought to a network's input, in a worker process whose time and memory are
limited: a crash, a hang or a gigabyte too much is counted, its file is kept, and another worker
takes over. It prints what became of the files of each format, as a table, and ends with 1 if
anything but an image or an `ImageError` came out. A case is the same file in every run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

TIME_LIMIT_S = 20.0
MEMORY_LIMIT_MB = 3000
OUTCOMES = ("decoded", "refused", "other exception", "crash", "hang", "over memory", "bad reason")


# --- the worker ----------------------------------------------------------------------------


def peak_mb() -> int:
    """The most memory that this process had since `forget_peak`, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def read_one(path: str) -> tuple[str, str]:
    """What becomes of one file: an outcome and details."""
    from captioner.images.reading import ImageError, read_image
    from captioner.images.transform import ImageTransform

    transform = ImageTransform()
    try:
        # What `CaptionModel.read` does.
        pixels = transform(read_image(path, min_side=transform.min_side))
    except ImageError as error:
        reason = error.reason
        if reason == "not enough memory to decode it":
            return "over memory", reason
        good = reason.isprintable() and 0 < len(reason) <= 160
        return ("refused" if good else "bad reason"), reason
    except Exception as error:
        return "other exception", f"{type(error).__name__}: {error}"
    assert pixels.shape == (3, 224, 224) and bool(pixels.isfinite().all())
    return "decoded", ""


def work() -> None:
    """Read the files whose names come in; answer each with a line."""
    import warnings

    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    limit = (MEMORY_LIMIT_MB + 6000) * 2**20  # of addresses, most of them the libraries' own
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    before_mb = 0  # what the libraries take; known after the first file, which is no image
    for line in sys.stdin:
        forget_peak()
        start_s = time.process_time()
        outcome, details = read_one(json.loads(line))
        spent_s, memory_mb = time.process_time() - start_s, peak_mb() - before_mb
        before_mb = before_mb or memory_mb
        if memory_mb > MEMORY_LIMIT_MB:
            outcome = "over memory"
        print(json.dumps([outcome, details, spent_s, memory_mb]), file=answers, flush=True)


# --- the parent ----------------------------------------------------------------------------


class Worker:
    """A process that reads images, started anew whenever one dies."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def read(self, path: Path) -> tuple[str, str, float, int]:
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self._ask(Path(__file__), 120)  # Its imports are not the first file's.
        return self._ask(path, TIME_LIMIT_S)

    def _ask(self, path: Path, limit_s: float) -> tuple[str, str, float, int]:
        process = self.process
        assert process is not None and process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(str(path)) + "\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], limit_s)[0]:
            self.close()
            return "hang", f"no answer in {limit_s:g} s", limit_s, 0
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self.close()
            return "crash", f"ended with {code}", 0.0, 0
        outcome, details, spent_s, memory_mb = json.loads(line)
        return outcome, details, spent_s, memory_mb

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
        self.process = None


class Tally:
    """What became of one format's files."""

    def __init__(self, format: str) -> None:
        self.format = format
        self.outcomes: Counter[str] = Counter()
        self.details: Counter[str] = Counter()
        self.slowest_s = 0.0
        self.most_mb = 0

    def add(self, outcome: str, details: str, spent_s: float, memory_mb: int) -> None:
        self.outcomes[outcome] += 1
        self.details[f"{outcome}: {details}"[:110]] += 1
        self.slowest_s = max(self.slowest_s, spent_s)
        self.most_mb = max(self.most_mb, memory_mb)

    @property
    def is_good(self) -> bool:
        return not set(self.outcomes) - {"decoded", "refused"}

    def row(self) -> str:
        counts = [self.outcomes[outcome] for outcome in OUTCOMES]
        cells = [self.format, *counts, f"{self.slowest_s:.2f}", self.most_mb]
        return "| " + " | ".join(map(str, cells)) + " |"


def main() -> int:
    from mutations import MAKERS, damaged

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=3000, help="files for each format")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--formats", nargs="+", default=list(MAKERS), choices=list(MAKERS))
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--reasons", action="store_true", help="print the most frequent reasons")
    args = parser.parse_args()
    tallies, worker = [], Worker()
    print("| format | " + " | ".join(OUTCOMES) + " | slowest s | most MB |", flush=True)
    print("|---" * (len(OUTCOMES) + 3) + "|")
    with tempfile.TemporaryDirectory() as folder:
        for format in args.formats:
            tally = Tally(format)
            tallies.append(tally)
            for case in range(args.first, args.first + args.cases):
                path = Path(folder) / f"{case}.{format.lower()}"
                path.write_bytes(damaged(format, case))
                answer = worker.read(path)
                tally.add(*answer)
                if answer[0] not in ("decoded", "refused"):
                    args.keep.mkdir(parents=True, exist_ok=True)
                    path.replace(args.keep / path.name)
                    print(f"{path.name}: {answer}", file=sys.stderr, flush=True)
                path.unlink(missing_ok=True)
            print(tally.row(), flush=True)
            if args.reasons:
                for text, count in tally.details.most_common(25):
                    print(f"    {count:6} {text}")
    worker.close()
    return 0 if all(tally.is_good for tally in tallies) else 1


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        work()
    else:
        sys.exit(main())
