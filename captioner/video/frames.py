"""Read a video as frames with their times, and say what is wrong with one that cannot be read.

Two readers do the same job. PyAV is the default: it gives the container's own timestamps as exact
fractions, reports every packet that could not be decoded, decodes AV1, and was as fast as OpenCV
or faster on the clips tried (`benchmarks/tag.py` measures it). OpenCV serves where PyAV cannot;
it counts no failures, because it does not tell of them.

Times are presentation timestamps in seconds, measured from the first frame that can be shown.
They are never a frame's number divided by a rate: that is wrong wherever the rate varies.
"""

from __future__ import annotations

import math
import os
import re
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from PIL import Image

from captioner.errors import CaptionerError
from captioner.files.finding import FileKind, SourceFile, find_files, printable, why_unreadable
from captioner.video import animations
from captioner.video.colours import BT601, BT709, Colours, FrameConverter

_SUFFIXES = (
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .mts .m2ts .vob .wmv .asf .flv .f4v .ogv .3gp"
    " .3g2 .mxf .dv .ivf .y4m"
)
VIDEOS = FileKind("video", frozenset(_SUFFIXES.split()), _SUFFIXES)
"""What a folder is searched for, besides images that move."""

_MOVING = " .gif .webp .apng .png"
_VIDEOS_AND_MOVING = FileKind("video", VIDEOS.suffixes | animations.SUFFIXES, _SUFFIXES + _MOVING)

_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,dv,gxf,nut,"
    "ivf,h264,hevc,m4v,wtv,yuv4mpegpipe,rm,gif,apng"
)
"""FFmpeg's demuxers that may run. Others take playlists, which name further files, for videos."""

READING = 3
"""Rises when the same files give other pictures, times or cuts than before: results do not mix."""

MAX_FAILURES_IN_A_ROW = 250
"""Packets in a row that may fail before the rest of a file is given up."""

LONGEST_GAP_S = 3600.0
"""Longest time that a frame is believed to be shown, unless the video is announced to be longer."""

LONGEST_VIDEO_S = 1e6  # Announced lengths above are nonsense: 11 days.

MAX_PIXEL_ASPECT = 8
"""Pixels that are announced to be more oblong than that are taken for square ones."""

MAX_WIDTH = 16_384
"""Pixels to which a picture may be widened because its stored ones are not square."""

READERS = ("pyav", "opencv")

Picture = np.ndarray[Any, np.dtype[np.uint8]]


class VideoError(CaptionerError):
    """One video cannot be used.

    Attributes:
        code: which kind of trouble, a fixed word for programs: ``not_found``, ``unreadable``,
            ``empty_file``, ``not_a_video``, ``no_video_stream``, ``no_frames``, ``no_decoder``,
            ``time_limit``, ``decoder_died``, ``out_of_range`` (it ends before the part that was
            asked for).
        reason: the same for people, in a few words without the path.
        path: the file.
    """

    def __init__(self, code: str, reason: str, path: Path) -> None:
        """Keep all three; the message is ``path: reason``."""
        super().__init__(f"{printable(path)}: {reason}")
        self.code = code
        self.reason = reason
        self.path = path


@dataclass(frozen=True)
class VideoInfo:
    """What the container says before anything is decoded; only the size is certain.

    Attributes:
        width: of the picture as it is shown, in square pixels.
        height: likewise.
        rotation: degrees clockwise by which stored pictures are turned to be shown: 0, 90, 180
            or 270. It is applied already, after mirroring where the file asks for that too.
        announced_s: length of the video in seconds according to the container; None if it does
            not say.
        file_s: length of the file, sound included, in seconds; None if it does not say.
    """

    width: int
    height: int
    rotation: int
    announced_s: float | None
    file_s: float | None = field(default=None, compare=False)

    @property
    def expected_s(self) -> float | None:
        """How long the video is likely to be, in seconds; None if the container does not say."""
        return self.announced_s or self.file_s


