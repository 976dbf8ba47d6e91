"""What the packets of an H.264 stream say of its frames, before any is decoded."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

from captioner.video.containers import (
    ENCRYPTION,
    frame_rate,
    open_container,
    packets_of,
    video_stream,
)
from captioner.video.frames import Clock

CONTAINERS = ("mov", "matroska", "mpegts")
"""FFmpeg's first names of the containers that store the time of each frame, and no other times."""

MAX_PACKETS = 2_000_000
"""Of a listing, which takes some 20 bytes for each: 18 hours at 30 frames per second."""

MAX_UNITS = 1000
"""Of a packet: a frame has one for each slice, and a few more."""

# A packet with one of these is not read: it needs a key, or changes the parameters of the stream.
_BESIDE = (ENCRYPTION, "new_extradata")

# Units of ITU-T H.264, table 7-1.
_SLICE, _IDR_SLICE = 1, 5
_SETS = (7, 8, 13, 15)  # of parameters, for pictures that come later
_OTHER_PICTURES = (2, 3, 4, 19, 20, 21)  # parts of pictures that are not read here


@dataclass
class Listing:
    """The frames of a stream in the order of decoding.

    Attributes:
        time_base: in seconds.
        stamps: when each is shown, in units of the time base.
        durations: how long each is shown, likewise; 0 if the file does not say.
        is_needed: 0 for each that no other frame is made from, else 1.
        begins: positions of the frames that need none of those before; neither do those after them.
    """

    time_base: Fraction
    stamps: array[int] = field(default_factory=lambda: array("q"))
    durations: array[int] = field(default_factory=lambda: array("q"))
    is_needed: array[int] = field(default_factory=lambda: array("b"))
    begins: array[int] = field(default_factory=lambda: array("q"))

    def shown(self) -> Iterator[tuple[int, int]]:
        """Stamps and durations in the order of showing."""
        for part in self._parts():
            yield from sorted(zip(self.stamps[part], self.durations[part], strict=True))

    def _parts(self) -> Iterator[slice]:
        """From each beginning to the next."""
        ends = [*self.begins[1:], len(self.stamps)]
        return (slice(start, end) for start, end in zip(self.begins, ends, strict=True))

    def next_beginning(self, position: int) -> float:
        """The stamp of the next beginning after a frame; infinite if there is none."""
        following = bisect_right(self.begins, position)
        return self.stamps[self.begins[following]] if following < len(self.begins) else math.inf

    def is_trustworthy(self, clock: Clock, alive: Callable[[], object]) -> bool:
        """Whether all follows from the stamps: each beginning and each time is as they say."""
        if not self.begins or self.begins[0] != 0:
            return False
        first, last = self.stamps[0], -math.inf
        for stamp, _ in self.shown():
            since_s = (stamp - first) * self.time_base
            if stamp <= last or clock.time(stamp * self.time_base) != since_s:
                return False
            last = stamp
            alive()
        return all(min(self.stamps[part]) == self.stamps[part.start] for part in self._parts())


def list_frames(
    path: Path, announced_s: float | None, end_s: float | None, alive: Callable[[], object]
) -> Listing | None:
    """Read the packets of a file without decoding them.

    Args:
        path: a video.
        announced_s: its length as the container says, in seconds.
        end_s: from where on frames are of no interest, in seconds since the first.
        alive: called now and then.

    Returns:
        None if not all that is to be known of the frames can be taken from the packets.

    Raises:
        VideoError: the file cannot be opened.
    """
    with open_container(path) as container:
        stream = video_stream(container, path)
        name = container.format.name.partition(",")[0]
        if stream.codec_context.name != "h264" or name not in CONTAINERS or not stream.time_base:
            return None
        listing = Listing(Fraction(stream.time_base.numerator, stream.time_base.denominator))
        clock = Clock(frame_rate(container, stream), announced_s)
        last = math.inf if end_s is None else Fraction(end_s) / listing.time_base
        length_bytes = _length_bytes(stream.codec_context)
        for packet in undamaged_packets(container, stream):
            if packet is None or not _add(listing, packet, length_bytes):
                return None
            alive()
            # The first frame after the end is still of interest: it says how long the one before
            # is shown.
            if len(listing.begins) > 1:
                beginning = listing.stamps[listing.begins[-2]]
                if beginning - listing.stamps[0] > last:
                    break
        return listing if listing.is_trustworthy(clock, alive) else None


def undamaged_packets(container: Any, stream: Any) -> Iterator[Any]:
    """The packets of a stream with something in them; None, and no more, at the first failure."""
    failures: list[None] = []

    def failed() -> bool:
        failures.append(None)
        return True

    yield from (packet for packet in packets_of(container, [stream], failed) if packet.size)
    yield from failures


def _length_bytes(decoder: Any) -> int:
    """Bytes of the length before each unit; 0 where units begin with a start code."""
    head = bytes(decoder.extradata or b"")[:5]
    return (head[4] & 3) + 1 if len(head) == 5 and head[0] == 1 else 0


def _add(listing: Listing, packet: Any, length_bytes: int) -> bool:
    """Append what a packet says; False if it holds anything but one plain frame with its time."""
    if packet.pts is None or packet.is_corrupt or packet.is_discard:
        return False
    if any(map(packet.has_sidedata, _BESIDE)) or len(listing.stamps) == MAX_PACKETS:
        return False
    heads = list(islice(_unit_heads(bytes(packet), length_bytes), MAX_UNITS + 1))
    kinds = {head & 0x1F for head in heads}
    if (
        len(heads) > MAX_UNITS
        or not kinds & {_SLICE, _IDR_SLICE}
        or kinds.intersection(_OTHER_PICTURES)
    ):
        return False
    if _IDR_SLICE in kinds:
        listing.begins.append(len(listing.stamps))
    # Two bits of a slice's head say whether other pictures are made from it (nal_ref_idc, 7.4.1).
    is_referred_to = any(head & 0x60 for head in heads if head & 0x1F in (_SLICE, _IDR_SLICE))
    listing.is_needed.append(is_referred_to or bool(kinds.intersection(_SETS)))
    listing.stamps.append(packet.pts)
    listing.durations.append(packet.duration or 0)
    return True


def _unit_heads(data: bytes, length_bytes: int) -> Iterator[int]:
    """The first byte of each unit of a packet."""
    place = 0
    while length_bytes and place + length_bytes < len(data):
        size = int.from_bytes(data[place : place + length_bytes], "big")
        yield data[place + length_bytes]
        place += length_bytes + size
    if length_bytes:
        return
    while (place := data.find(b"\0\0\1", place) + 3) > 2 and place < len(data):
        yield data[place]
