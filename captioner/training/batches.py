"""Captioned images as batches: their order, their views, their captions as word ids."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from captioner.data.datasets import Example
from captioner.data.sources import DataSource
from captioner.images.reading import read_image
from captioner.images.transform import ImageTransform
from captioner.text.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer, tokenize


class Batch(NamedTuple):
    """Some images with all their captions.

    ``images``: pixels (B, 3, height, width), or what is kept of the encoder's frozen part,
    float16: grids (B, R, D) of a frozen one, else maps (B, h, w, C). ``captions``: (B, C, T + 1)
    int64: start symbol, words, end symbol, padding. ``indices``: (B,) int64, the images' places in
    their split, of one that another process has as well ``-1 - place``. ``styles``: (B,) int64, of
    the captions.
    """

    images: Tensor
    captions: Tensor
    indices: Tensor
    styles: Tensor

    @property
    def places(self) -> list[int]:
        """The images' places in their split."""
        return [_place(index) for index in self.indices.tolist()]

    @property
    def counts(self) -> Tensor:
        """() bool: whether no other process has these images as well; if so, they count there."""
        return self.indices[0] >= 0


def _place(index: int) -> int:
    return index if index >= 0 else -1 - index


Imagine = Callable[[str, np.random.Generator], np.ndarray]
"""From a sentence and draws to features (R, D), float16."""


class Part(NamedTuple):
    """Images of one source: the first one's place in the split, how many, and their source."""

    first: int
    size: int
    source: DataSource


class EpochSampler(DistributedSampler[tuple[int, int]]):
    """Pairs (epoch, image index), shuffled by seed and epoch alone.

    A resumed run therefore sees the images in the order that an undisturbed run would have seen
    them, and augmentation can be drawn from the same pair in any worker.

    Of n processes, each takes every nth image: together their batches hold what one batch of that
    size would hold. All must have the same number of batches. Those that would have one fewer get
    one with the first image alone, whose index says that it is repeated.

    Args:
        parts: the images, source by source.
        seed: of the whole run.
        shuffle: whether the order is random, and the sources' weights count.
        start: asked at the beginning of an epoch for the number of images to leave out: those
            that the epoch had seen already when the run was interrupted, in this process.
        rank: number of this process.
        processes: how many there are.
        batch_size: images in a batch of each.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        seed: int,
        shuffle: bool,
        start: Callable[[], int] = lambda: 0,
        *,
        rank: int = 0,
        processes: int = 1,
        batch_size: int = 1,
    ) -> None:
        # Lightning would put a sampler that repeats images in the place of one of another class.
        super().__init__(cast(Any, parts), processes, rank, shuffle=shuffle, seed=seed)
        self.parts = parts
        self.start = start
        self.batch_size = batch_size

    def __len__(self) -> int:
        count = sum(map(self._count, self.parts))
        longest = -(-count // self.num_replicas)
        own = len(range(self.rank, count, self.num_replicas))
        return own + (self._batches(own) < self._batches(longest))

    def _batches(self, images: int) -> int:
        return -(-images // self.batch_size)

    def _count(self, part: Part) -> int:
        return max(1, round(part.source.weight * part.size)) if self.shuffle else part.size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order: list[int] = []
        draw = random.Random(f"{self.seed}/{self.epoch}")
        for part in self.parts:
            whole, rest = divmod(self._count(part), part.size)
            images = range(part.first, part.first + part.size)
            order += [*images] * whole + (draw.sample(images, rest) if rest else [])
        if self.shuffle:
            draw.shuffle(order)
        own = order[self.rank :: self.num_replicas]
        if len(own) < len(self):
            own.append(-1 - order[0])
        return iter([(self.epoch, index) for index in own[self.start() :]])


class LazyLoader(DataLoader[Any]):
    """A DataLoader that asks its sampler for the order when the first batch is fetched.

    Lightning makes the iterator of a resumed run before it gives the sampler the epoch, and the
    workers of a plain DataLoader begin to read at once: the first batches would be epoch 0's.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Batches of one epoch."""
        yield from super().__iter__()


class RandomView:
    """Augmentation that keeps captions true: crops, and mirroring unless they name a side.

    Args:
        min_area: smallest share of the image's area that a crop keeps.
        seed: of the whole run; every view is drawn from it, the epoch and the image.
    """

    SIDES = frozenset(
        "left right links rechts linke linken linker rechte rechten rechter 左 右 "  # noqa: SIM905
        "يسار يمين اليسار اليمين يساره يمينه اليسرى اليمنى".split()
    )

    def __init__(self, min_area: float, seed: int) -> None:
        self.min_area = min_area
        self.seed = seed

    def __call__(self, image: Image.Image, example: Example, number: int) -> Image.Image:
        """A random view of an RGB image, the same one for the same number, such as the epoch."""
        draw = random.Random(f"{self.seed}/{number}/{example.image_id}")
        side = draw.uniform(self.min_area, 1.0) ** 0.5
        width = max(1, round(side * image.width))
        height = max(1, round(side * image.height))
        x, y = draw.randint(0, image.width - width), draw.randint(0, image.height - height)
        image = image.crop((x, y, x + width, y + height))
        words = {word for caption in example.captions for word in tokenize(caption)}
        if draw.random() < 0.5 and not words & self.SIDES:
            image = ImageOps.mirror(image)
        return image


