"""Tag videos: frames to captions, captions to segments and tags.

A child process decodes (`captioner.video.process`), the frames of all videos flow through the
captioner in shared batches, and `timeline` puts each video's captions together. A thousand short
clips cost what one long one costs, and memory does not grow with the length of a video's frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from glob import has_magic
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np

from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError
from captioner.files.escaping import escaped
from captioner.files.finding import SourceFile, printable
from captioner.files.given import Files, files_of
from captioner.files.urls import refuse_url
from captioner.images.blank import is_blank
from captioner.images.thumbnails import Filmstrip
from captioner.model.caption_model import CaptionModel
from captioner.model.results import CaptionResult
from captioner.model.shipped import load_model
from captioner.model.tags import Tag, tags_of
from captioner.tagging.batches import FrameCaptioner
from captioner.tagging.options import FrameBatchOptions, TagOptions
from captioner.tagging.primitives import frame_dict, interval, segment_dict, video_tag_dict
from captioner.tagging.timeline import (
    CaptionedFrame,
    OtherCaption,
    Segment,
    Shot,
    VideoTag,
    build_timeline,
)
from captioner.video.events import ChosenFrame, Ended, Event, Failed, Opened
from captioner.video.finding import find_videos
from captioner.video.frames import VideoError, VideoInfo
from captioner.video.options import SamplingOptions
from captioner.video.process import VideoProcess
from captioner.video.sampling import Cut

SCHEMA = "captioner-video-2"

SAME_THING = 0.65
"""Least cosine between the CNN features of a frame and the mean of its segment's.

Of two crops of one Flickr8k validation photo 97 in 100 are more alike than that, of two photos 1 in
100 (`benchmarks/consensus.py`)."""

Progress = Callable[[SourceFile, float, float | None], object]
"""Called with the video, the time its frames have reached and its expected length, in seconds."""


@dataclass(frozen=True)
class VideoTags:
    """What a video shows and when.

    Attributes:
        file_name: `captioner.files.finding.SourceFile.name`.
        path: where the file is.
        status: ``ok``; ``partial``: what could be read is here, and `error` says why it is not
            all; ``failed``: nothing could be read.
        error: why not all could be read; None if all could.
        info: what the container says; None for a video that failed.
        measured: what decoding it showed; None if it was not decoded to its end.
        duration_s: in seconds; of a partial video, how far it could be read.
        shots: what was filmed without a cut, in the order of time.
        frames: the frames that were looked at.
        segments: stretches in which the frames show the same thing.
        tags: of the whole video, ranked.
        thumbnails: a small JPEG file for each segment, if they were asked for.
    """

    file_name: str
    path: Path
    status: str
    error: Failed | None
    info: VideoInfo | None = None
    measured: Ended | None = None
    duration_s: float = 0.0
    shots: tuple[Shot, ...] = ()
    frames: tuple[CaptionedFrame, ...] = ()
    segments: tuple[Segment, ...] = ()
    tags: tuple[VideoTag, ...] = ()
    thumbnails: tuple[bytes, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        """What there is of it, on one line."""
        if self.status == "failed":
            return f"{escaped(self.file_name)}: failed ({self.error and self.error.reason})"
        names = ", ".join(tag.name for tag in self.tags[:10]) or "no tags"
        about = f"{self.duration_s:.1f} s, {len(self.segments)} segments"
        return f"{escaped(self.file_name)}: {about}; {names}"

    def to_dict(self) -> dict[str, Any]:
        """The record that `captioner.tagging.writers` write, JSON primitives; docs/video-tags.md.

        Times are in seconds, rounded to milliseconds.
        """
        return {
            "schema": SCHEMA,
            "status": self.status,
            "error": self._error_dict(),
            "video": self._video_dict(),
            "shots": [interval(shot) for shot in self.shots],
            "segments": [segment_dict(segment) for segment in self.segments],
            "frames": [frame_dict(frame) for frame in self.frames],
            "tags": [video_tag_dict(tag) for tag in self.tags],
        }

    def _error_dict(self) -> dict[str, str] | None:
        if self.error is None:
            return None
        return {"code": self.error.code, "message": self.error.reason}

    def _video_dict(self) -> dict[str, Any]:
        info, measured = self.info, self.measured
        return {
            "file_name": self.file_name,
            "duration_s": round(self.duration_s, 3),
            "width": info and info.width,
            "height": info and info.height,
            "rotation": info and info.rotation,
            "average_fps": measured and round(measured.average_fps, 3),
            "is_vfr": measured and measured.is_vfr,
            "frame_count": measured and measured.frame_count,
            "decode_failures": measured and measured.decode_failures,
        }


def tag_video(
    path: str | Path,
    *,
    model: CaptionModel | None = None,
    sampling: SamplingOptions | None = None,
    tagging: TagOptions | None = None,
    decoding: DecodingOptions | None = None,
) -> VideoTags:
    """Tag one video; see :func:`tag_videos` for the options.

    Args:
        path: the file; or a folder that holds one video alone, or a pattern of one.
        model: the captioner; the one that ships by default.
        sampling: which frames are looked at.
        tagging: which tags are kept.
        decoding: how frames are captioned.

    Raises:
        captioner.video.frames.VideoError: when nothing can be read from it.
        CaptionerError: the path is a URL, or leads to no video or to several.
    """
    file = _only_video(path)
    videos = tag_videos(
        model or load_model(), [file], sampling=sampling, tagging=tagging, decoding=decoding
    )
    (video,) = videos
    if video.status == "failed":
        assert video.error is not None
        raise VideoError(video.error.code, video.error.reason, file.path)
    return video


def _only_video(path: str | Path) -> SourceFile:
    refuse_url(path)
    is_one = not Path(path).is_dir() and not (has_magic(str(path)) and not Path(path).exists())
    if is_one:
        return SourceFile(Path(path), printable(Path(path).name))
    first, *others = islice(find_videos(path), 2)
    if others:
        raise CaptionerError(
            f"{printable(path)} holds several videos, and tag_video takes one: tag_videos takes all"
        )
    return first


def tag_videos(
    model: CaptionModel,
    files: Files,
    *,
    sampling: SamplingOptions | None = None,
    tagging: TagOptions | None = None,
    decoding: DecodingOptions | None = None,
    batch_size: int = FrameBatchOptions.batch_size,
    on_progress: Progress | None = None,
    thumbnails: bool = False,
) -> Generator[VideoTags, None, None]:
    """Tag videos lazily, in their order; one that cannot be read becomes a record with an error.

    What a video gets depends on nothing but the video, the model and the options, up to rounding:
    a frame's row in a batch depends on what else is tagged, and so may the last bits of its
    numbers, which the digits that are written leave out.

    Args:
        model: the captioner. Without a lexicon (`captioner calibrate`) it gives no tags.
        files: videos, folders, patterns, or what `captioner.video.finding.find_videos` lists.
        sampling: which frames are looked at; the defaults of `SamplingOptions` otherwise.
        tagging: which tags are kept; the defaults of `TagOptions` otherwise.
        decoding: how frames are captioned; the model's own way otherwise, with which
            tags were calibrated.
        batch_size: frames that the model sees at once.
        on_progress: called after each frame that was read.
        thumbnails: also make a small image of each segment.

    Raises:
        ValueError: batch_size is too small; raised by the call itself.
        CaptionerError: the decoding options do not suit the model, or a path leads to no video.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: at least 1 frame is captioned at once")
    return _tag_videos(
        FrameCaptioner(model, decoding or model.decoding, batch_size),
        files_of(files, find_videos),
        sampling or SamplingOptions(),
        tagging or TagOptions(),
        on_progress,
        thumbnails,
    )


