"""Draw a toy captioning set: coloured shapes, each image with the one caption it allows.

python data/make_shapes.py shapes            # 600 images of 64x64 pixels into shapes/

A captioner with a small untrained CNN learns this set within minutes on a CPU, so it shows that a
change to the model or the training still learns. With one caption per image a perfect model
reaches a CIDEr-D of exactly 10: every caption has at least four words, so no n-gram order is empty.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {
    "red": (208, 32, 32),
    "green": (32, 150, 48),
    "blue": (40, 72, 208),
    "yellow": (236, 200, 24),
    "purple": (140, 48, 168),
    "black": (24, 24, 24),
}
RADII = {"small": (0.08, 0.10), "large": (0.16, 0.18)}  # fractions of the image's side
SHAPES = ("circle", "square", "triangle")
OPPOSITE = {"above": "below", "to the left of": "to the right of"}
TEMPLATES = ("{first} {relation} {second}", "{second} {opposite} {first}", "{first} and {second}")
SINGLE_TEMPLATES = ("{first}", "there is {first}", "a picture of {first}")
OVERSAMPLING = 4
RECORD = "shapes.json"

EPILOG = """\
writes
  OUT/metadata.jsonl    one line per image: file_name, captions, split (train/dev/test 80/10/10)
  OUT/images/00000.png  the images
  OUT/shapes.json       the options, by which a second run knows that the set is already there

captions
  1 (default)  "a small red circle"
               "a large blue square above a small green triangle"
               "a large blue square to the left of a small green triangle"
               the upper or the left shape comes first; a perfect model reaches CIDEr-D 10
  2 or 3       more wordings of the same image; the best possible score is then below 10

examples
  python data/make_shapes.py shapes
  python data/make_shapes.py shapes --images 3000 --seed 1 --size 96 --captions 3
"""


@dataclass(frozen=True)
class Options:
    """What decides every byte of the captions and every pixel."""

    images: int
    seed: int
    size: int
    captions: int

    def __post_init__(self) -> None:
        """Check the ranges: ValueError names the option, the value and the remedy."""
        for name, low, high in (
            ("images", 10, 1_000_000),
            ("size", 32, 1024),
            ("captions", 1, len(TEMPLATES)),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"--{name} is {value}; give a number from {low} to {high}")


@dataclass(frozen=True)
class Shape:
    """One shape; centre and radius as fractions of the image's side."""

    kind: str
    colour: str
    size: str
    centre: tuple[float, float]
    radius: float

    @property
    def phrase(self) -> str:
        """How captions call it."""
        return f"a {self.size} {self.colour} {self.kind}"


def draw_scene(rng: random.Random) -> tuple[list[Shape], str | None]:
    """One shape, or two with the relation of the first to the second."""

    def shape(x: float, y: float, wander: tuple[float, float]) -> Shape:
        size = rng.choice(sorted(RADII))
        centre = (x + rng.uniform(-1, 1) * wander[0], y + rng.uniform(-1, 1) * wander[1])
        radius = rng.uniform(*RADII[size])
        return Shape(rng.choice(SHAPES), rng.choice(sorted(COLOURS)), size, centre, radius)

    relation = rng.choice([None, *sorted(OPPOSITE)])
    # The wander keeps two shapes apart, and farther along their axis (0.36) than across it (0.2).
    if relation is None:
        return [shape(0.5, 0.5, (0.25, 0.25))], None
    if relation == "above":
        return [shape(0.5, 0.27, (0.1, 0.05)), shape(0.5, 0.73, (0.1, 0.05))], relation
    return [shape(0.27, 0.5, (0.05, 0.1)), shape(0.73, 0.5, (0.05, 0.1))], relation


def captions_of(shapes: Sequence[Shape], relation: str | None, count: int) -> list[str]:
    """The first `count` wordings of a scene."""
    first, second = shapes[0].phrase, shapes[-1].phrase
    if relation is None:
        return [t.format(first=first) for t in SINGLE_TEMPLATES[:count]]
    words = {"relation": relation, "opposite": OPPOSITE[relation]}
    return [t.format(first=first, second=second, **words) for t in TEMPLATES[:count]]


