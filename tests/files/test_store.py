"""The memory of jobs: killed at each call of the system, torn, full, without locks."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import captioner
from captioner.errors import CaptionerError
from captioner.files.store import DamagedStore, Store, StoreKind
from helpers.jobs import commit_half, ended, forked
from helpers.programs import program

KIND = StoreKind("test-1", "start over")
NAMES = ["a.png", "ü/日本.jpg", "not \udcff Unicode.png", "half \ud800"]
ROWS = [(name, {"text": f"{name} " * 99, "size": number}) for number, name in enumerate(NAMES)]

WORK = """
import os
from pathlib import Path
from captioner.files.store import Store, StoreKind

kind = StoreKind("test-1", "start over")
with Store(Path("store"), kind) as store:
    steps = [
        lambda: store.add([("b", {"text": "b" * 9000}), ("c", {})]),
        lambda: store.mark(complete=6),
        lambda: store.arrange([6, 1, 5], complete=3),
        lambda: store.add([("d", {})]),
        lambda: Store.create(Path("store"), kind, {"new": 1}).close(),
    ]
    for step in steps:
        step()
        os.write(1, b".")
"""
"""Says on standard output how many steps are done."""

AFTER = [
    (NAMES, None),
    ([*NAMES, "b", "c"], None),
    ([*NAMES, "b", "c"], 6),
    (["c", "a.png", "b"], 3),
    (["c", "a.png", "b", "d"], 3),
    ([], None),
]
"""What the store holds after so many steps: names, and a mark."""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with four records, in the current folder."""
    monkeypatch.chdir(tmp_path)
    Store.create(Path("store"), KIND, {"model": "x\udcff"}, ROWS).close()
    return Path("store")


def traced(*options: str) -> subprocess.CompletedProcess[bytes]:
    """Do :data:`WORK` in a process under strace."""
    command = [program("strace"), "-f", "-qq", *options]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTHONPATH"] = str(Path(captioner.__file__).parents[1])
    return subprocess.run(
        [*command, sys.executable, "-S", "-c", WORK], env=environment, capture_output=True
    )


def leave_second_file(path: Path) -> None:
    """End a process that has added a record and not closed the store."""

    def work() -> int:
        store = Store(path, KIND)
        store.add([("before", {})])
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    assert ended(forked(work)) == -signal.SIGKILL
    assert Path("store-journal").stat().st_size > 0


def test_records_come_back_in_their_order(path: Path) -> None:
    with Store(path, KIND) as store:
        assert (store.about, store.last) == ({"model": "x\udcff"}, 4)
        assert list(store.names()) == list(enumerate(NAMES, start=1))
        store.add([("new", {}), ("a.png", {"text": "again"})])
        store.mark(complete=6, kept=None)
        assert list(store.rows()) == [*ROWS, ("new", {}), ("a.png", {"text": "again"})]
        assert store.row(6) == ("a.png", {"text": "again"})
    with Store(path, KIND) as store:
        assert (store.last, store.mark_of("complete"), store.mark_of("kept")) == (6, 6, None)
        store.arrange([6, 3], complete=2)
        assert list(store.rows()) == [("a.png", {"text": "again"}), ROWS[2]]
        assert (store.last, store.mark_of("complete")) == (2, 2)
    assert os.listdir() == ["store"]


def test_it_has_the_permissions_of_every_other_file(path: Path) -> None:
    before = os.umask(0o002)
    try:
        Store.create(Path("other"), KIND, {}).close()
        Path("file").touch()
    finally:
        os.umask(before)
    assert Path("other").stat().st_mode == Path("file").stat().st_mode


@pytest.mark.skipif(sys.platform != "linux", reason="needs strace")
def test_killed_at_each_call_of_the_system_it_is_as_before_or_after_a_step(path: Path) -> None:
    calls = "pwrite64,ftruncate,fsync,fdatasync,rename,unlink"
    shutil.copy(path, "start")
    code, number = -signal.SIGKILL, 0
    while code == -signal.SIGKILL:
        number += 1
        for name in os.listdir():
            if name != "start":
                os.unlink(name)
        shutil.copy("start", path)
        kill = f"inject={calls}:signal=KILL:when={number}"
        done = traced("-o", os.devnull, "-e", f"trace={calls}", "-e", kill)
        code, steps = done.returncode, len(done.stdout)
        with Store(path, KIND) as store:
            found = [name for _, name in store.names()], store.mark_of("complete")
            assert found in AFTER[steps : steps + 2]
            store.add([("next", {})])
        assert set(os.listdir()) - {"store.part"} == {"start", "store"}
    assert (code, steps, done.stderr) == (0, 5, b"")
    assert number > 30
    assert sorted(os.listdir()) == ["start", "store"]


