"""Tag a batch of videos into a folder; the job can be interrupted and resumed at any moment.

The folder mirrors the input's: ``trips/a.mp4`` gives ``trips/a.json`` and so on. At its top stand

- ``.tags.captioner``: model and options, the same for all that is in the folder, and a record for
  each video that is finished, which is the job's memory (`captioner.tagging.ledger`);
- ``tags.jsonl``: a line for each of these records;
- ``index.html``, of the format ``html``: a page of all these videos
  (`captioner.pages.video_index`).

A video's files are written under temporary names and renamed, then its record is added: a video
with a record is finished, one without is done from its start. Whatever ends the process, the next
run ends with the files that an undisturbed one would have made, up to the rounding of their
numbers.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from captioner.decoding.options import DecodingOptions, describe_decoding
from captioner.errors import CaptionerError
from captioner.files.finding import SourceFile
from captioner.files.naming import output_stem
from captioner.files.resume import Fingerprint, locked
from captioner.files.writing import (
    check_folder,
    make_folder,
    part_beside,
    replace_file,
    why_no_name,
)
from captioner.model.caption_model import CaptionModel
from captioner.model.description import describe_model
from captioner.model.tags import unsure_below
from captioner.options import check_options, option
from captioner.pages.video_index import INDEX, TagPages
from captioner.tagging.ledger import LINES, MIN_CONFIDENCE, STATE, Ledger
from captioner.tagging.options import FrameBatchOptions, TagOptions
from captioner.tagging.videos import Progress, VideoTags, tag_videos
from captioner.tagging.writers import (
    TAG_WRITERS,
    CsvTagWriter,
    HtmlTagWriter,
    TagWriter,
    summary_line,
)
from captioner.version import __version__
from captioner.video.events import Failed
from captioner.video.finding import VIDEOS
from captioner.video.frames import READING
from captioner.video.options import SamplingOptions

LOCK = ".captioner.lock"


@dataclass(frozen=True)
class TagJob:
    """What is to be done. Checked in full when made; ValueError names what is wrong.

    Attributes:
        output_dir: the folder for the results.
        formats: names of `captioner.tagging.writers.TAG_WRITERS`; a file each for every video.
        sampling: which frames are looked at.
        tagging: which tags are kept.
        decoding: how frames are captioned.
        batch_size: frames that the model sees at once.
        overwrite: do everything again and replace what is there.
        min_caption_confidence: captions that are less sure, in [0, 1], get no subtitle; None for
            what the model's calibration says (`captioner.model.tags.unsure_below`).
        csv_bom: begin CSV with a byte order mark, by which Excel knows UTF-8.
    """

    output_dir: Path
    formats: tuple[str, ...] = tuple(TAG_WRITERS)
    sampling: SamplingOptions = SamplingOptions()
    tagging: TagOptions = TagOptions()
    decoding: DecodingOptions = DecodingOptions()
    batch_size: int = FrameBatchOptions.batch_size
    overwrite: bool = False
    min_caption_confidence: float | None = option(None, kind=float, minimum=0, maximum=1)
    csv_bom: bool = option(False)

    def __post_init__(self) -> None:
        unknown = [name for name in self.formats if name not in TAG_WRITERS]
        if unknown or not self.formats:
            named = ", ".join(unknown) or "none"
            raise ValueError(f"formats={named!r}: choose from {', '.join(TAG_WRITERS)}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size}: at least 1 frame is captioned at once")
        check_options(self)
        if self.csv_bom and CsvTagWriter.format not in self.formats:
            raise ValueError(
                f"csv_bom=True: is for the format csv, not for {', '.join(self.formats)}"
            )

    def make_writers(self, model: CaptionModel) -> list[TagWriter]:
        """Those of its formats; of subtitles in several languages, one for each."""
        models = (model, *model.others)
        return [
            TAG_WRITERS[name](
                min_confidence=self.min_confidence(each),
                csv_bom=self.csv_bom,
                language=each.language if model.others else None,
                is_first=each is model,
            )
            for name in self.formats
            for each in (models if TAG_WRITERS[name].has_language else (model,))
        ]

    def min_confidence(self, model: CaptionModel) -> float:
        """Of captions as subtitles, in [0, 1]."""
        if self.min_caption_confidence is None:
            return unsure_below(model.tag_calibration)
        return self.min_caption_confidence


@dataclass(frozen=True)
class Outcome:
    """What became of one video.

    Attributes:
        file: the video.
        status: ``ok``, ``partial``, ``failed``, or ``done`` if an earlier run finished it.
        error: why not all of it could be read, in a few words; None if all could.
    """

    file: SourceFile
    status: str
    error: str | None = None


def run_tag_job(
    job: TagJob,
    model: CaptionModel,
    files: Sequence[SourceFile],
    on_progress: Progress | None = None,
) -> Generator[Outcome, None, None]:
    """Tag what is not finished yet; yields first what is, then each video when its files are there.

    Closing the generator, or an exception such as KeyboardInterrupt, leaves all finished videos.

    Args:
        job: what is to be done.
        model: the captioner, loaded from a file.
        files: the videos, in the order of the results.
        on_progress: see `captioner.tagging.videos.tag_videos`.

    Raises:
        CaptionerError: the folder belongs to another run, holds files of other origin, is in use
            or cannot be written. Nothing has been changed then, except by a disk that is full.
    """
    about = describe_job(job, model)
    with _locked(job.output_dir):
        output = _Output(job, about, files, job.make_writers(model))
        with output.ledger:
            try:
                yield from _tag(job, model, files, output, on_progress)
            except BaseException:
                # Report what ended it, not that the index cannot be written either.
                with suppress(CaptionerError):
                    output.write_index()
                raise
            output.ledger.sort([file.name for file in files])
            output.write_index()


def _tag(
    job: TagJob,
    model: CaptionModel,
    files: Sequence[SourceFile],
    output: _Output,
    on_progress: Progress | None,
) -> Generator[Outcome, None, None]:
    todo = []
    for file in files:
        problem = output.why_not(file)
        if problem is not None:
            output.save(file, VideoTags(file.name, file.path, "failed", problem))
            yield Outcome(file, "failed", problem.reason)
        elif output.is_finished(file):
            yield Outcome(file, "done")
        else:
            todo.append(file)
    with closing(job_videos(job, model, todo, on_progress)) as videos:
        for file, video in zip(todo, videos, strict=True):
            output.save(file, video)
            yield Outcome(file, video.status, None if video.error is None else video.error.reason)


def job_videos(
    job: TagJob,
    model: CaptionModel,
    files: Iterable[SourceFile],
    on_progress: Progress | None = None,
) -> Generator[VideoTags, None, None]:
    """Tag videos as a job says, a folder's or a shard's; see `tag_videos`."""
    return tag_videos(
        model,
        files,
        sampling=job.sampling,
        tagging=job.tagging,
        decoding=job.decoding,
        batch_size=job.batch_size,
        on_progress=on_progress,
        thumbnails=HtmlTagWriter.format in job.formats,
    )


def record_of(video: VideoTags, about: Mapping[str, Any]) -> dict[str, Any]:
    """What writers get of a video.

    Args:
        video: what it shows.
        about: what `describe_job` says.
    """
    model: dict[str, Any] = about["model"]
    is_calibrated = model["tag_confidence"] == "calibrated"
    return {**video.to_dict(), **about, "model": {**model, "calibrated": is_calibrated}}


# --- one video -----------------------------------------------------------------------------


class _Output:
    """What a job writes into its folder, which it claims.

    Raises:
        CaptionerError: the folder is another job's.
    """

    def __init__(
        self,
        job: TagJob,
        about: Mapping[str, Any],
        files: Sequence[SourceFile],
        writers: Sequence[TagWriter],
    ) -> None:
        self._folder = job.output_dir
        self._about = about
        self._writers = writers
        pages = TagPages(job.output_dir)
        # An index that an earlier run made is kept true, whatever this one writes.
        self._pages = pages if HtmlTagWriter.format in job.formats or pages.has_index() else None
        if HtmlTagWriter.format in job.formats:
            pages.check(job.overwrite)
        self.ledger = _claim(job, about, files, writers)

    def why_not(self, file: SourceFile) -> Failed | None:
        """Why a video's files cannot be written, whatever is in it: a name is too long."""
        targets = (_target(file, writer, self._folder) for writer in self._writers)
        reason = next(filter(None, map(why_no_name, targets)), None)
        return None if reason is None else Failed("name_too_long", reason)

    def save(self, file: SourceFile, video: VideoTags) -> None:
        """Write the files of a video, then its line."""
        record = record_of(video, self._about)
        line = {**summary_line(record), "source": Fingerprint.of(file).to_dict()}
        if video.status != "failed":
            line |= self._save_files(file, video, record)
        self.ledger.add(line)
        if self._pages is not None:
            self._pages.write_index(self.ledger.lines.values(), is_last=False)

    def _save_files(
        self, file: SourceFile, video: VideoTags, record: dict[str, Any]
    ) -> dict[str, str]:
        """Write them; returns where the page is, if there is one."""
        before = self.ledger.lines.get(file.name, {})
        found: dict[str, str] = {}
        if self._pages is not None and self._pages.is_there(before):
            found["page"] = before["page"]
        for writer in self._writers:
            target = _target(file, writer, self._folder)
            if self._pages is not None and isinstance(writer, HtmlTagWriter):
                record["page"] = self._pages.data(file, target, record, video.thumbnails)
                found["page"] = self._pages.href(target)
            replace_file(target, writer.text(record), temporary=part_beside(target))
        return found

    def is_finished(self, file: SourceFile) -> bool:
        """Whether an earlier run has done this video.

        Raises:
            CaptionerError: it has done another one of this name.
        """
        line = self.ledger.lines.get(file.name)
        if line is None or line["status"] == "failed":
            return False
        here, there = Fingerprint.of(file), Fingerprint.from_dict(line["source"])
        same = here.is_same(there)
        if not same and here.path != there.path:
            raise CaptionerError(
                f"{self._folder} holds the tags of another {file.name} ({there.path}); choose "
                "another --output-dir, or replace them with --overwrite"
            )
        return same and all(self._is_there(file, line, writer) for writer in self._writers)

    def _is_there(self, file: SourceFile, line: Mapping[str, Any], writer: TagWriter) -> bool:
        target = _target(file, writer, self._folder)
        if self._pages is None or not isinstance(writer, HtmlTagWriter):
            return target.is_file()
        is_known = line.get("page") == self._pages.href(target)
        return is_known and self._pages.is_current(file, target)

    def write_index(self) -> None:
        """Bring the index up to date, if there is to be one."""
        if self._pages is not None:
            self._pages.write_index(self.ledger.lines.values())


