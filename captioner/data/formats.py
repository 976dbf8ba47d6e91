"""The caption files that `captioner.data.datasets` can read: one finder and one reader per layout.

A finder lists the annotation files in a folder; a reader puts what they hold into `Entries`, with
the place of every entry, so that each complaint names its file and line. `FORMATS` is the registry.
"""

from __future__ import annotations

import csv
import io
import json
import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioner.errors import CaptionerError

SPLITS = ("train", "dev", "test")
_ALIASES = {"training": "train", "restval": "train", "testing": "test"}
_ALIASES |= dict.fromkeys(("val", "valid", "validation"), "dev")
_SPLIT_WORD = "train|training|dev|val|valid|validation|test|testing"
_SPLIT_FILE = re.compile(
    rf"(?:flickr_?(?:8k|30k)[._-])?({_SPLIT_WORD})[._-]?(?:images|ids)?\.txt", re.IGNORECASE
)
_COCO_FILE = re.compile(r"captions_(train|val|test)(\d*)\.json", re.IGNORECASE)

IMAGE_FOLDERS = (
    "Images",
    "images",
    "Flicker8k_Dataset",
    "Flickr8k_Dataset",
    "Flickr8k_Dataset/Flicker8k_Dataset",
    "flickr30k_images",
    "flickr30k_images/flickr30k_images",
    "flickr30k-images",
)
TEXT_FOLDERS = ("Flickr8k_text", "annotations", "flickr30k_images")
_SIDECAR_IMAGES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"),
    *(".heic", ".ppm", ".pgm", ".jp2"),
)
_NAME_FIELDS = ("file_name", "filename", "image")
_TEXT_FIELDS = ("text", "captions", "caption")

_Records = Callable[[Path], Iterator[tuple[str, dict[str, Any]]]]


def canonical_split(name: str) -> str:
    """`validation` -> `dev`, `Training` -> `train`; other names in lower case, stripped."""
    key = name.strip().lower()
    return _ALIASES.get(key, key)


class Entries:
    """Collects captions and splits by image name and counts what is left out."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.captions: dict[str, dict[tuple[str, object], None]] = {}
        self.splits: dict[str, str] = {}
        self.counts: dict[str, tuple[int, str]] = {}
        self.folder_may_lack = False  # an image "train2014/x.jpg" may also lie there as "x.jpg"

    def count(self, what: str, example: str, amount: int = 1) -> None:
        """Count one more of `what` (a sentence with {s} for the plural); keep the first example."""
        number, first = self.counts.get(what, (0, example))
        self.counts[what] = (number + amount, first)

    def warnings(self) -> tuple[str, ...]:
        """One sentence for each kind of entry that was counted."""
        return tuple(
            f"{n} {what.format(s='' if n == 1 else 's')} (first: {first})"
            for what, (n, first) in self.counts.items()
        )

    def add(
        self, name: object, text: object, where: str, key: object = None, folder: str = ""
    ) -> str:
        """Add one caption of the image `name` in `folder`; returns the image's normalised name."""
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise CaptionerError(f"{where}: the image name is {name!r}; give a file name")
        name = posixpath.normpath(posixpath.join(folder, name.strip().replace("\\", "/")))
        captions = self.captions.setdefault(name, {})
        if text is not None and not isinstance(text, str):
            raise CaptionerError(f"{where}: the caption is {text!r}; a caption must be a string")
        # A lone surrogate (legal in JSON) could be neither printed nor saved later.
        caption = " ".join((text or "").encode("utf-8", "replace").decode("utf-8").split())
        if not caption:
            self.count("empty caption{s} dropped", where)
        elif (caption, key) in captions:
            self.count("repeated caption{s} dropped", where)
        else:
            captions[caption, key] = None
        return name

    def assign(self, name: str, split: object, where: str) -> None:
        """Put an image into a split; None or an empty string says nothing."""
        if split is None or split == "":
            return
        if not isinstance(split, str):
            raise CaptionerError(f"{where}: the split is {split!r}; it must be a string")
        new = canonical_split(split)
        old = self.splits.setdefault(name, new) if new else new
        if old != new:
            raise CaptionerError(
                f"{where}: the image {name!r} is in the split {new!r} and in {old!r}; an image "
                f"may be in one split only, or the scores are worthless: remove one of them"
            )


