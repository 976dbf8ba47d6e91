"""Decoding in a process of its own: what comes when it dies, hangs or is left."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

import captioner
from captioner.files.finding import SourceFile
from captioner.images.transform import ImageTransform
from captioner.video.events import ChosenFrame, Ended, Event, Failed
from captioner.video.options import READERS, SamplingOptions
from captioner.video.process import JOBS_AHEAD, VideoProcess
from helpers.processes import children, ignore_running_children
from helpers.video_events import SMALL, end_of, events, files, kinds
from helpers.videos import (
    cut_off,
    damage,
    evenly,
    number_of,
    numbered,
    numbered_video,
    real_clip,
    write_header_only,
    write_photos,
    write_sound,
    write_video,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
readers = pytest.mark.parametrize("reader", READERS)


LARGE = ImageTransform(size=(256, 192))  # so many bytes that the child has to wait for the parent


EVERY_FRAME = SamplingOptions(every_n_frames=1, shots=False)


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
    ignore_running_children()
    yield
    gc.collect()
    assert children() == []


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More images than the pipe and the queue hold."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    return write_video(path, map(numbered, range(250)), evenly(250, 25))


@readers
def test_several_files_with_bad_ones_between(tmp_path: Path, reader: str) -> None:
    good = [numbered_video(tmp_path / f"{name}.mp4", 3) for name in "abcdefg"]
    (tmp_path / "text.mp4").write_bytes(b"words\n" * 50)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\na.mp4\n")
    bad = [tmp_path / name for name in ("text.mp4", "empty.mp4", "missing.mp4", "list.mp4")]
    order = [bad[0], good[0], bad[1], bad[2], *good[1:], bad[3]]
    found = events(*order, options=SamplingOptions(reader=reader))
    fine = ["Opened", "ChosenFrame", "Ended"]
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
    assert [kind for _, kind in kinds(found)] == ["Opened", "ChosenFrame", "Ended"] * 7


def take_until_frame(stream: Iterator[tuple[SourceFile, Event]]) -> None:
    for _, event in stream:
        if isinstance(event, ChosenFrame):
            return
    raise AssertionError("no frame came")


def test_a_killed_child_costs_one_video(tmp_path: Path, long_video: Path) -> None:
    others = [numbered_video(tmp_path / f"{name}.mp4", 3) for name in "abcdef"]
    with VideoProcess(LARGE, EVERY_FRAME) as process:
        stream = process.read(files(others[0], long_video, *others[1:]))
        assert [kind for _, kind in kinds([next(stream) for _ in range(5)])][-1] == "Ended"
        take_until_frame(stream)
        (first,) = children()
        os.kill(first, signal.SIGKILL)
        rest = [(file.name, event) for file, event in stream if file.path == long_video]
        assert rest[-1][1] == Failed("decoder_died", "its decoder's process ended with code -9")
        # What it had sent before comes, and in order.
        numbers = [event.frame_index for _, event in rest[:-1] if isinstance(event, ChosenFrame)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) < 200


def test_the_videos_after_a_killed_child_are_read_by_another(
    tmp_path: Path, long_video: Path
) -> None:
    others = [numbered_video(tmp_path / f"{name}.mp4", 3) for name in "abcdef"]
    with VideoProcess(LARGE, EVERY_FRAME) as process:
        stream = process.read(files(long_video, *others))
        take_until_frame(stream)
        (first,) = children()
        os.kill(first, signal.SIGKILL)
        rest = [(file.name, event) for file, event in stream]
        (second,) = children()
        assert second != first
    after = [each for each in rest if each[0] != "long.mp4"]
    fine = ["Opened", "ChosenFrame", "ChosenFrame", "ChosenFrame", "Ended"]
    assert kinds(after) == [(path.name, kind) for path in others for kind in fine]
    for _, event in after:
        if isinstance(event, ChosenFrame):
            assert event.pixels is not None
            pixels = np.frombuffer(event.pixels, np.uint8).reshape(192, 256, 3)
            assert number_of(pixels) == event.frame_index
    assert not is_running(second)


def test_a_child_that_does_nothing_is_given_up(tmp_path: Path, long_video: Path) -> None:
    other = numbered_video(tmp_path / "a.mp4", 3)
    options = SamplingOptions(every_n_frames=1, shots=False, time_limit_s=2.5)
    with VideoProcess(LARGE, options) as process:
        stream = process.read(files(long_video, other))
        take_until_frame(stream)
        (first,) = children()
        os.kill(first, signal.SIGSTOP)
        start_s = time.monotonic()
        rest = [(file.name, event) for file, event in stream]
        assert time.monotonic() - start_s >= 2.5
        assert not is_running(first)
    failed = rest.index(
        ("long.mp4", Failed("time_limit", "its decoder delivered nothing for 2.5 s"))
    )
    fine = ["Opened", "ChosenFrame", "ChosenFrame", "ChosenFrame", "Ended"]
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
        take_until_frame(stream)
        stream.close()
        found = [(file.name, event) for file, event in process.read(files(path))]
        assert [kind for _, kind in kinds(found)] == ["Opened", *["ChosenFrame"] * 3, "Ended"]
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


PROGRAM = """
import sys, time
from pathlib import Path
from captioner.files.finding import SourceFile
from captioner.video.options import SamplingOptions
from captioner.images.transform import ImageTransform
from captioner.video.process import VideoProcess

paths = [Path(name) for name in sys.argv[3:]]
options = SamplingOptions(reader=sys.argv[1], every_n_frames=1, shots=False)
with VideoProcess(ImageTransform(size=(256, 192)), options) as process:
    for file, event in process.read([SourceFile(path, path.name) for path in paths]):
        print(file.name, type(event).__name__, flush=True)
        time.sleep(float(sys.argv[2]))
"""


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
        *("a.mp4 Opened", "a.mp4 ChosenFrame", "a.mp4 ChosenFrame", "a.mp4 Ended"),
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
