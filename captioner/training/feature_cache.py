"""What the frozen part of an encoder gives, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.lib.format import open_memmap
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from captioner.errors import CaptionerError
from captioner.files.resume import NO_LOCKS, say_no_locks
from captioner.images.reading import READER_VERSION, read_image
from captioner.model.model_file import file_sha256
from captioner.networks.encoder import Encoder
from captioner.networks.fast_encoder import FastNetwork, frozen_part
from captioner.networks.features import as_cells

try:
    import fcntl
except ImportError:  # Windows: two builds of the same features at once go unnoticed there
    fcntl = None  # type: ignore[assignment]

DTYPE = np.dtype(np.float16)
SAVE_EVERY = 20  # batches: at most this many are computed again after an interruption


class Views(Protocol):
    """Random views of images, the same ones whenever they are asked for."""

    def __call__(self, image: Image.Image, index: int, number: int) -> Image.Image:
        """View ``number`` of the image with this place in the list."""

    def identity(self) -> object:
        """JSON primitives that are equal where all views are."""


class FeatureCache:
    """Features of N images, V views of each, as one memory-mapped array, float16.

    Of a frozen encoder they are its grids (N * V, R, D), of another one the maps (N * V, h, w, C)
    that its frozen layers give. View v of image n is in row n * V + v.

    The folder's name is a hash of the encoder's name and weights, the image transform, the version
    of the image reader, the views and the list of images, so that another one never reads these
    features. The images' sizes, modification times and hashes are kept with it, so that an image
    changed since is noticed, and one that was only copied or checked out again is not.

    Args:
        folder: where caches are kept; each gets a folder of its own in there.
        encoder: the CNN, in eval mode.
        paths: the images, in the order of their rows.
        views: None for the whole image alone.
        count: number V of views.
    """

    def __init__(
        self,
        folder: Path,
        encoder: Encoder,
        paths: Sequence[Path],
        views: Views | None = None,
        count: int = 1,
    ) -> None:
        assert not encoder.training, "features of an encoder in training mode depend on the batch"
        self.encoder = encoder
        self.paths = list(paths)
        self.views, self.count = views, count
        identity: dict[str, object] = {
            "encoder": encoder.config.name,
            "weights": _weights_hash(encoder),
            "transform": encoder.transform.to_dict(),
            "reader": READER_VERSION,
            "images": [str(path.resolve()) for path in paths],
        }
        if views is not None:
            identity["views"] = [count, views.identity()]
        rows, columns = encoder.grid_shape
        self.shape: tuple[int, ...] = (len(paths) * count, rows * columns, encoder.feature_size)
        if not encoder.config.frozen:
            identity["layers"] = encoder.frozen_layers
            self.shape = (len(paths) * count, *encoder.frozen_shape)
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.folder = folder / key[:24]

    @property
    def complete(self) -> bool:
        """Whether :meth:`open` finds the features of all images and computes nothing."""
        return self._array_file.is_file() and self._state_file.is_file()

    @property
    def size_bytes(self) -> int:
        """Size of the array on the disk."""
        return int(np.prod(self.shape)) * DTYPE.itemsize

    @property
    def _array_file(self) -> Path:
        return self.folder / "grid.npy"

    @property
    def _partial_file(self) -> Path:
        return self.folder / "grid.partial.npy"

    @property
    def _state_file(self) -> Path:
        return self.folder / "state.json"

    def open(self, *, batch_size: int = 32, progress: bool = True) -> np.ndarray:
        """The features, read-only; built first where they are not there yet.

        An interrupted build resumes where it stopped. Where another process builds the
        same features, this waits for it.

        Raises:
            CaptionerError: an image changed since its features were computed, or cannot be read;
                the folder is damaged or cannot be written.
        """
        stamps = [_stamp(path) for path in self.paths]
        try:
            if not self.complete:
                self.folder.mkdir(parents=True, exist_ok=True)
                with self._lock(progress):
                    if not self.complete:  # else another process was first
                        self._build(stamps, batch_size, progress)
            self._check(stamps, progress)
        except OSError as error:
            raise CaptionerError(
                f"feature cache {self.folder} ({self.size_bytes / 1e9:.1f} GB): "
                f"{error.strerror or error}; choose another place with --data.cache_dir"
            ) from error
        try:
            array: np.ndarray = np.load(self._array_file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise self._damaged() from error
        if array.shape != self.shape or array.dtype != DTYPE:
            raise self._damaged()
        return array

    def _damaged(self) -> CaptionerError:
        return CaptionerError(
            f"feature cache {self.folder}: damaged; delete that folder to build it again"
        )

    @contextmanager
    def _lock(self, progress: bool) -> Iterator[None]:
        """Let one process at a time build; the system frees the lock of one that was killed."""
        with (self.folder / "lock").open("w") as file:
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if progress:
                        message = f"{self.folder}: waiting for the process that fills it"
                        tqdm.write(message, file=sys.stderr)
                    fcntl.flock(file, fcntl.LOCK_EX)
                except OSError as error:
                    if error.errno not in NO_LOCKS:
                        raise
                    say_no_locks(self.folder, (error.strerror or str(error)).lower())
            yield

    def _check(self, stamps: list[list[int]], progress: bool) -> list[str]:
        """The hashes of the images whose rows are done; they must be what they were then."""
        try:
            state: dict[str, Any] = json.loads(self._state_file.read_text())
            known, done = list(state["images"]), int(state["done"])
            hashes = list(state.get("hashes", [""] * done))  # earlier versions kept none
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged() from error
        if len(known) != len(stamps) or not 0 <= done <= len(stamps) or len(hashes) != done:
            raise self._damaged()
        # An image that stopped the build may have been repaired since: its row is not done.
        others = [index for index in range(done) if known[index] != stamps[index]]
        hidden = None if progress else True
        for index in tqdm(others, "comparing images", unit="image", delay=2, disable=hidden):
            path = self.paths[index]
            if known[index][0] != stamps[index][0] or hashes[index] != _hash(path):
                raise CaptionerError(
                    f"feature cache {self.folder}: stale, {path} has changed since; "
                    "delete that folder to build it again"
                )
        if others:
            with suppress(OSError):  # it only saves comparing them again
                self._write_state(stamps, hashes)
        return hashes

    def _write_state(self, stamps: list[list[int]], hashes: list[str]) -> None:
        state = {"images": stamps, "hashes": hashes, "done": len(hashes)}
        temporary = self._state_file.with_suffix(".tmp")
        temporary.write_text(json.dumps(state))
        os.replace(temporary, self._state_file)

    @torch.inference_mode()
    def _build(self, stamps: list[list[int]], batch_size: int, progress: bool) -> None:
        array, hashes = self._begin(stamps, progress)
        start = len(hashes)
        network = frozen_part(self.encoder)
        bar = tqdm(
            total=len(self.paths),
            initial=start,
            desc="encoding images",
            unit="image",
            disable=None if progress else True,
        )
        with bar, ThreadPoolExecutor(torch.get_num_threads()) as readers:
            for first in range(start, len(self.paths), batch_size):
                part = range(first, min(first + batch_size, len(self.paths)))
                read = list(readers.map(self._read, part))
                pixels = torch.stack([view for views, _ in read for view in views])
                array[first * self.count : part.stop * self.count] = self._encode(network, pixels)
                hashes += [found for _, found in read]
                bar.update(len(part))
                if (
                    part.stop == len(self.paths)
                    or (first // batch_size) % SAVE_EVERY == SAVE_EVERY - 1
                ):
                    array.flush()  # rows first: a row counted as done is on the disk
                    self._write_state(stamps, hashes)
        del array
        os.replace(self._partial_file, self._array_file)

    def _begin(
        self, stamps: list[list[int]], progress: bool
    ) -> tuple[np.memmap[Any, Any], list[str]]:
        """The array to fill, and the hashes of the images whose rows are there from before."""
        if self._partial_file.exists() and self._state_file.exists():
            hashes = self._check(stamps, progress)
            try:
                array = open_memmap(self._partial_file, mode="r+")
            except (ValueError, EOFError) as error:
                raise self._damaged() from error
            if array.shape != self.shape or array.dtype != DTYPE:
                raise self._damaged()
            return array, hashes
        self._state_file.unlink(missing_ok=True)  # it speaks of rows that are not there
        try:
            array = open_memmap(self._partial_file, mode="w+", dtype=DTYPE, shape=self.shape)
            if hasattr(os, "posix_fallocate"):
                # Without it the file has holes, and a full disk kills the process in mid-write.
                with self._partial_file.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, self._partial_file.stat().st_size)
        except OSError:
            self._partial_file.unlink(missing_ok=True)
            raise
        return array, []

    def _read(self, index: int) -> tuple[list[Tensor], str]:
        """All views of an image, each uint8 (3, height, width), and the hash of its file."""
        transform, views, path = self.encoder.transform, self.views, self.paths[index]
        seen = [read_image(path, min_side=transform.min_side)]
        if views is not None:
            seen = [views(seen[0], index, number) for number in range(self.count)]
        return [transform.pixels(view) for view in seen], _hash(path)

    def _encode(self, network: FastNetwork, pixels: Tensor) -> np.ndarray:
        """Images (B, 3, height, width) as rows (B, R, D) or (B, h, w, C)."""
        maps = network(pixels)  # (B, C, h, w)
        rows = as_cells(maps) if self.encoder.config.frozen else maps.permute(0, 2, 3, 1)
        kept: np.ndarray = rows.cpu().numpy()
        limit = float(np.finfo(DTYPE).max)
        if not np.abs(kept).max() <= limit:  # also true of NaN
            raise CaptionerError(
                f"encoder {self.encoder.config.name}: features that are not numbers or beyond "
                f"{limit:.0f}, the largest that the feature cache holds; check "
                "model.encoder.weights, or train the encoder (model.encoder.trainable)"
            )
        return kept.astype(DTYPE)


def _weights_hash(encoder: Encoder) -> str:
    digest = hashlib.sha256()
    for name, tensor in encoder.frozen_state().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _stamp(path: Path) -> list[int]:
    """Size in bytes and modification time in nanoseconds of a file."""
    try:
        status = path.stat()
    except OSError as error:
        raise CaptionerError(f"image {path}: {error.strerror or error}") from error
    return [status.st_size, status.st_mtime_ns]


def _hash(path: Path) -> str:
    """64 bits of a hash of a file's content, enough to notice another content."""
    return file_sha256(path)[:16]
