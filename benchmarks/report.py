"""How long the report of many images takes to make, to open and to use, in Chromium.

    python benchmarks/report.py                          # 10,000 images, without attention
    python benchmarks/report.py --attention              # with it, by the default model
    python benchmarks/report.py --images 50000 --keep /tmp/report

Needs Chromium and Playwright (see CONTRIBUTING.md). Captions and images are made up; there are
as many files as records.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from captioner.model.shipped import load_model
from captioner.pages.report import write_report
from captioner.pages.report_job import ReportJob

WORDS = ["a", "man", "dog", "child", "woman", "red", "ball", "runs", "jumps", "in", "on", "the"]
WORDS += ["of", "grass", "snow", "water", "street", "with"]
DIFFERENT = 40  # images; the rest are further names of them

# Scrolls from the top to the end, a window's height in each frame, and takes the frames' times.
SCROLL = """
() => new Promise((resolve) => {
  const times = []; let last = performance.now();
  const step = () => {
    const now = performance.now(); times.push(now - last); last = now;
    const end = document.documentElement.scrollHeight - innerHeight;
    if (scrollY >= end - 1 || times.length >= 400) resolve(times);
    else { scrollBy(0, innerHeight); requestAnimationFrame(step); }
  };
  scrollTo(0, 0); requestAnimationFrame(step);
})
"""
# What a key costs in the search box: until the next frame is drawn.
SEARCH = """
(text) => new Promise((resolve) => {
  const field = document.getElementById("search"), start = performance.now();
  field.value = text;
  field.dispatchEvent(new Event("input"));
  requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start)));
})
"""


def make_images(folder: Path, count: int) -> Path:
    """Records of so many images, and the images; returns the JSONL file."""
    chance = random.Random(0)
    for index in range(min(DIFFERENT, count)):
        coarse = np.random.default_rng(index).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
        image.save(folder / f"{index:06d}.jpg")
    for index in range(DIFFERENT, count):
        os.link(folder / f"{index % DIFFERENT:06d}.jpg", folder / f"{index:06d}.jpg")
    captions = folder / "captions.jsonl"
    with captions.open("w", encoding="utf-8") as file:
        for index in range(count):
            texts = [[chance.choice(WORDS) for _ in range(12)] for _ in range(3)]
            record = {
                "file_name": f"{index:06d}.jpg",
                "text": " ".join(texts[0]),
                "confidence": round(chance.random(), 4),
                "candidates": [
                    {
                        "text": " ".join(words),
                        "log_prob": -9.1234,
                        "avg_logprob": -0.7018,
                        "words": [[word, round(chance.random(), 4)] for word in [*words, None]],
                    }
                    for words in texts
                ],
                "tags": [
                    {"name": name, "type": "noun", "confidence": round(chance.random(), 4)}
                    for name in chance.sample(WORDS, 5)
                ],
                "error": None,
            }
            file.write(json.dumps(record) + "\n")
    return captions


def measure(page: Page, path: Path, count: int) -> dict[str, float]:
    """Times in milliseconds."""
    times: dict[str, float] = {}
    start = time.perf_counter()
    page.goto(path.absolute().as_uri(), wait_until="commit")
    page.locator(".card").first.wait_for()
    times["open, until cards are there"] = 1000 * (time.perf_counter() - start)
    # Playwright's own way of waiting needs `eval`, which the page forbids.
    while not page.evaluate("[...document.images].some((each) => each.naturalWidth)"):
        assert time.perf_counter() - start < 60, "no image appears"
        time.sleep(0.01)
    times["open, until an image is there"] = 1000 * (time.perf_counter() - start)
    assert f"{count:,} images" in (page.locator("#count").text_content() or "")
    frames = sorted(page.evaluate(SCROLL))
    times["scroll, median frame"] = frames[len(frames) // 2]
    times["scroll, 95th percentile"] = frames[int(0.95 * len(frames))]
    times["search, first key"] = page.evaluate(SEARCH, "d")
    times["search, third key"] = page.evaluate(SEARCH, "dog")
    times["cards in the page"] = page.locator(".card").count()
    return times


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000, metavar="N")
    parser.add_argument("--attention", action="store_true")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="make it there, and leave it")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        job = ReportJob(make_images(folder, args.images), folder / "report.html", workers=2)
        model = load_model() if args.attention else None
        start = time.perf_counter()
        write_report(job, model)
        print(f"{args.images:,} images, page of {job.output.stat().st_size / 1e6:.1f} MB")
        print(f"{'make':32}{time.perf_counter() - start:9.1f} s")
        start = time.perf_counter()
        write_report(job, model)
        print(f"{'make again':32}{time.perf_counter() - start:9.1f} s")
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        for name, value in measure(page, job.output, args.images).items():
            print(f"{name:32}{value:9.0f}{'' if 'cards in' in name else ' ms'}")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
