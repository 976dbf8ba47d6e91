"""Shards on the workers of a real Ray cluster, of which nodes and the driver are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from captioner.captioning.job import CaptionJob
from captioner.errors import CaptionerError
from captioner.model.options import ModelOptions
from captioner.model.shipped import load_model
from captioner.shards.caption import CaptionWork
from captioner.shards.job import EngineOptions, ShardJob
from captioner.shards.run import ShardRun
from helpers.languages import write_languages
from helpers.shards import images, jpeg, make_shards, make_tar, records, report
from helpers.videos import numbered_video

pytest.importorskip("ray")

from ray import cloudpickle  # noqa: E402

from captioner.shards.model_bytes import ModelBytes  # noqa: E402
from captioner.shards.ray_engine import RayEngine, room_for  # noqa: E402
from helpers.ray_cluster import RayCluster, end_worker, write_elsewhere  # noqa: E402

SHARDS, EACH = 60, 20
RAY = ("0.tar", "--engine", "ray")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """Three nodes; the last test kills one."""
    if sys.platform != "linux":
        pytest.skip("several nodes on one machine need Linux")
    found = RayCluster()
    try:
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


def test_ctrl_c_ends_cleanly_and_says_how_to_resume(
    tmp_path, model_file, cluster, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pattern = make_shards(tmp_path / "t", SHARDS, EACH)
    process = started(pattern, model_file, cluster.address)
    wait_for_outputs("out", 1, process)
    os.killpg(process.pid, signal.SIGINT)
    said, errors = process.communicate(timeout=600)
    assert (process.returncode, said) == (130, "")
    assert "finished shards are saved: run the same command again to resume" in errors
    assert "Traceback" not in errors
    # Workers may have finished some whose reports came too late.
    assert report(Path("out"))["shards"]["finished"] <= len(outputs("out")) < SHARDS
    assert list(Path("out/.captioner/parts").glob("*")) == []


def test_languages_travel_to_the_workers(caption, tmp_path, model_file, cluster) -> None:
    pattern = make_shards(tmp_path / "t", 2, 3)
    german, chinese = write_languages(load_model(model_file, device="cpu"), tmp_path, "de", "zh")
    languages = ("--language", f"{german},en,{chinese}")
    assert caption(pattern, "--output", "whole/", *languages)[0] == 0
    ray = ("--engine", "ray", "--address", cluster.address)
    assert caption(pattern, "--output", "out/", *languages, *ray)[0] == 0
    assert outputs("out") == outputs("whole")
    assert [*records(Path("out/00001.jsonl"))[0]["other_languages"]] == ["en", "zh"]


def test_videos_are_tagged_on_the_workers(tag, tmp_path, cluster) -> None:
    (tmp_path / "videos").mkdir()
    for number in range(4):
        numbered_video(tmp_path / f"videos/{number}.mp4", 6 + number)
    options = ("--format", "jsonl", "--shard-size", "2")
    assert tag("videos", "--output", "whole/", *options)[0] == 0
    code, errors = tag(
        *("videos", "--output", "out/", *options, "--engine", "ray", "--address", cluster.address)
    )
    assert (code, "2 shards tagged, 0 failed; videos: 4 tagged, 0 failed" in errors) == (0, True)
    assert outputs("out") == outputs("whole")


def test_a_broken_shard_is_tried_on_each_worker_and_the_rest_is_done(
    caption, tmp_path, cluster
) -> None:
    pattern = make_shards(tmp_path / "t", 5, 2)
    Path("t/00001.tar").write_bytes(Path("t/00001.tar").read_bytes()[:1500])
    code, errors = caption(
        pattern, "--output", "out/", "--engine", "ray", "--address", cluster.address
    )
    assert code == 1
    assert "4 shards captioned, 1 failed; images: 8 captioned, 0 failed" in errors
    [failed] = report(Path("out"))["failed"]
    assert (failed["shard"], failed["tries"]) == ("00001", 3)
    assert "cannot be read as a tar archive" in failed["error"]


def shards_done(do, tmp_path: Path, model_file: Path, address: str) -> ShardRun:
    """Three shards with two images each, by the engine itself."""
    cloudpickle.register_pickle_by_value(sys.modules[do.__module__])  # Workers lack the tests.
    pattern = make_shards(tmp_path / "t", 3, 2)
    options = ModelOptions(model=str(model_file), device="cpu", precision="fp32")
    model = load_model(model_file, device="cpu")
    engine = RayEngine(
        ModelBytes.read(options, model), EngineOptions("ray", address), do, say=print
    )
    work = CaptionWork(CaptionJob((pattern,), format="jsonl", workers=0))
    job = ShardJob(work, f"{tmp_path}/out")
    with ShardRun(job, model) as run:
        for each in engine.run(run.tasks()):
            run.take(each)
    return run


def test_a_shard_that_ends_its_workers_is_given_up_in_the_end(
    tmp_path, model_file, cluster
) -> None:
    run = shards_done(end_worker, tmp_path, model_file, cluster.address)
    assert (run.done, run.counts["ok"]) == (2, 4)
    [failed] = run.failed
    assert (failed.task.name, failed.tries) == ("00001", 5)
    assert "5 workers were lost while they had it" in failed.error


def test_an_output_on_another_disk_is_no_output(tmp_path, model_file, cluster) -> None:
    with pytest.raises(CaptionerError, match="--output has to be a folder that all machines"):
        shards_done(write_elsewhere, tmp_path, model_file, cluster.address)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["0.tar", "--num-workers", "2"], "--num-workers 2: is for --engine ray only"),
        (["0.tar", "--gpus-per-worker", "1"], "--gpus-per-worker 1: is for --engine ray only"),
        (["0.tar", "--address", "here:9"], "--address 'here:9': is for --engine ray only"),
        (["0.jpg", "--engine", "ray"], "--engine ray: is for shards"),
        ([*RAY, "--address", "127.0.0.1:9"], "--address 127.0.0.1:9: no Ray cluster"),
        ([*RAY, "--gpus-per-worker", "1"], "--device cpu: workers have 1 GPUs"),
        ([*RAY, "--gpus-per-worker", "1", "--device", "cuda:1"], "--device cuda:1"),
    ],
)
def test_options_that_do_not_go_together_are_refused(caption, tmp_path, arguments, message) -> None:
    make_tar(tmp_path / "0.tar", images(1))
    (tmp_path / "0.jpg").write_bytes(jpeg(0))
    code, errors = caption("--output", "out", *arguments)
    assert code == 2
    assert message in errors
    assert not outputs("out")


def test_without_ray_the_extra_is_named(caption, tmp_path, monkeypatch) -> None:
    make_tar(tmp_path / "0.tar", images(1))
    monkeypatch.setattr("captioner.cli.shards.find_spec", lambda name: None)
    code, errors = caption("0.tar", "--output", "out/", "--engine", "ray")
    assert code == 2
    assert "pip install 'captioner[ray]'" in errors


@pytest.mark.parametrize(
    ("gpus", "nodes", "room"),
    [
        (0, [{"CPU": 4.0}, {"CPU": 2.0, "GPU": 1.0}], 6),
        (1, [{"CPU": 4.0}, {"CPU": 2.0, "GPU": 8.0}, {"CPU": 64.0, "GPU": 4.0}], 6),
        (1, [{"CPU": 4.0}], "--gpus-per-worker 1"),
        (0, [{"memory": 1e9}], "no node with a processor"),
    ],
)
def test_a_cluster_has_room_for_a_worker_on_each_processor_or_gpu(gpus, nodes, room) -> None:
    options = EngineOptions("ray", gpus_per_worker=gpus)
    if isinstance(room, int):
        assert room_for(options, nodes) == room
    else:
        with pytest.raises(CaptionerError, match=room):
            room_for(options, nodes)


def test_a_node_and_the_driver_are_killed_and_every_record_is_there_once(
    caption, tmp_path, model_file, cluster
) -> None:
    pattern = make_shards(tmp_path / "t", SHARDS, EACH)
    assert caption(pattern, "--output", "whole/")[0] == 0

    process = started(pattern, model_file, cluster.address)
    wait_for_outputs("out", 3, process)
    cluster.kill_node_at_work(process)
    wait_for_outputs("out", len(outputs("out")) + 5, process)
    process.kill()
    process.communicate()
    before = len(outputs("out"))
    assert 8 <= before < SHARDS

    process = started(pattern, model_file, cluster.address)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert " finished before, 0 failed" in errors
    assert outputs("out") == outputs("whole")
    names = [each["file_name"] for path in Path("out").glob("*.jsonl") for each in records(path)]
    assert sorted(names) == list(images(SHARDS * EACH))
    assert report(Path("out"))["shards"] == {"total": SHARDS, "finished": SHARDS, "failed": 0}
    assert list(Path("out/.captioner/parts").glob("*")) == []
