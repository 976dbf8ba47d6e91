"""Read videos with PyAV: exact times, all damage counted, everything that FFmpeg decodes."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from captioner.images.transform import ImageTransform
from captioner.video.colours import BT601, BT709, Colours, FrameConverter
from captioner.video.containers import (
    ENCRYPTION,
    MAX_FAILURES_IN_A_ROW,
    frame_rate,
    measured_lengths,
    no_frames,
    open_container,
    own_length_s,
    packets_of,
    seconds_of,
    video_stream,
)
from captioner.video.cropping import find_crop
from captioner.video.frames import (
    Clock,
    Frame,
    Lengths,
    Pixels,
    Video,
    VideoError,
    VideoInfo,
    plausible,
    shown_width,
)

MAX_SHRINKING = 64
"""How many times the new width or height the old may be: the scaler's filters have a limit."""


class PyAvFrame(Frame):
    """A frame that PyAV decodes.

    Args:
        index: see `Frame`.
        time_s: likewise.
        duration_s: likewise.
        frame: PyAV's; None for one that is not decoded yet.
        video: which it is of.
    """

    def __init__(
        self, index: int, time_s: float, duration_s: float | None, frame: Any, video: PyAvVideo
    ) -> None:
        super().__init__(index, time_s, duration_s)
        self._frame = frame
        self._video = video
        self._pixel_aspect = video.pixel_aspect  # of this frame: it can change

    def rgb(self) -> Pixels:
        """See `Frame.rgb`."""
        frame = self._frame
        width = shown_width(frame.width, self._pixel_aspect)
        image = self._converted(lambda: self._video.full.rgb(frame, width, frame.height))
        crop = self._video.crop
        if crop is not None and crop.size == (frame.width, frame.height):
            left, top, right, bottom = crop.edges
            wider = width / frame.width
            image = image[top:bottom, round(left * wider) : max(1, round(right * wider))]
        return self._upright(image)

    def _upright(self, image: Pixels) -> Pixels:
        is_mirrored, turns = self._video.orientation
        if is_mirrored:
            image = image[:, ::-1]
        return np.ascontiguousarray(np.rot90(image, -turns))  # NumPy counts counterclockwise

    def fitted(self, transform: ImageTransform) -> Image.Image:
        """See `Frame.fitted`."""
        width, height = transform.size[:: -1 if self._video.orientation[1] % 2 else 1]
        if not self._shrinks_at_once(transform, width, height):
            return super().fitted(transform)
        converter = self._video.shrinking(transform.interpolation)
        image = self._converted(lambda: converter.rgb(self._frame, width, height))
        return Image.fromarray(self._upright(image))

    def _shrinks_at_once(self, transform: ImageTransform, width: int, height: int) -> bool:
        """Whether FFmpeg's scaler makes of the stored image what the transform makes of the shown.

        It takes a fifth of the time of both steps, and rounds once. Enlarging, the two differ.
        """
        frame, video = self._frame, self._video
        is_squashed = transform.resize == "squash" and video.crop is None
        is_less = all(
            new <= old <= MAX_SHRINKING * new
            for new, old in ((width, frame.width), (height, frame.height))
        )
        return is_squashed and is_less and video.full.is_opaque_sdr(frame)

    def thumbnail(self, width: int, height: int) -> Pixels:
        """See `Frame.thumbnail`."""
        import cv2

        # FFmpeg's own way to BGR is faster, and rounds differently.
        image = self._converted(lambda: self._video.small.rgb(self._frame, width, height))
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8)

    def _converted(self, convert: Callable[[], Pixels]) -> Pixels:
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
            reason = f"its frames of the pixel format {self._frame.format.name} cannot be converted"
            raise VideoError("no_decoder", reason, self._video.path) from error


def _reformat() -> Callable[..., Any]:
    import av

    reformat: Callable[..., Any] = av.video.reformatter.VideoReformatter().reformat
    return reformat