def _target(file: SourceFile, writer: TagWriter, output_dir: Path) -> Path:
    inside = PurePosixPath(file.name)
    if inside.is_absolute() or ".." in inside.parts:
        raise CaptionerError(f"{file.name} would be written outside of {output_dir}")
    name = output_stem(file.path, VIDEOS) + writer.suffix
    if len(inside.parts) == 1 and name.casefold() == INDEX:
        name = file.path.name + writer.suffix  # a video named index: that page is all videos'
    return output_dir.joinpath(*inside.parent.parts, name)


# --- the folder ----------------------------------------------------------------------------


@contextmanager
def _locked(output_dir: Path) -> Generator[None, None, None]:
    make_folder(output_dir)
    check_folder(output_dir)
    in_use = (
        f"{output_dir} is in use by another `captioner tag`; wait for it, or choose another "
        "--output-dir"
    )
    with locked(output_dir / LOCK, in_use, leave=True):
        yield


def _claim(
    job: TagJob,
    about: Mapping[str, Any],
    files: Iterable[SourceFile],
    writers: Sequence[TagWriter],
) -> Ledger:
    """Make the folder this job's, or see that it is.

    Raises:
        CaptionerError: it holds results of another model or other options, or files that no run
            has made.
    """
    if not job.overwrite:
        ledger = Ledger.find(job.output_dir, about)
        if ledger is not None:
            return ledger
        _check_free(job, files, writers)
    return Ledger.create(job.output_dir, about)


