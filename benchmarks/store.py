"""What it costs that a killed job loses nothing: SQLite against lines at the end of a plain file.

    python benchmarks/store.py [--records 100000]

Both write records of one size in batches of 64 and wait for the disk after each. They take turns in
short pieces, because a disk is not equally fast all the time: read the ratios. Then it is said what
it takes to open such a store, as every run does, and to put it into another order.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from captioner.files.store import Store, StoreKind

BATCH = 64
PIECE = 20  # batches
KIND = StoreKind("benchmark", "")


def records(start: int, count: int) -> list[tuple[str, dict[str, object]]]:
    return [
        (f"folder/{number:06}.jpg", {"text": "a caption of some words " * 12, "number": number})
        for number in range(start, start + count)
    ]


def timed(work: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to measure")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        path, spent_s = Path(name) / "store", {"plain file": 0.0, "store": 0.0}
        with (
            (Path(name) / "plain").open("wb", buffering=0) as plain,
            Store.create(path, KIND, {}) as store,
        ):

            def add_to_plain(rows: list[tuple[str, dict[str, object]]]) -> None:
                plain.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
                os.fsync(plain.fileno())

            ways = {"plain file": add_to_plain, "store": store.add}
            batches = [
                records(start, min(BATCH, args.records - start))
                for start in range(0, args.records, BATCH)
            ]
            for start in range(0, len(batches), PIECE):
                for way, add in ways.items():
                    for rows in batches[start : start + PIECE]:
                        spent_s[way] += timed(partial(add, rows))
            size = {"plain file": os.fstat(plain.fileno()).st_size}
        size["store"] = path.stat().st_size
        for way, took_s in spent_s.items():
            print(
                f"{way:10} {1000 * took_s / len(batches):6.2f} ms for a batch of {BATCH}, "
                f"{took_s:6.1f} s for {args.records:,} records, x "
                f"{took_s / spent_s['plain file']:.2f}; {size[way] / 1e6:.1f} MB"
            )
        opened_s = timed(lambda: Store(path, KIND).close())
        with Store(path, KIND) as store:
            order = range(store.last, 0, -1)
            arranged_s = timed(lambda: store.arrange(order))
        print(f"store      {opened_s:.2f} s to open, {arranged_s:.2f} s to put into another order")


if __name__ == "__main__":
    main()