def _only(files: list[Path], fmt: str) -> Path:
    if len(files) > 1:
        raise CaptionerError(
            f"{files[0].parent}: several files could be the {fmt} captions: "
            f"{', '.join(f.name for f in files)}; give the path of the one you mean"
        )
    return files[0]


# ---------------------------------------------------------------- files


def _read_text(file: Path) -> str:
    """The file as UTF-8 text without its byte order mark; CaptionerError names a broken line."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise CaptionerError(f"{file}: cannot be read: {error}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise CaptionerError(
            f"{file}, line {line}: byte 0x{error.object[error.start]:02x} is not UTF-8 text; "
            f"save the file as UTF-8 (for example: iconv -f latin1 -t utf-8)"
        ) from error


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line) of the lines that are not blank."""
    # str.splitlines would also cut at characters that may stand inside a caption (U+2028, U+0085).
    for number, line in enumerate(_read_text(file).split("\n"), 1):
        if line.strip():
            yield number, line.rstrip("\r")


def _first_line(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return stream.readline(4096).decode("utf-8-sig", "replace").strip()
    except OSError:
        return ""


def _read_json(file: Path) -> Any:
    try:
        return json.loads(_read_text(file))
    except (ValueError, RecursionError) as error:
        raise CaptionerError(f"{file}: not valid JSON: {error}") from error


def _csv_rows(file: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line number where the row begins, cells) of the rows that are not empty."""
    reader = csv.reader(io.StringIO(_read_text(file), newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        raise CaptionerError(f"{file}, line {start}: not valid CSV: {error}") from error


def _children(folder: Path, pattern: str) -> list[Path]:
    """Files of the folder whose name matches the pattern, sorted; hidden ones left out."""
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.glob(pattern) if f.is_file() and not f.name.startswith("."))


# ---------------------------------------------------------------- Flickr8k and Flickr30k


def _flickr_kind(file: Path) -> str | None:
    """`token`, `kaggle` (image,caption) or `results` (image_name| comment_number| comment)."""
    first = _first_line(file)
    header = first.lower().replace(" ", "")
    if re.match(r"[^\t]+#\d+\t", first):
        return "token"
    if header == "image,caption" and file.suffix.lower() != ".csv":
        return "kaggle"
    return "results" if header == "image_name|comment_number|comment" else None


def _find_flickr(root: Path) -> list[Path]:
    if root.is_file():
        return [root] if _flickr_kind(root) else []
    for folder in (root, *(root / name for name in TEXT_FOLDERS)):
        for pattern in ("*.token.txt", "*.token", "captions.txt", "results.csv"):
            # The Flickr8k archive holds a second, lemmatised copy of the captions.
            files = [f for f in _children(folder, pattern) if ".lemma." not in f.name.lower()]
            if files := [f for f in files if _flickr_kind(f)]:
                return files
    return []


def _read_flickr(files: list[Path], entries: Entries) -> None:
    file = _only(files, "flickr")
    kind = _flickr_kind(file)
    readers = {"token": _flickr_token, "kaggle": _flickr_kaggle, "results": _flickr_results}
    if kind is None:
        raise CaptionerError(f"{file}: not a caption file of Flickr8k or Flickr30k")
    readers[kind](file, entries)
    for folder in dict.fromkeys((file.parent, entries.base)):
        for split_file in _children(folder, "*.txt"):
            if match := _SPLIT_FILE.fullmatch(split_file.name):
                _flickr_split(split_file, match[1], entries)


def _flickr_token(file: Path, entries: Entries) -> None:
    for number, line in _lines(file):
        name, hash_sign, rest = line.partition("#")
        key, tab, caption = rest.partition("\t")
        if not (hash_sign and tab):
            raise CaptionerError(
                f"{file}, line {number}: {line[:60]!r} is not name#number<TAB>caption"
            )
        entries.add(name, caption, f"{file}, line {number}", key.strip())


def _flickr_kaggle(file: Path, entries: Entries) -> None:
    for index, (number, row) in enumerate(_csv_rows(file, ",")):
        if len(row) < 2:
            raise CaptionerError(f"{file}, line {number}: {row[0][:60]!r} is not image,caption")
        if index:  # Its captions have no numbers: each row is one annotator's, so each is kept.
            entries.add(row[0], ",".join(row[1:]), f"{file}, line {number}", index)


def _flickr_results(file: Path, entries: Entries) -> None:
    for number, line in list(_lines(file))[1:]:
        name, key, caption = (*line.split("|", 2), "", "")[:3]
        # The published file lacks one separator: "2199200615.jpg| 4   A dog runs across ..."
        if line.count("|") == 1 and (match := re.fullmatch(r"\s*(\d+)\s+(.*)", key)):
            key, caption = match[1], match[2]
            entries.count("line{s} without its second separator repaired", f"{file}, line {number}")
        elif line.count("|") < 2:
            raise CaptionerError(
                f"{file}, line {number}: {line[:60]!r} is not image_name| comment_number| comment"
            )
        entries.add(name, caption, f"{file}, line {number}", key.strip())


def _flickr_split(file: Path, split: str, entries: Entries) -> None:
    for number, line in _lines(file):
        name = line.strip()
        # Some published lists give the photo's number without ".jpg".
        known = next((n for n in (name, name + ".jpg") if n in entries.captions), None)
        if known is None:
            entries.count("image{s} of the split lists without a caption", f"{file}, line {number}")
        else:
            entries.assign(known, split, f"{file}, line {number}")


# ---------------------------------------------------------------- COCO and Karpathy


def _records(
    place: object, data: Any, key: str, *fields: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, record) of the list `key` in `data`, each checked to be an object with `fields`."""
    records = data.get(key) if isinstance(data, dict) else None
    if not isinstance(records, list):
        raise CaptionerError(f'{place}: there is no list "{key}"')
    for index, record in enumerate(records):
        where = f"{place}, {key}[{index}]"
        for field in fields:
            if not isinstance(record, dict) or field not in record:
                raise CaptionerError(f'{where}: there is no "{field}"')
        yield where, record


def _find_json(root: Path, pattern: str, key: str) -> list[Path]:
    """Files of a folder by their name; a file itself by a key that only its kind has."""
    if root.is_dir():
        return [f for sub in (root, root / "annotations") for f in _children(sub, pattern)]
    # Not parsed here: COCO's files are large, and a quote inside a caption would be escaped.
    return [root] if root.suffix.lower() == ".json" and f'"{key}"' in _read_text(root) else []


def _find_coco(root: Path) -> list[Path]:
    files = _find_json(root, "captions*.json", "annotations")
    named = [(f, m) for f in files if (m := _COCO_FILE.fullmatch(f.name))]
    if len({m[2] for _, m in named}) > 1:
        # The archives of 2014 and 2017 unpack into the same folder: go by the images that are here.
        folders = [root, *(root / name for name in IMAGE_FOLDERS)]
        here = [f for f, m in named if any((d / (m[1] + m[2])).is_dir() for d in folders)]
        return here or files
    return files


def _read_coco(files: list[Path], entries: Entries) -> None:
    matches = {file: _COCO_FILE.fullmatch(file.name) for file in files}
    if len({m and m[2] for m in matches.values()}) > 1 or not all(matches.values()):
        _only(files, "coco")
    entries.folder_may_lack = True
    for file, match in matches.items():
        data = _read_json(file)
        folder = match[1] + match[2] if match else ""
        images = _records(file, data, "images", "id", "file_name")
        names = {str(image["id"]): image["file_name"] for _, image in images}
        captioned = set()
        for where, note in _records(file, data, "annotations", "image_id", "caption"):
            image_id = str(note["image_id"])
            if image_id not in names:
                entries.count("caption{s} of an image that the file does not list", where)
                continue
            captioned.add(image_id)
            key = str(note.get("id"))
            name = entries.add(names[image_id], note["caption"], where, key, folder)
            entries.assign(name, match and match[1], where)
        bare = [name for image_id, name in names.items() if image_id not in captioned]
        if bare:
            what = "image{s} without a caption left out"
            entries.count(what, posixpath.join(folder, str(bare[0])), len(bare))


def _find_karpathy(root: Path) -> list[Path]:
    return _find_json(root, "dataset*.json", "sentences")


def _read_karpathy(files: list[Path], entries: Entries) -> None:
    file = _only(files, "karpathy")
    entries.folder_may_lack = True
    for where, image in _records(file, _read_json(file), "images", "filename", "sentences"):
        folder = str(image.get("filepath") or "")
        sentences = [s["raw"] for _, s in _records(where, image, "sentences", "raw")]
        # No sentence stands for an empty one, so that the image is counted.
        for index, raw in enumerate(sentences or [""]):
            name = entries.add(image["filename"], raw, where, index, folder)
            entries.assign(name, image.get("split"), where)


# ---------------------------------------------------------------- JSONL, CSV, sidecars


def _find_table(root: Path, suffix: str) -> list[Path]:
    """`metadata.*`, else one file for each split (`train.*` or `train/metadata.*`), else any."""
    if root.is_file():
        return [root] if root.suffix.lower() == suffix and not _flickr_kind(root) else []
    files = [f for f in _children(root, "*" + suffix) if not _flickr_kind(f)]
    if named := [f for f in files if f.stem == "metadata"]:
        return named
    files = files or sorted(root.glob("*/metadata" + suffix))
    return [f for f in files if _table_split(f, root)] or files


def _table_split(file: Path, base: Path) -> str | None:
    """The split that the name of the file, or of its folder inside `base`, stands for."""
    return _split_word(file.stem if file.parent == base else file.parent.name)


def _split_word(word: str) -> str | None:
    return canonical_split(word) if re.fullmatch(_SPLIT_WORD, word, re.IGNORECASE) else None


def _read_tables(files: list[Path], entries: Entries, fmt: str, records: _Records) -> None:
    if len(files) > 1 and not all(_table_split(f, entries.base) for f in files):
        _only(files, fmt)
    for file in files:
        split = _table_split(file, entries.base)
        # The names in train/metadata.jsonl are relative to train/.
        folder = file.parent.name if split and file.parent != entries.base else ""
        for where, record in records(file):
            _add_record(record, where, folder, split, entries)


def _add_record(
    record: Mapping[str, Any], where: str, folder: str, split: str | None, entries: Entries
) -> None:
    texts = [record[f] for f in _TEXT_FIELDS if f in record]
    names = [record[f] for f in _NAME_FIELDS if f in record]
    for found, fields in ((names, _NAME_FIELDS), (texts, _TEXT_FIELDS)):
        if not found:
            raise CaptionerError(f"{where}: there is no field {' or '.join(map(repr, fields))}")
    for text in texts:
        # An empty list stands for an empty caption, so that the image is counted.
        for caption in (text or [""]) if isinstance(text, list) else [text]:
            name = entries.add(names[0], caption, where, folder=folder)
            entries.assign(name, record.get("split") or split, where)


def _jsonl_records(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in _lines(file):
        where = f"{file}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CaptionerError(f"{where}: not valid JSON: {error}") from error
        if not isinstance(record, dict):
            raise CaptionerError(f'{where}: not an object like {{"file_name": ..., "text": ...}}')
        yield where, record


def _csv_records(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    head = _first_line(file)
    delimiter = max(",;\t", key=head.count)
    header: list[str] = []
    for number, row in _csv_rows(file, delimiter):
        where = f"{file}, line {number}"
        if not header:
            header = [cell.strip().lower() for cell in row]
            continue
        if len(row) > len(header):
            raise CaptionerError(
                f"{where}: {len(row)} cells under {len(header)} headings; put a caption with "
                f"{delimiter!r} in it into double quotes"
            )
        record: dict[str, Any] = dict(zip(header, row, strict=False))
        if (cell := record.get("captions", "")).startswith('["'):
            try:
                record["captions"] = json.loads(cell)
            except ValueError as error:
                raise CaptionerError(f"{where}: not a JSON list: {cell[:60]!r}") from error
        yield where, record


def _walk(root: Path) -> Iterator[tuple[Path, list[str], set[str]]]:
    """(folder, images, names of .txt files) for the folders under root, sorted, none hidden."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(d for d in subfolders if not d.startswith((".", "__MACOSX")))
        names = sorted(n for n in names if not n.startswith("."))
        images = [n for n in names if n.lower().endswith(_SIDECAR_IMAGES)]
        yield Path(folder), images, {n for n in names if n.endswith(".txt")}


def _own_sidecars(image: str) -> tuple[str, str]:
    return image + ".txt", posixpath.splitext(image)[0] + ".txt"


def _find_sidecar(root: Path) -> list[Path]:
    for _, images, texts in _walk(root):
        if any(not texts.isdisjoint(_own_sidecars(image)) for image in images):
            return [root]
    return []


def _read_sidecar(files: list[Path], entries: Entries) -> None:
    for folder, images, texts in _walk(files[0]):
        inside = folder.relative_to(files[0])
        split = _split_word(inside.parts[0]) if inside.parts else None
        full = {image for image in images if image + ".txt" in texts}
        stems = Counter(_own_sidecars(image)[1] for image in images if image not in full)
        for image in images:
            where = str(folder / image)
            sidecar = _own_sidecars(image)[0 if image in full else 1]
            if sidecar not in texts:
                entries.count("image{s} without a .txt beside it left out", where)
            elif image not in full and stems[sidecar] > 1:
                # a.jpg and a.png: nobody can say whose captions a.txt holds; a.jpg.txt is clear.
                entries.count("image{s} that share one .txt with another image left out", where)
            else:
                # An empty file stands for an empty caption, so that the image is counted.
                lines = list(_lines(folder / sidecar)) or [(1, "")]
                for number, line in lines:
                    at = f"{folder / sidecar}, line {number}"
                    name = entries.add((inside / image).as_posix(), line, at)
                    entries.assign(name, split, where)


# ---------------------------------------------------------------- the registry


@dataclass(frozen=True)
class Format:
    """How one layout is recognised (`find`: the annotation files in a folder) and read."""

    find: Callable[[Path], list[Path]]
    read: Callable[[list[Path], Entries], None]
    looks_for: str


FORMATS: dict[str, Format] = {
    "flickr": Format(
        _find_flickr, _read_flickr, "*.token.txt, captions.txt (image,caption) or results.csv"
    ),
    "coco": Format(_find_coco, _read_coco, "captions*.json, there or in annotations/"),
    "karpathy": Format(_find_karpathy, _read_karpathy, "dataset*.json"),
    "jsonl": Format(
        lambda root: _find_table(root, ".jsonl"),
        lambda files, entries: _read_tables(files, entries, "jsonl", _jsonl_records),
        "metadata.jsonl, train.jsonl with dev.jsonl, or one other *.jsonl",
    ),
    "csv": Format(
        lambda root: _find_table(root, ".csv"),
        lambda files, entries: _read_tables(files, entries, "csv", _csv_records),
        "metadata.csv, train.csv with dev.csv, or one other *.csv",
    ),
    "sidecar": Format(_find_sidecar, _read_sidecar, "images with a .txt of the same name beside"),
}
