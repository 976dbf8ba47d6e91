"""Tagging real video files with a real (untrained) model: captions, batches, order, bad files."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import captioner
from captioner.captioning.batches import caption_images
from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError
from captioner.files.finding import SourceFile
from captioner.images.kinds import find_images
from captioner.model.caption_model import CaptionModel
from captioner.model.tags import tags_of
from captioner.tagging.options import TagOptions
from captioner.tagging.videos import VideoTags, tag_video, tag_videos
from captioner.video.frames import VideoError
from captioner.video.options import SamplingOptions
from helpers.processes import children, ignore_running_children
from helpers.videos import photo, real_clip, write_video

pytestmark = pytest.mark.arithmetic

EVERY_TAG = TagOptions(min_confidence=0.0, min_coverage=0.0)
PHOTOS = ("stairs", "coffee", "cat", "rocket")
CUTS_S = (1.2, 2.0, 3.6)
FRAMES = (12, 8, 16, 10)  # of each photo, at 10 frames per second


def slides(path: Path, names: tuple[str, ...] = PHOTOS) -> Path:
    """Photos one after the other, for the times above; nothing moves but the noise of the code."""
    images = [photo(name) for name, count in zip(names, FRAMES, strict=False) for _ in range(count)]
    write_video(path, images, [100 * index for index in range(len(images))], rate=10)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return slides(tmp_path_factory.mktemp("clip") / "slides.mp4")


def source(path: Path) -> SourceFile:
    return SourceFile(path, path.name)


def tag(model: CaptionModel, paths: list[Path], batch_size: int = 4) -> list[VideoTags]:
    files = [source(path) for path in paths]
    return list(tag_videos(model, files, tagging=EVERY_TAG, batch_size=batch_size))


def test_four_photos_are_four_shots_and_four_segments(
    tagging_model: CaptionModel, clip: Path
) -> None:
    video = tag_video(clip, model=tagging_model, tagging=EVERY_TAG)
    assert (video.status, video.error, video.file_name) == ("ok", None, "slides.mp4")
    assert video.duration_s == pytest.approx(4.6, abs=1e-3)
    assert [shot.start_s for shot in video.shots] == pytest.approx([0, *CUTS_S], abs=1e-3)
    assert [shot.end_s for shot in video.shots] == pytest.approx([*CUTS_S, 4.6], abs=1e-3)
    assert [(s.start_s, s.end_s, s.shot) for s in video.segments] == [
        (shot.start_s, shot.end_s, number) for number, shot in enumerate(video.shots)
    ]
    # One frame a second, and one more for the shot from 1.2 to 2.0, which has none of those.
    times = [frame.time_s for frame in video.frames]
    assert times == pytest.approx([0, 1, 1.4, 2, 3, 4], abs=1e-3)
    assert [frame.shot for frame in video.frames] == [0, 0, 1, 2, 2, 3]
    assert video.info is not None and (video.info.width, video.info.height) == (160, 120)
    assert video.measured is not None and video.measured.frame_count == 46


def test_a_frame_gets_the_caption_and_the_tags_of_its_image(
    tagging_model: CaptionModel, clip: Path, tmp_path: Path
) -> None:
    # What an untrained model likes best it repeats; where that is blocked, all else is a near tie.
    decoding = DecodingOptions(no_repeat_ngram=0)
    video = tag_video(clip, model=tagging_model, decoding=decoding)
    assert tagging_model.lexicon is not None
    for frame, name in zip(
        [video.frames[0], video.frames[2], video.frames[3], video.frames[5]], PHOTOS, strict=True
    ):
        folder = tmp_path / name
        folder.mkdir()
        Image.fromarray(photo(name)).save(folder / "photo.png")
        (record,) = caption_images(tagging_model, find_images(folder), decoding)
        assert record.result is not None
        # The video's compression changes a few pixels; the untrained model is not so fickle.
        assert frame.text == record.result.text
        assert frame.confidence == pytest.approx(record.result.confidence, abs=0.02)
        expected = tags_of(record.result, tagging_model.lexicon, tagging_model.tag_calibration)
        assert {tag.name for tag in frame.tags} == {tag.name for tag in expected}
        assert frame.avg_logprob == pytest.approx(math.log(frame.confidence))


def test_a_still_image_is_captioned_once(
    tagging_model: CaptionModel, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    encode = tagging_model.encode

    def counting(pixels: object) -> object:
        sizes.append(len(pixels))  # type: ignore[arg-type]
        return encode(pixels)  # type: ignore[arg-type]

    monkeypatch.setattr(tagging_model, "encode", counting)
    (video,) = tag(tagging_model, [clip], batch_size=4)
    # Six frames of four images: one batch.
    assert sizes == [4]
    first, second = video.frames[:2]
    assert (first.text, first.confidence, first.tags) == (
        second.text,
        second.confidence,
        second.tags,
    )
    assert not second.starts_segment


def assert_same(found: Any, wanted: Any) -> None:
    """Equal in all but the last digits of floating-point numbers."""
    if dataclasses.is_dataclass(wanted):
        assert type(found) is type(wanted)
        for field in dataclasses.fields(wanted):
            assert_same(getattr(found, field.name), getattr(wanted, field.name))
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, abs=1e-6)
    else:
        assert found == wanted


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_videos_come_in_their_order_with_what_they_get_alone(
    tagging_model: CaptionModel, clip: Path, tmp_path: Path, batch_size: int
) -> None:
    other = slides(tmp_path / "other.mkv", ("raccoon", "temple"))
    third = slides(tmp_path / "third.mp4", ("astronaut", "cat", "coffee"))
    alone = [tag(tagging_model, [path], batch_size)[0] for path in (other, clip, third)]
    # Up to rounding: without AVX512 the last bits depend on an image's place in its batch.
    for order in ((0, 1, 2), (2, 0, 1)):
        paths = [(other, clip, third)[place] for place in order]
        found = tag(tagging_model, paths, batch_size)
        assert_same(found, [alone[place] for place in order])


def test_bad_videos_are_records_in_their_place(
    tagging_model: CaptionModel, clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    (tmp_path / "empty.mp4").touch()
    paths = [tmp_path / "text.mp4", clip, tmp_path / "empty.mp4", tmp_path / "gone.mp4", clip]
    videos = tag(tagging_model, paths)
    assert [(video.status, video.error and video.error.code) for video in videos] == [
        ("failed", "not_a_video"),
        ("ok", None),
        ("failed", "empty_file"),
        ("failed", "not_found"),
        ("ok", None),
    ]
    assert videos[1] == videos[4]
    assert videos[0] == VideoTags("text.mp4", paths[0], "failed", videos[0].error)
    with pytest.raises(VideoError, match=r"text\.mp4: not a video that can be read$") as caught:
        tag_video(paths[0], model=tagging_model)
    assert caught.value.code == "not_a_video"


def test_a_file_that_is_cut_off_gives_what_it_holds(
    tagging_model: CaptionModel, tmp_path: Path
) -> None:
    path = slides(tmp_path / "whole.mkv")
    data = path.read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(data[: len(data) * 6 // 10])
    whole, part = tag(tagging_model, [path, cut])
    assert (whole.status, part.status) == ("ok", "partial")
    assert part.error is not None and part.error.code == "cut_off"
    assert part.error.reason.startswith("it ends after ")
    assert part.error.reason.endswith(" and 4.60 s were announced")
    assert 1.2 < part.duration_s < 4.1
    assert part.shots[0] == whole.shots[0]
    assert part.frames[:2] == whole.frames[:2]
    assert part.shots[-1].end_s == part.segments[-1].end_s == part.duration_s


def test_without_a_lexicon_there_are_captions_and_no_tags(
    tiny_model: CaptionModel, tagging_model: CaptionModel, clip: Path
) -> None:
    assert tiny_model.lexicon is None
    plain = tag_video(clip, model=tiny_model, tagging=EVERY_TAG)
    tagged = tag_video(clip, model=tagging_model, tagging=EVERY_TAG)
    assert [frame.text for frame in plain.frames] == [frame.text for frame in tagged.frames]
    assert plain.tags == ()
    assert tagged.tags != ()


def test_progress_tells_the_times_of_the_frames(tagging_model: CaptionModel, clip: Path) -> None:
    told: list[tuple[str, float, float | None]] = []
    videos = tag_videos(
        tagging_model,
        [source(clip)],
        on_progress=lambda file, time_s, announced_s: told.append(
            (file.name, round(time_s, 3), announced_s)
        ),
    )
    next(videos)
    assert told == [("slides.mp4", time_s, 4.6) for time_s in (0, 1, 1.4, 2, 3, 4)]


def test_leaving_early_ends_the_decoder(tagging_model: CaptionModel, clip: Path) -> None:
    if has_children := Path("/proc/self/task").exists():
        ignore_running_children()
    videos = tag_videos(tagging_model, [source(clip)] * 3, batch_size=1)
    next(videos)
    videos.close()
    if has_children:
        assert children() == []


def test_options_are_checked(tagging_model: CaptionModel, clip: Path) -> None:
    with pytest.raises(ValueError, match="batch_size=0: at least 1 frame"):
        tag_videos(tagging_model, [], batch_size=0)
    two_words = DecodingOptions(banned_words=("two words",))
    with pytest.raises(CaptionerError, match="two words"):
        tag_video(clip, model=tagging_model, decoding=two_words)
    assert list(tag_videos(tagging_model, [])) == []


def test_the_record_of_a_video(tagging_model: CaptionModel, clip: Path) -> None:
    video = tag_video(clip, model=tagging_model, tagging=EVERY_TAG)
    record = video.to_dict()
    assert list(record) == [
        "schema",
        "status",
        "error",
        "video",
        "shots",
        "segments",
        "frames",
        "tags",
    ]
    assert (record["schema"], record["status"], record["error"]) == (
        "captioner-video-1",
        "ok",
        None,
    )
    assert record["video"] == {
        "file_name": "slides.mp4",
        "duration_s": 4.6,
        "width": 160,
        "height": 120,
        "rotation": 0,
        "average_fps": 10.0,
        "is_vfr": False,
        "frame_count": 46,
        "decode_failures": 0,
    }
    assert record["shots"] == [
        {"start": 0.0, "end": 1.2},
        {"start": 1.2, "end": 2.0},
        {"start": 2.0, "end": 3.6},
        {"start": 3.6, "end": 4.6},
    ]
    segment, frame = record["segments"][2], record["frames"][3]
    assert (segment["start"], segment["end"], segment["shot"]) == (2.0, 3.6, 2)
    assert (segment["text"], segment["frames"]) == (frame["text"], [3, 4])
    assert segment["agreement"] == 1.0
    assert (frame["time"], frame["frame_index"], frame["shot"]) == (2.0, 20, 2)
    assert segment["tags"] == frame["tags"] != []
    for tag_record, found in zip(record["tags"], video.tags, strict=True):
        assert tag_record["confidence"] == round(found.confidence, 4)
        assert tag_record["segments"][0]["frames"] == list(found.spans[0].frames)


def test_the_public_api_needs_no_main_guard(clip: Path, tmp_path: Path) -> None:
    """A script that calls it at its top level works, and the shipped model says something."""
    script = tmp_path / "script.py"
    script.write_text(
        "import captioner, sys\n"
        "video = captioner.tag_video(sys.argv[1])\n"
        "print(len(video.shots), video.segments[0].text)\n"
    )
    run = subprocess.run(
        [sys.executable, str(script), str(clip)], capture_output=True, text=True, check=True
    )
    shots, _, text = run.stdout.strip().partition(" ")
    assert shots == "4"
    assert len(text.split()) > 3
    assert run.stderr == ""


def test_the_shipped_model_on_a_real_film() -> None:
    video = captioner.tag_video(real_clip("bikes"))
    assert video.status == "ok"
    assert [shot.start_s for shot in video.shots] == pytest.approx([0, 1.2, 3.04, 5.48, 7.48, 9.68])
    # A street with parked cars, people who walk and ride by, and bicycles.
    names = {tag.name for tag in video.tags}
    assert {"man", "street", "car"} <= names
    for tag_ in video.tags:
        assert 0.25 <= tag_.confidence <= 1
        assert 0.05 <= tag_.coverage <= 1
    scores = [tag_.score for tag_ in video.tags]
    assert scores == sorted(scores, reverse=True)


def test_sampling_options_reach_the_reader(tagging_model: CaptionModel, clip: Path) -> None:
    video = tag_video(
        clip, model=tagging_model, sampling=SamplingOptions(every_n_frames=10, shots=False)
    )
    assert [frame.frame_index for frame in video.frames] == [0, 10, 20, 30, 40]
    assert len(video.shots) == 1
    # What looks different is another segment all the same, unless it is said to be the same.
    texts = [segment.text for segment in video.segments]
    assert len(texts) >= 2
    assert all(before != after for before, after in pairwise(texts))
    assert np.isclose(video.segments[-1].end_s, 4.6)
