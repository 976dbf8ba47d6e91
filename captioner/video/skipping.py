"""Decode only the frames that are looked at, and those that they are made from.

Where no cuts are searched for, most frames are needed for their times alone. Those stand beside the
packets. So the file is read twice: for the times, by which frames are chosen, and to decode. What
cannot be taken from the packets is found out by decoding everything, as elsewhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from captioner.video.containers import open_container, video_stream
from captioner.video.frames import Frame, plausible
from captioner.video.listing import Listing, list_frames, undamaged_packets
from captioner.video.options import SamplingOptions
from captioner.video.pyav import PyAvFrame, PyAvVideo
from captioner.video.sampling import Cut, sample

WORTHWHILE = 0.5
"""Share of the frames that are looked at, from which on all are decoded."""

Watch = Callable[[Iterable[Frame]], Iterable[Frame]]


class _Differs(Exception):
    """Something is not as the packets say: the file is damaged, or not what it looks like."""


def sample_skipping(
    video: PyAvVideo, watch: Watch, options: SamplingOptions, alive: Callable[[], object]
) -> Iterator[Frame | Cut]:
    """Choose the frames to look at, and decode no others that are not needed, if possible.

    Args:
        video: open, of which nothing was read yet.
        watch: sees all frames, in order, decoded or not; called again if all have to be decoded.
        options: which to choose, without cuts.
        alive: called now and then.

    Yields:
        What `sample` yields.
    """
    assert not options.shots
    last_s = -1.0
    chosen = _chosen(video, watch, options, alive)
    if chosen is not None:
        listing, frames = chosen
        try:
            for frame in _one_behind(_decoded(video, listing, frames, alive)):
                last_s = frame.time_s
                yield frame
            return
        except _Differs:
            pass
    for found in sample(video, watch(video), options, alive):
        if found.time_s > last_s:
            yield found


def _chosen(
    video: PyAvVideo, watch: Watch, options: SamplingOptions, alive: Callable[[], object]
) -> tuple[Listing, deque[_Listed]] | None:
    """The frames to look at, not decoded yet; None if all have to be decoded."""
    if video.is_interlaced:
        return None  # Where each half of a frame has a packet of its own.
    listing = list_frames(video.path, video.info.announced_s, options.end_s, alive)
    if listing is None:
        return None
    found = sample(video, watch(_listed(video, listing)), options, alive)
    frames = deque(frame for frame in found if isinstance(frame, _Listed))
    return (listing, frames) if len(frames) < WORTHWHILE * len(listing.stamps) else None


class _Listed(PyAvFrame):
    """A frame whose image comes later.

    Attributes:
        stamp: when it is shown, in units of the stream's time base.
    """

    def __init__(
        self, index: int, time_s: float, duration_s: float | None, stamp: int, video: PyAvVideo
    ) -> None:
        super().__init__(index, time_s, duration_s, None, video)
        self.stamp = stamp

    def take(self, image: Any) -> None:
        """Become the frame that PyAV has decoded."""
        self._frame = image


def _listed(video: PyAvVideo, listing: Listing) -> Iterator[_Listed]:
    first, unit_s = listing.stamps[0], listing.time_base
    for index, (stamp, lasts) in enumerate(listing.shown()):
        lasts_s = plausible(float(lasts * unit_s))
        yield _Listed(index, float((stamp - first) * unit_s), lasts_s, stamp, video)


def _decoded(
    video: PyAvVideo, listing: Listing, coming: deque[_Listed], alive: Callable[[], object]
) -> Iterator[_Listed]:
    """Decode frames, and what they are made from.

    Raises:
        _Differs: one of them cannot be had, or what comes is not what was listed.
    """
    import av

    given: set[int] = set()  # stamps of what is being decoded
    with open_container(video.path) as container:
        stream = video_stream(container, video.path)
        decoder = stream.codec_context
        for packet in _needed(undamaged_packets(container, stream), listing, coming, alive):
            try:
                images = decoder.decode(packet)
            except av.error.FFmpegError as error:
                raise _Differs from error
            if packet is not None:
                given.add(packet.pts)
            for image in images:
                is_same = decoder.sample_aspect_ratio == video.stated_aspect
                if image.is_corrupt or image.pts not in given or not is_same:
                    raise _Differs
                given.remove(image.pts)
                if coming and image.pts == coming[0].stamp:
                    if min(given, default=image.pts) < image.pts:
                        raise _Differs  # A packet from which no image came.
                    frame = coming.popleft()
                    frame.take(image)
                    yield frame
    if coming:
        raise _Differs


def _one_behind(frames: Iterator[_Listed]) -> Iterator[_Listed]:
    """Each frame when the next one is there: nothing between them is damaged."""
    before: _Listed | None = None
    for frame in frames:
        if before is not None:
            yield before
        before = frame
    if before is not None:
        yield before


def _needed(
    packets: Iterator[Any], listing: Listing, coming: deque[_Listed], alive: Callable[[], object]
) -> Iterator[Any]:
    """The packets to decode for what is still coming, and None at the end."""
    wanted = {frame.stamp for frame in coming}
    for position, packet in zip(range(len(listing.stamps)), packets, strict=False):
        alive()
        if packet is None or packet.pts != listing.stamps[position]:
            raise _Differs
        if not coming:
            return
        # Before the next beginning, what follows the last one that is wanted is not needed.
        if coming[0].stamp >= listing.next_beginning(position):
            continue
        if listing.is_needed[position] or packet.pts in wanted:
            yield packet
    yield None
