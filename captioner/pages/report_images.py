"""What a report needs of the images themselves: a thumbnail of each, and where words look.

Each image is read once, for both. What was found is kept: an interrupted run is resumed.

Thumbnails are JPEG files under another suffix: a report often lies among the photos, and the next
search of that folder must not find them. Their names come from the image's path, size and time of
modification, never from a name in the captions.
"""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Container, Generator, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from PIL import Image

from captioner.files.writing import cannot_write, make_folder, temporary_of
from captioner.images.ahead import map_ahead
from captioner.images.reading import REDUCED, ImageError, read_image
from captioner.model.attention import attend, grid_window
from captioner.pages.attention_cache import AttentionCache

if TYPE_CHECKING:
    from torch import Tensor

    from captioner.model.attention import CaptionAttention
    from captioner.model.caption_model import CaptionModel

LONG_SIDE = 800
"""Most pixels of an image's longer side: what the details show."""

SHORT_SIDE = LONG_SIDE * 3 // 4
"""Pixels of the shorter side that are read for it: those of a photo of 4 by 3."""

_OURS = re.compile(r"[0-9a-f]{32}\.thumb")


@dataclass(frozen=True)
class ReportImage:
    """An image to look at.

    Attributes:
        path: where it is; None where it is known that there is none.
        words: of its caption, empty where it has none.
        problem: why there is no path.
        partial: whether it is known to be cut short, and is shown as far as it goes.
    """

    path: Path | None
    words: tuple[str, ...] = ()
    problem: str | None = None
    partial: bool = False


@dataclass(frozen=True)
class Look:
    """What a report shows of an image.

    Attributes:
        thumbnail: a file in `ReportImages.folder`; None where the image cannot be read.
        problem: why not, in a few words.
        attention: ``word_probs``, the probabilities of the words; ``levels``, the weights in 256
            steps (T, R) in base64; ``window``, the part of the image they lie over, where it is not
            all of it (`captioner.model.attention.grid_window`). None without a model or a caption.
    """

    thumbnail: str | None
    problem: str | None = None
    attention: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class _Read:
    """An image that was read, or is known already."""

    item: ReportImage
    look: Look
    key: str = ""
    pixels: Tensor | None = None  # (3, height, width), where its attention is not known yet
    size: tuple[int, int] = (1, 1)


class ReportImages:
    """Looks at images, and keeps what it saw; a context manager.

    Attributes:
        folder: where the thumbnails are.

    Args:
        folder: of the report's files; the thumbnails get one in it.
        model: for the attention; None for thumbnails only.
        batch_size: images that the model sees at once.
        workers: threads that read images; 0 reads between the batches.
    """

    def __init__(
        self, folder: Path, model: CaptionModel | None, batch_size: int = 32, workers: int = 0
    ) -> None:
        self.folder = folder / "thumbnails"
        self._model = model
        self._batch_size = batch_size
        self._workers = workers
        self._cache = None if model is None else AttentionCache(folder)
        self._used: dict[str, None] = {}  # keys in it, in the order of the images
        self._thumbnails: set[str] = set()

    def __enter__(self) -> Self:
        make_folder(self.folder)
        if self._cache is not None:
            self._cache.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._cache is not None:
            self._cache.__exit__(*exc_info)

    def read(self, images: Iterable[ReportImage]) -> Generator[Look, None, None]:
        """Look at images lazily, in their order.

        Raises:
            CaptionerError: the folder cannot be written.
        """
        ahead = self._batch_size + self._workers
        known = () if self._cache is None else self._cache.keys
        with closing(
            map_ahead(
                partial(_read, self._model, self.folder, known),
                images,
                self._workers,
                ahead,
                "read",
            )
        ) as found:
            while batch := list(islice(found, self._batch_size)):
                self._find_attention([each for each in batch if each.pixels is not None])
                for each in batch:
                    yield self._finished(each)

    def _finished(self, read: _Read) -> Look:
        look = read.look
        if look.thumbnail is not None:
            self._thumbnails.add(look.thumbnail)
        attention = None if self._cache is None else self._cache.get(read.key)
        if attention is None:
            return look
        self._used[read.key] = None
        return Look(look.thumbnail, look.problem, attention)

    def _find_attention(self, batch: Sequence[_Read]) -> None:
        if not batch:
            return
        import torch

        model = self._model
        assert model is not None and self._cache is not None, "without a model no pixels are kept"
        with torch.inference_mode():
            pixels = [each.pixels for each in batch if each.pixels is not None]
            features = model.encode(torch.stack(pixels))
        found = attend(model, features, [each.item.words for each in batch])
        self._cache.add(
            {
                each.key: _packed(attention, grid_window(model.transform, each.size))
                for each, attention in zip(batch, found, strict=True)
            }
        )

    def tidy(self) -> None:
        """Forget, after all images of a report, what no image of it needs."""
        for path in self.folder.iterdir():
            if _OURS.fullmatch(path.name) and path.name not in self._thumbnails:
                path.unlink(missing_ok=True)
        if self._cache is not None:
            self._cache.keep(self._used)


def _read(
    model: CaptionModel | None, folder: Path, known: Container[str], item: ReportImage
) -> _Read:
    if item.path is None:
        return _Read(item, Look(None, item.problem))
    try:
        seen = item.path.stat()
        said = f"{item.path.absolute()}\n{seen.st_size}\n{seen.st_mtime_ns}"
        name = f"{_hash(f'{said} {LONG_SIDE}')}.thumb"
        wanted = model is not None and bool(item.words)
        key = ""
        if model is not None and wanted:
            key = _hash(f"{_hash(said)}.thumb {model.sha256} {' '.join(item.words)}")
        is_there = (folder / name).exists()
        image, pixels, size = None, None, (1, 1)
        if model is not None and wanted and key not in known:
            # As the model reads it, so that the words get the probabilities they had.
            side = model.transform.min_side
            image = read_image(item.path, min_side=side, may_be_partial=item.partial)
            pixels, size = model.transform.pixels(image), image.size
        if not is_there:
            if image is None or (REDUCED in image.info and max(image.size) < LONG_SIDE):
                image = read_image(item.path, min_side=SHORT_SIDE, may_be_partial=item.partial)
            _write_thumbnail(folder / name, image)
    except ImageError as error:
        return _Read(item, Look(None, error.reason))
    except OSError as error:
        gone = isinstance(error, FileNotFoundError)
        reason = "file not found" if gone else (error.strerror or str(error)).lower()
        return _Read(item, Look(None, reason))
    return _Read(item, Look(name), key, pixels, size)


def _write_thumbnail(path: Path, image: Image.Image) -> None:
    data = io.BytesIO()
    image.thumbnail((LONG_SIDE, LONG_SIDE))
    image.save(data, "JPEG", quality=75)
    temporary = temporary_of(path)
    try:
        # Not waiting for the disk, as other files do: it can be made again, and there are many.
        temporary.write_bytes(data.getvalue())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from None


def _packed(attention: CaptionAttention, window: tuple[float, ...]) -> dict[str, Any]:
    probs = [None if prob is None else round(prob, 4) for prob in attention.word_probs]
    packed: dict[str, Any] = {"word_probs": probs}
    if attention.weights is not None:
        packed["levels"] = base64.b64encode(attention.levels().tobytes()).decode("ascii")
        if window != (0.0, 0.0, 1.0, 1.0):
            packed["window"] = [round(each, 4) for each in window]
    return packed


def _hash(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