def test_killed_in_the_middle_of_a_page_it_is_as_before(path: Path) -> None:
    def work() -> int:
        store = Store(path, KIND)
        store.add([("before", {})])
        store._db.execute("BEGIN")
        store._db.execute("INSERT INTO records VALUES (9, '\"x\"', ?)", ("x" * 20_000,))
        commit_half(store._db, lambda db: db.execute("COMMIT"))
        return 0

    assert ended(forked(work)) == -signal.SIGKILL
    assert sorted(os.listdir()) == ["store", "store-journal"]
    with Store(path, KIND) as store:
        assert [name for _, name in store.names()] == [*NAMES, "before"]
    assert os.listdir() == ["store"]


def test_what_a_killed_run_left_is_not_taken_for_the_next_ones(path: Path) -> None:
    leave_second_file(path)
    Store.create(path, KIND, {"new": 1}, [("x", {})]).close()
    assert os.listdir() == ["store"]
    with Store(path, KIND) as store:
        assert list(store.rows()) == [("x", {})]


@pytest.mark.skipif(sys.platform != "linux", reason="needs strace")
def test_it_asks_for_no_locks(path: Path) -> None:
    leave_second_file(path)
    done = traced("-o", "calls", "-e", "trace=fcntl,flock")
    assert (done.returncode, done.stdout) == (0, b".....")
    calls = Path("calls").read_text()
    assert "F_GETFD" in calls  # which Python asks for
    assert "LK" not in calls and "flock" not in calls


def test_a_full_disk_is_named_and_costs_the_batch_only(path: Path) -> None:
    def work() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
        store, added = Store(path, KIND), 0
        try:
            while True:
                store.add([(f"n{added}", {"text": "x" * 500})] * 8)
                added += 8
        except CaptionerError as error:
            assert f"{path} cannot be written: file too large" == str(error)
        assert store.last == 4 + added
        store.close()
        return added

    added = ended(forked(work))
    assert 0 < added < 80
    assert os.listdir() == ["store"]
    with Store(path, KIND) as store:
        assert store.last == 4 + added
        store.add([("next", {})])


def test_what_cannot_be_made_is_named(path: Path) -> None:
    Path("folder.part").mkdir()
    for target, reason in (("folder", "is a directory"), ("gone/x", "no such file or directory")):
        with pytest.raises(CaptionerError) as caught:
            Store.create(Path(target), KIND, {})
        assert str(caught.value) == f"{target} cannot be written: {reason}"


def test_a_folder_that_cannot_be_written_is_named(
    shared_folder: Path, without_privileges: Callable[[], AbstractContextManager[None]]
) -> None:
    path = shared_folder / "store"
    Store.create(path, KIND, {}, ROWS).close()
    path.chmod(0o666)
    shared_folder.chmod(0o555)
    with without_privileges(), Store(path, KIND) as store:
        with pytest.raises(CaptionerError) as caught:
            store.add([("x", {})])
        assert str(caught.value) == f"{path} cannot be written: permission denied"
        assert list(store.rows()) == ROWS
    with without_privileges(), Store(path, KIND, only_read=True) as store:
        assert list(store.rows()) == ROWS


def test_a_damaged_one_is_named(path: Path) -> None:
    with Store(path, KIND) as store:
        store.add([("many", {"text": "x" * 50_000})])
    whole = path.read_bytes()
    holes = whole[:8192] + bytes(4096) + whole[12288:]
    for damaged in (b"", b"{}\n", whole[:5000], whole[:-4096], holes):
        path.write_bytes(damaged)
        with pytest.raises(DamagedStore) as caught, Store(path, KIND) as store:
            list(store.rows())
        assert str(caught.value) == f"{path} is damaged; start over"
    path.write_bytes(whole)
    with pytest.raises(DamagedStore):
        Store(path, StoreKind("another", ""))


def test_a_path_that_sqlite_does_not_take_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("a" * 200) / ("b" * 200)
    folder /= "c" * (504 - len(str(folder)) - len("//store.part"))
    folder.mkdir(parents=True)
    Store.create(folder / "store", KIND, {}, ROWS).close()
    with pytest.raises(CaptionerError) as caught:
        Store.create(folder / "store2", KIND, {})
    assert "store2 cannot be used: its path has 505 bytes" in str(caught.value)
    assert os.listdir(folder) == ["store"]


def test_who_only_reads_sees_it_while_it_is_written(path: Path) -> None:
    before = path.read_bytes()
    with Store(path, KIND) as store:
        store.add([("x", {})])
        with Store(path, KIND, only_read=True) as seen:
            assert [name for _, name in seen.names()] == [*NAMES, "x"]
        assert sorted(os.listdir()) == ["store", "store-journal"]
    assert path.read_bytes() != before