def _tag_videos(
    captioner: FrameCaptioner,
    files: Iterable[SourceFile],
    sampling: SamplingOptions,
    tagging: TagOptions,
    on_progress: Progress | None,
    thumbnails: bool,
) -> Generator[VideoTags, None, None]:
    open_videos: deque[_OpenVideo] = deque()
    with VideoProcess(captioner.model.transform, sampling) as process:
        for file, event in process.read(files):
            if not open_videos or open_videos[-1].end is not None:
                open_videos.append(_OpenVideo(file, captioner.model, thumbnails, sampling.start_s))
            video = open_videos[-1]
            video.take(event)
            if isinstance(event, ChosenFrame):
                if event.pixels is not None:
                    captioner.add(event.pixels, video.take_result)
                if on_progress is not None:
                    expected_s = None if video.info is None else video.info.expected_s
                    on_progress(file, event.time_s, expected_s)
            while open_videos and open_videos[0].is_done:
                yield open_videos.popleft().finish(tagging)
        captioner.flush(is_last=True)
    while open_videos:
        yield open_videos.popleft().finish(tagging)


def _others(result: CaptionResult) -> dict[str, OtherCaption]:
    return {
        language: OtherCaption(each.text, each.candidates[0].words, each.confidence)
        for language, each in result.other_languages.items()
    }