class Frame(ABC):
    """One decoded picture. It is converted only when asked for: most frames are looked at by none.

    Attributes:
        index: 0, 1, 2, ... in the order of showing, of the frames that could be decoded.
        time_s: seconds since the first frame.
        duration_s: how long it is shown, in seconds; None if the file does not say.
        until_s: when the next frame is shown, in seconds since the first; None until it is known.
    """

    def __init__(self, index: int, time_s: float, duration_s: float | None) -> None:
        self.index = index
        self.time_s = time_s
        self.duration_s = duration_s
        self.until_s: float | None = None

    @abstractmethod
    def rgb(self) -> Picture:
        """The picture as it is shown, upright: (height, width, 3) in the order RGB."""

    @abstractmethod
    def thumbnail(self, width: int, height: int) -> Picture:
        """A small copy as it is stored, not turned: (height, width, 3) in the order BGR."""


class Video(ABC):
    """An open video: iterate once over its frames, then close it (or use it as a context).

    Attributes:
        path: the file.
        info: what the container says.
        decode_failures: packets and frames, so far, that could not be decoded and were skipped.
        ended_early: why the frames ended before the file did, in a few words; None if they did
            not, or not yet.
    """

    path: Path
    info: VideoInfo

    def __init__(self, path: Path) -> None:
        self.path = path
        self.decode_failures = 0
        self.ended_early: str | None = None

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """The frames in the order of showing, with rising times."""

    @abstractmethod
    def close(self) -> None:
        """Close the file. Closing twice does nothing."""

    def measured_s(self, alive: Callable[[], object] = lambda: None) -> float | None:
        """The length in seconds by the times of all packets: the file is read, but not decoded.

        Args:
            alive: called after each packet.

        Returns:
            None if it cannot be found out.
        """
        return _measured_s(self.path, alive)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def find_videos(
    paths: str | Path | Sequence[str | Path], exclude: Sequence[str] | None = ()
) -> Iterator[SourceFile]:
    """List video files lazily; see `captioner.files.finding.find_files`, also for the errors.

    GIF, WebP and PNG files that a folder holds or a pattern matches are listed if they have more
    than one frame, those that are named by themselves always.
    """
    kind = _VIDEOS_AND_MOVING
    found = find_files(paths, kind, exclude)
    videos = (each for each in found if each.root is None or not _is_still(each.path))
    first = next(videos, None)
    if first is None:
        given = paths if isinstance(paths, str | Path) else ", ".join(map(printable, paths))
        raise CaptionerError(f"{printable(given)} holds no video files ({kind.supported})")
    return chain([first], videos)


def _is_still(path: Path) -> bool:
    return path.suffix.lower() in animations.SUFFIXES and not animations.is_animated(path)


def open_video(path: str | Path, reader: str = "pyav") -> Video:
    """Open a video and decode its first frame.

    Args:
        path: a video file, whatever its suffix. Playlists are refused.
        reader: ``pyav`` or ``opencv``.

    Raises:
        VideoError: there is no picture to be had from it; its ``code`` says why.
        ValueError: an unknown reader.
    """
    path = Path(path)
    if reader not in READERS:
        raise ValueError(f"reader={reader!r}: choose one of {', '.join(READERS)}")
    try:
        problem = why_unreadable(path)
        if problem is None:
            path.open("rb").close()  # The readers do not both say that they were not allowed to.
    except FileNotFoundError:
        raise VideoError("not_found", "file not found", path) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise VideoError("unreadable", reason, path) from None
    if problem is not None:
        code = "empty_file" if problem == "empty file" else "unreadable"
        raise VideoError(code, problem, path)
    with path.open("rb") as file:
        if animations.is_webp(file.read(12)):
            return _WebPVideo(path)
    return _PyAvVideo(path) if reader == "pyav" else _OpenCvVideo(path)


