"""Shards on the workers of a real Ray cluster, of which nodes and the driver are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from captioner.captioning.job import CaptionJob
from captioner.errors import CaptionerError
from captioner.model.options import ModelOptions
from captioner.model.shipped import load_model
from captioner.shards.job import EngineOptions, ShardJob
from captioner.shards.run import ShardRun
from helpers.languages import write_languages
from helpers.programs import missing
from helpers.shards import images, make_shards, make_tar, records, report

if find_spec("ray"):
    from captioner.shards.ray_engine import RayEngine, room_for
    from helpers import ray_cluster
    from helpers.ray_cluster import RayCluster

SHARDS, EACH = 60, 20
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """Two nodes with a processor each."""
    if sys.platform != "linux":
        pytest.skip("several nodes on one machine need Linux")
    if find_spec("ray") is None:
        missing("ray")
    found = RayCluster()
    try:
        found.add_node()
        yield found
    finally:
        found.stop()


def outputs(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.jsonl")}


def wait_for_outputs(folder: str, count: int, process: subprocess.Popen[str]) -> None:
    while len(list(Path(folder).glob("*.jsonl"))) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def started(pattern: str, model_file: Path, address: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "captioner", "caption", pattern, "--output", "out/"]
    command += ["--model", str(model_file), "--batch-size", "4", "--workers", "0"]
    command += ["--engine", "ray", "--address", address]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def test_a_node_and_the_driver_are_killed_and_every_record_is_there_once(
    caption, tmp_path, model_file, cluster
) -> None:
    pattern = make_shards(tmp_path / "t", SHARDS, EACH)
    assert caption(pattern, "--output", "whole/")[0] == 0
    third = cluster.add_node()

    process = started(pattern, model_file, cluster.address)
    wait_for_outputs("out", 3, process)
    cluster.kill_node_at_work([third])
    wait_for_outputs("out", len(outputs("out")) + 5, process)
    process.kill()
    process.communicate()
    before = len(outputs("out"))
    assert 8 <= before < SHARDS

    process = started(pattern, model_file, cluster.address)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert " finished before, 0 failed" in errors
    assert outputs("out") == outputs("whole")
    names = [each["file_name"] for path in Path("out").glob("*.jsonl") for each in records(path)]
    assert sorted(names) == list(images(SHARDS * EACH))
    assert report(Path("out"))["shards"] == {"total": SHARDS, "finished": SHARDS, "failed": 0}
    assert list(Path("out/.captioner/parts").glob("*")) == []
