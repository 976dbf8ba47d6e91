"""Captioned images on disk, made for the tests that read them."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from captioner.data.datasets import CaptionData


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (200, 30, 30)).save(path)


def photos(folder: Path, *names: str) -> None:
    for name in names:
        photo(folder / name)


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


def write_json(path: Path, data: object) -> Path:
    return write(path, json.dumps(data))


def captions(data: CaptionData) -> dict[str, tuple[str, ...]]:
    return {e.image_id: e.captions for e in data.examples}


def splits(data: CaptionData) -> dict[str, str | None]:
    return {e.image_id: e.split for e in data.examples}


def flickr_set(folder: Path) -> Path:
    photos(folder / "Images", "a.jpg", "b.jpg", "c.jpg")
    write(
        folder / "Flickr8k.token.txt",
        "a.jpg#0\tA dog runs .\na.jpg#1\tA dog runs .\nb.jpg#0\tTwo  cats .\nc.jpg#0\tA man .\n",
    )
    write(folder / "Flickr8k.lemma.token.txt", "a.jpg#0\ta dog run .\n")
    write(folder / "Flickr_8k.trainImages.txt", "a.jpg\n")
    write(folder / "Flickr_8k.devImages.txt", "b.jpg\n")
    write(folder / "Flickr_8k.testImages.txt", "c.jpg")
    return folder


def karpathy(*images: tuple[str, str, str, list[str]]) -> dict[str, object]:
    return {
        "images": [
            {"filename": f, "filepath": p, "split": s, "sentences": [{"raw": r} for r in raw]}
            for p, f, s, raw in images
        ]
    }
