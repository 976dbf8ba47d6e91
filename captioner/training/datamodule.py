"""Captioned images as batches: splits, vocabulary, augmentation and cached features."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image, ImageOps
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from captioner.data.datasets import CaptionData, Example, load_caption_data
from captioner.errors import CaptionerError
from captioner.images.reading import read_image
from captioner.images.transform import ImageTransform
from captioner.model.caption_model import CaptionModel
from captioner.model.checkpoints import load_any
from captioner.networks.encoder import Encoder, EncoderConfig
from captioner.text.lexicon import LANGUAGE, Lexicon
from captioner.text.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer, tokenize
from captioner.training.feature_cache import FeatureCache, default_cache_dir


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

    A resumed run therefore sees the images in the order that an undisturbed run would have seen
    them, and augmentation can be drawn from the same pair in any worker.

    Args:
        size: number of images.
        seed: of the whole run.
        shuffle: whether the order is random.
        start: asked at the beginning of an epoch for the number of images to leave out: those
            that the epoch had seen already when the run was interrupted.
    """

    def __init__(
        self, size: int, seed: int, shuffle: bool, start: Callable[[], int] = lambda: 0
    ) -> None:
        self.size = size
        self.seed = seed
        self.shuffle = shuffle
        self.start = start
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
        return iter([(self.epoch, index) for index in order[self.start() :]])


class LazyLoader(DataLoader[Any]):
    """A DataLoader that asks its sampler for the order when the first batch is fetched.

    Lightning makes the iterator of a resumed run before it tells the sampler the epoch, and the
    workers of a plain DataLoader begin to read at once: the first batches would be epoch 0's.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Batches of one epoch."""
        yield from super().__iter__()


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
        width = max(1, round(side * image.width))
        height = max(1, round(side * image.height))
        x, y = draw.randint(0, image.width - width), draw.randint(0, image.height - height)
        image = image.crop((x, y, x + width, y + height))
        words = {word for caption in example.captions for word in tokenize(caption)}
        if draw.random() < 0.5 and not words & self.SIDES:
            image = ImageOps.mirror(image)
        return image


