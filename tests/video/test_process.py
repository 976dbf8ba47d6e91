"""The real decoding process: what it sends, and what is left when it or its parent is killed."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import captioner
from captioner.files.finding import SourceFile
from captioner.images.transform import ImageTransform
from captioner.video.child import MAX_REASON, Out, serve
from captioner.video.events import MAX_DATA, Ended, Event, Failed, Opened, Picture, receive
from captioner.video.frames import VideoInfo
from captioner.video.opening import READERS, open_video
from captioner.video.process import JOBS_AHEAD, VideoProcess
from captioner.video.sampling import Cut, SamplingOptions
from helpers.videos import (
    MS,
    cut_off,
    damage,
    evenly,
    number_of,
    numbered,
    numbered_video,
    photo,
    real_clip,
    write_header_only,
    write_photos,
    write_sound,
    write_video,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
readers = pytest.mark.parametrize("reader", READERS)

SMALL = ImageTransform(size=(64, 48))
LARGE = ImageTransform(size=(256, 192))  # so many bytes that the child has to wait for the parent
EVERY_FRAME = SamplingOptions(every_n_frames=1, shots=False)


def files(*paths: Path) -> list[SourceFile]:
    return [SourceFile(path, path.name) for path in paths]


def events(
    *paths: Path, options: SamplingOptions | None = None, transform: ImageTransform = SMALL
) -> list[tuple[str, Event]]:
    with VideoProcess(transform, options or SamplingOptions()) as process:
        return [(file.name, event) for file, event in process.read(files(*paths))]


def end_of(path: Path, **options: Any) -> Ended:
    end = events(path, options=SamplingOptions(**options))[-1][1]
    assert isinstance(end, Ended), end
    return end


def kinds(found: Iterable[tuple[str, Event]]) -> list[tuple[str, str]]:
    return [(name, type(event).__name__) for name, event in found]


def children(pid: int | None = None) -> list[int]:
    """The processes that a process has started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid or os.getpid()}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            found += map(int, (task / "children").read_text().split())
    return found


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # Dead, but nobody has asked for its exit code.


def wait_until_ended(pid: int, limit_s: float = 10.0) -> None:
    end_s = time.monotonic() + limit_s
    while is_running(pid):
        assert time.monotonic() < end_s, f"process {pid} runs on"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def no_child_is_left() -> Iterator[None]:
    before = children()
    yield
    gc.collect()
    assert children() == before


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More pictures than the pipe and the queue hold."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    return write_video(path, map(numbered, range(250)), evenly(250, 25))


# --- what is sent --------------------------------------------------------------------------


@readers
def test_the_order_of_events(tmp_path: Path, reader: str) -> None:
    pictures = [photo("cat")] * 30 + [photo("coffee")] * 45
    path = write_video(tmp_path / "a.mp4", pictures, evenly(75, 25))
    found = [event for _, event in events(path, options=SamplingOptions(reader=reader))]
    assert found[0] == Opened(VideoInfo(160, 120, 0, 3.0))
    assert found[-1] == Ended(3.0, 75, 25.0, False, 0, None)
    assert found[3] == Cut(1.2)
    times = [(each.time_s, each.frame_index) for each in found if isinstance(each, Picture)]
    assert times == [(0.0, 0), (1.0, 25), (2.0, 50)]
    assert kinds(enumerate(found)) == [
        (0, "Opened"),
        (1, "Picture"),
        (2, "Picture"),
        (3, "Cut"),
        (4, "Picture"),
        (5, "Ended"),
    ]


@readers
@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_pixels_are_those_of_the_transform(tmp_path: Path, reader: str, resize: str) -> None:
    path = numbered_video(tmp_path / "a.mp4", 20, rotation=90)
    transform = ImageTransform(size=(40, 56), resize=resize)
    options = SamplingOptions(fps=5, shots=False, reader=reader)
    sent = [
        event.pixels
        for _, event in events(path, options=options, transform=transform)
        if isinstance(event, Picture)
    ]
    with open_video(path, reader) as video:
        expected = [
            transform.fit(Image.fromarray(frame.rgb())).tobytes()
            for frame in video
            if frame.index % 5 == 0
        ]
    assert sent == expected
    assert len(sent) == 4


