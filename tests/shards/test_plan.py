"""The shards of a job."""

from __future__ import annotations

import pickle
import tracemalloc
from itertools import islice
from pathlib import Path

from captioner.captioning.job import CaptionJob
from captioner.shards.caption import CaptionWork
from captioner.shards.finished import Finished
from captioner.shards.job import ShardJob, ShardOptions
from captioner.shards.plan import ShardPlan
from helpers.shards import images, make_tar


def plan(*paths: str, output: str = "out/", **options) -> ShardPlan:
    work = CaptionWork(CaptionJob(paths=paths, format="jsonl"))
    return ShardPlan(ShardJob(work, output, options=ShardOptions(**options)), "0" * 64)


def test_a_million_shards_are_listed_in_the_memory_of_one(tmp_path: Path) -> None:
    make_tar(tmp_path / "0000000.tar", images(1))
    job = plan(f"{tmp_path}/{{0000000..0999999}}.tar", output=str(tmp_path / "out"))
    assert job.total == 1_000_000
    tracemalloc.start()
    for number, task in enumerate(islice(job.tasks(), 10_000)):  # the first ones tell
        assert task.address == f"{tmp_path}/{number:07d}.tar"
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 200_000
    assert task.output == f"{tmp_path}/out/0009999.jsonl"
    assert pickle.loads(pickle.dumps(task)) == task


def test_a_long_list_is_never_held_whole(tmp_path: Path) -> None:
    rows = 20_000
    with (tmp_path / "list.csv").open("w") as file:
        file.write("url\n")
        file.writelines(f"s3://bucket/{number:07d}.jpg\n" for number in range(rows))
    job = plan(str(tmp_path / "list.csv"), shard_size=100)
    tracemalloc.start()
    shards = 0
    for task in job.tasks():
        assert len(task.files) == 100
        shards += 1
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert shards == rows / 100
    assert peak_bytes < 500_000
    assert task.files[-1] == ("s3://bucket/0019999.jpg", "s3://bucket/0019999.jpg")


def test_what_is_finished_takes_eight_bytes_for_each_name() -> None:
    names = [f"{number:06d}-abcd.jsonl" for number in range(50_000)]
    finished = Finished([*names, "x.tar", "a/b.txt"], "jsonl")
    assert len(finished) == 50_000
    assert finished.has_any
    assert not Finished(["a.txt"], "jsonl").has_any
    assert finished._keys.itemsize == 8
    assert "000007-abcd" in finished
    assert not finished.has_other("000007-abcd")
    assert "000007-ffff" not in finished
    assert finished.has_other("000007-ffff")
    assert not finished.has_other("900000-abcd")
