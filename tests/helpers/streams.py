"""Captioned images in archives and tables, as training streams them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from captioner.data.datasets import Example, load_caption_data


def write_members(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """An archive of these files, whose names may come twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_tar(path: Path, examples: Iterable[Example]) -> None:
    """The image and its captions, by turns as text and as JSON."""
    members = []
    for number, example in enumerate(examples):
        stem = Path(example.image_id).stem
        members.append((f"{stem}.png", example.path.read_bytes()))
        if number % 2 == 0:
            members.append((f"{stem}.txt", "\n".join(example.captions).encode()))
        else:
            text = json.dumps({"captions": example.captions, "width": 64})
            members.append((f"{stem}.json", text.encode()))
    write_members(path, members)


def write_table(path: Path, examples: Iterable[Example]) -> None:
    """A table in the Hub's layout."""
    import pyarrow
    from pyarrow import parquet

    rows = [
        {
            "image": {"bytes": each.path.read_bytes(), "path": Path(each.image_id).name},
            "captions": list(each.captions),
        }
        for each in examples
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=3)


def make_stream(
    data: Path, folder: Path, sizes: Sequence[int], *, kind: str = "tar", split: str = "train"
) -> str:
    """Shards of so many images each, in the order of the data; returns the pattern for them.

    Those of the split that are left over are in the last one.
    """
    examples = load_caption_data(data).split(split)
    folder.mkdir(parents=True)
    for number, size in enumerate(sizes):
        last = number == len(sizes) - 1
        part, examples = (examples, []) if last else (examples[:size], examples[size:])
        {"tar": write_tar, "parquet": write_table}[kind](folder / f"{number:02d}.{kind}", part)
    return f"{folder}/{{00..{len(sizes) - 1:02d}}}.{kind}"