def test_a_picture_that_stays_is_sent_once(tmp_path: Path) -> None:
    pictures = [photo("cat")] * 75 + [photo("coffee")] * 50 + [photo("cat")] * 50
    path = write_video(tmp_path / "a.mp4", pictures, evenly(175, 25))
    sent = [event.pixels for _, event in events(path) if isinstance(event, Picture)]
    assert [None if pixels is None else len(pixels) for pixels in sent] == [
        *(3 * 64 * 48, None, None),
        *(3 * 64 * 48, None),
        *(3 * 64 * 48, None),
    ]


def test_a_slow_change_is_sent_again_and_again(tmp_path: Path) -> None:
    # Each frame looks like the one before, but not like the one that was sent last.
    greys = [np.full((48, 64, 3), 20 + 5 * index, np.uint8) for index in range(40)]
    path = tmp_path / "a.mkv"
    write_video(path, greys, evenly(40, 25), codec="ffv1", pixel_format="yuv444p")
    sent = [each for _, each in events(path, options=EVERY_FRAME) if isinstance(each, Picture)]
    fresh = [each.frame_index for each in sent if each.pixels is not None]
    assert len(sent) == 40
    assert fresh == list(range(0, 40, 2))


@readers
def test_several_files_with_bad_ones_between(tmp_path: Path, reader: str) -> None:
    good = [numbered_video(tmp_path / f"{name}.mp4", 3) for name in "abcdefg"]
    (tmp_path / "text.mp4").write_bytes(b"words\n" * 50)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\na.mp4\n")
    bad = [tmp_path / name for name in ("text.mp4", "empty.mp4", "missing.mp4", "list.mp4")]
    order = [bad[0], good[0], bad[1], bad[2], *good[1:], bad[3]]
    found = events(*order, options=SamplingOptions(reader=reader))
    fine = ["Opened", "Picture", "Ended"]
    assert kinds(found) == [
        (path.name, kind) for path in order for kind in (fine if path in good else ["Failed"])
    ]
    assert [event for _, event in found if isinstance(event, Failed)] == [
        Failed("not_a_video", "not a video that can be read"),
        Failed("empty_file", "empty file"),
        Failed("not_found", "file not found"),
        Failed("not_a_video", "not a video that can be read"),
    ]


def test_names_of_all_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["with space.mp4", "grün 日本.mp4", "new\nline.mp4", '"quoted".mp4', "-c.mp4"]
    paths = [numbered_video(tmp_path / name, 3) for name in names]
    bytes_name = Path(os.fsdecode(bytes(tmp_path) + b"/gr\xfcn\xff.mp4"))
    numbered_video(tmp_path / "x.mp4", 3).rename(bytes_name)
    found = events(*paths, bytes_name, Path("-c.mp4"))
    assert [kind for _, kind in kinds(found)] == ["Opened", "Picture", "Ended"] * 7


# --- what is known at the end --------------------------------------------------------------


# Suffix, timestamps, their unit, frames per second, whether the rate varies.
RATES: list[tuple[str, Sequence[int], Fraction, float, bool]] = [
    ("mp4", evenly(50, 25), MS, 25.0, False),
    ("mkv", evenly(50, 25), MS, 25.0, False),
    ("mp4", range(0, 60 * 1001, 1001), Fraction(1, 30000), 30000 / 1001, False),
    # In whole milliseconds the distances are 33 and 34.
    ("mkv", evenly(60, Fraction(30000, 1001)), MS, 59 / 1.969, False),
    ("mp4", [*evenly(50, 25), *evenly(50, 50, start=2000)], MS, 99 / 2.98, True),
    # One gap in a hundred distances is no rate that varies.
    ("mp4", [*evenly(60, 25), *evenly(60, 25, start=3000)], MS, 119 / 5.36, False),
    ("mp4", [0], MS, 25.0, False),
    ("mp4", [0, 500], MS, 2.0, False),
]