class _Clock:
    """Timestamps as a file has them -> seconds since the first frame, always rising."""

    def __init__(self, rate: Fraction | float | None, announced_s: float | None) -> None:
        """Take what the container says: frames per second, and the video's length in seconds."""
        # The frame distance to be used where a file gives none.
        self._usual_s = 1 / Fraction(rate) if rate and 1 <= rate <= 1000 else Fraction(1, 25)
        self._longest_gap_s = max(LONGEST_GAP_S, announced_s or 0)
        self._offset: Fraction | None = None
        self._last: Fraction | None = None
        self._is_behind = False

    def time(self, stamp_s: Fraction | None) -> Fraction:
        """The time of the next frame; without a usable stamp it follows the last one closely."""
        last = self._last
        if last is None:
            self._offset = stamp_s
            now = Fraction(0)
        elif stamp_s is None:
            now = last + self._usual_s
        else:
            if self._offset is None:
                self._offset = stamp_s - last - self._usual_s
            now = stamp_s - self._offset
            if _LEAST_DISTANCE_S <= now - last <= self._longest_gap_s:
                self._is_behind = False
            elif 0 <= last - now < _STUMBLE * self._usual_s and not self._is_behind:
                # One frame twice at a time, or two swapped: the next will be on time again.
                now = last + self._usual_s / 100
                self._is_behind = True
            else:
                # The stamps start anew, as where two recordings were joined, or one is damaged
                # and names a time far away: so does the offset.
                now = last + self._usual_s
                self._offset = stamp_s - now
        self._last = now
        return now


_STUMBLE = 3  # frame distances that one stamp may lie back without being a new beginning
_LEAST_DISTANCE_S = Fraction(1, 1_000_000)  # of frames, so that each has a time of its own


def _plausible(seconds: float | None) -> float | None:
    """A length in seconds, None if it is nonsense."""
    return seconds if seconds is not None and 0 < seconds <= LONGEST_VIDEO_S else None


# --- PyAV ----------------------------------------------------------------------------------


class _PyAvFrame(Frame):
    def __init__(
        self, index: int, time_s: float, duration_s: float | None, frame: Any, video: _PyAvVideo
    ) -> None:
        super().__init__(index, time_s, duration_s)
        self._frame = frame
        self._video = video

    def rgb(self) -> Picture:
        frame = self._frame
        width = _shown_width(frame.width, self._video.pixel_aspect)
        picture = self._converted(lambda: self._video.full.rgb(frame, width, frame.height))
        is_mirrored, turns = self._video.orientation
        if is_mirrored:
            picture = picture[:, ::-1]
        return np.ascontiguousarray(np.rot90(picture, -turns))  # NumPy counts counterclockwise

    def thumbnail(self, width: int, height: int) -> Picture:
        picture = self._converted(lambda: self._video.small.rgb(self._frame, width, height))
        return np.ascontiguousarray(picture[:, :, ::-1])

    def _converted(self, convert: Callable[[], Picture]) -> Picture:
        import av

        try:
            return convert()
        except av.error.FFmpegError:
            # Damage can leave a description of the colours behind that does not exist.
            self._frame.colorspace = BT601
            self._frame.color_trc = self._frame.color_primaries = BT709
        try:
            return convert()
        except av.error.FFmpegError as error:
            reason = f"its pictures of the format {self._frame.format.name} cannot be converted"
            raise VideoError("no_decoder", reason, self._video.path) from error


def _reformat() -> Callable[..., Any]:
    import av

    reformat: Callable[..., Any] = av.video.reformatter.VideoReformatter().reformat
    return reformat


def _alpha_decoder(stream: Any) -> Any:
    """A decoder that sees transparency where the usual one does not; None where that is no matter.

    WebM keeps it beside the pictures of VP8 and VP9, and FFmpeg's own decoders leave it there.
    """
    import av

    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name)
    if name is None or stream.metadata.get("alpha_mode") != "1":
        return None
    try:
        decoder = av.CodecContext.create(name, "r")
    except (ValueError, av.error.FFmpegError):  # This build of FFmpeg has none.
        return None
    decoder.extradata = stream.codec_context.extradata
    return decoder


def _shown_width(width: int, pixel_aspect: Fraction | float | None) -> int:
    """The width in pixels as high as they are wide, of pictures whose pixels need not be so.

    Args:
        width: of what is stored.
        pixel_aspect: width of a stored pixel over its height; None or 0 if it is not known.
    """
    if not pixel_aspect or not 1 / MAX_PIXEL_ASPECT <= pixel_aspect <= MAX_PIXEL_ASPECT:
        return width
    shown = max(1, round(width * pixel_aspect))
    return shown if shown <= max(width, MAX_WIDTH) else width


