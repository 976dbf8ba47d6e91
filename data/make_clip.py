"""Make the example clip: four of the example photos under a slowly moving camera, with hard cuts.

    python data/make_clip.py data/examples/slideshow.mp4

The clip in the repository was made by this script. Its cuts are known to the frame: 4.00 s, 7.00 s
and 10.48 s; it ends after 14.00 s.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
from PIL import Image

EXAMPLES = Path(__file__).parent / "examples"
SHOTS = (("stairs", 100), ("cameraman", 75), ("rocket", 87), ("raccoon", 88))  # photo, frames
FPS = 25
SIZE = (480, 360)  # (width, height) in pixels


def camera(photo: Image.Image, frames: int) -> Iterator[Image.Image]:
    """Move in on the middle of a photo, from the whole width to nine tenths of it."""
    aspect = SIZE[0] / SIZE[1]
    width = min(photo.width, photo.height * aspect)
    for index in range(frames):
        now = width * (1 - 0.1 * index / frames)
        left, top = (photo.width - now) / 2, (photo.height - now / aspect) / 2
        box = (left, top, left + now, top + now / aspect)
        yield photo.resize(SIZE, Image.Resampling.BICUBIC, box=box)


def make_clip(path: Path, shots: Sequence[tuple[str, int]] = SHOTS) -> None:
    """Write an MP4 file of these shots: the name of an example photo, and how many frames."""
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "27"})
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for name, frames in shots:
            with Image.open(EXAMPLES / f"{name}.jpg") as file:
                photo = file.convert("RGB")
            for image in camera(photo, frames):
                for packet in stream.encode(av.VideoFrame.from_image(image)):
                    container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the clip and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path, help="the file, an MP4")
    args = parser.parse_args(argv)
    make_clip(args.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
