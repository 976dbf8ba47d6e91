"""Read images and encode them, ahead of the search for their captions."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from captioner.files.finding import SourceFile
from captioner.images.ahead import map_ahead
from captioner.images.reading import ImageError
from captioner.model.caption_model import CaptionModel
from captioner.networks.fast_encoder import FastEncoder
from captioner.networks.features import ImageFeatures

T = TypeVar("T")

NumberedFile = tuple[int, SourceFile]
"""A file and its place in the whole."""


@dataclass(frozen=True)
class ReadImage:
    """A file, its place in the whole, and its pixels (3, height, width), or why it has none.

    The pixels are left out once the image is encoded.
    """

    place: int
    file: SourceFile
    pixels: Tensor | None = None
    error: str | None = None
    is_partial: bool = False


@dataclass(frozen=True)
class EncodedBatch:
    """Images whose captions are searched for together.

    Attributes:
        images: in their order, also those that could not be read.
        rows: of the images that could be read, in `features`.
        features: None if no image could be read.
    """

    images: list[ReadImage]
    rows: list[int]
    features: ImageFeatures | None


@dataclass(frozen=True)
class _Piece:
    """Images of one batch that the CNN sees at once, and their maps (n, D, h, w).

    There are no maps if no image could be read.
    """

    images: list[ReadImage]
    maps: Tensor | None = None

    @property
    def last_place(self) -> int:
        return self.images[-1].place


def encoded_batches(
    model: CaptionModel,
    numbered_files: Iterable[NumberedFile],
    *,
    batch_size: int,
    workers: int,
    partial_images: bool,
    fixed_shape: bool,
) -> Generator[EncodedBatch, None, None]:
    """Read and encode files; batch b has those whose places are from b * batch_size on.

    In ONNX Runtime each of as many threads as torch has encodes an image of its own. While the
    caller is busy with a batch, the next two are encoded, and images of a fourth are read.

    With a fixed shape, features have batch_size rows, and an image's row is its place modulo
    batch_size; what stands in rows without an image means nothing.
    """
    encoder = model.fast_encoder()
    at_once = 1 if encoder.takes_one else batch_size
    read = partial(_read, model, partial_images)
    encode = partial(_encode, encoder, at_once, fixed_shape)
    ahead = 2 * (batch_size // at_once) - 1
    # Closed here and not by the garbage collector: Ctrl-C must not leave threads behind.
    with closing(map_ahead(read, numbered_files, workers, batch_size + workers, "read")) as images:
        together = _groups(images, at_once, lambda image: image.place)
        with closing(map_ahead(encode, together, encoder.lanes, ahead, "encode")) as pieces:
            for batch in _groups(pieces, batch_size, lambda piece: piece.last_place):
                yield _batch(batch, batch_size, fixed_shape)


def _read(model: CaptionModel, may_be_partial: bool, numbered: NumberedFile) -> ReadImage:
    place, file = numbered
    try:
        data = None if file.load is None else file.load()
        if may_be_partial:
            pixels, is_partial = model.read_partial(file.path, data)
            return ReadImage(place, file, pixels, is_partial=is_partial)
        return ReadImage(place, file, model.read(file.path, data))
    except ImageError as error:
        return ReadImage(place, file, error=error.reason)


def _groups(
    items: Iterable[T], size: int, place_of: Callable[[T], int]
) -> Generator[list[T], None, None]:
    """Items in groups, one after the other: those whose place // size is the same.

    A group that is complete does not wait for what comes after it.
    """
    group: list[T] = []
    for item in items:
        place = place_of(item)
        if group and place_of(group[0]) // size != place // size:
            yield group
            group = []
        group.append(item)
        if (place + 1) % size == 0:
            yield group
            group = []
    if group:
        yield group


def _encode(
    encoder: FastEncoder, at_once: int, fixed_shape: bool, images: list[ReadImage]
) -> _Piece:
    """With a fixed shape, there are at_once maps; rows without an image have those of black."""
    readable = [(image.place, image.pixels) for image in images if image.pixels is not None]
    maps = None
    if readable:
        pixels = torch.stack([each for _, each in readable])
        if fixed_shape and len(readable) < at_once:
            rows = torch.tensor([place % at_once for place, _ in readable])
            blank = pixels.new_zeros(at_once, *pixels.shape[1:])
            pixels = blank.index_copy_(0, rows, pixels)
        maps = encoder.maps(pixels, threads=1)
    return _Piece([replace(image, pixels=None) for image in images], maps)


def _batch(pieces: list[_Piece], size: int, fixed_shape: bool) -> EncodedBatch:
    images = [image for piece in pieces for image in piece.images]
    places = [image.place for image in images if image.error is None]
    maps = {piece.last_place: piece.maps for piece in pieces if piece.maps is not None}
    if not maps:
        return EncodedBatch(images, [], None)
    if not fixed_shape:
        features = FastEncoder.features(torch.cat(list(maps.values())))
        return EncodedBatch(images, list(range(len(places))), features)
    whole = next(iter(maps.values()))
    if len(whole) < size:  # One piece is one image.
        whole = whole.new_zeros(size, *whole.shape[1:])
        for place, of_image in maps.items():
            whole[place % size] = of_image[0]
    return EncodedBatch(images, [place % size for place in places], FastEncoder.features(whole))
