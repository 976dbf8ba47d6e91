"""Shards in a real object store, which is killed and started again in mid-run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.s3 import S3Server
from helpers.shards import images, make_shards, make_tar
from helpers.videos import numbered_video

pytest.importorskip("fsspec")
pytest.importorskip("s3fs")

BUCKET = "bucket"
SHARDS = 16
VIDEOS = 16


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    if sys.platform != "linux":
        pytest.skip("the server's package is for Linux")
    found = S3Server(tmp_path_factory.mktemp("s3"))
    try:
        found.start()
        yield found
    finally:
        found.kill()


@pytest.fixture(scope="module")
def store(server: S3Server) -> Any:
    """The file system of fsspec, with a bucket in it."""
    return server.make_bucket(BUCKET)


def command(model_file: Path, *arguments: str) -> list[str]:
    options = ["--model", str(model_file), "--device", "cpu", "--batch-size", "4"]
    return [sys.executable, "-m", "captioner", *arguments, *options]


def outputs(store: Any, prefix: str) -> dict[str, bytes]:
    names = [name for name in store.find(prefix) if name.endswith(".jsonl")]
    return {Path(name).name: store.cat_file(name) for name in names}


def finished_in_spite_of_a_kill(arguments: list[str], server: S3Server, store: Any, to: str) -> str:
    """What a command says that runs while the server is killed and started again."""
    with Path("errors").open("wb") as errors:
        environment = {**os.environ, **server.environment}
        process = subprocess.Popen(arguments, stderr=errors, env=environment)
    while not outputs(store, to):
        assert process.poll() is None, Path("errors").read_text()
        time.sleep(0.05)
    server.kill()
    while "waiting for it" not in Path("errors").read_text():
        assert process.poll() is None, Path("errors").read_text()
        time.sleep(0.05)
    server.start()
    assert process.wait(timeout=300) == 0, Path("errors").read_text()
    said = Path("errors").read_text()
    assert f"s3://{BUCKET} cannot be reached" in said
    assert f"s3://{BUCKET} can be reached again" in said
    return said


def test_a_server_killed_in_mid_run_costs_time_and_no_shard(
    caption, tmp_path, model_file, server, store
) -> None:
    pattern = make_shards(tmp_path / "t", SHARDS, 4)
    assert caption(pattern, "--output", "whole/")[0] == 0
    expected = {path.name: path.read_bytes() for path in Path("whole").glob("*.jsonl")}
    store.put(str(tmp_path / "t"), f"{BUCKET}/in", recursive=True)

    addresses = f"s3://{BUCKET}/in/{{00000..{SHARDS - 1:05d}}}.tar"
    arguments = command(model_file, "caption", addresses, "--output", f"s3://{BUCKET}/out")
    said = finished_in_spite_of_a_kill(arguments, server, store, f"{BUCKET}/out")
    assert f"{SHARDS} shards captioned, 0 failed; images: {SHARDS * 4} captioned" in said
    assert outputs(store, f"{BUCKET}/out") == expected

    environment = {**os.environ, **server.environment}
    again = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert again.returncode == 0
    assert f"0 shards captioned, {SHARDS} finished before, 0 failed" in again.stderr


def test_videos_are_tagged_from_a_server_that_is_killed_in_mid_run(
    tag, tmp_path, tagging_model, server, store
) -> None:
    (tmp_path / "videos").mkdir()
    for number in range(VIDEOS):
        numbered_video(tmp_path / f"videos/{number}.mp4", 4 + number)
    options = ("--shard-size", "2", "--max-length", "6", "--batch-size", "4")
    assert tag("videos", "--output", "whole/", "--format", "jsonl", *options)[0] == 0
    expected = {path.name: path.read_bytes() for path in Path("whole").glob("*.jsonl")}
    store.put(str(tmp_path / "videos"), f"{BUCKET}/videos", recursive=True)

    addresses = (f"s3://{BUCKET}/videos/", "--output", f"s3://{BUCKET}/tags")
    arguments = command(Path(tagging_model.path), "tag", *addresses, *options)
    said = finished_in_spite_of_a_kill(arguments, server, store, f"{BUCKET}/tags")
    assert f"{VIDEOS // 2} shards tagged, 0 failed; videos: {VIDEOS} tagged, 0 failed" in said
    assert outputs(store, f"{BUCKET}/tags") == expected


def test_lists_and_folders_at_addresses_are_captioned(tmp_path, model_file, server, store) -> None:
    members = images(3)
    for name, data in members.items():
        store.pipe_file(f"{BUCKET}/photos/{name}", data)
    store.pipe_file(f"{BUCKET}/list.csv", "\n".join(["path", *members, "gone.jpg"]).encode())
    store.mv(f"{BUCKET}/list.csv", f"{BUCKET}/photos/list.csv")
    make_tar(tmp_path / "x.tar", members)
    environment = {**os.environ, **server.environment}
    texts = []
    for path, code in (("photos/", 0), ("photos/list.csv", 1), ("photos/*.jpg", 0)):
        output = tmp_path / f"out{len(texts)}"
        arguments = command(
            model_file, "caption", f"s3://{BUCKET}/{path}", "--output", f"{output}/"
        )
        run = subprocess.run(arguments, capture_output=True, text=True, env=environment)
        assert run.returncode == code, run.stderr
        [file] = output.glob("*.jsonl")
        texts.append(file.read_text().splitlines())
    assert texts[0] == texts[2]
    assert len(texts[0]) == 3
    assert '"gone.jpg", "text": null' in texts[1][3]
    assert '"error": "file not found"' in texts[1][3]
    assert [line.split('"')[3] for line in texts[1][:3]] == list(members)


def test_a_store_that_is_not_there_is_an_error_at_the_start(tmp_path, model_file, server) -> None:
    environment = {**os.environ, **server.environment, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    arguments = command(
        model_file, "caption", f"s3://{BUCKET}/in/0.tar", "--output", f"{tmp_path}/out/"
    )
    run = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert run.returncode == 2
    assert f"s3://{BUCKET} cannot be reached" in run.stderr
    assert "AWS_ENDPOINT_URL" in run.stderr
