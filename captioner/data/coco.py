"""COCO's caption files, and Karpathy's splits of COCO, Flickr8k and Flickr30k."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from captioner.data.entries import IMAGE_FOLDERS, Entries, split_in_name, split_of_word
from captioner.data.text_files import (
    LIST_OF_OBJECTS,
    beginning,
    checked_records,
    files_of,
    only_one,
    read_json,
    read_text,
)
from captioner.errors import CaptionerError

_OF_THE_HUB = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json")
"""What the Hub and its library write beside data."""
_COCO_FILE = re.compile(r"captions_(train|val|test)(\d*)\.json", re.IGNORECASE)


def _find_json(root: Path, pattern: str, key: str) -> list[Path]:
    """Files of a folder by their name; a file itself by a key that only its kind has."""
    if root.is_dir():
        files = [f for sub in (root, root / "annotations") for f in files_of(sub, pattern)]
        # A list is another format, or results: captions by a model.
        return [f for f in files if not LIST_OF_OBJECTS.match(beginning(f))]
    # Not parsed here: COCO's files are large, and a quote inside a caption would be escaped.
    return [root] if root.suffix.lower() == ".json" and f'"{key}"' in read_text(root) else []


def _with_captions(root: Path) -> list[Path]:
    """Files of that kind whose names say no more than the split: `train.json`, `my_val.json`."""
    files = [f for sub in (root, root / "annotations") for f in files_of(sub, "*.json")]
    named = [f for f in files if split_in_name(f.stem) and beginning(f).lstrip().startswith("{")]
    texts = ((f, read_text(f)) for f in named)
    return [f for f, text in texts if '"annotations"' in text and '"caption"' in text]


def find_coco(root: Path) -> list[Path]:
    """The caption files in the folder, or the file itself if it is one."""
    files = _find_json(root, "captions*.json", "annotations") or _with_captions(root)
    named = [(f, m) for f in files if (m := _COCO_FILE.fullmatch(f.name))]
    if len({m[2] for _, m in named}) > 1:
        # The archives of 2014 and 2017 unpack into the same folder: go by the images that are here.
        folders = [root, *(root / name for name in IMAGE_FOLDERS)]
        here = [f for f, m in named if any((d / (m[1] + m[2])).is_dir() for d in folders)]
        return here or files
    return files


def read_coco(files: list[Path], entries: Entries) -> None:
    """Read the captions; a split is what the name of its file says.

    Raises:
        CaptionerError: several files that do not belong together, or a broken entry (named).
    """
    matches = {file: _COCO_FILE.fullmatch(file.name) for file in files}
    if len({m and m[2] for m in matches.values()}) > 1 or not all(
        split_in_name(file.stem) for file, match in matches.items() if match is None
    ):
        only_one(files, "coco")
    entries.folder_may_lack = True
    for file, match in matches.items():
        split = match[1] if match else split_in_name(file.stem)
        folder = match[1] + match[2] if match else _folder_named_as(file, entries.base)
        _read_captions(file, split, folder, entries)


def _folder_named_as(file: Path, base: Path) -> str:
    """The folder that a split in the file's name is called as; empty if there is none."""
    words = (word for word in re.split(r"[-_.]", file.stem) if split_of_word(word))
    return next((word for word in words if (base / word).is_dir()), "")


def _read_captions(file: Path, split: str | None, folder: str, entries: Entries) -> None:
    data = read_json(file)
    listed: dict[str, dict[str, Any]] = {}
    for where, image in checked_records(file, data, "images", "id", "file_name"):
        other = listed.setdefault(str(image["id"]), image)
        if other["file_name"] != image["file_name"]:
            raise CaptionerError(
                f"{where}: the id {image['id']!r} is {other['file_name']!r} and "
                f"{image['file_name']!r}; give each image an id of its own"
            )
    captioned = set()
    for where, note in checked_records(file, data, "annotations", "image_id", "caption"):
        image_id = str(note["image_id"])
        if image_id not in listed:
            entries.count("caption{s} of an image that the file does not list", where)
            continue
        captioned.add(image_id)
        key = str(note.get("id"))
        image = listed[image_id]
        name = entries.add(image["file_name"], note["caption"], where, key, folder)
        entries.identify(name, image["id"])
        entries.assign(name, split, where)
    bare = [each["file_name"] for key, each in listed.items() if key not in captioned]
    if bare:
        what = "image{s} without a caption left out"
        entries.count(what, posixpath.join(folder, str(bare[0])), len(bare))


def find_karpathy(root: Path) -> list[Path]:
    """The caption files in the folder, or the file itself if it is one."""
    return [f for f in _find_json(root, "dataset*.json", "sentences") if f.name not in _OF_THE_HUB]


def read_karpathy(files: list[Path], entries: Entries) -> None:
    """Read the captions and splits.

    Raises:
        CaptionerError: several files, or a broken entry (named).
    """
    file = only_one(files, "karpathy")
    entries.folder_may_lack = True
    for where, image in checked_records(file, read_json(file), "images", "filename", "sentences"):
        folder = str(image.get("filepath") or "")
        sentences = [s["raw"] for _, s in checked_records(where, image, "sentences", "raw")]
        # No sentence stands for an empty one, so that the image is counted.
        for index, raw in enumerate(sentences or [""]):
            name = entries.add(image["filename"], raw, where, index, folder)
            entries.identify(name, image.get("cocoid", image.get("imgid")))
            entries.assign(name, image.get("split"), where)