@readers
def test_rates(tmp_path: Path, reader: str) -> None:
    paths = []
    for number, (suffix, pts, time_base, _, _) in enumerate(RATES):
        path = tmp_path / f"{number}.{suffix}"
        paths.append(write_video(path, map(numbered, range(len(pts))), pts, time_base))
    found = events(*paths, options=SamplingOptions(reader=reader))
    ends = [event for _, event in found if isinstance(event, Ended)]
    assert [end.frame_count for end in ends] == [len(pts) for _, pts, _, _, _ in RATES]
    assert [end.average_fps for end in ends] == pytest.approx([fps for *_, fps, _ in RATES])
    assert [end.is_vfr for end in ends] == [is_vfr for *_, is_vfr in RATES]
    assert {(end.decode_failures, end.partial) for end in ends} == {(0, None)}


def test_the_length_ends_with_the_last_frame(tmp_path: Path) -> None:
    path = numbered_video(tmp_path / "a.mp4", 50)
    assert end_of(path).duration_s == pytest.approx(2.0)
    assert end_of(path, reader="opencv").duration_s == pytest.approx(2.0)
    path = write_video(tmp_path / "b.mp4", map(numbered, range(3)), [0, 40, 1000])
    assert end_of(path).duration_s >= 1.04
    for name, frames, duration_s in (("bikes", 250, 10.0), ("carphone_pristine", 120, 4.004)):
        end = end_of(real_clip(name))
        assert (end.frame_count, end.is_vfr) == (frames, False)
        assert end.duration_s == pytest.approx(duration_s, abs=0.001)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.flv"])
def test_the_last_slide_stays_to_the_end(tmp_path: Path, name: str) -> None:
    pts = [0, 10_000, 20_000, 30_000]
    path = write_video(tmp_path / name, map(numbered, range(4)), pts, rate=Fraction(1, 10))
    end = end_of(path)
    assert (end.duration_s, end.partial) == (pytest.approx(40.0, abs=0.01), None)


@readers
def test_a_file_that_is_cut_off_is_partial(tmp_path: Path, reader: str) -> None:
    options = {"container_options": {"movflags": "+faststart"}}
    path = cut_off(numbered_video(tmp_path / "a.mp4", 100, **options), 0.6)
    end = end_of(path, reader=reader)
    assert 1.0 < end.duration_s < 3.0
    assert end.duration_s == pytest.approx(end.frame_count / 25)
    assert end.partial == f"it ends after {end.duration_s:.2f} s, and 4.00 s were announced"


def test_damage_is_counted_and_does_not_make_the_rate_vary(tmp_path: Path) -> None:
    path = damage(numbered_video(tmp_path / "a.mp4", 100), 0.4, 0.5)
    end = end_of(path)
    assert end.decode_failures > 0
    assert end.frame_count < 100
    assert (end.average_fps, end.is_vfr, end.partial) == (pytest.approx(25), False, None)
    assert end.duration_s == pytest.approx(4.0)
    # OpenCV gives up there without a word; what is missing gives it away.
    end = end_of(path, reader="opencv")
    assert (end.decode_failures, end.is_vfr) == (0, False)
    assert end.partial == f"it ends after {end.duration_s:.2f} s, and 4.00 s were announced"


def test_only_opencv_takes_longer_sound_for_a_missing_picture(tmp_path: Path) -> None:
    path = numbered_video(tmp_path / "a.mkv", sound_s=3.0)
    assert end_of(path).partial is None
    assert (
        end_of(path, reader="opencv").partial == "it ends after 0.80 s, and 3.08 s were announced"
    )


# --- a process that dies or hangs ----------------------------------------------------------


def take_until_picture(stream: Iterator[tuple[SourceFile, Event]]) -> None:
    for _, event in stream:
        if isinstance(event, Picture):
            return
    raise AssertionError("no picture came")