def _orientation(frame: Any) -> tuple[bool, int]:
    """Whether a frame is mirrored left to right first, then its quarter turns clockwise.

    To be asked of one frame only: PyAV's list of side data and its frame hold each other, and so
    the picture stays in memory until Python looks for such circles.
    """
    from av.sidedata.sidedata import Type

    found = _side_data(frame).get(Type.DISPLAYMATRIX)
    if found is None:
        return False, 0
    # ISO/IEC 14496-12, 8.3.2: the point (x, y), y downwards, is shown at (a x + c y, b x + d y).
    a, b, _, c, d = struct.unpack("=5i", bytes(found)[:20])
    is_mirrored = a * d - b * c < 0
    sign = -1 if is_mirrored else 1
    return is_mirrored, round(math.atan2(sign * b, sign * a) / (math.pi / 2)) % 4


def _side_data(frame: Any) -> Mapping[Any, Any]:
    """What a frame carries besides its picture, of the kinds that PyAV knows.

    FFmpeg knows more (of spatial video, EXIF), and PyAV then refuses all with a ValueError.
    """
    import av
    from av.sidedata.sidedata import Type

    with suppress(ValueError):
        return cast(Mapping[Any, Any], frame.side_data)
    kinds: Any = Type
    first = max(each.value for each in kinds) + 1
    try:
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
        )
        unknown = range(first, first + _UNKNOWN_KINDS)
        filters = [graph.add("sidedata", f"mode=delete:type={kind}") for kind in unknown]
        graph.link_nodes(source, *filters, graph.add("buffersink")).configure()
        graph.push(frame)
        return cast(Mapping[Any, Any], graph.pull().side_data)
    except (ValueError, av.error.FFmpegError):
        return {}


_UNKNOWN_KINDS = 32  # of side data, that an FFmpeg may know and a PyAV not; 4 in FFmpeg 8.1


def _container(path: Path) -> Any:
    import av

    try:
        # As a URL, so that no file name is taken for a protocol.
        return av.open(
            f"file:{path}",
            metadata_errors="ignore",
            options={"protocol_whitelist": "file", "format_whitelist": _CONTAINERS},
        )
    except av.error.FFmpegError as error:
        raise _not_opened(path) from error


def _video_stream(container: Any, path: Path) -> Any:
    from av.stream import Disposition

    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic  # a music file's cover
    ]
    if not streams:
        held = "only sound" if container.streams.audio else "no pictures"
        raise VideoError("no_video_stream", f"it holds {held}", path)
    streams = [stream for stream in streams if stream.codec_context is not None]
    if not streams:
        raise VideoError("no_decoder", "no decoder for its pictures", path)
    stream = max(streams, key=lambda each: each.width * each.height)
    stream.thread_type = "AUTO"
    return stream


_BARE = ("h264", "hevc", "m4v", "mpegvideo")  # FFmpeg's names of streams without a container


def _rate(container: Any, stream: Any) -> Fraction | None:
    """Frames per second. Without a container the average is FFmpeg's 25, the guess the codec's."""
    rates = [stream.average_rate, stream.guessed_rate]
    if container.format.name in _BARE:
        rates.reverse()
    rate = rates[0] or rates[1]
    return rate and Fraction(rate)


def _measured_s(path: Path, alive: Callable[[], object]) -> float | None:
    import av

    time, lasts = Fraction(0), Fraction(0)
    with suppress(VideoError), _container(path) as container:
        stream = _video_stream(container, path)
        clock = _Clock(_rate(container, stream), None)
        # Damage ends the count: what lies behind it is not worth a second look here.
        with suppress(av.error.FFmpegError, IndexError):
            for packet in container.demux(stream):
                if packet.size:
                    # In the order of decoding, in which the times of showing go to and fro.
                    stamp = packet.pts if packet.dts is None else packet.dts
                    scale = packet.time_base
                    time = clock.time(None if stamp is None else _seconds(stamp, scale))
                    lasts = _seconds(packet.duration or 0, scale)
                alive()
    return _plausible(float(time + lasts))