class CaptionedImages(Dataset[tuple[Tensor, list[list[int]], int]]):
    """Images of one split with their captions as word ids.

    An item is asked for by (epoch, index), or by an index alone for epoch 0. It holds the picture,
    or its features where ``cache`` is given, the captions' ids between start and end symbol, and
    the index.
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

    def __getitem__(self, key: tuple[int, int] | int) -> tuple[Tensor, list[list[int]], int]:
        epoch, index = (0, key) if isinstance(key, int) else key
        if self.cache is not None:
            picture = torch.from_numpy(np.array(self.cache[index]))  # (R, D) float16
            return picture, self.captions[index], index
        example = self.examples[index]
        image = read_image(example.path, min_side=self.transform.min_side)
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
        format: ``auto``, or one of ``captioner.data.datasets.FORMATS``.
        images: the image folder, where it is not beside the annotations.
        encoder: the CNN (linked to ``model.encoder`` by the command line).
        init_from: a model or checkpoint whose words, and whose encoder where that is frozen, are
            used instead of new ones (linked to ``model.init_from`` by the command line).
        min_count: a word must occur this often in the training captions to be learnt.
        lexicon: language of the captions, for the tags that the model can make: ``en``, or
            ``none`` for a model without tags. ``init_from``'s lexicon is used where it has one.
        max_words: longer training captions are cut.
        batch_size: images in a batch; each comes with all its captions.
        augment: train on random views instead of the whole picture. Their features cannot be kept:
            with a frozen encoder too, it then works in every step.
        min_area: smallest share of the picture that such a view shows.
        dev_fraction: share of the images held out for validation where the data has no dev split.
            Which ones depends on their names alone, so that runs with other seeds compare.
        cache_dir: where features of a frozen encoder are kept; default ``~/.cache/captioner``.
        workers: processes that read images; 0 reads in the main process.
        seed: of shuffling and augmentation; the command line links it to ``seed_everything``.

    Raises:
        CaptionerError: when an option has a value that cannot be used.
    """

    def __init__(
        self,
        root: str,
        format: str = "auto",  # noqa: A002 - the option's name on the command line
        images: str | None = None,
        encoder: EncoderConfig | None = None,
        init_from: str | None = None,
        min_count: int = 5,
        lexicon: str = LANGUAGE,
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
        for name, value, least in (
            ("min_count", min_count, 1),
            ("max_words", max_words, 1),
            ("batch_size", batch_size, 1),
            ("workers", workers, 0),
        ):
            if value < least:
                raise CaptionerError(f"data.{name}={value}: must be at least {least}")
        if not 0 < min_area <= 1:
            raise CaptionerError(f"data.min_area={min_area}: must be above 0 and at most 1")
        if not 0 < dev_fraction < 1:
            raise CaptionerError(f"data.dev_fraction={dev_fraction}: must be between 0 and 1")
        if lexicon not in (LANGUAGE, "none"):
            raise CaptionerError(f"data.lexicon={lexicon}: use one of {LANGUAGE}, none")
        encoder = encoder or EncoderConfig()
        self.root, self.format, self.images = root, format, images
        self.encoder_config = encoder
        self.init_from = init_from
        self.min_count, self.max_words = min_count, max_words
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.view = RandomView(min_area, seed) if augment else None
        self.dev_fraction = dev_fraction
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
        self.data: CaptionData | None = None
        self.initial: CaptionModel | None = None
        self.tokenizer: Tokenizer
        self.language = lexicon
        self.lexicon: Lexicon | None = None
        self.encoder_weights: dict[str, Tensor] = {}
        """Weights of the frozen encoder that the cached features come from."""
        self.examples: dict[str, list[Example]] = {}
        self._datasets: dict[str, CaptionedImages] = {}

    def setup(self, stage: str) -> None:
        """Read the captions and, for a frozen encoder, make sure that its features are there."""
        if self.data is None:
            self.data = self._load()
        if self.init_from and self.initial is None:
            self.initial = load_any(self.init_from)
            # Both are of features that training changes.
            self.initial.familiarity = self.initial.tag_head = None
        wanted = {"fit": ("train", "dev"), "validate": ("dev",), "test": ("test",)}[stage]
        # The vocabulary comes from the training captions, whatever the stage.
        for split in dict.fromkeys(("train", *wanted)):
            if split not in self.examples and (split in wanted or split in self.data.splits):
                self.examples[split] = self.data.split(split)
        if not hasattr(self, "tokenizer"):
            self.tokenizer = self._make_tokenizer()
        if stage == "fit" and self.lexicon is None:
            self.lexicon = self._make_lexicon()
        missing = [split for split in wanted if split not in self._datasets]
        if not missing:
            return
        encoder = self._make_encoder()
        for split in missing:
            view = self.view if split == "train" else None
            kept = self.encoder_config.frozen and view is None
            self._datasets[split] = CaptionedImages(
                self.examples[split],
                self.tokenizer,
                encoder.transform,
                max_words=self.max_words,
                view=view,
                cache=self._features(encoder, split) if kept else None,
            )

    def train_dataloader(self) -> LazyLoader:
        """Shuffled batches of the training split."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> LazyLoader:
        """Batches of the dev split, in its order."""
        return self._loader("dev", shuffle=False)

    def test_dataloader(self) -> LazyLoader:
        """Batches of the test split, in its order."""
        return self._loader("test", shuffle=False)

    def _load(self) -> CaptionData:
        data = load_caption_data(self.root, self.format, self.images)
        for warning in data.warnings:
            rank_zero_info(f"{self.root}: {warning}")
        if "dev" not in data.splits:
            data = data.with_random_split(self.dev_fraction)
        counts = ", ".join(f"{name} {count}" for name, count in data.splits.items())
        rank_zero_info(f"{self.root}: {data.format} data, images: {counts}")
        return data

    def _make_tokenizer(self) -> Tokenizer:
        if self.initial is not None:
            return self.initial.tokenizer
        texts = [text for example in self.examples.get("train", []) for text in example.captions]
        return Tokenizer.build(texts, self.min_count)

    def _make_lexicon(self) -> Lexicon | None:
        if self.language == "none":
            return None
        if self.initial is not None and self.initial.lexicon is not None:
            return self.initial.lexicon
        captions = [example.captions for example in self.examples["train"]]
        count = sum(map(len, captions))
        if count >= 10_000:  # from here on somebody waits and wonders: about 1,500 a second
            rank_zero_info(f"{self.root}: {count} captions are tagged for the lexicon")
        return Lexicon.build(self.tokenizer.words, captions)

    def _make_encoder(self) -> Encoder:
        """The encoder in the state that training begins with."""
        encoder = Encoder(self.encoder_config, load_weights=self.initial is None).eval()
        if self.initial is not None:
            load_weights(encoder, self.initial.encoder, f"init_from={self.init_from}")
        if self.encoder_config.frozen:
            self.encoder_weights = encoder.state_dict()
        return encoder

    def _features(self, encoder: Encoder, split: str) -> np.ndarray:
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        paths = [example.path for example in self.examples[split]]
        cache = FeatureCache(self.cache_dir, encoder.to(device), paths)
        if not cache.complete:
            rank_zero_info(
                f"{split}: features of {len(paths)} images are computed once and kept in "
                f"{cache.folder} ({cache.size_bytes / 1e9:.1f} GB)"
            )
        return cache.open()

    def _loader(self, split: str, *, shuffle: bool) -> LazyLoader:
        dataset = self._datasets[split]
        start = self._images_seen if split == "train" else lambda: 0
        sampler = EpochSampler(len(dataset), self.seed, shuffle, start)
        return LazyLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=collate,
            # Cached features are read faster than a worker could hand them over.
            num_workers=0 if dataset.cache is not None else self.workers,
            persistent_workers=dataset.cache is None and self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _images_seen(self) -> int:
        """Training images that this epoch has seen: not 0 where a run is resumed within it."""
        if self.trainer is None:
            return 0
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.ready * self.batch_size


def load_weights(module: nn.Module, source: nn.Module, name: str) -> None:
    """Copy all weights of ``source`` to ``module``, which must have the same shape.

    Raises:
        CaptionerError: when the shapes differ; the message begins with ``name``.
    """
    try:
        module.load_state_dict(source.state_dict())
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise CaptionerError(
            f"{name}: its shapes differ from model.encoder and model.decoder: {first}"
        ) from error