def _alpha_decoder(stream: Any) -> Any:
    """A decoder that sees transparency where the usual one does not; None where that is not needed.

    WebM keeps it beside the frames of VP8 and VP9, and FFmpeg's own decoders leave it there.
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


def _orientation(frame: Any) -> tuple[bool, int]:
    """Whether a frame is mirrored left to right first, then its quarter turns clockwise.

    To be asked of one frame only: PyAV's list of side data and its frame hold each other, and so
    the image stays in memory until Python looks for such circles.
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
    """The side data of a frame, of the kinds that PyAV knows.

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


class PyAvVideo(Video):
    """A video that PyAV reads."""

    def __init__(self, path: Path) -> None:
        import av

        super().__init__(path)
        self._ffmpeg_error = av.error.FFmpegError
        self._failures_in_a_row = 0
        self._container = open_container(path)
        try:
            self._stream = video_stream(self._container, path)
            self._decoder = _alpha_decoder(self._stream) or self._stream.codec_context
            # What the container states; a decoder writes over it what the frames state.
            declared = Colours.of(self._stream.codec_context)
            may_be_unset = self._stream.codec_context.name == "rawvideo"
            self._declared = declared
            self.full = FrameConverter(declared, _reformat(), may_be_unset=may_be_unset)
            self.small = FrameConverter(
                declared, _reformat(), interpolation="AREA", may_be_unset=may_be_unset
            )
            self._shrinking: dict[str, FrameConverter] = {}
            self._frames = self._decode()
            self._first = next(self._frames, None)
            if self._first is None:
                raise no_frames(path)
            self.orientation = _orientation(self._first)
            self.pixel_aspect = self._stream.sample_aspect_ratio
            self.stated_aspect = self._decoder.sample_aspect_ratio
            self.is_interlaced = self._first.interlaced_frame
            self.crop = find_crop(path, self._first.width, self._first.height)
            self.info = self._describe(self._first)
        except BaseException:
            self.close()
            raise

    def shrinking(self, interpolation: str) -> FrameConverter:
        """What scales images down, in a way of `captioner.images.transform`."""
        from av.video.reformatter import Interpolation

        if interpolation not in self._shrinking:
            # Without the flag two pixels share a colour, and the image is darker, by 2 of 255.
            way = Interpolation[interpolation.upper()] | Interpolation.FULL_CHR_H_INT
            self._shrinking[interpolation] = FrameConverter(
                self._declared, _reformat(), interpolation=way
            )
        return self._shrinking[interpolation]

    def _describe(self, frame: Any) -> VideoInfo:
        _, turns = self.orientation
        width, height = frame.width, frame.height
        if self.crop is not None:
            width, height = self.crop.width, self.crop.height
        width = shown_width(width, self.pixel_aspect)
        if turns % 2:
            width, height = height, width
        file_us = self._container.duration
        return VideoInfo(
            width,
            height,
            90 * turns,
            plausible(self._announced_s()),
            plausible(None if file_us is None else file_us / 1_000_000),
            is_exact=own_length_s(self._container, self._stream) is not None,
        )

    def _announced_s(self) -> float | None:
        stream, container = self._stream, self._container
        own_s = own_length_s(container, stream)
        if own_s is not None:
            return own_s
        if stream.duration is not None and stream.time_base is not None:
            return float(seconds_of(stream.duration, stream.time_base))
        if container.duration is not None and len(container.streams) == 1:
            return float(container.duration) / 1_000_000
        return None

    def _decode(self) -> Iterator[Any]:
        for packet in packets_of(self._container, [self._stream], self._failed):
            if packet.has_sidedata(ENCRYPTION):
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
                    # A decoder paints over what is missing: an image of nothing that was filmed.
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
        clock = Clock(frame_rate(self._container, self._stream), self.info.announced_s)
        # AVI knows no presentation times: what is called so counts packets as they are stored.
        is_avi = self._container.format.name == "avi"
        index, frame = 0, self._first
        self._first = None
        while frame is not None:
            self._follow_aspect()
            count = frame.dts if is_avi else frame.pts
            stamp = None if count is None else seconds_of(count, frame.time_base)
            lasts_s = plausible(float(seconds_of(frame.duration, frame.time_base)))
            yield PyAvFrame(index, float(clock.time(stamp)), lasts_s, frame, self)
            index, frame = index + 1, next(self._frames, None)

    def _follow_aspect(self) -> None:
        """Broadcasts change the shape of pixels with the programme: their frames say it.

        Where the container says another shape than the frames, as MP4 and Matroska may, it counts.
        """
        stated = self._decoder.sample_aspect_ratio
        if self.stated_aspect == self.pixel_aspect and stated:
            self.stated_aspect = self.pixel_aspect = stated

    def lengths(self, alive: Callable[[], object] = lambda: None) -> Lengths:
        """See `Video.lengths`."""
        return measured_lengths(self.path, alive)

    def close(self) -> None:
        """Close the file."""
        self._container.close()
