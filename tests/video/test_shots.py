"""Where shots begin: on clips made of photos, under moving cameras too, and on real films."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captioner.video.options import READERS
from captioner.video.shots import FLASH_S
from helpers.videos import (
    BLACK,
    CAT,
    COFFEE,
    EXAMPLES,
    ROCKET,
    STAIRS,
    WHITE,
    clip_of,
    cuts_of,
    evenly,
    photo,
    real_clip,
    write_video,
)

readers = pytest.mark.parametrize("reader", READERS)


# --- cuts ----------------------------------------------------------------------------------


def test_cuts_are_exact_where_the_rate_varies(tmp_path: Path) -> None:
    pts = np.cumsum([0] + [20 if index % 3 else 90 for index in range(99)]).tolist()
    path = write_video(tmp_path / "a.mp4", [CAT] * 30 + [COFFEE] * 40 + [ROCKET] * 30, pts)
    assert cuts_of(path) == pytest.approx([pts[30] / 1000, pts[70] / 1000])


def test_cuts_with_b_frames_and_a_late_start(tmp_path: Path) -> None:
    pts = [7000 + each for each in evenly(80, 25)]
    options = {"preset": "veryfast", "bf": "3", "b-adapt": "0"}
    path = write_video(tmp_path / "a.mp4", [CAT] * 40 + [COFFEE] * 40, pts, options=options)
    assert cuts_of(path) == pytest.approx([1.6])


@readers
@pytest.mark.parametrize(
    ("name", "cuts"),
    [
        ("bikes", [1.2, 3.04, 5.48, 7.48, 9.68]),  # seen by eye: these five and no other
        ("bigbuckbunny", []),
        ("carphone_pristine", []),
    ],
)
def test_cuts_of_real_films(reader: str, name: str, cuts: list[float]) -> None:
    assert cuts_of(real_clip(name), reader) == pytest.approx(cuts)


def test_shots_too_short_are_no_shots(tmp_path: Path) -> None:
    path = clip_of(tmp_path / "a.mp4", (CAT, 50), (COFFEE, 8), (ROCKET, 50))
    assert cuts_of(path) == [2.0]
    path = clip_of(tmp_path / "b.mp4", (CAT, 10), (COFFEE, 50))
    assert cuts_of(path) == []
    path = clip_of(tmp_path / "c.mp4", (CAT, 13), (COFFEE, 13), (ROCKET, 13), (STAIRS, 13))
    assert cuts_of(path) == pytest.approx([0.52, 1.04, 1.56])


@pytest.mark.parametrize("flash", [WHITE, BLACK, STAIRS], ids=["white", "black", "image"])
def test_a_flash_is_no_cut(tmp_path: Path, flash: np.ndarray) -> None:
    assert FLASH_S == 0.2
    for count in (1, 2, 5):
        path = clip_of(tmp_path / "a.mp4", (CAT, 50), (flash, count), (CAT, 50), (COFFEE, 25))
        assert cuts_of(path) == pytest.approx([4.0 + 0.04 * count]), count
    path = clip_of(tmp_path / "b.mp4", (CAT, 50), (flash, 6), (CAT, 50))
    assert cuts_of(path) == [2.0]
    # A flash at a cut leaves the cut, before it or after it.
    path = clip_of(tmp_path / "c.mp4", (CAT, 50), (flash, 2), (COFFEE, 50))
    assert cuts_of(path) in ([2.0], [2.08])


def test_still_images_and_light_have_no_cuts(tmp_path: Path) -> None:
    assert cuts_of(clip_of(tmp_path / "a.mp4", (CAT, 100))) == []
    assert cuts_of(clip_of(tmp_path / "b.mp4", (BLACK, 100))) == []
    darker = [(np.uint8(CAT * (1 - 0.5 * index / 60)), 1) for index in range(60)]
    assert cuts_of(clip_of(tmp_path / "c.mp4", *darker)) == []
    moving = [(np.roll(CAT, 3 * index, axis=1), 1) for index in range(60)]
    assert cuts_of(clip_of(tmp_path / "d.mp4", *moving)) == []


def test_images_that_stay_and_are_alike_are_one_shot(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    alike = [np.uint8(np.clip(CAT + noise.normal(0, 12, CAT.shape), 0, 255)) for _ in range(5)]
    assert cuts_of(write_video(tmp_path / "a.mp4", alike, range(0, 5000, 1000))) == []
    assert cuts_of(write_video(tmp_path / "b.mp4", [BLACK] * 5, range(0, 5000, 1000))) == []
    darker = [np.uint8(CAT * share) for share in (1, 0.8, 0.6, 0.4)]
    assert cuts_of(write_video(tmp_path / "c.mp4", darker, range(0, 4000, 1000))) == []
    blinking = [BLACK, WHITE, BLACK]
    assert cuts_of(write_video(tmp_path / "d.mp4", blinking, range(0, 3000, 1000))) == [1.0, 2.0]


def test_a_screen_recording_with_pauses(tmp_path: Path) -> None:
    # What was typed comes fast; then nothing changes until another window opens.
    pts = [0, 40, 80, 120, 9000, 9040, 9080, 20_000, 20_040]
    images = [CAT] * 4 + [COFFEE] * 3 + [ROCKET] * 2
    path = write_video(tmp_path / "a.mp4", images, pts)
    assert cuts_of(path) == [9.0, 20.0]


@readers
def test_cuts_where_the_size_changes(tmp_path: Path, reader: str) -> None:
    first = clip_of(tmp_path / "a.ts", (CAT, 40))
    second = write_video(tmp_path / "b.ts", [photo("coffee", 96, 128)] * 40, evenly(40, 25))
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    assert cuts_of(path, reader) == pytest.approx([1.6])


# --- one shot, whatever moves --------------------------------------------------------------


def pan(name: str, count: int, shake: float = 0.0) -> Iterator[np.ndarray]:
    """A photo from its left end to its right end, half of it at a time, from an unsteady hand."""
    hand = np.random.default_rng(0)
    with Image.open(EXAMPLES / f"{name}.jpg") as image:
        width, height = image.size
        for share in np.linspace(0, 1, count):
            x, y = np.clip((share, 0.5) + shake * hand.normal(size=2), 0, 1)
            left, top = x * width / 2, y * height / 2
            box = (left, top, left + width / 2, top + height / 2)
            yield np.asarray(image.convert("RGB").resize((160, 120), box=box))


@readers
@pytest.mark.parametrize(
    ("frames", "times", "fps"),
    [(150, 1, 25), (40, 1, 25), (12, 1, 25), (60, 3, 30), (36, 5, 30), (60, 1, 10), (12, 1, 2)],
    ids=["slow", "quick", "whip", "10 in 30", "6 in 30", "10 a second", "2 a second"],
)
def test_a_pan_is_one_shot(tmp_path: Path, reader: str, frames: int, times: int, fps: int) -> None:
    moving = [each for each in pan("temple", frames, 0.02) for _ in range(times)]
    path = write_video(tmp_path / "a.mp4", moving, evenly(len(moving), fps), rate=fps)
    assert cuts_of(path, reader) == []


def test_cuts_between_pans_of_repeated_frames(tmp_path: Path) -> None:
    names = ("temple", "raccoon", "astronaut")
    moving = [each for name in names for each in pan(name, 20, 0.02) for _ in range(3)]
    path = write_video(tmp_path / "a.mp4", moving, evenly(180, 30), rate=30)
    assert cuts_of(path) == pytest.approx([2.0, 4.0], abs=1e-3)


def test_light_is_no_cut(tmp_path: Path) -> None:
    frames = list(pan("raccoon", 100))
    frames[50:] = [np.uint8(each * 0.45) for each in frames[50:]]
    assert cuts_of(write_video(tmp_path / "a.mp4", frames, evenly(100, 25))) == []
    frames = list(pan("raccoon", 100))
    for index in range(10, 100, 9):
        frames[index] = np.uint8(np.clip(frames[index] * 1.8 + 40, 0, 255))
    assert cuts_of(write_video(tmp_path / "b.mp4", frames, evenly(100, 25))) == []


# --- fades and dissolves -------------------------------------------------------------------


def mixes(a: np.ndarray, b: np.ndarray, steps: int) -> list[tuple[np.ndarray, int]]:
    """An image turns into another."""
    shares = np.arange(1, steps + 1) / (steps + 1)
    return [(np.uint8(a * (1 - share) + b * share), 1) for share in shares]


@readers
@pytest.mark.parametrize("steps", [5, 12, 25, 37])
def test_a_dissolve_is_one_cut(tmp_path: Path, reader: str, steps: int) -> None:
    path = clip_of(tmp_path / "a.mp4", (CAT, 40), *mixes(CAT, COFFEE, steps), (COFFEE, 40))
    (cut,) = cuts_of(path, reader)
    assert 1.6 <= cut <= 1.6 + 0.04 * (steps + 1)


@pytest.mark.parametrize(("steps", "black"), [(5, 1), (12, 3), (25, 25), (37, 100)])
def test_a_fade_through_black_is_one_cut(tmp_path: Path, steps: int, black: int) -> None:
    parts = *mixes(CAT, BLACK, steps), (BLACK, black), *mixes(BLACK, COFFEE, steps)
    path = clip_of(tmp_path / "a.mp4", (CAT, 40), *parts, (COFFEE, 40))
    (cut,) = cuts_of(path)
    assert 1.6 <= cut <= 1.6 + 0.04 * (2 * steps + black + 1)


def test_a_fade_to_black_and_back_is_no_cut(tmp_path: Path) -> None:
    parts = *mixes(CAT, BLACK, 12), (BLACK, 5), *mixes(BLACK, CAT, 12)
    assert cuts_of(clip_of(tmp_path / "a.mp4", (CAT, 40), *parts, (CAT, 40))) == []
    end = clip_of(tmp_path / "b.mp4", (CAT, 40), *mixes(CAT, BLACK, 25), (BLACK, 40))
    assert cuts_of(end) == []


# --- slides that come in from one side -----------------------------------------------------

WAYS = {  # whether the old slide moves, whether the new one does
    "pushed": (True, True),
    "covered": (False, True),
    "wiped": (False, False),
    "uncovered": (True, False),
}
TURNS = {"right": 0, "top": 1, "left": 2, "bottom": 3}  # the side, in quarter turns


def slides_in(old: np.ndarray, new: np.ndarray, way: str, side: str, steps: int) -> list[Any]:
    """One image takes the place of another, faster in the middle: what is shown between them."""
    old_moves, new_moves = WAYS[way]
    old, new = np.rot90(old, -TURNS[side]), np.rot90(new, -TURNS[side])
    width, images = old.shape[1], []
    for step in range(1, steps):
        columns = round(width * (1 - np.cos(np.pi * step / steps)) / 2)
        kept = old[:, columns:] if old_moves else old[:, : width - columns]
        come = new[:, :columns] if new_moves else new[:, width - columns :]
        images.append(np.rot90(np.concatenate([kept, come], axis=1), TURNS[side]))
    return images


@pytest.mark.parametrize("side", TURNS)
@pytest.mark.parametrize("way", WAYS)
def test_a_slide_that_comes_in_from_one_side_is_a_cut(tmp_path: Path, way: str, side: str) -> None:
    slides = [photo(name, 320, 240) for name in ("coffee", "rocket", "astronaut")]
    # At 30 frames a second while something moves, and a single frame for each slide that stays.
    images, pts = [slides[0]], [0]
    for old, new in pairwise(slides):
        begin = pts[-1] + 3000
        images += [*slides_in(old, new, way, side, 15), new]
        pts += [begin + round(step * 1000 / 30) for step in range(15)]
    path = write_video(tmp_path / "a.mp4", [*images, slides[-1]], [*pts, pts[-1] + 3000])
    first, second = cuts_of(path)
    assert 3.0 <= first <= 3.47
    assert 6.4 <= second <= 6.94


@readers
def test_a_slide_is_pushed_in_at_a_constant_rate(tmp_path: Path, reader: str) -> None:
    parts = [(each, 1) for each in slides_in(COFFEE, ROCKET, "pushed", "right", 10)]
    path = clip_of(tmp_path / "a.mp4", (COFFEE, 40), *parts, (ROCKET, 40))
    (cut,) = cuts_of(path, reader)
    assert 1.6 <= cut <= 1.6 + 0.04 * 10


@pytest.mark.parametrize("steps", [8, 15, 40])
@pytest.mark.parametrize("side", TURNS)
def test_a_camera_that_moves_by_one_width_and_stops_is_no_cut(
    tmp_path: Path, side: str, steps: int
) -> None:
    whole = np.rot90(photo("temple", 320, 240), -TURNS[side])
    old, new = (np.rot90(each, TURNS[side]) for each in np.split(whole, 2, axis=1))
    parts = [(each, 1) for each in slides_in(old, new, "pushed", side, steps)]
    assert cuts_of(clip_of(tmp_path / "a.mp4", (old, 40), *parts, (new, 40))) == []
