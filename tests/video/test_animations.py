"""GIF, animated WebP and APNG as videos: which are listed, and what is read of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captioner.errors import CaptionerError
from captioner.video.animations import is_animated
from captioner.video.finding import find_videos
from captioner.video.frames import VideoError
from captioner.video.opening import open_video
from captioner.video.options import READERS
from helpers.videos import number_of, numbered, numbered_video

readers = pytest.mark.parametrize("reader", READERS)
LASTS_MS = [100, 200, 300, 400]
SUFFIXES = ["gif", "webp", "png", "apng"]


def images(count: int) -> list[Image.Image]:
    return [Image.fromarray(numbered(index)) for index in range(count)]


def moving(path: Path, count: int = 4, **options: Any) -> Path:
    first, *others = images(count)
    if path.suffix == ".webp":
        options["lossless"] = True
    kind = "png" if path.suffix == ".apng" else path.suffix[1:]
    first.save(
        path, kind, save_all=True, append_images=others, duration=LASTS_MS[:count], **options
    )
    return path


def still(path: Path, **options: Any) -> Path:
    images(1)[0].save(path, "png" if path.suffix == ".apng" else None, **options)
    return path


@readers
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_images_that_move_are_read(tmp_path: Path, reader: str, suffix: str) -> None:
    path = moving(tmp_path / f"a.{suffix}")
    with open_video(path, reader) as video:
        assert (video.info.width, video.info.height) == (128, 96)
        frames = list(video)
    assert [number_of(frame.rgb()) for frame in frames] == [0, 1, 2, 3]
    assert [number_of(frame.thumbnail(64, 48)[:, :, ::-1]) for frame in frames] == [0, 1, 2, 3]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.1, 0.3, 0.6])
    if reader == "pyav":
        assert [frame.duration_s for frame in frames] == pytest.approx([0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_their_length_can_be_measured(tmp_path: Path, suffix: str) -> None:
    with open_video(moving(tmp_path / f"a.{suffix}")) as video:
        assert video.lengths().video_s == pytest.approx(1.0)


def test_the_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    path = moving(tmp_path / "a.webp").rename(tmp_path / "a.gif")
    assert is_animated(path)
    with open_video(path) as video:
        assert [number_of(frame.rgb()) for frame in video] == [0, 1, 2, 3]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_white_lies_behind_transparent_pixels(tmp_path: Path, suffix: str) -> None:
    clear = []
    for x in (0, 8, 16):
        image = Image.new("RGBA", (64, 48), (0, 0, 0, 0))
        image.paste((200, 20, 20, 255), (x, 0, x + 32, 48))
        image.paste((0, 0, 255, 128), (62, 0, 64, 2))  # WebP says so only of what a frame covers
        clear.append(image)
    path = tmp_path / f"a.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    clear[0].save(path, save_all=True, append_images=clear[1:], duration=100, disposal=2, **options)
    with open_video(path) as video:
        for x, frame in zip((0, 8, 16), video, strict=True):
            image = frame.rgb()
            assert image[24, 60].tolist() == [255, 255, 255]
            assert image[24, x + 4] == pytest.approx([200, 20, 20], abs=3)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_in_a_folder_those_that_move_are_listed(tmp_path: Path, suffix: str) -> None:
    moving(tmp_path / f"b.{suffix}")
    moving(tmp_path / f"two.{suffix}", 2)
    still(tmp_path / f"still.{suffix}")
    (tmp_path / f"empty.{suffix}").touch()
    (tmp_path / f"text.{suffix}").write_text("words")
    numbered_video(tmp_path / "a.mp4", 2)
    listed = ["a.mp4", f"b.{suffix}", f"two.{suffix}"]
    assert [file.name for file in find_videos(tmp_path)] == listed
    assert [file.name for file in find_videos(tmp_path / f"*.{suffix}")] == listed[1:]
    # Named by itself, it is tried.
    assert [file.name for file in find_videos(tmp_path / f"still.{suffix}")] == [f"still.{suffix}"]


def test_what_is_excluded_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / "drafts").mkdir()
    for name in ("a.gif", "b.webp", "drafts/c.gif"):
        moving(tmp_path / name)
    assert [file.name for file in find_videos(tmp_path, ["drafts/"])] == ["a.gif", "b.webp"]
    assert [file.name for file in find_videos(tmp_path, ["*.gif"])] == ["b.webp"]
    (tmp_path / ".captionerignore").write_text("*.webp\n")
    assert [file.name for file in find_videos(tmp_path)] == ["a.gif", "drafts/c.gif"]


def test_a_folder_of_stills_holds_no_videos(tmp_path: Path) -> None:
    for name in ("a.gif", "b.png", "c.webp"):
        still(tmp_path / name)
    with pytest.raises(CaptionerError) as caught:
        find_videos(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path} holds no video files (.mp4 .m4v")
    assert str(caught.value).endswith(".gif .webp .apng .png)")


def test_a_still_that_is_named(tmp_path: Path) -> None:
    for name in ("a.gif", "a.webp"):
        with open_video(still(tmp_path / name)) as video:
            assert [number_of(frame.rgb()) for frame in video] == [0]


@readers
def test_a_still_that_is_no_animation_is_called_what_it_is(tmp_path: Path, reader: str) -> None:
    for name, kind in (("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.tif", "TIFF")):
        with pytest.raises(VideoError) as caught:
            open_video(still(tmp_path / name), reader)
        assert caught.value.code == "not_a_video"
        advice = "`captioner caption` reads images"
        assert caught.value.reason == f"an image ({kind}) and not a video: {advice}"


def test_of_animated_avif_it_is_not_the_still_image_that_is_read(tmp_path: Path) -> None:
    path = moving(tmp_path / "a.avif", quality=90)
    with open_video(path) as video:
        assert [number_of(frame.rgb()) for frame in video] == [0, 1, 2, 3]
        assert video.info.announced_s == pytest.approx(1.0)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damage_raises_nothing_else(tmp_path: Path, suffix: str) -> None:
    path = moving(tmp_path / f"a.{suffix}")
    data = path.read_bytes()
    for end in range(0, len(data), max(1, len(data) // 40)):
        path.write_bytes(data[:end])
        is_animated(path)
        try:
            with open_video(path) as video:
                assert 1 <= len([frame.rgb() for frame in video]) <= 4
        except VideoError:
            pass