class KeptViews:
    """The views of some images that are kept, as :class:`FeatureCache` asks for them.

    Args:
        view: draws them.
        examples: the images.
    """

    def __init__(self, view: RandomView, examples: Sequence[Example]) -> None:
        self.view, self.examples = view, examples

    def __call__(self, image: Image.Image, index: int, number: int) -> Image.Image:
        """View ``number`` of the image with this place."""
        return self.view(image, self.examples[index], number)

    def identity(self) -> object:
        """JSON primitives that are equal where all views are."""
        return {"min_area": self.view.min_area, "seed": self.view.seed}


class CaptionedImages(Dataset[tuple[Tensor, list[list[int]], int, int]]):
    """Images of one source in one split, with their captions as word ids.

    An item is asked for by (epoch, index), or by an index alone for epoch 0. It holds the image,
    or what is kept of the encoder's frozen part where ``cache`` is given, the captions' ids between
    start and end symbol, the index, and the number of the captions' style.

    Args:
        examples: the images.
        tokenizer: turns words into ids.
        transform: how an image becomes the encoder's input.
        max_words: longer captions are cut.
        view: draws random views; None for the whole image.
        cache: rows of :class:`FeatureCache`, ``views`` of each image.
        views: number of views in the cache.
        captions: of an image in one item, drawn again in every epoch; 0: all.
        seed: of what is drawn.
        style: number of the captions' style.
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
        views: int = 1,
        captions: int = 0,
        seed: int = 0,
        style: int = 0,
    ) -> None:
        self.examples = examples
        self.transform = transform
        self.view = view
        self.cache = cache
        self.views = views
        self.limit, self.seed, self.style = captions, seed, style
        self.imagine: Imagine | None = None
        """Composes what the cache lacks: features for sentences without images."""
        self.captions = [
            [caption_ids(tokenizer, text, max_words) for text in example.captions]
            for example in examples
        ]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, key: tuple[int, int] | int) -> tuple[Tensor, list[list[int]], int, int]:
        epoch, index = (0, key) if isinstance(key, int) else key
        return self._pixels(epoch, index), self._captions(epoch, index), index, self.style

    def _pixels(self, epoch: int, index: int) -> Tensor:
        if self.imagine is not None:
            draw = np.random.default_rng([self.seed, epoch, index])
            return torch.from_numpy(self.imagine(self.examples[index].captions[0], draw))
        if self.cache is not None:
            row = index * self.views + (epoch + index) % self.views
            return torch.from_numpy(np.array(self.cache[row]))  # float16
        example = self.examples[index]
        image = read_image(example.path, min_side=self.transform.min_side)
        if self.view is not None:
            image = self.view(image, example, epoch)
        return self.transform(image)

    def _captions(self, epoch: int, index: int) -> list[list[int]]:
        captions = self.captions[index]
        if not 0 < self.limit < len(captions):
            return captions
        draw = random.Random(f"{self.seed}/{epoch}/{self.examples[index].image_id}/captions")
        return draw.sample(captions, self.limit)


class SeveralSources(Dataset[tuple[Tensor, list[list[int]], int, int]]):
    """The images of all sources of one split, one source after the other."""

    def __init__(self, sources: Sequence[CaptionedImages]) -> None:
        self.sources = sources
        self.firsts = [0, *accumulate(map(len, sources))]

    @property
    def kept(self) -> bool:
        """Whether nothing is read from images."""
        return all(source.cache is not None for source in self.sources)

    def __len__(self) -> int:
        return self.firsts[-1]

    def __getitem__(self, key: tuple[int, int] | int) -> tuple[Tensor, list[list[int]], int, int]:
        epoch, index = (0, key) if isinstance(key, int) else key
        place = _place(index)
        number = bisect_right(self.firsts, place) - 1
        item = self.sources[number][epoch, place - self.firsts[number]]
        return item[0], item[1], index, item[3]


def caption_ids(tokenizer: Tokenizer, text: str, max_words: int) -> list[int]:
    """Start symbol, words, and the end symbol unless the caption is cut after ``max_words``."""
    ids = tokenizer.encode(text)
    # A caption that was cut has not ended: the model must not learn to stop there.
    return [BOS_ID, *ids[:max_words], *([EOS_ID] if len(ids) <= max_words else [])]


def collate(items: Sequence[tuple[Tensor, list[list[int]], int, int]]) -> Batch:
    """Pad captions to the longest, and images with fewer captions with empty ones."""
    images, captions, indices, styles = zip(*items, strict=True)
    most = max(len(texts) for texts in captions)
    longest = max(len(ids) for texts in captions for ids in texts)
    padded = torch.full((len(items), most, longest), PAD_ID)
    for row, texts in enumerate(captions):
        for column, ids in enumerate(texts):
            padded[row, column, : len(ids)] = torch.tensor(ids)
    return Batch(torch.stack(images), padded, torch.tensor(indices), torch.tensor(styles))