class _OpenVideo:
    """A video between its first event and its last caption."""

    def __init__(
        self, file: SourceFile, model: CaptionModel, thumbnails: bool, start_s: float
    ) -> None:
        self.file = file
        self._start_s = start_s
        self.info: VideoInfo | None = None
        self.end: Ended | Failed | None = None
        self._model = model
        self._filmstrip = Filmstrip(model.transform) if thumbnails else None
        self._cuts_s: list[float] = []
        self._waiting: deque[tuple[ChosenFrame, int]] = deque()  # with the number of their shot
        self._frames: list[CaptionedFrame] = []
        self._result: tuple[CaptionResult, tuple[Tag, ...]] | None = None
        self._segment_sum: np.ndarray[Any, Any] | None = None  # of the looks of its frames (D,)
        self._look: np.ndarray[Any, Any] | None = None
        self._is_blank = False  # of the latest image

    def take(self, event: Event) -> None:
        if isinstance(event, Opened):
            self.info = event.info
        elif isinstance(event, Cut):
            self._cuts_s.append(event.time_s)
        elif isinstance(event, ChosenFrame):
            self._waiting.append((event, len(self._cuts_s)))
            if len(self._waiting) == 1 and event.pixels is None:
                self._settle()
        else:
            self.end = event

    def take_result(self, result: CaptionResult, look: np.ndarray[Any, Any]) -> None:
        """The caption of the first image that waits for one, and its unit features (D,)."""
        lexicon = self._model.lexicon
        tags = () if lexicon is None else tags_of(result, lexicon, self._model.tag_calibration)
        self._result, self._look = (result, tags), look
        self._settle()
        while self._waiting and self._waiting[0][0].pixels is None:
            self._settle()

    def _settle(self) -> None:
        """Turn the first waiting image into a frame with the latest caption."""
        assert self._result is not None and self._look is not None
        image, shot = self._waiting.popleft()
        if image.pixels is not None:
            self._is_blank = is_blank(np.frombuffer(image.pixels, np.uint8).reshape(-1, 3))
        frame = self._frame(image, shot, *self._result)
        if self._filmstrip is not None:
            is_new, pixels = frame.starts_segment, image.pixels
            self._filmstrip.add(pixels, frame.confidence, is_new, self._size)
        self._frames.append(frame)

    def _frame(
        self, image: ChosenFrame, shot: int, result: CaptionResult, tags: tuple[Tag, ...]
    ) -> CaptionedFrame:
        assert self._look is not None
        best, blank = result.candidates[0], self._is_blank
        return CaptionedFrame(
            time_s=image.time_s,
            frame_index=image.frame_index,
            shot=shot,
            starts_segment=self._starts_segment(shot, self._look),
            text=None if blank else result.text,
            words=() if blank else best.words,
            confidence=0.0 if blank else result.confidence,
            avg_logprob=None if blank else best.log_prob / len(best.word_probs),
            tags=() if blank else tags,
            until_s=image.until_s,
            others={} if blank else _others(result),
        )

    def _starts_segment(self, shot: int, look: np.ndarray[Any, Any]) -> bool:
        total, last = self._segment_sum, self._frames[-1] if self._frames else None
        goes_on = last is not None and (last.shot, last.text is None) == (shot, self._is_blank)
        if goes_on and total is not None:
            likeness = float(total @ look) / float(np.linalg.norm(total))
            if likeness >= SAME_THING or self._is_blank:
                self._segment_sum = total + look
                return False
        self._segment_sum = look
        return True

    @property
    def _size(self) -> tuple[int, int]:
        """(width, height), as it is shown."""
        return (1, 1) if self.info is None else (self.info.width, self.info.height)

    @property
    def is_done(self) -> bool:
        return self.end is not None and not self._waiting

    def finish(self, options: TagOptions) -> VideoTags:
        assert self.end is not None and not self._waiting
        failed = self.end if isinstance(self.end, Failed) else None
        measured = None if isinstance(self.end, Failed) else self.end
        if not self._frames:
            assert failed is not None, "a video that was read to its end has a frame"
            return VideoTags(self.file.name, self.file.path, "failed", failed)
        if measured is not None and measured.partial is not None:
            failed = Failed("cut_off", measured.partial)
        # Of one that was given up nothing is known beyond the last frame that was looked at.
        known_s = max([self._frames[-1].time_s, *self._cuts_s])
        duration_s = known_s if measured is None else measured.duration_s
        timeline = build_timeline(
            self._frames, self._cuts_s, duration_s, self._model.lexicon, options, self._start_s
        )
        return VideoTags(
            file_name=self.file.name,
            path=self.file.path,
            status="ok" if failed is None else "partial",
            error=failed,
            info=self.info,
            measured=measured,
            duration_s=duration_s,
            shots=timeline.shots,
            frames=tuple(self._frames),
            segments=timeline.segments,
            tags=timeline.tags,
            thumbnails=self._thumbnails(timeline.segments),
        )

    def _thumbnails(self, segments: Iterable[Segment]) -> tuple[bytes, ...]:
        """An image of each segment; the filmstrip has one of each part that became one of them."""
        if self._filmstrip is None:
            return ()
        images = self._filmstrip.finish(self._size)
        parts = list(accumulate(int(frame.starts_segment) for frame in self._frames))
        surest = (
            max(segment.frames, key=lambda position: self._frames[position].confidence)
            for segment in segments
        )
        return tuple(images[parts[position] - 1] for position in surest)
