"""Features of a frozen encoder, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor
from tqdm import tqdm

from captioner.encoder import Encoder
from captioner.errors import CaptionerError
from captioner.images import read_image

DTYPE = np.dtype(np.float16)


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/captioner``, by default ``~/.cache/captioner``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "captioner"


class FeatureCache:
    """Grid features of N images as one memory-mapped array (N, R, D), float16.

    The folder's name is a hash of the encoder's name and weights, the image transform and the
    list of images, so that another encoder never reads these features. The images' sizes and
    modification times are kept with it, so that an image changed since is noticed.

    Args:
        folder: where caches are kept; each gets a folder of its own in there.
        encoder: the frozen CNN, in eval mode.
        paths: the images, in the order of their rows.
    """

    def __init__(self, folder: Path, encoder: Encoder, paths: Sequence[Path]) -> None:
        self.encoder = encoder
        self.paths = list(paths)
        identity = {
            "encoder": encoder.config.name,
            "weights": _weights_hash(encoder),
            "transform": encoder.transform.to_dict(),
            "images": [str(path.resolve()) for path in paths],
        }
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.folder = folder / key[:24]
        rows, columns = encoder.grid_shape
        self.shape = (len(paths), rows * columns, encoder.feature_size)

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

        A build that was interrupted goes on where it stopped.

        Raises:
            CaptionerError: an image changed since the build began, cannot be read, or the
                folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            stamps = [_stamp(path) for path in self.paths]
            done = self._check(stamps)
            if not self._array_file.exists():
                self._build(stamps, done, batch_size, progress)
        except OSError as error:
            raise CaptionerError(
                f"feature cache {self.folder}: {error.strerror or error}; "
                "choose another place with --data.cache_dir"
            ) from error
        array: np.ndarray = np.load(self._array_file, mmap_mode="r")
        if array.shape != self.shape or array.dtype != DTYPE:
            raise CaptionerError(f"feature cache {self.folder}: damaged; delete it and run again")
        return array

    def _check(self, stamps: list[list[int]]) -> int:
        """Compare the images with those the cache was built from; how many rows are done."""
        if not self._state_file.exists():
            return 0
        try:
            state: dict[str, Any] = json.loads(self._state_file.read_text())
            known, done = state["images"], int(state["done"])
        except (ValueError, KeyError, TypeError) as error:
            raise CaptionerError(
                f"feature cache {self.folder}: damaged; delete it and run again"
            ) from error
        for path, before, now in zip(self.paths, known, stamps, strict=True):
            if before != now:
                raise CaptionerError(
                    f"feature cache {self.folder}: stale, {path} changed since it was built; "
                    "delete that folder to build it again"
                )
        return done

    @torch.inference_mode()
    def _build(self, stamps: list[list[int]], done: int, batch_size: int, progress: bool) -> None:
        resuming = done > 0 and self._partial_file.exists()
        mode = "r+" if resuming else "w+"
        array = open_memmap(self._partial_file, mode=mode, dtype=DTYPE, shape=self.shape)
        device = next(self.encoder.parameters()).device
        start = done if resuming else 0
        bar = tqdm(
            total=len(self.paths),
            initial=start,
            desc="encoding images",
            unit="image",
            disable=None if progress else True,
        )
        with bar:
            for first in range(start, len(self.paths), batch_size):
                part = self.paths[first : first + batch_size]
                pixels = torch.stack([self.encoder.transform(read_image(path)) for path in part])
                array[first : first + len(part)] = self._encode(pixels.to(device))
                bar.update(len(part))
                last = first + len(part)
                if last == len(self.paths) or (first // batch_size) % 20 == 19:
                    array.flush()  # rows first: a row counted as done is on the disk
                    _write_json(self._state_file, {"images": stamps, "done": last})
        del array
        os.replace(self._partial_file, self._array_file)

    def _encode(self, pixels: Tensor) -> np.ndarray:
        grid: np.ndarray = self.encoder(pixels).grid.cpu().numpy()
        return grid.astype(DTYPE)


def _weights_hash(encoder: Encoder) -> str:
    digest = hashlib.sha256()
    for name, tensor in encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _stamp(path: Path) -> list[int]:
    """Size in bytes and modification time in nanoseconds of a file."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _write_json(path: Path, data: object) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(data))
    os.replace(temporary, path)
