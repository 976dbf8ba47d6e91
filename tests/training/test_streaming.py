"""Batches out of archives and tables: each image once, in an order that can be repeated."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest
import torch

from captioner.data.datasets import load_caption_data
from captioner.data.stream_index import open_stream
from captioner.data.streams import Stream
from captioner.errors import CaptionerError
from captioner.images.reading import read_image
from captioner.images.transform import ImageTransform
from captioner.text.tokenizer import Tokenizer
from captioner.training.batches import Batch, RandomView
from captioner.training.streaming import Share, StreamedBatches, StreamLoader, windowed
from helpers.shards import jpeg
from helpers.streams import make_stream, write_members

SIZES = [7, 0, 13, 1, 11]
TRANSFORM = ImageTransform((16, 16))
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def stream(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Stream:
    folder = tmp_path_factory.mktemp("stream")
    pattern = make_stream(shapes, folder / "tars", SIZES)
    return open_stream(pattern, "auto", folder / "cache", progress=False)[0]


def make(
    stream: Stream, share: Share | None = None, window: int = 5, seed: int = 0, **options: Any
) -> StreamedBatches:
    words = {word for texts in stream.captions for text in texts for word in text.split()}
    return StreamedBatches(
        stream,
        share or Share(stream.images, 4),
        Tokenizer(sorted(words)),
        TRANSFORM,
        max_words=20,
        window=window,
        seed=seed,
        **{"view": None, **options},
    )


def epoch_of(batches: StreamedBatches, epoch: int = 0, start: int = 0) -> list[Batch]:
    found = []
    for number in range(start, len(batches)):
        read = batches[epoch, number]
        assert not isinstance(read, CaptionerError)
        found.append(read[0])
    return found


def places(batches: list[Batch]) -> list[int]:
    return [place for batch in batches for place in batch.indices.tolist()]


def same(one: list[Batch], two: list[Batch]) -> bool:
    pairs = zip(chain.from_iterable(one), chain.from_iterable(two), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


# --- what an epoch has ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_an_epoch_is_what_the_folder_holds(shapes: Path, tmp_path: Path, kind: str) -> None:
    sizes = SIZES if kind == "tar" else [7, 14, 11]
    pattern = make_stream(shapes, tmp_path / "set", sizes, kind=kind)
    stream, left_out = open_stream(pattern, "auto", tmp_path / "cache", progress=False)
    assert (stream.counts, left_out) == (sizes, ())
    batches = make(stream)
    examples = load_caption_data(shapes).split("train")
    seen = set()
    for batch in epoch_of(batches, 3):
        rows = zip(batch.images, batch.captions, batch.indices.tolist(), strict=True)
        for image, captions, place in rows:
            example = examples[place]
            assert torch.equal(image, TRANSFORM(read_image(example.path)))
            said = [" ".join(batches.tokenizer.decode(ids)) for ids in captions.tolist()]
            assert said == list(example.captions)
            seen.add(place)
    assert seen == set(range(32))


@pytest.mark.parametrize(
    ("processes", "lanes", "batch_size"),
    [(1, 1, 4), (1, 3, 4), (2, 1, 5), (2, 2, 3), (3, 2, 1), (5, 4, 3), (32, 2, 8)],
)
def test_each_image_comes_once_whoever_reads_it(
    stream: Stream, processes: int, lanes: int, batch_size: int
) -> None:
    for epoch in range(2):
        everything, lengths = [], set()
        for rank in range(processes):
            share = Share(stream.images, batch_size, lanes, rank, processes)
            batches = epoch_of(make(stream, share), epoch)
            lengths.add(len(batches))
            assert all(1 <= len(batch.indices) <= batch_size for batch in batches)
            everything += [place for place in places(batches) if place >= 0]
        assert sorted(everything) == list(range(32))
        assert len(lengths) == 1


def test_a_batch_that_is_one_too_many_is_repeated(stream: Stream) -> None:
    batches = [epoch_of(make(stream, Share(32, 1, 2, rank, 3))) for rank in range(3)]
    assert [len(each) for each in batches] == [11, 11, 11]
    (repeated,) = (each for each in batches if min(places(each)) < 0)
    (extra,) = (batch for batch in repeated if not batch.counts)
    assert extra.places[0] in places(repeated)


def test_fewer_images_than_processes_are_refused() -> None:
    with pytest.raises(CaptionerError, match="data.root: 3 images are too few for 4 processes"):
        Share(3, 8, processes=4)


# --- the order ------------------------------------------------------------------------------


def test_the_window_shuffles_and_looks_no_further() -> None:
    found = list(windowed(range(1000), 50, random.Random(1)))
    assert sorted(found) == list(range(1000)) != found
    assert max(position - place for place, position in enumerate(found)) == 49
    # Some wait for several windows.
    assert max(place - position for place, position in enumerate(found)) > 100
    assert list(windowed(range(5), 1, random.Random(1))) == [0, 1, 2, 3, 4]


def test_without_a_window_shards_come_whole_in_random_order(stream: Stream) -> None:
    parts = {
        first: list(range(first, first + size))
        for first, size in zip(stream.firsts, SIZES, strict=False)
        if size
    }
    orders = [places(epoch_of(make(stream, window=1), epoch)) for epoch in range(4)]
    for order in orders:
        assert order == [place for first in order if first in parts for place in parts[first]]
    assert len({tuple(order) for order in orders}) == 4


def test_the_order_follows_from_seed_and_epoch(stream: Stream) -> None:
    share = Share(32, 4, 2)
    one, again = (epoch_of(make(stream, share, seed=7), 1) for _ in range(2))
    assert same(one, again)
    for seed, epoch in ((8, 1), (7, 2)):
        other = places(epoch_of(make(stream, share, seed=seed), epoch))
        assert sorted(other) == sorted(places(one))
        assert other != places(one)


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("window", [1, 6, 1000])
def test_an_epoch_continues_anywhere(stream: Stream, lanes: int, window: int) -> None:
    share, view = Share(32, 3, lanes), RandomView(0.5, 0)
    whole = epoch_of(make(stream, share, window, view=view), 2)
    for start in (1, 4, 10):
        assert same(epoch_of(make(stream, share, window, view=view), 2, start), whole[start:])


def test_what_was_seen_is_not_read_again(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    samples = Stream.samples

    def note(self: Stream, shard: int, first: int, last: int) -> Any:
        read.append(last - first)
        return samples(self, shard, first, last)

    monkeypatch.setattr(Stream, "samples", note)
    epoch_of(make(stream, window=1))
    assert sorted(read) == [1, 7, 11, 13]
    read.clear()
    epoch_of(make(stream, window=1), start=7)  # 28 of 32 images later
    assert sum(read) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing_in_the_batches(stream: Stream, workers: int) -> None:
    share = Share(32, 3, 2)
    loader = StreamLoader(make(stream, share), lambda: 0, workers)
    assert len(loader) == 11
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        assert same(list(loader), epoch_of(make(stream, share), epoch))


# --- images that cannot be read --------------------------------------------------------------


@pytest.fixture
def broken(tmp_path: Path) -> Callable[[set[int]], Stream]:
    """Two shards of six images each, some of which are no images."""

    def broken(numbers: set[int]) -> Stream:
        for shard in range(2):
            members = []
            for number in range(6 * shard, 6 * shard + 6):
                data = b"no image" if number in numbers else jpeg(number)
                members += [(f"{number}.jpg", data), (f"{number}.txt", b"a dog")]
            write_members(tmp_path / f"{shard}.tar", members)
        return open_stream(f"{tmp_path}/*.tar", "auto", tmp_path / "c", progress=False)[0]

    return broken


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_is_named_and_left_out(
    broken: Callable[[set[int]], Stream],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    workers: int,
) -> None:
    loader = StreamLoader(make(broken({3, 7}), Share(12, 5)), lambda: 0, workers)
    for _ in range(2):
        batches = list(loader)
        assert len(batches) == 3
        assert sorted(places(batches)) == [0, 1, 2, 4, 5, 6, 8, 9, 10, 11]
    reason = "not an image Pillow can read; left out"
    assert Counter(capsys.readouterr().err.splitlines()) == {
        f"captioner: {tmp_path}/0.tar, 3.jpg: {reason}": 1,
        f"captioner: {tmp_path}/1.tar, 7.jpg: {reason}": 1,
        "captioner: 2 images of this epoch cannot be read and were left out": 2,
    }


def test_a_batch_of_bad_images_has_a_repeated_one(broken: Callable[[set[int]], Stream]) -> None:
    batches = epoch_of(make(broken(set(range(5))), Share(12, 1), window=1))
    found = places(batches)
    assert sorted(place for place in found if place >= 0) == [5, 6, 7, 8, 9, 10, 11]
    assert len(batches) == len(found) == 12


@pytest.mark.parametrize("workers", [0, 1])
def test_where_no_image_can_be_read_training_ends(
    broken: Callable[[set[int]], Stream], workers: int
) -> None:
    loader = StreamLoader(make(broken(set(range(12)))), lambda: 0, workers)
    with pytest.raises(CaptionerError) as caught:
        list(islice(loader, 1))
    assert str(caught.value).startswith("data.root: none of 12 images can be read (")
    assert "Traceback" not in str(caught.value)
