"""Training on archives in a real object store, which is killed and started again in mid-run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.s3 import S3Server
from helpers.streams import make_stream
from helpers.training import arguments, read, scores

pytest.importorskip("s3fs")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the server's package is for Linux"),
]

ROOT = Path(__file__).parents[2]
OPTIONS = (
    "--model.encoder.trainable=all",
    "--trainer.max_epochs=2",
    "--trainer.accelerator=cpu",
    "--data.workers=1",
    "--data.shuffle_window=4",
)
START = "import sys\nfrom captioner.cli.entry import main\n{before}\nsys.exit(main(sys.argv[1:]))"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[S3Server]:
    (tmp_path / "s3").mkdir()
    found = S3Server(tmp_path / "s3")
    try:
        found.start()
        yield found
    finally:
        found.kill()


def start(
    server: S3Server, log: Path, command: list[str], before: str = ""
) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **server.environment, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    program = START.format(before=before)
    with log.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-c", program, *command], stdout=file, stderr=file, env=environment
        )


def wait_until(process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool]) -> None:
    while not ready():
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)


def test_a_store_that_is_killed_in_mid_run_costs_time(
    server: S3Server, shapes: Path, tmp_path: Path
) -> None:
    local = make_stream(shapes, tmp_path / "tars", [8] * 4)
    server.make_bucket("bucket").put(str(tmp_path / "tars"), "bucket/in", recursive=True)
    places = (f"--data.val_root={shapes}", *OPTIONS)
    here = arguments(shapes, tmp_path, tmp_path / "here", f"--data.root={local}", *places)
    log = tmp_path / "log"
    assert start(server, log, here).wait() == 0, log.read_text()

    remote = f"--data.root=s3://bucket/in/{Path(local).name}"
    command = arguments(shapes, tmp_path, tmp_path / "there", remote, *places)
    stopped, continued = tmp_path / "stopped", tmp_path / "continued"
    act = (
        "from helpers.training import at_batch, wait_for\n"
        f"at_batch(0, 1, lambda: wait_for({str(stopped)!r}, {str(continued)!r}))"
    )
    process = start(server, log, command, act)
    wait_until(process, log, stopped.exists)
    server.kill()
    continued.touch()
    unreachable = "captioner: s3://bucket cannot be reached"
    wait_until(process, log, lambda: unreachable in log.read_text())
    server.start()
    assert process.wait() == 0, log.read_text()
    assert "captioner: s3://bucket can be reached again" in log.read_text()
    assert scores(tmp_path / "there") == scores(tmp_path / "here")
    ends = [read(tmp_path / name)["state_dict"] for name in ("there", "here")]
    assert all(tensor.equal(ends[1][name]) for name, tensor in ends[0].items())