def test_a_killed_child_costs_one_video(tmp_path: Path, long_video: Path) -> None:
    others = [numbered_video(tmp_path / f"{name}.mp4", 3) for name in "abcdef"]
    with VideoProcess(LARGE, EVERY_FRAME) as process:
        stream = process.read(files(others[0], long_video, *others[1:]))
        assert [kind for _, kind in kinds([next(stream) for _ in range(5)])][-1] == "Ended"
        take_until_picture(stream)
        (first,) = children()
        os.kill(first, signal.SIGKILL)
        rest = [(file.name, event) for file, event in stream if file.path == long_video]
        assert rest[-1][1] == Failed("decoder_died", "its decoder's process ended with code -9")
        # What it had sent before comes, and in order.
        numbers = [event.frame_index for _, event in rest[:-1] if isinstance(event, Picture)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) < 200


def test_the_videos_after_a_killed_child_are_read_by_another(
    tmp_path: Path, long_video: Path
) -> None:
    others = [numbered_video(tmp_path / f"{name}.mp4", 3) for name in "abcdef"]
    with VideoProcess(LARGE, EVERY_FRAME) as process:
        stream = process.read(files(long_video, *others))
        take_until_picture(stream)
        (first,) = children()
        os.kill(first, signal.SIGKILL)
        rest = [(file.name, event) for file, event in stream]
        (second,) = children()
        assert second != first
    after = [each for each in rest if each[0] != "long.mp4"]
    fine = ["Opened", "Picture", "Picture", "Picture", "Ended"]
    assert kinds(after) == [(path.name, kind) for path in others for kind in fine]
    for _, event in after:
        if isinstance(event, Picture):
            assert event.pixels is not None
            pixels = np.frombuffer(event.pixels, np.uint8).reshape(192, 256, 3)
            assert number_of(pixels) == event.frame_index
    assert not is_running(second)


def test_a_child_that_does_nothing_is_given_up(tmp_path: Path, long_video: Path) -> None:
    other = numbered_video(tmp_path / "a.mp4", 3)
    options = SamplingOptions(every_n_frames=1, shots=False, time_limit_s=2.5)
    with VideoProcess(LARGE, options) as process:
        stream = process.read(files(long_video, other))
        take_until_picture(stream)
        (first,) = children()
        os.kill(first, signal.SIGSTOP)
        start_s = time.monotonic()
        rest = [(file.name, event) for file, event in stream]
        assert time.monotonic() - start_s >= 2.5
        assert not is_running(first)
    failed = rest.index(
        ("long.mp4", Failed("time_limit", "its decoder delivered nothing for 2.5 s"))
    )
    fine = ["Opened", "Picture", "Picture", "Picture", "Ended"]
    assert kinds(rest[failed + 1 :]) == [("a.mp4", kind) for kind in fine]


def test_a_child_killed_between_two_uses_is_replaced(tmp_path: Path) -> None:
    path = numbered_video(tmp_path / "a.mp4", 3)
    with VideoProcess(SMALL, SamplingOptions()) as process:
        assert [kind for _, kind in kinds(process.read(files(path)))][-1] == "Ended"
        (first,) = children()
        # It serves the next list as well.
        assert [kind for _, kind in kinds(process.read(files(path)))][-1] == "Ended"
        assert children() == [first]
        process.close()
        assert children() == []
        assert [kind for _, kind in kinds(process.read(files(path)))][-1] == "Ended"
        assert children() != [first]


def test_a_reading_that_is_left_does_not_leak_into_the_next(
    tmp_path: Path, long_video: Path
) -> None:
    path = numbered_video(tmp_path / "a.mp4", 3)
    with VideoProcess(LARGE, EVERY_FRAME) as process:
        stream = process.read(files(long_video, path))
        take_until_picture(stream)
        stream.close()
        found = [(file.name, event) for file, event in process.read(files(path))]
        assert [kind for _, kind in kinds(found)] == ["Opened", *["Picture"] * 3, "Ended"]
        assert found[-1][1].frame_count == 3


