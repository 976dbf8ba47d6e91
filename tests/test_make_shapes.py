from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from captioner.data.datasets import load_caption_data

SCRIPT = Path(__file__).parents[1] / "data" / "make_shapes.py"
PHRASE = r"a (?:small|large) (?:red|green|blue|yellow|purple|black) (?:circle|square|triangle)"


def run(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, args)], capture_output=True, text=True, check=False
    )


def digest(folder: Path) -> dict[str, str]:
    files = (f for f in folder.rglob("*") if f.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "new" / "shapes"
    done = run(out, "--images", 60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{out}: 60 images with 1 caption(s) each\n"
    return out


def test_the_set_loads(shapes: Path) -> None:
    data = load_caption_data(shapes)
    assert (data.format, data.splits, data.warnings) == (
        *("jsonl", {"train": 48, "dev": 6, "test": 6}),
        (),
    )
    for example in data.examples:
        (caption,) = example.captions
        assert re.fullmatch(rf"{PHRASE}(?: (?:above|to the left of) {PHRASE})?", caption)
        assert len(caption.split()) >= 4  # fewer, and CIDEr-D could not reach its maximum
        with Image.open(example.path) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (64, 64))


def test_a_perfect_model_reaches_the_maximum(shapes: Path) -> None:
    cider = pytest.importorskip("pycocoevalcap.cider.cider")
    dev = {e.image_id: list(e.captions) for e in load_caption_data(shapes).split("dev")}
    score, _ = cider.Cider().compute_score(dev, dev)
    assert score == pytest.approx(10.0, abs=1e-9)


def test_captions_say_what_the_image_shows(shapes: Path) -> None:
    ranges = {"red": (150, 0, 0), "green": (0, 110, 0), "blue": (0, 0, 150)}
    seen = 0
    for example in load_caption_data(shapes).examples:
        first = re.match(
            r"a (small|large) (red|green|blue) (circle|square|triangle)(.*)", example.captions[0]
        )
        if not first:
            continue
        size, colour, kind, rest = first.groups()
        other = re.search(r"a \w+ (\w+) \w+$", rest)
        if other and other[1] in (colour, "yellow", "purple", "black"):
            continue
        with Image.open(example.path) as image:
            channel = list(ranges[colour]).index(max(ranges[colour]))
            points = []
            for x, y in itertools.product(range(64), range(64)):
                rgb = image.getpixel((x, y))
                if rgb[channel] > 1.5 * max(v for c, v in enumerate(rgb) if c != channel):
                    points.append((x, y))
        area, box = len(points), [f(p[axis] for p in points) for axis in (0, 1) for f in (min, max)]
        width, height = box[1] - box[0] + 1, box[3] - box[2] + 1
        assert (width > 16) == (size == "large")
        filled = {"circle": 0.785, "square": 1.0, "triangle": 0.5}[kind]
        assert area / (width * height) == pytest.approx(filled, abs=0.13)
        if "above" in rest:
            assert box[3] < 40
        if "left" in rest:
            assert box[1] < 40
        seen += 1
    assert seen >= 10


def test_the_same_seed_draws_the_same_bytes_and_another_does_not(
    shapes: Path, tmp_path: Path
) -> None:
    assert run(tmp_path / "again", "--images", 60).returncode == 0
    assert digest(tmp_path / "again") == digest(shapes)
    assert run(tmp_path / "other", "--images", 60, "--seed", 1).returncode == 0
    other = digest(tmp_path / "other")
    assert other["metadata.jsonl"] != digest(shapes)["metadata.jsonl"]
    assert other["images/00000.png"] != digest(shapes)["images/00000.png"]


def test_a_larger_set_begins_with_the_smaller_one(shapes: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "small", "--images", 10).returncode == 0
    small, large = digest(tmp_path / "small"), digest(shapes)
    assert {n for n, d in small.items() if large[n] == d} == {
        f"images/{i:05d}.png" for i in range(10)
    }
    lines = (shapes / "metadata.jsonl").read_text().splitlines()
    assert (tmp_path / "small/metadata.jsonl").read_text().splitlines() == lines[:10]


def test_more_captions_and_another_size(tmp_path: Path) -> None:
    assert run(tmp_path / "s", "--images", 10, "--captions", 3, "--size", 48).returncode == 0
    lines = (tmp_path / "s/metadata.jsonl").read_text().splitlines()
    assert [len(json.loads(line)["captions"]) for line in lines] == [3] * 10
    assert json.loads(lines[0])["captions"] == [
        "a large green triangle to the left of a large red circle",
        "a large red circle to the right of a large green triangle",
        "a large green triangle and a large red circle",
    ]
    assert json.loads(lines[1])["captions"] == [
        "a large black triangle",
        "there is a large black triangle",
        "a picture of a large black triangle",
    ]
    with Image.open(tmp_path / "s/images/00003.png") as image:
        assert image.size == (48, 48)


def test_a_second_run_finds_the_set(shapes: Path) -> None:
    before = digest(shapes)
    done = run(shapes, "--images", 60)
    assert (done.returncode, done.stdout) == (0, f"{shapes}: already holds this set\n")
    assert digest(shapes) == before


def test_a_folder_with_something_else_is_left_alone(shapes: Path, tmp_path: Path) -> None:
    before = digest(shapes)
    done = run(shapes, "--images", 60, "--seed", 1)
    assert done.returncode == 2
    assert done.stderr.endswith(f"{shapes} is there and holds something else; give a new folder\n")
    assert digest(shapes) == before
    (tmp_path / "file").write_text("mine")
    assert run(tmp_path / "file").returncode == 2
    assert (tmp_path / "file").read_text() == "mine"


def test_a_set_that_lost_an_image_is_not_the_same_set(tmp_path: Path) -> None:
    assert run(tmp_path / "s", "--images", 10).returncode == 0
    (tmp_path / "s/images/00004.png").unlink()
    assert run(tmp_path / "s", "--images", 10).returncode == 2


def test_an_empty_folder_is_filled_and_nothing_else_is_left(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    assert run(tmp_path / "s", "--images", 10).returncode == 0
    assert [f.name for f in tmp_path.iterdir()] == ["s"]
    assert sorted(f.name for f in (tmp_path / "s").iterdir()) == [
        *("images", "metadata.jsonl", "shapes.json")
    ]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(tmp_path / "file" / "s")
    assert done.returncode == 2
    assert "make_shapes.py: error:" in done.stderr and str(tmp_path / "file") in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--images", 9, "--images is 9; give a number from 10 to 1000000"),
        ("--size", 16, "--size is 16; give a number from 32 to 1024"),
        ("--captions", 4, "--captions is 4; give a number from 1 to 3"),
    ],
)
def test_options_out_of_range(tmp_path: Path, option: str, value: int, message: str) -> None:
    done = run(tmp_path / "s", option, value)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2,
        f"make_shapes.py: error: {message}",
    )
    assert os.listdir(tmp_path) == []


def test_help_teaches() -> None:
    done = run("--help")
    assert done.returncode == 0
    for words in (
        "metadata.jsonl",
        "--captions",
        "CIDEr-D 10",
        "python data/make_shapes.py shapes",
    ):
        assert words in done.stdout