class _PyAvVideo(Video):
    def __init__(self, path: Path) -> None:
        import av

        super().__init__(path)
        self._ffmpeg_error = av.error.FFmpegError
        self._failures_in_a_row = 0
        self._container = _container(path)
        try:
            self._stream = _video_stream(self._container, path)
            self._decoder = _alpha_decoder(self._stream) or self._stream.codec_context
            # What the container states; a decoder writes over it what the pictures state.
            declared = Colours.of(self._stream.codec_context)
            may_be_unset = self._stream.codec_context.name == "rawvideo"
            self.full = FrameConverter(declared, _reformat(), may_be_unset=may_be_unset)
            self.small = FrameConverter(
                declared, _reformat(), interpolation="AREA", may_be_unset=may_be_unset
            )
            self._frames = self._decode()
            self._first = next(self._frames, None)
            if self._first is None:
                raise _no_frames(path)
            self.orientation = _orientation(self._first)
            self.pixel_aspect = self._stream.sample_aspect_ratio
            self.info = self._describe(self._first)
        except BaseException:
            self.close()
            raise

    def _describe(self, frame: Any) -> VideoInfo:
        _, turns = self.orientation
        width = _shown_width(frame.width, self.pixel_aspect)
        height = frame.height
        if turns % 2:
            width, height = height, width
        file_us = self._container.duration
        return VideoInfo(
            width,
            height,
            90 * turns,
            _plausible(self._announced_s()),
            _plausible(None if file_us is None else file_us / 1_000_000),
        )

    def _announced_s(self) -> float | None:
        stream, container = self._stream, self._container
        if stream.duration is not None and stream.time_base is not None:
            return float(_seconds(stream.duration, stream.time_base))
        # Matroska keeps each stream's length as a tag, the file's as that of the longest stream.
        with suppress(KeyError, ValueError):
            hours, minutes, seconds = stream.metadata["DURATION"].split(":")
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        if container.duration is not None and len(container.streams) == 1:
            return float(container.duration) / 1_000_000
        return None

    def _packets(self) -> Iterator[Any]:
        """The stream's packets; a stretch that the container's reader stumbles over is skipped."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                yield next(packets)
            except (StopIteration, IndexError):
                # IndexError: at the end PyAV looks for streams that came up in the middle, as in
                # a damaged file, in a list that was made at the start.
                return
            except self._ffmpeg_error:
                if self._failed():
                    return
                packets = self._container.demux(self._stream)

    def _decode(self) -> Iterator[Any]:
        for packet in self._packets():
            if packet.has_sidedata(_ENCRYPTION):
                self.ended_early = "the rest of it is encrypted"
                return
            try:
                frames = self._decoder.decode(packet)
            except self._ffmpeg_error as error:
                if isinstance(error, EOFError):
                    return
                frames = ()
                if self._failed():
                    return
            for frame in frames:
                if frame.is_corrupt:
                    # A decoder paints over what is missing: a picture of nothing that was filmed.
                    self.decode_failures += 1
                    continue
                self._failures_in_a_row = 0
                yield frame

    def _failed(self) -> bool:
        """Count a failure; whether there were too many in a row."""
        self.decode_failures += 1
        self._failures_in_a_row += 1
        if self._failures_in_a_row < MAX_FAILURES_IN_A_ROW:
            return False
        self.ended_early = f"{self._failures_in_a_row} damaged packets in a row"
        return True

    def __iter__(self) -> Iterator[Frame]:
        clock = _Clock(_rate(self._container, self._stream), self.info.announced_s)
        # AVI knows no presentation times: what is called so counts packets as they are stored.
        is_avi = self._container.format.name == "avi"
        index, frame = 0, self._first
        self._first = None
        while frame is not None:
            count = frame.dts if is_avi else frame.pts
            stamp = None if count is None else _seconds(count, frame.time_base)
            lasts_s = _plausible(float(_seconds(frame.duration, frame.time_base)))
            yield _PyAvFrame(index, float(clock.time(stamp)), lasts_s, frame, self)
            index, frame = index + 1, next(self._frames, None)

    def close(self) -> None:
        self._container.close()


def _seconds(count: int, time_base: Any) -> Fraction:
    # Newer releases have a rational type of their own for the time base.
    return count * Fraction(time_base.numerator, time_base.denominator)


def _not_opened(path: Path) -> VideoError:
    # The index of an MP4 file stands at its end: a part of such a file says nothing about itself.
    if path.suffix.lower() in (".mp4", ".m4v", ".mov", ".3gp", ".3g2") and _is_mp4(path):
        return VideoError("not_a_video", "damaged or cut off: its index is missing", path)
    return VideoError("not_a_video", "not a video that can be read", path)


_ENCRYPTION = "encryption_info"  # FFmpeg puts it beside each packet that needs a key
_PROTECTED = ("encv", "drmi")  # what MP4 calls pictures under protection
_ENCRYPTED = re.compile(
    # Matroska's ContentEncryption with its algorithm, and ASF's two objects of that name.
    rb"\x50\x35.{1,12}\x47\xe1|\xfb\xb3\x11\x22\x23\xbd\xd2\x11\xb4\xb7\x00\xa0\xc9\x55\xfc\x6e"
    rb"|\x14\xe6\x8a\x29\x22\x26\x17\x4c\xb9\x35\xda\xe0\x7e\xe9\x28\x9c",
    re.DOTALL,
)


def _no_frames(path: Path) -> VideoError:
    if _is_encrypted(path):
        reason = "it is encrypted (DRM): only a copy without protection can be read"
        return VideoError("no_decoder", reason, path)
    return VideoError("no_frames", "no frame of it can be decoded", path)


def _is_encrypted(path: Path) -> bool:
    """Whether a file of which nothing can be decoded says that it is encrypted."""
    import av

    with suppress(VideoError, av.error.FFmpegError, IndexError), _container(path) as container:
        stream = _video_stream(container, path)
        if stream.codec_context.codec_tag in _PROTECTED:
            return True
        first = next((packet for packet in container.demux(stream) if packet.size), None)
        if first is not None and first.has_sidedata(_ENCRYPTION):
            return True
    with suppress(OSError), path.open("rb") as file:
        return _ENCRYPTED.search(file.read(65_536)) is not None
    return False


def _is_mp4(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return file.read(12)[4:8] == b"ftyp"
    return False


# --- OpenCV --------------------------------------------------------------------------------


@contextmanager
def _opencv_options() -> Iterator[None]:
    """Forbid playlists; OpenCV takes FFmpeg's options from the environment and nowhere else."""
    name = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
    before = os.environ.get(name)
    os.environ[name] = f"protocol_whitelist;file|format_whitelist;{_CONTAINERS}"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class _OpenCvFrame(Frame):
    def __init__(
        self, index: int, time_s: float, picture: Picture, shown_size: tuple[int, int]
    ) -> None:
        super().__init__(index, time_s, None)
        self._picture = picture
        self._shown_size = shown_size

    def rgb(self) -> Picture:
        import cv2

        height, width = self._picture.shape[:2]
        shown = self._picture
        if (width, height) != self._shown_size:
            shown = np.asarray(cv2.resize(shown, self._shown_size), dtype=np.uint8)
        picture: Picture = np.ascontiguousarray(shown[:, :, ::-1])
        return picture

    def thumbnail(self, width: int, height: int) -> Picture:
        import cv2

        small = cv2.resize(self._picture, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(small, dtype=np.uint8)


def _opencv_size(
    shape: Sequence[int], rotation: int, pixel_aspect: float | None
) -> tuple[int, int]:
    """(width, height) at which pictures are shown that OpenCV has turned already."""
    height, width = shape[:2]
    if rotation % 180:
        return width, _shown_width(height, pixel_aspect)
    return _shown_width(width, pixel_aspect), height


class _OpenCvVideo(Video):
    """OpenCV turns pictures upright itself; its clock is the timestamp, its counts are guesses.

    What it does not do: it decodes no AV1, ends in silence at what it cannot decode, turns
    mirrored pictures wrongly, takes a sound file's cover for a video, brings all frames to one
    size, cannot open names that are not UTF-8, takes the longest stream's length for the video's
    in Matroska, takes what has no container for 25 frames a second, and shows high dynamic range
    and BT.709 as if they were BT.601, and transparent pixels in the colour that lies behind.
    """

    def __init__(self, path: Path) -> None:
        import cv2

        super().__init__(path)
        self._cv2 = cv2
        try:
            os.fspath(path).encode()
        except UnicodeEncodeError as error:
            raise VideoError("unreadable", "OpenCV needs a name in UTF-8", path) from error
        with _opencv_options():
            # With the folder, so that no file name is taken for a protocol.
            self._capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)
        try:
            if not self._capture.isOpened():
                raise _not_opened(path)
            read, first = self._capture.read()
            if not read:
                raise _no_frames(path)
        except BaseException:
            self.close()
            raise
        self._first: Any = first
        get = self._capture.get
        rate, count = get(cv2.CAP_PROP_FPS), get(cv2.CAP_PROP_FRAME_COUNT)
        self._rate = rate
        rotation = int(get(cv2.CAP_PROP_ORIENTATION_META)) % 360
        high = get(cv2.CAP_PROP_SAR_DEN)
        pixel_aspect = get(cv2.CAP_PROP_SAR_NUM) / high if high > 0 else None
        self._shown_size = _opencv_size(first.shape, rotation, pixel_aspect)
        announced_s = _plausible(count / rate if rate > 0 else None)
        self.info = VideoInfo(*self._shown_size, rotation, announced_s)

    def __iter__(self) -> Iterator[Frame]:
        clock = _Clock(self._rate, self.info.announced_s)
        index, picture = 0, self._first
        self._first = None
        while picture is not None:
            stamp_ms = self._capture.get(self._cv2.CAP_PROP_POS_MSEC)
            # Zero also stands for a stamp that is not known.
            stamp = Fraction(stamp_ms) / 1000 if index == 0 or stamp_ms != 0 else None
            yield _OpenCvFrame(index, float(clock.time(stamp)), picture, self._shown_size)
            read, picture = self._capture.read()
            index, picture = index + 1, picture if read else None

    def close(self) -> None:
        self._capture.release()


