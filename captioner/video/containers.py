"""What files say of themselves through FFmpeg, before anything is decoded, and why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from captioner.files.recognising import IMAGES, recognise, why_no_image_or_video
from captioner.video.animations import is_animated
from captioner.video.encryption import PROTECTED, says_it_is_encrypted
from captioner.video.frames import Clock, Lengths, VideoError

CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,dv,gxf,nut,"
    "ivf,h264,hevc,m4v,wtv,yuv4mpegpipe,rm,gif,apng"
)
"""FFmpeg's demuxers that may run. Others take playlists, which name further files, for videos."""


def open_container(path: Path) -> Any:
    """Open a file with PyAV; VideoError if it is not a video, or a playlist."""
    import av

    try:
        # As a URL, so that no file name is taken for a protocol.
        return av.open(
            f"file:{path}",
            metadata_errors="ignore",
            options={"protocol_whitelist": "file", "format_whitelist": CONTAINERS},
        )
    except av.error.FFmpegError as error:
        raise not_opened(path) from error


def video_stream(container: Any, path: Path) -> Any:
    """The largest video stream that is not a cover image; VideoError if there is none.

    Of two that are as large, the one with more frames: animated AVIF holds a still as well.
    """
    from av.stream import Disposition

    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic  # a music file's cover
    ]
    if not streams:
        held = "only sound" if container.streams.audio else "no video"
        raise VideoError("no_video_stream", f"it holds {held}", path)
    streams = [stream for stream in streams if stream.codec_context is not None]
    if not streams:
        reason = _IS_ENCRYPTED if says_it_is_encrypted(path) else "no decoder for its video stream"
        raise VideoError("no_decoder", reason, path)
    stream = max(streams, key=lambda each: (each.width * each.height, each.frames))
    stream.thread_type = "AUTO"
    return stream


_BARE = ("h264", "hevc", "m4v", "mpegvideo")  # FFmpeg's names of streams without a container


def frame_rate(container: Any, stream: Any) -> Fraction | None:
    """Frames per second. Without a container the average is FFmpeg's 25, the guess the codec's."""
    rates = [stream.average_rate, stream.guessed_rate]
    if container.format.name in _BARE:
        rates.reverse()
    rate = rates[0] or rates[1]
    return rate and Fraction(rate)


def own_length_s(container: Any, stream: Any) -> float | None:
    """How long an index says that a stream is, in seconds; None if none does.

    Where nothing says it, FFmpeg takes the length of the whole file for that of its streams.
    """
    start_s = Fraction(0)
    if stream.start_time is not None and stream.time_base is not None:
        start_s = seconds_of(stream.start_time, stream.time_base)
    # Matroska has a tag with the time at which each stream is over.
    with suppress(KeyError, ValueError, ArithmeticError):
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        end_s = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        return end_s - max(0.0, float(start_s))
    if container.format.name.startswith("mov") and stream.duration is not None:
        return float(seconds_of(stream.duration, stream.time_base))
    return None


MAX_FAILURES_IN_A_ROW = 250
"""Packets in a row that may fail before the rest of a file is given up."""


def packets_of(container: Any, streams: Sequence[Any], failed: Callable[[], bool]) -> Iterator[Any]:
    """The packets of some streams; a stretch that FFmpeg stumbles over is skipped.

    Args:
        container: from `open_container`.
        streams: of it.
        failed: called after each failure; returns whether to stop there.
    """
    import av

    packets = container.demux(*streams)
    while True:
        try:
            yield next(packets)
        except (StopIteration, IndexError):
            # IndexError: at the end PyAV looks for streams that came up in the middle, as in
            # a damaged file, in a list that was made at the start.
            return
        except av.error.FFmpegError:
            if failed():
                return
            packets = container.demux(*streams)


def measured_lengths(path: Path, alive: Callable[[], object]) -> Lengths:
    """The lengths by the times of all packets; see `Video.lengths`."""
    with suppress(VideoError), open_container(path) as container:
        stream = video_stream(container, path)
        ends = {stream.index: _End(Clock(frame_rate(container, stream), None))}
        ends |= {each.index: _End(Clock(None, None)) for each in container.streams.audio}
        failures = iter(range(1, MAX_FAILURES_IN_A_ROW))
        streams = [stream, *container.streams.audio]
        for packet in packets_of(container, streams, lambda: next(failures, None) is None):
            if packet.size:
                ends[packet.stream.index].move_to(packet)
            alive()
        video = ends[stream.index]
        begun = [end for end in ends.values() if not end.is_new]
        leads_s = [video.start_s - end.start_s for end in begun]
        ends_s = [end.length_s - lead_s for end, lead_s in zip(begun, leads_s, strict=True)]
        return Lengths(
            float(video.length_s), float(max(ends_s, default=0)), float(max(leads_s, default=0))
        )
    return Lengths(0.0, 0.0, 0.0)


@dataclass
class _End:
    """Where the packets of one stream end, in seconds."""

    clock: Clock
    start_s: Fraction = Fraction(0)  # by the file's own time
    length_s: Fraction = Fraction(0)
    is_new: bool = True

    def move_to(self, packet: Any) -> None:
        # In the order of decoding, in which the times of showing go to and fro.
        stamp = packet.pts if packet.dts is None else packet.dts
        stamp_s = None if stamp is None else seconds_of(stamp, packet.time_base)
        if self.is_new:
            self.start_s, self.is_new = stamp_s or Fraction(0), False
        lasts_s = seconds_of(packet.duration or 0, packet.time_base)
        self.length_s = self.clock.time(stamp_s) + lasts_s


def seconds_of(count: int, time_base: Any) -> Fraction:
    """A time that is counted in units of a time base, in seconds."""
    # Newer releases have a rational type of their own for the time base.
    return count * Fraction(time_base.numerator, time_base.denominator)


_STILL = IMAGES - {"GIF", "WebP"}  # Those are videos of one frame.


def not_opened(path: Path) -> VideoError:
    """The error of a file that is not a video."""
    # The index of an MP4 file stands at its end: a part of such a file says nothing about itself.
    if path.suffix.lower() in (".mp4", ".m4v", ".mov", ".3gp", ".3g2") and _is_mp4(path):
        return VideoError("not_a_video", "damaged or cut off: its index is missing", path)
    kind = recognise(path)
    reason = why_no_image_or_video(kind, "video") or "not a video that can be read"
    if kind in _STILL and not is_animated(path):
        reason = f"an image ({kind}) and not a video: `captioner caption` reads images"
    return VideoError("not_a_video", reason, path)


ENCRYPTION = "encryption_info"  # FFmpeg puts it beside each packet that needs a key
_IS_ENCRYPTED = "it is encrypted (DRM): only a copy without protection can be read"


def no_frames(path: Path) -> VideoError:
    """The error of a video without a frame that can be decoded."""
    if has_encrypted_packets(path) or says_it_is_encrypted(path):
        return VideoError("no_decoder", _IS_ENCRYPTED, path)
    return VideoError("no_frames", "no frame of it can be decoded", path)


def has_encrypted_packets(path: Path) -> bool:
    """Whether the first packet needs a key. A decoder without it can make something of noise."""
    import av

    with suppress(VideoError, av.error.FFmpegError, IndexError), open_container(path) as container:
        stream = video_stream(container, path)
        if stream.codec_context.codec_tag in PROTECTED:
            return True
        first = next((packet for packet in container.demux(stream) if packet.size), None)
        return first is not None and bool(first.has_sidedata(ENCRYPTION))
    return False


def _is_mp4(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return file.read(12)[4:8] == b"ftyp"
    return False
