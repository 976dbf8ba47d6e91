"""What the packets of H.264 say of its frames."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from captioner.video.listing import MAX_UNITS, list_frames
from helpers.videos import numbered_video

OPTIONS = {"preset": "medium", "x264-params": "keyint=8:bframes=3:scenecut=0:b-adapt=0:b-pyramid=0"}
SHOWN = (0, 4, 1, 2, 3, 7, 5, 6, 8, 12, 9, 10, 11, 15, 13, 14, 16, 19, 17, 18)
NEEDED = {0, 4, 7, 8, 12, 15, 16, 19}


def nothing() -> None: ...


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_the_frames_of_a_file(tmp_path: Path, name: str) -> None:
    listing = list_frames(numbered_video(tmp_path / name, options=OPTIONS), None, None, nothing)
    assert listing is not None
    first = listing.stamps[0]
    times_s = [(stamp - first) * listing.time_base for stamp in listing.stamps]
    assert times_s == pytest.approx([Fraction(shown, 25) for shown in SHOWN], abs=1e-3)
    assert list(listing.begins) == [0, 8, 16]
    assert [bool(each) for each in listing.is_needed] == [shown in NEEDED for shown in SHOWN]
    assert [stamp for stamp, _ in listing.shown()] == sorted(listing.stamps)
    following = [listing.next_beginning(position) for position in (0, 7, 8, 16)]
    assert following == [listing.stamps[8], listing.stamps[8], listing.stamps[16], float("inf")]


def test_nothing_is_read_long_after_the_end(tmp_path: Path) -> None:
    path = numbered_video(tmp_path / "a.mp4", options=OPTIONS)
    listing = list_frames(path, None, 0.1, nothing)
    assert listing is not None
    assert list(listing.begins) == [0, 8, 16]
    assert len(listing.stamps) == 17


def rewrite(path: Path, source: Path, change: Callable[[int, Any], bytes | None]) -> Path:
    """Copy a video; of each packet `change` gives what it holds, or None to leave it out."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        template = old.streams.video[0]
        stream = new.add_stream_from_template(template)
        for position, packet in enumerate(old.demux(template)):
            data = change(position, packet) if packet.size else None
            if data is None:
                continue
            changed = av.Packet(data)
            changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
            changed.is_keyframe, changed.stream = packet.is_keyframe, stream
            new.mux(changed)
    return path


@pytest.mark.parametrize(
    ("change", "is_listed"),
    [
        (lambda position, packet: bytes(packet), True),
        (lambda position, packet: bytes(packet) if position else None, False),
        (lambda position, packet: b"\0\0\0\1\x09" * 2 if position == 5 else bytes(packet), False),
        (lambda position, packet: bytes(packet) + b"\0\0\0\1\x42", False),
        (lambda position, packet: bytes(packet) + b"\0\0\0\1\x0c" * MAX_UNITS, False),
    ],
    ids=["as it was", "no beginning", "no frame", "parts of frames", "too many units"],
)
def test_packets_that_are_not_believed(
    tmp_path: Path, change: Callable[[int, Any], bytes | None], is_listed: bool
) -> None:
    source = numbered_video(tmp_path / "source.mkv", options=OPTIONS)
    path = rewrite(tmp_path / "a.mkv", source, change)
    assert (list_frames(path, None, None, nothing) is not None) == is_listed


def with_content(data: bytes, name: bytes, content: bytes) -> bytes:
    """An MP4 whose box in ``moov/trak/mdia/minf/stbl``, behind all images, holds something else."""
    start = data.index(name) - 4
    (size,) = struct.unpack_from(">I", data, start)
    changed = bytearray(data)
    changed[start : start + size] = struct.pack(">I", 8 + len(content)) + name + content
    for parent in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        place = data.index(parent) - 4
        (whole,) = struct.unpack_from(">I", data, place)
        struct.pack_into(">I", changed, place, whole + 8 + len(content) - size)
    return bytes(changed)


def test_a_stream_whose_parameters_change_is_not_believed(tmp_path: Path) -> None:
    path = numbered_video(tmp_path / "a.mp4", 20, options=OPTIONS)
    data = path.read_bytes()
    (begin,) = struct.unpack_from(">I", data, data.index(b"stco") + 12)
    sizes = struct.unpack_from(">20I", data, data.index(b"stsz") + 16)
    stsd = data.index(b"stsd")
    (end,) = struct.unpack_from(">I", data, stsd - 4)
    entry = data[stsd + 12 : stsd - 4 + end]
    none = bytes(4)  # version and flags
    # Two chunks, the second of which is of the second of two entries.
    for name, content in (
        (b"stsd", none + struct.pack(">I", 2) + 2 * entry),
        (b"stsc", none + struct.pack(">7I", 2, 1, 8, 1, 2, 12, 2)),
        (b"stco", none + struct.pack(">3I", 2, begin, begin + sum(sizes[:8]))),
    ):
        data = with_content(data, name, content)
    path.write_bytes(data)
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == 20
    assert list_frames(path, None, None, nothing) is None