def test_files_are_asked_for_only_a_few_ahead(tmp_path: Path) -> None:
    path = numbered_video(tmp_path / "a.mp4", 3)
    taken = []

    def listed() -> Iterator[SourceFile]:
        for number in range(20):
            taken.append(number)
            yield SourceFile(path, str(number))

    with VideoProcess(SMALL, SamplingOptions()) as process:
        for done, (file, _) in enumerate(
            each for each in process.read(listed()) if isinstance(each[1], Ended)
        ):
            assert file.name == str(done)
            assert len(taken) == min(20, done + JOBS_AHEAD)
    assert len(taken) == 20


def test_nothing_to_read_starts_nothing() -> None:
    with VideoProcess(SMALL, SamplingOptions()) as process:
        assert list(process.read([])) == []
        assert children() == []


def test_an_exception_ends_the_child_and_closes_its_pipes(long_video: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(KeyError), VideoProcess(LARGE, EVERY_FRAME) as process:
        for _ in process.read(files(long_video)):
            raise KeyError
    assert children() == []
    end_s = time.monotonic() + 5
    while sorted(os.listdir("/proc/self/fd")) != before:  # A thread closes the last one.
        assert time.monotonic() < end_s
        time.sleep(0.02)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b'{"event": "alive", "bytes": 0}',  # without its end
        b'{"event": "picture", "bytes": 10}\n123',
        b"[1, 2]\n",
        b"null\n",
        b"words\n",
        b"\xff\xfe\n",
        b'{"event": "alive"}\n',
        b'{"event": "alive", "bytes": "3"}\n123',
        b'{"event": "alive", "bytes": -1}\n123',
        json.dumps({"event": "picture", "bytes": MAX_DATA + 1}).encode() + b"\n",
        b" " * 1_000_000 + b"\n",
    ],
)
def test_what_is_no_message_ends_the_reading(sent: bytes) -> None:
    assert receive(io.BytesIO(sent)) is None
    message = {"event": "picture", "values": {"time_s": 1.0}, "bytes": 3}
    stream = io.BytesIO(json.dumps(message).encode() + b"\nabc" + sent)
    assert receive(stream) == (message, b"abc")
    assert receive(stream) is None


@pytest.mark.slow
def test_a_long_video_without_frames_to_look_at_is_not_given_up(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    with av.open(str(real_clip("bigbuckbunny"))) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    path.write_bytes(path.read_bytes() * 40)
    start_s = time.monotonic()
    end = end_of(path, fps=0.001, time_limit_s=2.0)
    assert time.monotonic() - start_s > 4.0
    assert end.frame_count == 40 * 132


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("29 is not a valid Type"), "ValueError: 29 is not a valid Type"),
        (IndexError("list index\nout of range"), "IndexError: list index out of range"),
        (MemoryError(), "MemoryError:"),
        (KeyError("x" * 500), "KeyError: '" + "x" * 500),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_an_error_that_nobody_has_foreseen_costs_one_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str, late: bool
) -> None:
    def fail(*_: object) -> Any:
        raise error

    path = numbered_video(tmp_path / "a.mp4", 50)
    if late:
        monkeypatch.setattr(ImageTransform, "fit", fail)
    else:
        monkeypatch.setattr("captioner.video.child.open_video", fail)
    sent = io.BytesIO()
    serve(path, SMALL, SamplingOptions(), Out(sent))
    sent.seek(0)
    messages = []
    while (message := receive(sent)) is not None:
        if message[0]["event"] != "alive":
            messages.append(message[0])
    assert [each["event"] for each in messages] == (["opened"] if late else []) + ["failed"]
    assert messages[-1]["values"] == {
        "code": "decoder_died",
        "reason": f"its decoder failed: {reason}"[:MAX_REASON],
    }


# --- as a program --------------------------------------------------------------------------

