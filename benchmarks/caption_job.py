"""What it costs that `captioner caption` into a file loses nothing.

    python benchmarks/caption_job.py [--images 256] [--rounds 3]

Photos are made, and captioned by the shipped model: as fast as it goes; with batches of one shape,
which make a caption independent of what stands beside it; and by the whole job, which writes a
journal and the output and waits for the disk. The variants take turns, and the best round of each
counts: read the ratios. Processor time is compared, so that other work on the machine matters less;
waiting for the disk takes none, and its share of the time on the clock stands beside it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from captioner import load_model
from captioner.captioning.batches import caption_batches
from captioner.captioning.job import CaptionJob
from captioner.captioning.run import KeptRun, open_caption_job
from captioner.images.kinds import find_images


def make_photos(folder: Path, count: int) -> None:
    for seed in range(count):
        coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((500, 375)).save(folder / f"{seed:05}.jpg")


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Processor time and time on the clock, in seconds."""
    start_s, clock_s = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - start_s, time.perf_counter() - clock_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    model = load_model(device="cpu")
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        make_photos(folder / "photos", args.images)
        waited_s = 0.0

        def batches(fixed_shape: bool) -> None:
            files = enumerate(find_images(folder / "photos"))
            for _ in caption_batches(model, files, fixed_shape=fixed_shape):
                pass

        def job(output: str, format: str) -> None:
            nonlocal waited_s
            run = open_caption_job(
                CaptionJob((str(folder / "photos"),), folder / output, format, overwrite=True),
                model,
            )
            assert isinstance(run, KeptRun)
            flush, waited_s = run._flush, 0.0

            def timed_flush() -> None:
                nonlocal waited_s
                waited_s += timed(flush)[1]

            run._flush = timed_flush  # type: ignore[method-assign]
            with run:
                for _ in run.records():
                    pass

        variants: dict[str, Callable[[], None]] = {
            "as fast as it goes": lambda: batches(False),
            "batches of one shape": lambda: batches(True),
            "whole job, jsonl": lambda: job("x.jsonl", "jsonl"),
            "whole job, text files": lambda: job("texts", "txt"),
        }
        best, shares = dict.fromkeys(variants, float("inf")), dict.fromkeys(variants, 0.0)
        batches(False)  # to warm up
        for _ in range(args.rounds):
            for variant, work in variants.items():
                waited_s = 0.0
                took_s, clock_s = timed(work)
                if took_s < best[variant]:
                    best[variant], shares[variant] = took_s, waited_s / clock_s
    first = next(iter(best.values()))
    for variant, took_s in best.items():
        print(
            f"{variant:24} processor time x {took_s / first:.3f}, "
            f"writing takes {shares[variant]:.2%} of the time"
        )


if __name__ == "__main__":
    main()
