"""How many samples a stream has: counted once, and kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from captioner.data import stream_index
from captioner.data.stream_index import open_stream
from captioner.errors import CaptionerError
from helpers.streams import write_members


def shard(folder: Path, number: int, samples: int) -> Path:
    members = []
    for index in range(samples):
        members.append((f"{index}.jpg", b"J" * 700))
        members.append((f"{index}.txt", f"Dog {index} of {number}.\n\nA pet.".encode()))
    return write_members(folder / f"{number}.tar", [*members, ("last.jpg", b"J")])


def spoil(path: Path) -> None:
    """Another content of the same size."""
    path.write_bytes(b"\xff" * path.stat().st_size)


def test_shards_are_counted_once(tmp_path: Path) -> None:
    files = [shard(tmp_path, number, samples) for number, samples in enumerate((2, 0, 3))]
    pattern, cache = f"{tmp_path}/{{0..2}}.tar", tmp_path / "cache"
    stream, left_out = open_stream(pattern, "auto", cache)
    assert (stream.format, stream.shards) == ("webdataset", [str(file) for file in files])
    assert stream.counts == [2, 0, 3]
    assert sorted(stream.captions) == [
        (f"Dog {index} of {number}.", "A pet.")
        for index, number in ((0, 0), (0, 2), (1, 0), (1, 2), (2, 2))
    ]
    (line,) = left_out
    assert line.startswith("3 samples without a caption left out (first: ")
    for file in files:
        spoil(file)
    again, same = open_stream(pattern, "webdataset", cache)
    assert (again, same) == (stream, left_out)
    assert len(list((cache / "streams").iterdir())) == 1


def test_shards_of_another_size_are_counted_again(tmp_path: Path) -> None:
    shard(tmp_path, 0, 2)
    pattern, cache = f"{tmp_path}/{{0..0}}.tar", tmp_path / "cache"
    assert open_stream(pattern, "auto", cache)[0].counts == [2]
    shard(tmp_path, 0, 9)
    assert open_stream(pattern, "auto", cache)[0].counts == [9]


def test_an_interrupted_count_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [shard(tmp_path, number, 2 + number) for number in range(4)]
    pattern, cache = f"{tmp_path}/{{0..3}}.tar", tmp_path / "cache"
    monkeypatch.setattr(stream_index, "_SAVE_EVERY_S", -1.0)
    order = stream_index.random.Random(0).sample(range(4), 4)
    whole = files[order[2]].read_bytes()
    spoil(files[order[2]])
    with pytest.raises(CaptionerError, match=f"{files[order[2]]}: cannot be read as a tar archive"):
        open_stream(pattern, "auto", cache)
    spoil(files[order[0]])
    files[order[2]].write_bytes(whole)
    stream, _ = open_stream(pattern, "auto", cache)
    assert stream.counts == [2, 3, 4, 5]
    assert len(stream.captions) == 14


def test_a_broken_shard_is_read_up_to_there(tmp_path: Path) -> None:
    file = shard(tmp_path, 0, 5)
    file.write_bytes(file.read_bytes()[: 3 * 2560 + 1000])  # in the fourth image
    stream, left_out = open_stream(f"{tmp_path}/*.tar", "auto", tmp_path / "cache")
    assert stream.counts == [3]
    assert [sample.name for sample in stream.samples(0, 0, 3)] == ["0.jpg", "1.jpg", "2.jpg"]
    (line,) = left_out
    assert line.startswith(f"1 shard read up to where broken (first: {file}: cannot be read as a")


def test_captions_of_so_many_images_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_index, "MAX_TEXTS", 3)
    for number in range(2):
        shard(tmp_path, number, 2)
    stream, _ = open_stream(f"{tmp_path}/*.tar", "auto", tmp_path / "cache")
    assert (stream.images, len(stream.captions)) == (4, 3)


@pytest.mark.parametrize(
    ("samples", "name", "message"),
    [
        (0, "*.tar", "there is no image with a caption in it; 1 sample without a caption left out"),
        (1, "{0,7}.tar", "7.tar does not exist: check the path"),
    ],
)
def test_what_has_no_images_is_refused(
    tmp_path: Path, samples: int, name: str, message: str
) -> None:
    shard(tmp_path, 0, samples)
    with pytest.raises(CaptionerError) as caught:
        open_stream(f"{tmp_path}/{name}", "auto", tmp_path / "cache")
    assert message in str(caught.value)


def test_counts_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    shard(tmp_path, 0, 1)
    open_stream(f"{tmp_path}/*.tar", "auto", tmp_path / "cache")
    (kept,) = (tmp_path / "cache" / "streams").iterdir()
    kept.write_bytes(b"x")
    with pytest.raises(CaptionerError, match=f"{kept}: cannot be read .* delete it"):
        open_stream(f"{tmp_path}/*.tar", "auto", tmp_path / "cache")