def paint(shapes: Sequence[Shape], rng: random.Random, side: int) -> Image.Image:
    """The scene on a light grey ground, (side, side) pixels, smooth edges."""
    big = side * OVERSAMPLING
    image = Image.new("RGB", (big, big), (rng.randint(215, 245),) * 3)
    draw = ImageDraw.Draw(image)
    for shape in shapes:
        red, green, blue = (
            min(255, max(0, value + rng.randint(-16, 16))) for value in COLOURS[shape.colour]
        )
        x, y, r = (value * big for value in (*shape.centre, shape.radius))
        if shape.kind == "circle":
            draw.ellipse((x - r, y - r, x + r, y + r), fill=(red, green, blue))
        else:
            corners = 4 if shape.kind == "square" else 3
            start = math.pi / 4 if corners == 4 else -math.pi / 2
            angles = (start + 2 * math.pi * corner / corners for corner in range(corners))
            # A square has its corners farther out, so that all kinds look equally large.
            reach = r * 1.2
            points = [(x + reach * math.cos(a), y + reach * math.sin(a)) for a in angles]
            draw.polygon(points, fill=(red, green, blue))
    return image.resize((side, side), Image.Resampling.BOX)


def make_set(out: Path, options: Options) -> None:
    """Write the whole set into the existing empty folder `out`."""
    (out / "images").mkdir()
    with (out / "metadata.jsonl").open("w", encoding="utf-8", newline="\n") as lines:
        for index in range(options.images):
            # Seeded by image: a larger set begins with the images of a smaller one.
            rng = random.Random(f"{options.seed}:{index}")
            shapes, relation = draw_scene(rng)
            name = f"images/{index:05d}.png"
            paint(shapes, rng, options.size).save(out / name)
            record = {
                "file_name": name,
                "captions": captions_of(shapes, relation, options.captions),
                "split": {8: "dev", 9: "test"}.get(index % 10, "train"),
            }
            lines.write(json.dumps(record) + "\n")
    (out / RECORD).write_text(json.dumps(asdict(options)) + "\n", encoding="utf-8")


def is_the_same_set(out: Path, options: Options) -> bool:
    """Whether a finished run with these options made `out`, and all its images are there."""
    try:
        made = json.loads((out / RECORD).read_text(encoding="utf-8"))
        images = sum(1 for _ in (out / "images").glob("*.png"))
        lines = (out / "metadata.jsonl").read_bytes().count(b"\n")
    except (OSError, ValueError):
        return False
    return made == asdict(options) and images == lines == options.images


def main(args: Sequence[str] | None = None) -> int:
    """Parse, write under a temporary name, rename; exit code 2 and one line on a user's mistake."""
    parser = argparse.ArgumentParser(
        description="Draw a toy captioning set: coloured shapes, each with its caption.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to make; new or empty")
    parser.add_argument("--images", type=int, default=600, help="images (default: 600)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another set (default 0)")
    parser.add_argument("--size", type=int, default=64, help="side in pixels (default: 64)")
    parser.add_argument("--captions", type=int, default=1, help="per image, 1 to 3 (default: 1)")
    given = parser.parse_args(args)
    out: Path = given.out.absolute()
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        options = Options(given.images, given.seed, given.size, given.captions)
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            if is_the_same_set(out, options):
                print(f"{given.out}: already holds this set")
                return 0
            parser.error(f"{given.out} is there and holds something else; give a new folder")
        part.mkdir(parents=True)
        make_set(part, options)
        if out.exists():
            out.rmdir()
        part.rename(out)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    finally:
        shutil.rmtree(part, ignore_errors=True)
    print(f"{given.out}: {options.images} images with {options.captions} caption(s) each")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
