"""Files under the names that the documents use, made of the example files.

The captions are short sentences that only need to be readable.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

PHOTOS = 24
"""In each folder that teaches: enough that some are held out."""
SAID = "a photo of a {name}"
FLICKR_SPLITS = {"train": 6, "dev": 2, "test": 2}
SOURCES = {"coco": 3, "pascal": 3, "flickr30k": 3, "coco_machine": 1, "web": 1, "landscape": 1}
"""Folders of `data/photos` -> captions of each photo there."""
SHARDS = 2
"""Archives of one photo each."""
LANGUAGES = {"de": "ein {name} läuft über die Wiese", "zh": "一张照片叫做{name}"}
COCO, OTHERS = 16, 2
"""Photos of `data/photos`: half of those of COCO validate."""


def lay_out(root: Path) -> None:
    """Make all stand-ins in a copy of the repository."""
    examples = sorted((root / "data" / "examples").glob("*.jpg"))
    for name in ("dog.jpg", "new/one.jpg", "more/one.jpg", "others/one.jpg"):
        _link(examples[0], root / name)
    _photos(root / "photos", examples, PHOTOS)
    _link(root / "docs" / "images" / "explain.png", root / "photos" / "figures" / "explain.png")
    _link(examples[0], root / "photos" / "drafts" / "one.jpg")
    _captioned(root / "data" / "custom", examples)
    _flickr(root / "data" / "flickr8k", examples)
    _languages(root / "data" / "languages", root / "data" / "flickr8k" / "Images")
    _sources(root / "data" / "photos", examples)
    _shards(root / "shards", examples)
    film = root / "data" / "examples" / "slideshow.mp4"
    _write_lines(root / "photos.csv", ["path", "dog.jpg", "new/one.jpg"])
    for name in ("clip.mp4", "film.mkv", "videos/park/one.mp4"):
        _link(film, root / name)
    _write_lines(root / "videos.csv", ["path", "clip.mp4", "videos/park/one.mp4"])


def _captioned(folder: Path, examples: Sequence[Path]) -> None:
    photos = _photos(folder, examples, PHOTOS)
    rows = [{"file_name": each.name, "text": _said(each)} for each in photos]
    _write_lines(folder / "metadata.jsonl", map(json.dumps, rows))


def _flickr(folder: Path, examples: Sequence[Path]) -> None:
    photos = _photos(folder / "Images", examples, sum(FLICKR_SPLITS.values()))
    lines = [f"{each.name}#{n}\t{_said(each, n)}" for each in photos for n in range(3)]
    _write_lines(folder / "Flickr8k.token.txt", lines)
    first = 0
    for split, count in FLICKR_SPLITS.items():
        names = [each.name for each in photos[first : first + count]]
        _write_lines(folder / f"Flickr_8k.{split}Images.txt", names)
        first += count


def _languages(folder: Path, images: Path) -> None:
    """Captions of the photos of Flickr8k in other languages."""
    folder.mkdir(parents=True)
    for language, said in LANGUAGES.items():
        rows = []
        for number, photo in enumerate(sorted(images.iterdir())):
            caption = said.format(name=photo.name.partition("_")[0])
            split = "dev" if number % 4 == 0 else "train"
            rows.append({"file_name": photo.name, "captions": [caption], "split": split})
        _write_lines(folder / f"{language}.jsonl", map(json.dumps, rows))


def _shards(folder: Path, examples: Sequence[Path]) -> None:
    folder.mkdir()
    for number in range(SHARDS):
        with tarfile.open(folder / f"{number:04}.tar", "w") as archive:
            archive.add(examples[number % len(examples)], f"{number:04}.jpg")


def _sources(folder: Path, examples: Sequence[Path]) -> None:
    """The photos that `configs/world_*.yaml` expect."""
    rows: dict[str, list[str]] = {"train": [], "dev": []}
    for source, captions in SOURCES.items():
        count = COCO if source == "coco" else OTHERS
        for number, photo in enumerate(_photos(folder / source, examples, count)):
            row = {
                "file_name": f"{source}/{photo.name}",
                "captions": [_said(photo, n) for n in range(captions)],
            }
            split = "dev" if number % 2 and source == "coco" else "train"
            rows[split].append(json.dumps(row))
    for split, lines in rows.items():
        _write_lines(folder / f"{split}.jsonl", lines)
    for name in ("coco_text", "flickr30k_text"):
        with gzip.open(folder / f"{name}.txt.gz", "wt") as file:
            file.writelines(f"{_said(each)}\n" for each in examples)


def _photos(folder: Path, examples: Sequence[Path], count: int) -> list[Path]:
    """Photos under names that say which folder they are in, and which example they are.

    No two in one data set may be the same file, to the byte: each has its number behind its end,
    where decoders do not look.
    """
    photos = []
    for number in range(count):
        example = examples[number % len(examples)]
        photo = folder / f"{example.stem}_{folder.name}_{number:02}.jpg"
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.write_bytes(example.read_bytes() + f"{folder.name} {number}".encode())
        photos.append(photo)
    return photos


def _said(photo: Path, number: int = 0) -> str:
    sentence = SAID.format(name=photo.name.partition("_")[0].removesuffix(".jpg"))
    return f"{sentence} {'again ' * number}".strip()


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _link(source: Path, path: Path) -> None:
    """The same file under another name; a copy where the file system has no such links."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, path)
    except OSError:
        shutil.copy(source, path)
