"""What files say of themselves through FFmpeg, before anything is decoded, and why not."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

from captioner.video.frames import Clock, VideoError, plausible

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
    """The largest video stream that is not a cover image; VideoError if there is none."""
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
        raise VideoError("no_decoder", "no decoder for its video stream", path)
    stream = max(streams, key=lambda each: each.width * each.height)
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


def measured_s(path: Path, alive: Callable[[], object]) -> float | None:
    """The length in seconds by the times of all packets; see `Video.measured_s`."""
    import av

    time, lasts = Fraction(0), Fraction(0)
    with suppress(VideoError), open_container(path) as container:
        stream = video_stream(container, path)
        clock = Clock(frame_rate(container, stream), None)
        # Damage ends the count: what lies after it is not worth a second look here.
        with suppress(av.error.FFmpegError, IndexError):
            for packet in container.demux(stream):
                if packet.size:
                    # In the order of decoding, in which the times of showing go to and fro.
                    stamp = packet.pts if packet.dts is None else packet.dts
                    scale = packet.time_base
                    time = clock.time(None if stamp is None else seconds_of(stamp, scale))
                    lasts = seconds_of(packet.duration or 0, scale)
                alive()
    return plausible(float(time + lasts))


def seconds_of(count: int, time_base: Any) -> Fraction:
    """A time that is counted in units of a time base, in seconds."""
    # Newer releases have a rational type of their own for the time base.
    return count * Fraction(time_base.numerator, time_base.denominator)


def not_opened(path: Path) -> VideoError:
    """The error of a file that is not a video."""
    # The index of an MP4 file stands at its end: a part of such a file says nothing about itself.
    if path.suffix.lower() in (".mp4", ".m4v", ".mov", ".3gp", ".3g2") and _is_mp4(path):
        return VideoError("not_a_video", "damaged or cut off: its index is missing", path)
    return VideoError("not_a_video", "not a video that can be read", path)


ENCRYPTION = "encryption_info"  # FFmpeg puts it beside each packet that needs a key
_PROTECTED = ("encv", "drmi")  # what MP4 calls encrypted video
_ENCRYPTED = re.compile(
    # Matroska's ContentEncryption with its algorithm, and ASF's two objects of that name.
    rb"\x50\x35.{1,12}\x47\xe1|\xfb\xb3\x11\x22\x23\xbd\xd2\x11\xb4\xb7\x00\xa0\xc9\x55\xfc\x6e"
    rb"|\x14\xe6\x8a\x29\x22\x26\x17\x4c\xb9\x35\xda\xe0\x7e\xe9\x28\x9c",
    re.DOTALL,
)


def no_frames(path: Path) -> VideoError:
    """The error of a video without a frame that can be decoded."""
    if _is_encrypted(path):
        reason = "it is encrypted (DRM): only a copy without protection can be read"
        return VideoError("no_decoder", reason, path)
    return VideoError("no_frames", "no frame of it can be decoded", path)


def _is_encrypted(path: Path) -> bool:
    """Whether a file that cannot be decoded says that it is encrypted."""
    if has_encrypted_packets(path):
        return True
    with suppress(OSError), path.open("rb") as file:
        return _ENCRYPTED.search(file.read(65_536)) is not None
    return False


def has_encrypted_packets(path: Path) -> bool:
    """Whether the first packet needs a key. A decoder without it can make something of noise."""
    import av

    with suppress(VideoError, av.error.FFmpegError, IndexError), open_container(path) as container:
        stream = video_stream(container, path)
        if stream.codec_context.codec_tag in _PROTECTED:
            return True
        first = next((packet for packet in container.demux(stream) if packet.size), None)
        return first is not None and bool(first.has_sidedata(ENCRYPTION))
    return False


def _is_mp4(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return file.read(12)[4:8] == b"ftyp"
    return False
