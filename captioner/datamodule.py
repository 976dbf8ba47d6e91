"""Captioned images as batches: splits, vocabulary, augmentation and cached features."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image, ImageOps
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from captioner.datasets import CaptionData, Example, load_caption_data
from captioner.encoder import Encoder, EncoderConfig
from captioner.errors import CaptionerError
from captioner.feature_cache import FeatureCache, default_cache_dir
from captioner.images import read_image
from captioner.model import load_any
from captioner.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer, tokenize
from captioner.transform import ImageTransform


class Batch(NamedTuple):
    """Some images with all their captions.

    ``pictures``: pixels (B, 3, height, width), or cached grid features (B, R, D) of a frozen
    encoder. ``captions``: (B, C, T + 1) int64: start symbol, words, end symbol, padding.
    ``indices``: (B,) int64, the images' places in their split.
    """

    pictures: Tensor
    captions: Tensor
    indices: Tensor


class EpochSampler(Sampler[tuple[int, int]]):
    """Pairs (epoch, image index), shuffled by seed and epoch alone.

    A run resumed at an epoch's start therefore sees the images in the order that an undisturbed
    run would have seen them, and augmentation can be drawn from the same pair in any worker.
    """

    def __init__(self, size: int, seed: int, shuffle: bool) -> None:
        self.size = size
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = list(range(self.size))
        if self.shuffle:
            random.Random(f"{self.seed}/{self.epoch}").shuffle(order)
        return iter([(self.epoch, index) for index in order])


class RandomView:
    """Augmentation that keeps captions true: crops, and mirroring unless they name a side.

    Args:
        min_area: smallest share of the picture's area that a crop keeps.
        seed: of the whole run; every view is drawn from it, the epoch and the image.
    """

    SIDES = frozenset({"left", "right"})

    def __init__(self, min_area: float, seed: int) -> None:
        self.min_area = min_area
        self.seed = seed

    def __call__(self, image: Image.Image, example: Example, epoch: int) -> Image.Image:
        """A random view of an RGB picture."""
        draw = random.Random(f"{self.seed}/{epoch}/{example.image_id}")
        side = draw.uniform(self.min_area, 1.0) ** 0.5
        width, height = round(side * image.width), round(side * image.height)
        x, y = draw.randint(0, image.width - width), draw.randint(0, image.height - height)
        image = image.crop((x, y, x + width, y + height))
        words = {word for caption in example.captions for word in tokenize(caption)}
        if draw.random() < 0.5 and not words & self.SIDES:
            image = ImageOps.mirror(image)
        return image


class CaptionedImages(Dataset[tuple[Tensor, list[list[int]], int]]):
    """Images of one split with their captions as word ids.

    An item is asked for by (epoch, index) and holds the picture, or its features where ``cache``
    is given, the captions' ids between start and end symbol, and the index.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        tokenizer: Tokenizer,
        transform: ImageTransform,
        *,
        max_words: int,
        view: RandomView | None = None,
        cache: np.ndarray | None = None,
    ) -> None:
        self.examples = examples
        self.transform = transform
        self.view = view
        self.cache = cache
        self.captions = [
            [_caption_ids(tokenizer, text, max_words) for text in example.captions]
            for example in examples
        ]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, list[list[int]], int]:
        epoch, index = key
        if self.cache is not None:
            picture = torch.from_numpy(np.array(self.cache[index]))  # (R, D) float16
            return picture, self.captions[index], index
        example = self.examples[index]
        image = read_image(example.path)
        if self.view is not None:
            image = self.view(image, example, epoch)
        return self.transform(image), self.captions[index], index


def _caption_ids(tokenizer: Tokenizer, text: str, max_words: int) -> list[int]:
    ids = tokenizer.encode(text)
    # A caption that was cut has not ended: the model must not learn to stop there.
    return [BOS_ID, *ids[:max_words], *([EOS_ID] if len(ids) <= max_words else [])]


def collate(items: Sequence[tuple[Tensor, list[list[int]], int]]) -> Batch:
    """Pad captions to the longest, and images with fewer captions with empty ones."""
    pictures, captions, indices = zip(*items, strict=True)
    most = max(len(texts) for texts in captions)
    longest = max(len(ids) for texts in captions for ids in texts)
    padded = torch.full((len(items), most, longest), PAD_ID)
    for row, texts in enumerate(captions):
        for column, ids in enumerate(texts):
            padded[row, column, : len(ids)] = torch.tensor(ids)
    return Batch(torch.stack(pictures), padded, torch.tensor(indices))


