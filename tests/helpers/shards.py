"""Shards of images, and what became of them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def jpeg(seed: int) -> bytes:
    """A small image, another one for each number."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).resize((80, 60)).save(data, "JPEG")
    return data.getvalue()


def images(count: int, start: int = 0) -> dict[str, bytes]:
    """Names and contents of so many images."""
    return {f"{number:05d}.jpg": jpeg(number) for number in range(start, start + count)}


def make_tar(path: Path, members: Mapping[str, bytes], mode: str = "w") -> Path:
    """A WebDataset archive: beside each image there is a text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            for suffix, content in (("", data), (".txt", b"somebody's words")):
                member = tarfile.TarInfo(str(Path(name).with_suffix(suffix)) if suffix else name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def make_parquet(path: Path, members: Mapping[str, bytes]) -> Path:
    """A table as the Hub has them, with the images in it."""
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"image": {"bytes": data, "path": name}} for name, data in members.items()]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def make_shards(folder: Path, shards: int, each: int) -> str:
    """Archives with so many images each; returns the pattern that names them."""
    for number in range(shards):
        make_tar(folder / f"{number:05d}.tar", images(each, number * each))
    return f"{folder}/{{00000..{shards - 1:05d}}}.tar"


def records(file: Path) -> list[dict[str, Any]]:
    """What a shard of JSONL holds."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def report(output: Path) -> dict[str, Any]:
    """The counts of a job."""
    found: dict[str, Any] = json.loads((output / ".captioner/report.json").read_text("utf-8"))
    return found