def _check_free(job: TagJob, files: Iterable[SourceFile], writers: Sequence[TagWriter]) -> None:
    if (job.output_dir / LINES).exists():
        raise CaptionerError(
            f"{job.output_dir / LINES} is there, but no {STATE} that says how it was made; "
            "choose another --output-dir, or replace it with --overwrite"
        )
    for file in files:
        for writer in writers:
            target = _target(file, writer, job.output_dir)
            if why_no_name(target) is None and target.exists():
                raise CaptionerError(
                    f"{target} exists, and no run of `captioner tag` has made it; choose another "
                    "--output-dir, or replace it with --overwrite"
                )


# --- what produced it ----------------------------------------------------------------------


def describe_job(job: TagJob, model: CaptionModel) -> dict[str, Any]:
    """The model and the settings that decide about the results, JSON primitives.

    Raises:
        CaptionerError: the model was not loaded from a file.
    """
    return {"model": describe_model(model), "settings": _describe_settings(job, model)}


def _describe_settings(job: TagJob, model: CaptionModel) -> dict[str, Any]:
    sampling = asdict(job.sampling)
    del sampling["time_limit_s"]  # It changes no result that it does not prevent.
    min_confidence = job.min_confidence(model)
    return {
        "captioner": __version__,
        "reading": READING,
        "sampling": sampling,
        "tagging": asdict(job.tagging),
        "decoding": describe_decoding(job.decoding),
        "batch_size": job.batch_size,
        "device": model.device.type,
        "precision": model.precision,
        # Without them: as in folders from before there were such settings.
        **({MIN_CONFIDENCE: min_confidence} if min_confidence else {}),
        **({"csv_bom": True} if job.csv_bom else {}),
    }