class CaptionDataModule(pl.LightningDataModule):
    """Data for training: finds the captions, makes the vocabulary, keeps a frozen CNN's features.

    Args:
        root: the data's folder, or its annotation file; see data/README.md for the layouts.
        format: ``auto``, or one of ``captioner.datasets.FORMATS``.
        images: the image folder, where it is not beside the annotations.
        encoder: the CNN (linked to ``model.encoder`` by the command line).
        vocabulary_from: a model or checkpoint whose words are used instead of new ones (linked
            to ``model.init_from``).
        min_count: a word must occur this often in the training captions to be learnt.
        max_words: longer training captions are cut.
        batch_size: images in a batch; each comes with all its captions.
        augment: train on random views instead of the whole picture (needs a trained encoder).
        min_area: smallest share of the picture that such a view shows.
        dev_fraction: share of the images held out for validation where the data has no splits.
        cache_dir: where features of a frozen encoder are kept; default ``~/.cache/captioner``.
        workers: processes that read images; 0 reads in the main process.
        seed: of shuffling, augmentation and held-out images.
    """

    def __init__(
        self,
        root: str,
        format: str = "auto",  # noqa: A002 - the option's name on the command line
        images: str | None = None,
        encoder: EncoderConfig | None = None,
        vocabulary_from: str | None = None,
        min_count: int = 5,
        max_words: int = 20,
        batch_size: int = 32,
        augment: bool = False,
        min_area: float = 0.6,
        dev_fraction: float = 0.1,
        cache_dir: str | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("min_count", min_count), ("max_words", max_words)):
            if value < 1:
                raise CaptionerError(f"data.{name}={value}: must be at least 1")
        if batch_size < 1 or workers < 0:
            raise CaptionerError(f"data.batch_size={batch_size}, workers={workers}: too small")
        if not 0 < min_area <= 1:
            raise CaptionerError(f"data.min_area={min_area}: must be above 0 and at most 1")
        encoder = encoder or EncoderConfig()
        if augment and encoder.frozen:
            raise CaptionerError(
                "data.augment=true needs a trained encoder: a frozen one's features are computed "
                "once. Set model.encoder.trainable, or data.augment to false"
            )
        self.root, self.format, self.images = root, format, images
        self.encoder_config = encoder
        self.vocabulary_from = vocabulary_from
        self.min_count, self.max_words = min_count, max_words
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.view = RandomView(min_area, seed) if augment else None
        self.dev_fraction = dev_fraction
        self.cache_dir = Path(cache_dir) if cache_dir else default_cache_dir()
        self.data: CaptionData | None = None
        self.tokenizer: Tokenizer
        self.examples: dict[str, list[Example]] = {}
        self._datasets: dict[str, CaptionedImages] = {}

    def setup(self, stage: str) -> None:
        """Read the captions and, for a frozen encoder, make sure that its features are there."""
        if self.data is None:
            self.data = self._load()
        wanted = {"fit": ("train", "dev"), "validate": ("dev",), "test": ("test",)}[stage]
        # The vocabulary comes from the training captions, whatever the stage.
        for split in dict.fromkeys(("train", *wanted)):
            if split not in self.examples and (split in wanted or split in self.data.splits):
                self.examples[split] = self.data.split(split)
        if not hasattr(self, "tokenizer"):
            self.tokenizer = self._make_tokenizer()
        missing = [split for split in wanted if split not in self._datasets]
        if not missing:
            return
        encoder = Encoder(self.encoder_config).eval()
        for split in missing:
            self._datasets[split] = CaptionedImages(
                self.examples[split],
                self.tokenizer,
                encoder.transform,
                max_words=self.max_words,
                view=self.view if split == "train" else None,
                cache=self._features(encoder, split) if self.encoder_config.frozen else None,
            )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of the training split."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Batches of the dev split, in its order."""
        return self._loader("dev", shuffle=False)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Batches of the test split, in its order."""
        return self._loader("test", shuffle=False)

    def _load(self) -> CaptionData:
        data = load_caption_data(self.root, self.format, self.images)
        for warning in data.warnings:
            rank_zero_warn(f"{self.root}: {warning}")
        if "dev" not in data.splits:
            data = data.with_random_split(self.dev_fraction, self.seed)
        counts = ", ".join(f"{name} {count}" for name, count in data.splits.items())
        rank_zero_info(f"{self.root}: {data.format} data, images: {counts}")
        return data

    def _make_tokenizer(self) -> Tokenizer:
        if self.vocabulary_from:
            return load_any(self.vocabulary_from).tokenizer
        texts = [text for example in self.examples.get("train", []) for text in example.captions]
        tokenizer = Tokenizer.build(texts, self.min_count)
        if not tokenizer.words:
            raise CaptionerError(
                f"{self.root}: no word occurs {self.min_count} times in the training captions; "
                "lower data.min_count"
            )
        return tokenizer

    def _features(self, encoder: Encoder, split: str) -> np.ndarray:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        paths = [example.path for example in self.examples[split]]
        return FeatureCache(self.cache_dir, encoder.to(device), paths).open()

    def _loader(self, split: str, *, shuffle: bool) -> DataLoader[Batch]:
        dataset = self._datasets[split]
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=EpochSampler(len(dataset), self.seed, shuffle),  # type: ignore[arg-type]
            collate_fn=collate,
            # Cached features are read faster than a worker could hand them over.
            num_workers=0 if dataset.cache is not None else self.workers,
            persistent_workers=dataset.cache is None and self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