PROGRAM = """
import sys, time
from pathlib import Path
from captioner.files.finding import SourceFile
from captioner.video.sampling import SamplingOptions
from captioner.images.transform import ImageTransform
from captioner.video.process import VideoProcess

paths = [Path(name) for name in sys.argv[3:]]
options = SamplingOptions(reader=sys.argv[1], every_n_frames=1, shots=False)
with VideoProcess(ImageTransform(size=(256, 192)), options) as process:
    for file, event in process.read([SourceFile(path, path.name) for path in paths]):
        print(file.name, type(event).__name__, flush=True)
        time.sleep(float(sys.argv[2]))
"""
"""Arguments: reader, seconds to wait after each event, videos. It has no `if __name__ == ...`."""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    folder = tmp_path / "program"
    folder.mkdir()
    (folder / "program.py").write_text(PROGRAM)
    return folder / "program.py"


def environment() -> dict[str, str]:
    package = str(Path(captioner.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": package}


def start(program: Path, *arguments: str | Path) -> subprocess.Popen:
    """Start it in a session of its own, and wait for its first line."""
    process = subprocess.Popen(
        [sys.executable, program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().endswith(" Opened\n")
    return process


def test_a_script_without_a_guard(program: Path, tmp_path: Path) -> None:
    path = numbered_video(tmp_path / "a.mp4", 2)
    # Files in the current folder that are called like modules are left alone.
    for name in ("av.py", "cv2.py", "numpy.py", "captioner.py", "json.py"):
        (tmp_path / name).write_text("raise SystemExit('not this one')\n")
    run = subprocess.run(
        [sys.executable, program, "pyav", "0", path],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(),
    )
    assert run.stderr == ""
    assert run.returncode == 0
    assert run.stdout.splitlines() == [
        *("a.mp4 Opened", "a.mp4 Picture", "a.mp4 Picture", "a.mp4 Ended"),
    ]


@readers
def test_damaged_files_print_nothing(program: Path, tmp_path: Path, reader: str) -> None:
    sound = write_sound(tmp_path / "sound.mp4")
    photos = write_photos(tmp_path / "photos.avi", map(numbered, range(3)), 6)
    text = tmp_path / "text.mp4"
    text.write_bytes(b"words\n" * 100)
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\na.ts\n")
    paths = [
        damage(numbered_video(tmp_path / "a.mp4", 50), 0.3, 0.5),
        damage(numbered_video(tmp_path / "a.ts", 50), 0.3, 0.5),
        damage(numbered_video(tmp_path / "a.mkv", 50), 0.3, 0.5),
        cut_off(numbered_video(tmp_path / "b.mkv", 50), 0.6),
        cut_off(numbered_video(tmp_path / "b.mp4", 50), 0.6),
        numbered_video(tmp_path / "av1.mp4", 2, codec="libsvtav1"),
        write_header_only(tmp_path / "none.avi", "mpeg4"),
        *(sound, photos, text, playlist, tmp_path / "missing.mp4"),
    ]
    run = subprocess.run(
        [sys.executable, program, reader, "0", *paths],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert run.stderr == ""
    assert run.returncode == 0
    ends = [line for line in run.stdout.splitlines() if line.split()[1] in ("Ended", "Failed")]
    assert [line.split()[0] for line in ends] == [path.name for path in paths]


def test_a_killed_parent_leaves_no_child(program: Path, long_video: Path) -> None:
    process = start(program, "pyav", "60", long_video)
    (child,) = children(process.pid)
    assert is_running(child)
    process.kill()
    process.communicate()
    wait_until_ended(child)


def test_ctrl_c_leaves_no_child_and_one_traceback(program: Path, long_video: Path) -> None:
    process = start(program, "pyav", "60", long_video)
    (child,) = children(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to both
    _, stderr = process.communicate(timeout=20)
    assert not is_running(child)
    assert process.returncode == -signal.SIGINT
    assert stderr.count("Traceback") == 1
    assert stderr.rstrip().endswith("KeyboardInterrupt")


@readers
def test_no_torch_in_the_child(program: Path, long_video: Path, reader: str) -> None:
    process = start(program, reader, "60", long_video)
    (child,) = children(process.pid)
    for pid in (child, process.pid):
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "numpy" in maps
        assert "torch" not in maps
    assert ("/cv2/" in Path(f"/proc/{child}/maps").read_text()) == (reader == "opencv")
    process.kill()
    process.communicate()
    wait_until_ended(child)
