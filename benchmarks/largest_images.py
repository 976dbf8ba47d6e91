"""What it costs to read the largest images that are allowed: seconds and megabytes.

    python benchmarks/largest_images.py [--pixels 178000000] [NAME ...]

Images of as many pixels as `captioner.images.reading` takes are made in every format, in the
kinds that cost most there, and each is read in a process of its own. Compare the rows, not the
seconds: other work on the machine counts.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from captioner.images.reading import MAX_PIXELS, ImageError, read_image
from captioner.images.transform import ImageTransform

Maker = Callable[[Path, int, int], None]


def texture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Not the simplest image, but one that compresses well."""
    rng = np.random.default_rng(0)
    tile = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((500, 375))
    image = Image.new(mode, (width, height))
    if mode == "P":
        tile = tile.quantize(64)
        image.putpalette(tile.getpalette() or [])
    tile = tile if mode == "P" else tile.convert(mode)
    for y in range(0, height, 375):
        for x in range(0, width, 500):
            image.paste(tile, (x, y))
    return image


def saving(format: str, mode: str = "RGB", **options: Any) -> Maker:
    def make(path: Path, width: int, height: int) -> None:
        texture(width, height, mode).save(path, format, **options)

    return make


def deep(format: str, kind: Any, **options: Any) -> Maker:
    def make(path: Path, width: int, height: int) -> None:
        values = np.broadcast_to(np.arange(width, dtype=kind), (height, width))
        Image.fromarray(np.ascontiguousarray(values)).save(path, format, **options)

    return make


def animated_webp(path: Path, width: int, height: int) -> None:
    frames = [Image.new("RGBA", (width, height), (seed, 0, 0, 128)) for seed in (0, 255)]
    frames[0].save(path, "WEBP", save_all=True, append_images=frames[1:], lossless=True, method=0)


def many_scans_jpeg(path: Path, width: int, height: int) -> None:
    """The image's first scan, then the last one of a progressive file over and over."""
    Image.new("L", (width, height), 99).save(path, "JPEG", progressive=True)
    data = path.read_bytes()
    at = data.rindex(b"\xff\xda")
    path.write_bytes(data[:at] + data[at:-2] * 2000 + data[-2:])


def plain_ppm(path: Path, width: int, height: int) -> None:
    with path.open("wb") as file:
        file.write(b"P3 %d %d 255\n" % (width, height))
        for _ in range(height):
            file.write(b"1 2 3 " * width + b"\n")


MAKERS: dict[str, Maker] = {
    "JPEG": saving("JPEG"),
    "JPEG progressive": saving("JPEG", progressive=True),
    "JPEG CMYK": saving("JPEG", "CMYK"),
    "JPEG 2,000 scans": many_scans_jpeg,
    "PNG RGB": saving("PNG", compress_level=1),
    "PNG RGBA": saving("PNG", "RGBA", compress_level=1),
    "PNG LA": saving("PNG", "LA", compress_level=1),
    "PNG palette, transparent": saving("PNG", "P", compress_level=1, transparency=3),
    "PNG 16 bit": deep("PNG", np.uint16, compress_level=1),
    "WebP lossy": saving("WEBP", method=4, quality=1),
    "WebP lossless": saving("WEBP", "RGBA", lossless=True, method=0, quality=0),
    "WebP animated": animated_webp,
    "GIF": saving("GIF", "P"),
    "GIF transparent": saving("GIF", "P", transparency=3),
    "BMP palette": saving("BMP", "P"),
    "TIFF deflate RGBA": saving("TIFF", "RGBA", compression="tiff_adobe_deflate"),
    "TIFF LZMA": saving("TIFF", compression="lzma"),
    "TIFF CMYK LZW": saving("TIFF", "CMYK", compression="tiff_lzw"),
    "TIFF 16 bit": deep("TIFF", np.uint16, compression="tiff_adobe_deflate"),
    "TIFF 32 bit": deep("TIFF", np.int32, compression="tiff_adobe_deflate"),
    "TIFF float": deep("TIFF", np.float32, compression="tiff_adobe_deflate"),
    "PGM 16 bit": deep("PPM", np.uint16),
    "PFM": deep("PPM", np.float32),
    "PPM as text": plain_ppm,
    "AVIF": saving("AVIF", speed=10),
}


def make(name: str, path: Path, width: int, height: int) -> None:
    Image.MAX_IMAGE_PIXELS = None
    MAKERS[name](path, width, height)


def read(path: Path, answers: Any) -> None:
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    transform = ImageTransform()
    start_s, error = time.perf_counter(), ""
    try:
        transform.fit(read_image(path, min_side=transform.min_side))
    except ImageError as found:
        error = found.reason
    spent_s = time.perf_counter() - start_s
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    answers.send((spent_s, peak_mb - before_mb, error))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="which; all if none given")
    parser.add_argument("--pixels", type=int, default=MAX_PIXELS)
    args = parser.parse_args()
    Image.MAX_IMAGE_PIXELS = None
    height = math.isqrt(args.pixels * 2 // 3)
    width = min(args.pixels // height, 16383)  # WebP has no larger ones
    print(f"{width} x {height}\n\n| kind | file MB | s | MB | outcome |\n|---|---|---|---|---|")
    context = multiprocessing.get_context("spawn")  # A fork would begin with our memory's peak.
    with tempfile.TemporaryDirectory() as folder:
        for name in args.names or MAKERS:
            path = Path(folder) / "picture"
            maker = context.Process(target=make, args=(name, path, width, height))
            maker.start()
            maker.join()
            if not path.exists():
                continue  # The encoder says why.
            receiver, sender = context.Pipe()
            process = context.Process(target=read, args=(path, sender))
            process.start()
            sender.close()
            try:
                spent_s, peak_mb, error = receiver.recv()
                row = f"{spent_s:.1f} | {peak_mb} | {error or 'read'}"
            except EOFError:
                row = f"| | died with {process.exitcode}"
            process.join()
            print(f"| {name} | {path.stat().st_size / 1e6:.0f} | {row} |", flush=True)
            path.unlink()


if __name__ == "__main__":
    main()
