"""What files say of themselves, and which are refused and why."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner.video.frames import VideoInfo
from captioner.video.opening import open_video
from captioner.video.options import READERS
from helpers.shown_frames import error_of, exactly, read, shown
from helpers.videos import (
    HEIGHT,
    WIDTH,
    cut_off,
    numbered,
    numbered_video,
    write_header_only,
    write_sound,
    write_video,
)

readers = pytest.mark.parametrize("reader", READERS)


B_FRAMES = {"preset": "veryfast", "bf": "2", "b-adapt": "0"}


TICK = Fraction(1, 25)


@pytest.mark.parametrize("fps", [10, 24, 25, 30, 50])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.h264", {}),
        ("b-frames.h264", {"options": B_FRAMES}),
        ("a.hevc", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}),
        ("a.m4v", {"codec": "mpeg4", "container": "m4v"}),
    ],
)
def test_without_a_container_the_rate_is_the_codecs(
    tmp_path: Path, fps: int, name: str, options: dict
) -> None:
    path = tmp_path / name
    images = map(numbered, range(20))
    write_video(path, images, range(20), Fraction(1, fps), rate=fps, **options)
    numbers, times = read(path, "pyav")
    assert numbers == list(range(20))
    assert times == exactly([index / fps for index in range(20)])


@readers
def test_an_announced_length_that_cannot_be(tmp_path: Path, reader: str) -> None:
    path = write_video(tmp_path / "a.avi", map(numbered, range(5)), range(5), TICK, codec="mpeg4")
    data = path.read_bytes()
    start = data.index(b"strh") + 8 + 32
    path.write_bytes(data[:start] + (4_000_000_000).to_bytes(4, "little") + data[start + 4 :])
    with open_video(path, reader) as video:
        assert video.info.announced_s is None
        assert shown(video)[1] == exactly([0, 0.04, 0.08, 0.12, 0.16])


@readers
@pytest.mark.parametrize(
    ("name", "announced_s"),
    [("a.mp4", 0.8), ("a.mkv", 0.8), ("a.avi", 0.8), ("a.ts", 0.8), ("a.h264", None)],
)
def test_the_announced_length(
    tmp_path: Path, reader: str, name: str, announced_s: float | None
) -> None:
    codec = "mpeg4" if name == "a.avi" else "libx264"
    path = write_video(tmp_path / name, map(numbered, range(20)), range(20), TICK, codec=codec)
    with open_video(path, reader) as video:
        assert video.info == VideoInfo(WIDTH, HEIGHT, 0, pytest.approx(announced_s, abs=0.001))


def test_longer_sound_does_not_announce_a_longer_video(tmp_path: Path) -> None:
    for name, by_opencv in (("a.mp4", 0.8), ("a.mkv", 3.08)):
        path = numbered_video(tmp_path / name, sound_s=3.0)
        with open_video(path) as video:
            assert video.info.announced_s == pytest.approx(0.8, abs=0.001)
        with open_video(path, "opencv") as video:
            assert video.info.announced_s == pytest.approx(by_opencv, abs=0.05)


@readers
def test_a_wrong_length_in_the_header_changes_no_frame(tmp_path: Path, reader: str) -> None:
    movie = numbered_video(tmp_path / "a.mp4")
    for box in (b"mdhd", b"mvhd"):
        data = movie.read_bytes()
        start = data.index(box) + 20  # the duration, in ticks
        movie.write_bytes(data[:start] + (10_000_000).to_bytes(4, "big") + data[start + 4 :])
    path = write_video(tmp_path / "a.avi", map(numbered, range(20)), range(20), TICK, codec="mpeg4")
    data = path.read_bytes()
    start = data.index(b"strh") + 8 + 32  # dwLength of the stream, in frames
    assert data[start : start + 4] == (20).to_bytes(4, "little")
    path.write_bytes(data[:start] + (9999).to_bytes(4, "little") + data[start + 4 :])
    for file in (movie, path):
        numbers, times = read(file, reader)
        assert numbers == list(range(20))
        assert times == exactly([index / 25 for index in range(20)])
    with open_video(path, reader) as video:
        assert video.info.announced_s == pytest.approx(9999 / 25)
    with open_video(movie, reader) as video:  # An MP4's index says how long all its frames are.
        assert video.info.announced_s == pytest.approx(0.8)


@readers
@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.m4v"])
def test_a_movie_without_its_index(tmp_path: Path, reader: str, name: str) -> None:
    path = cut_off(numbered_video(tmp_path / name), 0.6)
    assert error_of(path, reader) == (
        "not_a_video",
        "damaged or cut off: its index is missing",
    )


def jpeg() -> bytes:
    data = io.BytesIO()
    Image.fromarray(numbered(3)).save(data, "jpeg")
    return data.getvalue()


@readers
def test_files_that_are_no_videos(tmp_path: Path, reader: str) -> None:
    for name, data, reason in (
        ("text.mp4", b"just words\n" * 100, "not a video that can be read"),
        ("zeros.mkv", bytes(5000), "zero bytes and not the video: copy or download it again"),
        (
            "page.webm",
            b"<!DOCTYPE html><html><body>404</body></html>",
            "a web page and not the video: download it again",
        ),
        ("short.mp4", b"\0", "not a video that can be read"),
        (
            "subtitles.mkv",
            b"1\n00:00:00,000 --> 00:00:01,000\nhello\n",
            "not a video that can be read",
        ),
        ("a.mp4", b"PK\3\4" + bytes(99), "an archive and not a video: unpack it"),
    ):
        (tmp_path / name).write_bytes(data)
        assert error_of(tmp_path / name, reader) == ("not_a_video", reason)
    (tmp_path / "photo.mp4").write_bytes(jpeg())
    code, reason = error_of(tmp_path / "photo.mp4", reader)
    assert code == "not_a_video"
    assert reason == "an image (JPEG) and not a video: `captioner caption` reads images"
    (tmp_path / "pointer.mp4").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    code, reason = error_of(tmp_path / "pointer.mp4", reader)
    assert code == "not_a_video"
    assert reason == "a pointer of Git LFS and not the video: `git lfs pull` fetches it"


CENC = {
    "encryption_scheme": "cenc-aes-ctr",
    "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
    "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
}


IS_ENCRYPTED = ("no_decoder", "it is encrypted (DRM): only a copy without protection can be read")


@readers
@pytest.mark.parametrize("sound_s", [0.0, 1.0])
@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_an_encrypted_video_is_named(
    tmp_path: Path, reader: str, name: str, sound_s: float
) -> None:
    path = numbered_video(tmp_path / name, container_options=CENC, sound_s=sound_s)
    assert error_of(path, reader) == IS_ENCRYPTED


@readers
def test_other_encryption_is_named(tmp_path: Path, reader: str) -> None:
    # Not one frame can be decoded, and the head says why.
    path = write_header_only(tmp_path / "a.avi", "mpeg4")
    assert error_of(path, reader) == ("no_frames", "no frame of it can be decoded")
    path.write_bytes(path.read_bytes() + b"\x50\x35\x8a\x47\xe1\x01\x05")
    assert error_of(path, reader) == IS_ENCRYPTED


@readers
@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (b"drmi", IS_ENCRYPTED[1]),
        (b"encv", IS_ENCRYPTED[1]),
        (b"xxxx", "no decoder for its video stream"),
    ],
)
@pytest.mark.parametrize("flags", ["", "+faststart"])
def test_encrypted_video_of_a_codec_that_is_not_named(
    tmp_path: Path, reader: str, flags: str, entry: bytes, reason: str
) -> None:
    options = {"movflags": flags} if flags else {}
    path = numbered_video(tmp_path / "a.mp4", container_options=options, sound_s=0.5)
    path.write_bytes(path.read_bytes().replace(b"avc1\0", entry + b"\0"))
    assert error_of(path, reader) == ("no_decoder", reason)


@readers
@pytest.mark.parametrize("name", ["a.ts", "a.m2ts"])
def test_a_scrambled_broadcast_is_called_encrypted(tmp_path: Path, reader: str, name: str) -> None:
    path = numbered_video(tmp_path / name, 60)
    data = bytearray(path.read_bytes())
    size = 192 if name == "a.m2ts" else 188
    noise = np.random.default_rng(0)
    packets = range(size - 188, len(data), size)
    kinds = [(data[place + 1] & 0x1F, data[place + 2]) for place in packets]
    for place, kind in zip(packets, kinds, strict=True):
        flags = data[place + 3]
        if kinds.count(kind) > len(kinds) // 2:  # The video's; the tables remain.
            start = place + 4 + (data[place + 4] + 1 if flags & 0x20 else 0)
            data[place + 3] = flags | 0x80
            data[start : place + 188] = noise.bytes(place + 188 - start)
    path.write_bytes(data)
    assert error_of(path, reader) == IS_ENCRYPTED


@readers
def test_playlists_are_refused_whatever_they_are_called(tmp_path: Path, reader: str) -> None:
    numbered_video(tmp_path / "a.ts")
    numbered_video(tmp_path / "a.mp4")
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.8,\n{}\n#EXT-X-ENDLIST\n"
    texts = {
        "hls": hls.format("a.ts"),
        "hls of a full path": hls.format(tmp_path / "a.ts"),
        "hls of the web": hls.format("http://127.0.0.1:9/a.ts"),
        "concat": "ffconcat version 1.0\nfile a.mp4\n",
        "concat of a full path": f"ffconcat version 1.0\nfile '{tmp_path / 'a.mp4'}'\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    }
    for kind, text in texts.items():
        for suffix in ("mp4", "m3u8", "txt"):
            path = tmp_path / f"{kind}.{suffix}"
            path.write_text(text)
            found = error_of(path, reader)
            assert found == ("not_a_video", "not a video that can be read"), path.name


@readers
def test_files_without_a_frame(tmp_path: Path, reader: str) -> None:
    path = write_header_only(tmp_path / "none.avi", "mpeg4")
    assert error_of(path, reader) == ("no_frames", "no frame of it can be decoded")
    # Matroska up to its first cluster: everything is announced, nothing is there.
    path = numbered_video(tmp_path / "none.mkv")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"\x1f\x43\xb6\x75")])
    assert error_of(path, reader)[0] == "not_a_video"
    path = write_header_only(tmp_path / "none.mp4")
    assert error_of(path, reader) == ("no_video_stream", "it holds no video")


def test_sound_is_no_video(tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "sound.mp4")
    covered = write_sound(tmp_path / "covered.mp4", cover=jpeg())
    for path, reader in ((sound, "pyav"), (covered, "pyav"), (sound, "opencv")):
        assert error_of(path, reader) == ("no_video_stream", "it holds only sound")
    # OpenCV cannot tell a cover from a video of one frame.
    assert read(covered, "opencv") == ([3], [0.0])


@readers
def test_a_codec_that_nothing_decodes(tmp_path: Path, reader: str) -> None:
    path = write_video(tmp_path / "a.avi", map(numbered, range(5)), range(5), TICK, codec="mpeg4")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"FMP4", b"QZX9"))
    assert error_of(path, reader) == ("no_decoder", "no decoder for its video stream")