# --- WebP ----------------------------------------------------------------------------------


class _WebPVideo(Video):
    """An animated WebP, or a still as a video of one frame, whatever reader was asked for."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._image = animations.open_webp(path)
        except _PILLOW_ERRORS as error:
            raise _not_opened(path) from error
        self._frames = animations.webp_frames(self._image)
        self._first = self._next()
        if self._first is None:
            self.close()
            raise _no_frames(path)
        self.info = VideoInfo(*self._image.size, 0, None)

    def measured_s(self, alive: Callable[[], object] = lambda: None) -> float | None:
        total_s = 0.0
        with suppress(*_PILLOW_ERRORS), animations.open_webp(self.path) as image:
            for _, lasts_s in animations.webp_frames(image):
                total_s += lasts_s
                alive()
        return _plausible(total_s)

    def _next(self) -> tuple[Picture, float] | None:
        try:
            return next(self._frames, None)
        except _PILLOW_ERRORS:
            self.decode_failures += 1
            self.ended_early = "a damaged frame"
            return None

    def __iter__(self) -> Iterator[Frame]:
        index, time_s, found = 0, 0.0, self._first
        self._first = None
        while found is not None:
            picture, lasts_s = found
            height, width = picture.shape[:2]
            bgr = np.ascontiguousarray(picture[:, :, ::-1])
            frame = _OpenCvFrame(index, time_s, bgr, (width, height))
            frame.duration_s = lasts_s
            yield frame
            index, time_s, found = index + 1, time_s + lasts_s, self._next()

    def close(self) -> None:
        self._image.close()


_PILLOW_ERRORS = (OSError, ValueError, SyntaxError, RuntimeError, Image.DecompressionBombError)
