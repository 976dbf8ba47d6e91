"""Batches: what is in them, in which order, and that all of it can be repeated."""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from captioner.data.datasets import Example, load_caption_data
from captioner.data.holdout import with_split
from captioner.data.sources import DataSource
from captioner.errors import CaptionerError
from captioner.images.reading import read_image
from captioner.images.transform import ImageTransform
from captioner.model.caption_model import CaptionModel
from captioner.networks.configs import DecoderConfig, EncoderConfig
from captioner.networks.encoder import Encoder
from captioner.text.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID, Tokenizer
from captioner.training.batches import (
    CaptionedImages,
    EpochSampler,
    LazyLoader,
    Part,
    RandomView,
    collate,
)
from captioner.training.datamodule import CaptionDataModule

FROZEN = EncoderConfig(name="timm/test_resnet", weights="none", image_size=64)
TRAINED = EncoderConfig(name="timm/test_resnet", weights="none", image_size=64, trainable="all")
COLOURS = ("red", "green", "blue", "yellow", "purple", "black", "white", "orange")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images, 16 to train, of one colour each with a black corner; one to three captions."""
    folder = tmp_path_factory.mktemp("data")
    with (folder / "metadata.jsonl").open("w") as lines:
        for index in range(24):
            colour = COLOURS[index % 8]
            image = Image.new("RGB", (90, 60), colour)
            image.paste("gray", (0, 0, 10 + index, 10))
            image.save(folder / f"{index:02d}.png")
            split = "train" if index < 16 else "dev" if index < 20 else "test"
            texts = [f"a {colour} picture", f"this is {colour}", "a picture"][: 1 + index % 3]
            if split == "dev":
                texts[0] = "never trained on"
            record = {"file_name": f"{index:02d}.png", "captions": texts, "split": split}
            lines.write(json.dumps(record) + "\n")
    return folder


@pytest.fixture
def make(folder: Path, tmp_path: Path) -> Callable[..., CaptionDataModule]:
    def make(**options: Any) -> CaptionDataModule:
        given = {"root": str(folder), "encoder": FROZEN, "min_count": 1, "batch_size": 4}
        return CaptionDataModule(**{**given, "cache_dir": str(tmp_path / "cache"), **options})

    return make


def quarters(width: int = 40, height: int = 40) -> Image.Image:
    image = Image.new("RGB", (width, height), "red")
    image.paste("blue", (width // 2, 0, width, height))
    return image


def example(*captions: str, name: str = "a.png") -> Example:
    return Example(name, Path(name), captions, "train")


def images(*sizes: int, weights: tuple[float, ...] = ()) -> list[Part]:
    """So many images of each source."""
    sources = [
        DataSource("here", f"source{number}", weight=weight)
        for number, weight in enumerate(weights or [1.0] * len(sizes))
    ]
    firsts = [sum(sizes[:number]) for number in range(len(sizes))]
    return [Part(*each) for each in zip(firsts, sizes, sources, strict=True)]


# --- the order of the images ---------------------------------------------------------------


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[tuple[int, int]]:
        sampler = EpochSampler(images(50), seed, shuffle=True)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 0) == order(0, 0)
    orders = [tuple(i for _, i in order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len(set(orders)) == 6
    assert all(sorted(each) == list(range(50)) for each in orders)
    assert {epoch for epoch, _ in order(0, 2)} == {2}


def test_this_very_order() -> None:
    # Written down, so that a change which breaks the resuming of old runs is seen.
    sampler = EpochSampler(images(6), 1, shuffle=True)
    assert [i for _, i in sampler] == [2, 1, 0, 4, 3, 5]


def test_without_shuffling_the_order_is_that_of_the_split() -> None:
    sampler = EpochSampler(images(4), 0, shuffle=False)
    sampler.set_epoch(3)
    assert list(sampler) == [(3, 0), (3, 1), (3, 2), (3, 3)]
    assert len(sampler) == 4


def test_an_epoch_resumed_within_leaves_out_what_it_has_seen() -> None:
    whole = list(EpochSampler(images(20), 0, shuffle=True))
    assert list(EpochSampler(images(20), 0, shuffle=True, start=lambda: 8)) == whole[8:]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(
    ("count", "processes", "batch_size"),
    [(32, 2, 4), (33, 2, 4), (35, 2, 4), (39, 4, 2), (41, 4, 2), (5, 2, 2), (1, 3, 2), (2, 4, 8)],
)
def test_processes_share_the_batches_of_one(
    count: int, processes: int, batch_size: int, shuffle: bool
) -> None:
    whole = [index for _, index in EpochSampler(images(count), 0, shuffle)]
    common = {"processes": processes, "batch_size": batch_size}
    samplers = [EpochSampler(images(count), 0, shuffle, rank=r, **common) for r in range(processes)]
    shares = [[index for _, index in sampler] for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == list(map(len, shares))
    batches = [
        [share[i : i + batch_size] for i in range(0, len(share), batch_size)] for share in shares
    ]
    assert len({len(of_rank) for of_rank in batches}) == 1
    together = batch_size * processes
    for number, parts in enumerate(zip(*batches, strict=True)):
        own = [part for part in parts if part[0] >= 0]
        expected = whole[number * together : (number + 1) * together]
        assert sorted(index for part in own for index in part) == sorted(expected)
        assert all(part == [-1 - whole[0]] for part in parts if part not in own)


def test_a_process_resumes_in_its_share_of_the_epoch() -> None:
    whole = list(EpochSampler(images(20), 0, True, rank=1, processes=2, batch_size=4))
    rest = EpochSampler(images(20), 0, True, lambda: 8, rank=1, processes=2, batch_size=4)
    assert list(rest) == whole[8:]


def test_a_repeated_image_is_read_and_says_so(make: Callable[..., CaptionDataModule]) -> None:
    data = make()
    data.setup("fit")
    dataset = data.train_dataloader().dataset
    again, first = collate([dataset[0, -3]]), collate([dataset[0, 2]])
    assert (bool(again.counts), bool(first.counts)) == (False, True)
    assert again.places == first.places == [2]
    assert torch.equal(again.images, first.images)
    assert torch.equal(again.captions, first.captions)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_iterator_made_early_still_has_the_right_epoch(workers: int) -> None:
    sampler = EpochSampler(images(6), 0, shuffle=True)
    loader = LazyLoader(Pairs(), batch_size=3, sampler=sampler, num_workers=workers)
    batches = iter(loader)  # Lightning does this before it tells the epoch
    sampler.set_epoch(7)
    epochs, indices = next(batches)
    assert epochs.tolist() == [7, 7, 7]
    assert list(zip(epochs.tolist(), indices.tolist(), strict=True)) == list(sampler)[:3]


class Pairs(torch.utils.data.Dataset[tuple[int, int]]):
    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
        return key


# --- augmentation --------------------------------------------------------------------------


def test_a_view_depends_on_seed_epoch_and_image_alone() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))

    def view(seed: int, epoch: int, name: str) -> bytes:
        return RandomView(0.5, seed)(image, example("a dog", name=name), epoch).tobytes()

    assert view(0, 0, "a") == view(0, 0, "a")
    views = [view(s, e, n) for s in (0, 1) for e in (0, 1) for n in ("a", "b")]
    assert len(set(views)) == 8


def test_a_view_keeps_its_share_of_the_image() -> None:
    image = quarters(200, 100)
    sizes = [RandomView(0.6, 0)(image, example("a dog"), epoch).size for epoch in range(200)]
    shares = [width * height / 20_000 for width, height in sizes]
    assert 0.59 < min(shares) < 0.63
    assert 0.97 < max(shares) <= 1
    assert all(abs(width / height - 2) < 0.05 for width, height in sizes)


def mirrored(view: RandomView, image: Image.Image, what: Example, epochs: int) -> int:
    pixels = [view(image, what, epoch).getpixel((0, 0)) for epoch in range(epochs)]
    assert set(pixels) <= {(255, 0, 0), (0, 0, 255)}
    return pixels.count((0, 0, 255))


def test_about_half_of_the_views_are_mirrored() -> None:
    assert 70 <= mirrored(RandomView(1.0, 0), quarters(), example("a dog"), 200) <= 130


@pytest.mark.parametrize(
    "captions",
    [
        ("the dog looks left",),
        ("a dog", "A dog to the RIGHT."),
        ("Left-right !",),
        ("Der Hund links im Bild.",),
        ("男人的右边有一只狗",),
        ("كلب على اليمين",),
    ],
)
def test_an_image_whose_caption_names_a_side_is_never_mirrored(captions: tuple[str, ...]) -> None:
    view = RandomView(1.0, 0)
    said = example(*captions)
    if captions == ("Left-right !",):
        # One word of the tokenizer's rule, and not one of the two.
        assert mirrored(view, quarters(), said, 50) > 0
    else:
        assert mirrored(view, quarters(), said, 50) == 0


def test_a_word_that_only_contains_a_side_does_not_count() -> None:
    assert mirrored(RandomView(1.0, 0), quarters(), example("a bright copyright sign"), 50) > 0


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 2)])
def test_a_view_of_a_tiny_image_has_a_pixel(size: tuple[int, int]) -> None:
    for epoch in range(50):
        view = RandomView(0.01, 0)(Image.new("RGB", size), example("a dog"), epoch)
        assert min(view.size) >= 1


# --- items and batches ---------------------------------------------------------------------


def test_captions_become_ids_and_long_ones_do_not_end() -> None:
    tokenizer = Tokenizer(["a", "dog", "runs"])
    items = CaptionedImages(
        [example("A dog runs.", "a cat", "a dog runs a dog")],
        tokenizer,
        ImageTransform(),
        max_words=3,
    )
    assert items.captions == [
        [
            [BOS_ID, 4, 5, 6, EOS_ID],
            [BOS_ID, 4, UNK_ID, EOS_ID],
            [BOS_ID, 4, 5, 6],  # cut: the sentence is not over there
        ]
    ]


def test_a_batch_is_padded_to_its_longest_caption_and_most_captions() -> None:
    one, two = torch.zeros(3, 2, 2), torch.ones(3, 2, 2)
    batch = collate([(one, [[1, 4, 2]], 7, 1), (two, [[1, 4, 5, 2], [1, 2]], 3, 0)])
    assert torch.equal(batch.images, torch.stack([one, two]))
    assert batch.captions.tolist() == [
        [[1, 4, 2, 0], [0, 0, 0, 0]],
        [[1, 4, 5, 2], [1, 2, 0, 0]],
    ]
    assert batch.captions.dtype == torch.int64
    assert PAD_ID == 0
    assert batch.indices.tolist() == [7, 3]
    assert batch.styles.tolist() == [1, 0]


# --- the data module -----------------------------------------------------------------------


def test_the_vocabulary_is_that_of_the_training_captions(
    make: Callable[..., CaptionDataModule], folder: Path
) -> None:
    data = make(min_count=3)
    data.setup("fit")
    counts: Counter[str] = Counter()
    for line in (folder / "metadata.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["split"] == "train":
            counts.update(word for text in record["captions"] for word in text.split())
    words = {word for word, count in counts.items() if count >= 3}
    assert set(data.tokenizer.words) == words
    assert "never" not in words  # a caption of the dev split
    assert {split: len(examples) for split, examples in data.examples.items()} == {
        "train": 16,
        "dev": 4,
    }


def test_the_vocabulary_is_the_same_in_every_stage(
    make: Callable[..., CaptionDataModule],
) -> None:
    tokenizers = []
    for stage in ("fit", "validate", "test"):
        data = make()
        data.setup(stage)
        tokenizers.append(data.tokenizer)
    assert tokenizers[0] == tokenizers[1] == tokenizers[2]


def test_a_frozen_encoder_gives_cached_features(make: Callable[..., CaptionDataModule]) -> None:
    data = make()
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    encoder = Encoder(FROZEN, load_weights=False).eval()
    encoder.load_state_dict(data.encoder_weights)
    paths = [data.examples["dev"][index].path for index in batch.indices.tolist()]
    with torch.inference_mode():
        pixels = torch.stack([encoder.transform(read_image(path)) for path in paths])
        grid = encoder(pixels).grid
    assert batch.images.dtype == torch.float16
    # Up to the last digit of half precision: ONNX Runtime sums in another order.
    torch.testing.assert_close(batch.images, grid.half(), rtol=2**-9, atol=2**-13)
    assert batch.indices.tolist() == [0, 1, 2, 3]


def test_a_trained_encoder_gets_the_pixels(make: Callable[..., CaptionDataModule]) -> None:
    data = make(encoder=TRAINED)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    transform = Encoder(TRAINED).transform
    paths = [data.examples["train"][index].path for index in batch.indices.tolist()]
    assert torch.equal(batch.images, torch.stack([transform(read_image(path)) for path in paths]))
    assert not list(data.cache_dir.glob("*"))


@pytest.mark.parametrize("encoder", [FROZEN, TRAINED], ids=["frozen", "trained"])
def test_a_large_photo_is_read_as_the_finished_model_reads_it(
    make: Callable[..., CaptionDataModule], folder: Path, tmp_path: Path, encoder: EncoderConfig
) -> None:
    root = tmp_path / "large"
    shutil.copytree(folder, root)
    noise = np.random.default_rng(0).integers(0, 256, (100, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((1200, 1000)).save(root / "16.jpg")
    lines = (root / "metadata.jsonl").read_text().replace("16.png", "16.jpg")
    (root / "metadata.jsonl").write_text(lines)
    data = make(root=str(root), encoder=encoder)
    data.setup("validate")
    assert len(data.examples["dev"]) == 4
    assert data.examples["dev"][0].path.name == "16.jpg"
    image = next(iter(data.val_dataloader())).images[:1]
    decoder = DecoderConfig(hidden_size=8, embed_size=8, heads=1)
    model = CaptionModel.build(encoder, decoder, data.tokenizer).eval()
    scale = model.transform.scale
    pixels = scale(model.read(root / "16.jpg")).unsqueeze(0)
    whole = model.transform(read_image(root / "16.jpg")).unsqueeze(0)
    assert not torch.equal(pixels, whole)  # it is large enough to make a difference
    if encoder.frozen:
        model.encoder.load_state_dict(data.encoder_weights)
        others = [scale(model.read(example.path)) for example in data.examples["dev"][1:]]
        with torch.inference_mode():
            grids = [
                model.encoder(torch.cat([first, torch.stack(others)])).grid[:1].half()
                for first in (pixels, whole)
            ]
        # Up to the rounding of half precision, which the place in a batch can change.
        off = [(image.float() - grid.float()).abs().mean() for grid in grids]
        assert off[0] < 2e-6 < off[1]
    else:
        assert torch.equal(image, pixels)


def test_only_training_images_are_augmented(make: Callable[..., CaptionDataModule]) -> None:
    plain, augmented = make(encoder=TRAINED), make(encoder=TRAINED, augment=True)
    for data in (plain, augmented):
        data.setup("fit")
    one, two = (next(iter(data.train_dataloader())).images for data in (plain, augmented))
    assert not torch.equal(one, two)
    one, two = (next(iter(data.val_dataloader())).images for data in (plain, augmented))
    assert torch.equal(one, two)


def test_with_a_frozen_encoder_too_views_are_pixels_and_whole_images_features(
    make: Callable[..., CaptionDataModule],
) -> None:
    data, plain = make(augment=True), make()
    for each in (data, plain):
        torch.manual_seed(0)  # of the encoder's weights
        each.setup("fit")
    assert next(iter(data.train_dataloader())).images.shape[1:] == (3, 64, 64)
    assert next(iter(plain.train_dataloader())).images.ndim == 3
    one, two = (next(iter(each.val_dataloader())).images for each in (data, plain))
    assert one.ndim == 3
    assert torch.equal(one, two)


def test_workers_change_nothing(make: Callable[..., CaptionDataModule]) -> None:
    def batches(workers: int) -> Iterator[list[torch.Tensor]]:
        data = make(encoder=TRAINED, augment=True, workers=workers)
        data.setup("fit")
        loader = data.train_dataloader()
        for epoch in (0, 3):
            loader.sampler.set_epoch(epoch)  # type: ignore[union-attr]
            yield [part for batch in loader for part in batch]

    alone, helped = list(batches(0)), list(batches(2))
    assert all(
        torch.equal(a, b)
        for one, two in zip(alone, helped, strict=True)
        for a, b in zip(one, two, strict=True)
    )
    assert not torch.equal(alone[0][0], alone[1][0])


def test_a_frozen_encoder_needs_no_workers(make: Callable[..., CaptionDataModule]) -> None:
    data = make(workers=4)
    data.setup("fit")
    assert data.train_dataloader().num_workers == 0


def test_a_model_to_start_from_gives_words_and_frozen_encoder(
    make: Callable[..., CaptionDataModule], tmp_path: Path
) -> None:
    torch.manual_seed(5)
    decoder = DecoderConfig(hidden_size=8, embed_size=8, heads=1)
    model = CaptionModel.build(FROZEN, decoder, Tokenizer(["a", "zebra"]))
    model.save(tmp_path / "start.safetensors")
    start = CaptionModel.load(tmp_path / "start.safetensors")  # rounded to half precision
    data = make(init_from=str(tmp_path / "start.safetensors"), min_count=1000)
    torch.manual_seed(6)
    data.setup("fit")
    assert data.tokenizer.words == ("a", "zebra")
    batch = next(iter(data.val_dataloader()))
    paths = [each.path for each in data.examples["dev"]]
    with torch.inference_mode():
        pixels = torch.stack([start.transform(read_image(path)) for path in paths])
        grid = start.encoder(pixels).grid
    torch.testing.assert_close(batch.images, grid.half(), rtol=2**-9, atol=2**-13)


def test_a_model_of_another_shape_is_refused(
    make: Callable[..., CaptionDataModule], tmp_path: Path
) -> None:
    other = EncoderConfig(name="timm/test_efficientnet", weights="none", image_size=64)
    decoder = DecoderConfig(hidden_size=8, embed_size=8, heads=1)
    CaptionModel.build(other, decoder, Tokenizer(["a"])).save(tmp_path / "start.safetensors")
    with pytest.raises(CaptionerError, match=r"^init_from=.*start\.safetensors: its shapes differ"):
        make(init_from=str(tmp_path / "start.safetensors")).setup("fit")


def test_data_without_splits_are_split_in_the_same_way_for_every_seed(
    make: Callable[..., CaptionDataModule], folder: Path, tmp_path: Path
) -> None:
    root = tmp_path / "unsplit"
    root.mkdir()
    with (root / "metadata.jsonl").open("w") as lines:
        for index in range(16):
            (root / f"{index:02d}.png").symlink_to(folder / f"{index:02d}.png")
            lines.write(json.dumps({"file_name": f"{index:02d}.png", "text": "a picture"}) + "\n")
    held_out = []
    for seed in (0, 1):
        data = make(root=str(root), seed=seed, dev_fraction=0.3)
        data.setup("fit")
        held_out.append([each.image_id for each in data.examples["dev"]])
        trained = {each.image_id for each in data.examples["train"]}
        assert not trained & set(held_out[-1])
        assert len(trained) + len(held_out[-1]) == 16
    assert held_out[0] == held_out[1] != []
    # Scores and calibrations hold out the same, also of one of several sources.
    (alone,), _ = with_split([load_caption_data(root)], "dev", 0.3)
    assert held_out[0] == [each.image_id for each in alone.split("dev")]
    sources = [
        DataSource(str(root), name, only=[only]) for name, only in (("a", "0*"), ("b", "1*"))
    ]
    data = make(root=None, sources=sources, dev_fraction=0.3)
    data.setup("fit")
    assert [each.image_id.partition("/")[2] for each in data.examples["dev"]] == held_out[0]


def test_what_was_left_out_of_the_data_is_said(
    make: Callable[..., CaptionDataModule],
    folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lines = (folder / "metadata.jsonl").read_text()
    gone = json.dumps({"file_name": "gone.png", "text": "a ghost", "split": "train"})
    (tmp_path / "metadata.jsonl").write_text(f"{lines}{gone}\n")
    with caplog.at_level(logging.INFO, "pytorch_lightning"):
        make(root=str(tmp_path), images=str(folder)).setup("fit")
    assert f"{tmp_path}: 1 image not found (first: gone.png)" in caplog.text
    assert "images: train 16, dev 4, test 4" in caplog.text


def test_a_split_that_is_not_there_is_named(
    make: Callable[..., CaptionDataModule], folder: Path, tmp_path: Path
) -> None:
    lines = [
        line
        for line in (folder / "metadata.jsonl").read_text().splitlines()
        if json.loads(line)["split"] != "test"
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    with pytest.raises(CaptionerError, match="there is no split 'test'; choose one of: train"):
        make(root=str(tmp_path), images=str(folder)).setup("test")


def test_words_that_are_all_too_rare_are_an_error(
    make: Callable[..., CaptionDataModule],
) -> None:
    with pytest.raises(CaptionerError, match="^min_count is 99, and none of the 12 words"):
        make(min_count=99).setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_count": 0}, r"^data\.min_count=0: must be at least 1$"),
        ({"max_words": 0}, r"^data\.max_words=0: must be at least 1$"),
        ({"batch_size": 0}, r"^data\.batch_size=0: must be at least 1$"),
        ({"workers": -1}, r"^data\.workers=-1: must be at least 0$"),
        ({"min_area": 0.0}, r"^data\.min_area=0\.0: must be above 0 and at most 1$"),
        ({"min_area": 1.5}, r"^data\.min_area=1\.5: must be above 0"),
        ({"dev_fraction": 1.0}, r"^data\.dev_fraction=1\.0: must be between 0 and 1$"),
    ],
)
def test_options_are_checked(
    make: Callable[..., CaptionDataModule], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CaptionerError, match=message):
        make(**options)
