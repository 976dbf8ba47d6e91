"""The work of `captioner tag` on shards."""

from __future__ import annotations

import json
import tempfile
import threading
from collections import deque
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.decoding.options import DecodingOptions
from captioner.files.finding import SourceFile
from captioner.files.kinds import suffix_of
from captioner.files.stores import local_path
from captioner.images.ahead import iterate_ahead
from captioner.shards.lists import COLUMNS
from captioner.shards.tasks import FILES, ShardTask
from captioner.shards.work import VIDEO_FORMATS, Done, Work, as_text
from captioner.tagging.options import FrameBatchOptions, TagOptions
from captioner.video import animations
from captioner.video.finding import VIDEOS, find_videos
from captioner.video.options import SamplingOptions

if TYPE_CHECKING:
    from captioner.model.caption_model import CaptionModel
    from captioner.shards.fetching import Fetched
    from captioner.tagging.job import TagJob
    from captioner.tagging.videos import VideoTags


@dataclass(frozen=True)
class TagWork(Work):
    """Tag videos.

    Attributes:
        inputs: lists of videos, or videos, folders and patterns.
        exclude: what is left out of folders of this machine; patterns as in a .gitignore file.
        sampling: which frames are looked at.
        tagging: which tags are kept.
        decoding: how frames are captioned.
        batch_size: frames that the model sees at once.
    """

    inputs: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    sampling: SamplingOptions = SamplingOptions()
    tagging: TagOptions = TagOptions()
    decoding: DecodingOptions = DecodingOptions()
    batch_size: int = FrameBatchOptions.batch_size

    noun = "video"
    done = "tagged"
    command = "tag"
    kinds = frozenset({FILES})
    columns = (*COLUMNS, "file_name", "filename", "video", "video_path", "video_name")
    formats = VIDEO_FORMATS

    @property
    def paths(self) -> tuple[str, ...]:
        """See `Work.paths`."""
        return self.inputs

    def find(self) -> Iterator[SourceFile]:
        """See `Work.find`."""
        return find_videos(self.inputs, self.exclude)

    def suffixes(self, path: str) -> Collection[str]:
        """See `Work.suffixes`; images, which may move, only where the address itself names them."""
        return VIDEOS.suffixes | ({suffix_of(path)} & animations.SUFFIXES)

    def describe_search(self) -> dict[str, Any]:
        """See `Work.describe_search`."""
        return {"exclude": list(self.exclude)}

    def check(self, model: CaptionModel) -> None:
        """See `Work.check`."""
        model.check_options(self.decoding)

    def describe(self, model: CaptionModel) -> dict[str, Any]:
        """See `Work.describe`."""
        from captioner.tagging.job import describe_job

        settings: dict[str, Any] = describe_job(self._job(), model)["settings"]
        return settings

    def records(self, task: ShardTask, model: CaptionModel) -> Generator[Done, None, None]:
        """See `Work.records`."""
        from captioner.tagging.job import describe_job, record_of
        from captioner.tagging.writers import ordered

        about = describe_job(self._job(), model)
        with closing(self._videos(task, model)) as videos:
            for file, video in videos:
                yield Done(ordered(record_of(video, about)), video.status, file)

    def _videos(
        self, task: ShardTask, model: CaptionModel
    ) -> Generator[tuple[SourceFile, VideoTags], None, None]:
        """What each video shows, in their order, also of those that could not be fetched."""
        from captioner.shards.fetching import fetched_videos
        from captioner.tagging.job import job_videos
        from captioner.tagging.videos import VideoTags

        waiting: deque[Fetched] = deque()  # of which the tags are still to come

        def readable() -> Iterator[SourceFile]:
            for each in found:
                waiting.append(each)
                if each.problem is None:
                    yield each.file

        def failed() -> Iterator[tuple[SourceFile, VideoTags]]:
            """Those before the next one that could be fetched."""
            while waiting and waiting[0].problem is not None:
                file, problem = waiting[0].file, waiting.popleft().problem
                yield file, VideoTags(file.name, file.path, "failed", problem)

        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="captioner-"))
            ended = threading.Event()
            found = fetched_videos(task, Path(folder), lambda: not ended.is_set())
            if any(local_path(address) is None for address, _ in task.files):
                found = iterate_ahead(found, 1)  # The network and the model work at the same time.
            stack.enter_context(closing(found))
            stack.callback(ended.set)
            for video in stack.enter_context(closing(job_videos(self._job(), model, readable()))):
                yield from failed()
                each = waiting.popleft()
                each.discard()
                yield each.file, video
            yield from failed()

    def _job(self) -> TagJob:
        from captioner.tagging.job import TagJob

        return TagJob(
            Path(),  # Shards are published elsewhere.
            formats=("json",),
            sampling=self.sampling,
            tagging=self.tagging,
            decoding=self.decoding,
            batch_size=self.batch_size,
        )

    def schema(self, model: CaptionModel) -> Any:
        """See `Work.schema`; the columns are the fields of JSONL."""
        import pyarrow as pa

        text, number, count = pa.string(), pa.float64(), pa.int64()
        times = {"start": number, "end": number}
        caption = {"text": text, "confidence": number, "avg_logprob": number}
        tag = {"name": text, "type": text, "confidence": number}
        tags, places = pa.list_(pa.struct(tag)), pa.list_(count)
        other = pa.struct({"language": text, "text": text, "confidence": number})
        others = {"other_languages": pa.list_(other)} if model.others else {}
        shown = {**times, "shot": count, **caption, **others}
        segment = pa.struct({**shown, "agreement": number, "frames": places, "tags": tags})
        frame = pa.struct(
            {"time": number, "frame_index": count, "shot": count, **caption, "tags": tags}
        )
        span = pa.struct({**times, "confidence": number, "frames": places})
        numbers = {"coverage": number, "score": number, "segments": pa.list_(span)}
        video = {
            **{"file_name": text, "duration_s": number},
            **dict.fromkeys(("width", "height", "rotation"), count),
            **{"average_fps": number, "is_vfr": pa.bool_()},
            **dict.fromkeys(("frame_count", "decode_failures"), count),
        }
        return pa.schema(
            {
                **{"schema": text, "status": text},
                "error": pa.struct({"code": text, "message": text}),
                "video": pa.struct(video),
                **{"model": text, "settings": text},
                "shots": pa.list_(pa.struct(times)),
                "segments": pa.list_(segment),
                "frames": pa.list_(frame),
                "tags": pa.list_(pa.struct({**tag, **numbers})),
            }
        )

    def row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """See `Work.row`; model and settings, which have no fixed fields, are JSON texts."""
        return {
            **record,
            **{key: json.dumps(record[key], ensure_ascii=False) for key in ("model", "settings")},
            "video": {name: as_text(value) for name, value in record["video"].items()},
            "segments": [_with_listed_languages(segment) for segment in record["segments"]],
        }


def _with_listed_languages(segment: Mapping[str, Any]) -> dict[str, Any]:
    if "other_languages" not in segment:
        return dict(segment)
    others = segment["other_languages"].items()
    return {
        **segment,
        "other_languages": [{"language": language, **each} for language, each in others],
    }
