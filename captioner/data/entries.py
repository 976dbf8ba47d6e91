"""What every layout is read into: captions and splits by image, and counts of what is left out."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from pathlib import Path

from captioner.data.image_index import ImageIndex
from captioner.errors import CaptionerError
from captioner.files.escaping import plain_cell

SPLITS = ("train", "dev", "test")
_ALIASES = {"training": "train", "restval": "train", "testing": "test"}
_ALIASES |= dict.fromkeys(("val", "valid", "validation"), "dev")
_ALIASES |= dict.fromkeys(("eval", "evaluation"), "test")  # as the Hub has it
SPLIT_WORD = "train|training|dev|val|valid|validation|test|testing|eval|evaluation"

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


def canonical_split(name: str) -> str:
    """`validation` -> `dev`, `Training` -> `train`; other names in lower case, stripped."""
    key = name.strip().lower()
    return _ALIASES.get(key, key)


def split_of_word(word: str) -> str | None:
    """`val` -> `dev`; None if the word, as the name of a file or folder, means no split."""
    return canonical_split(word) if re.fullmatch(SPLIT_WORD, word, re.IGNORECASE) else None


def _spellings(name: str) -> list[str]:
    """The names that may be meant, as written first; the last is the one of a missing image."""
    plain = name.strip().replace("\\", "/")
    return [name, name.strip(), name.replace("\\", "/"), plain_cell(plain), plain]


def split_in_name(name: str) -> str | None:
    """`coco_karpathy_val` -> `dev`, `train-00000-of-00002` -> `train`; None of other names."""
    return next(filter(None, map(split_of_word, re.split(r"[-_.=]", name))), None)


class LeftOut:
    """Counts what is left out of a set, kind by kind."""

    def __init__(self) -> None:
        self.counts: dict[str, tuple[int, str]] = {}
        """Sentence with {s} for the plural -> how many, and the first of them."""

    def count(self, what: str, example: str, amount: int = 1) -> None:
        """Count one more of `what` (a sentence with {s} for the plural); keep the first example."""
        number, first = self.counts.get(what, (0, example))
        self.counts[what] = (number + amount, first)

    def add_counts(self, other: LeftOut) -> None:
        """Count what another one has counted."""
        for what, (number, first) in other.counts.items():
            self.count(what, first, number)

    def warnings(self) -> tuple[str, ...]:
        """One sentence for each kind of entry that was counted."""
        return tuple(
            f"{n} {what.format(s='' if n == 1 else 's')} (first: {first})"
            for what, (n, first) in self.counts.items()
        )


def clean_caption(text: str) -> str:
    """A caption with single spaces, and without what could be neither printed nor saved."""
    # Such as a lone surrogate, which is legal in JSON.
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())


class Entries(LeftOut):
    """Collects captions and splits by image name and counts what is left out."""

    def __init__(self, base: Path, index: ImageIndex) -> None:
        super().__init__()
        self.base = base
        self.index = index
        self.images: dict[str, Path] = {}  # where those that exist are
        self.captions: dict[str, dict[tuple[str, object], None]] = {}
        self.splits: dict[str, str] = {}
        self.ids: dict[str, int | str] = {}  # which the annotations give images
        self.folder_may_lack = False  # an image "train2014/x.jpg" may also lie there as "x.jpg"
        self._names: dict[tuple[str, str], str] = {}
        self._by_path: dict[Path, str] = {}
        self._embedded: dict[tuple[str, Path], str] = {}
        self._twins: Counter[str] = Counter()

    def identify(self, name: str, given: object) -> None:
        """Keep the id that the annotations give an image, if it can be one; the first counts."""
        if isinstance(given, int | str) and not isinstance(given, bool) and given != "":
            self.ids.setdefault(name, given)

    def add(
        self, name: object, text: object, where: str, key: object = None, folder: str = ""
    ) -> str:
        """Add one caption of the image `name` in `folder`; returns what `resolve` calls it."""
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise CaptionerError(f"{where}: the image name is {name!r}; give a file name")
        name = self.resolve(name, folder)
        captions = self.captions.setdefault(name, {})
        if text is not None and not isinstance(text, str):
            raise CaptionerError(f"{where}: the caption is {text!r}; a caption must be a string")
        caption = clean_caption(text or "")
        if not caption:
            self.count("empty caption{s} dropped", where)
        elif (caption, key) in captions:
            self.count("repeated caption{s} dropped", where)
        else:
            captions[caption, key] = None
        return name

    def resolve(self, name: str, folder: str = "") -> str:
        """The name under which an image is kept, whichever way an annotation spells it.

        That is the first spelling met of an image that exists, and the plain one of another: with
        forward slashes and without blanks around it.
        """
        if (folder, name) not in self._names:
            image, path = self._locate(name, folder)
            if path is not None:
                image = self._by_path.setdefault(path, image)
                self.images[image] = path
            self._names[folder, name] = image
        return self._names[folder, name]

    def _locate(self, name: str, folder: str) -> tuple[str, Path | None]:
        """What an image is called, and where it is; None if it is nowhere."""
        plain = list(map(posixpath.normpath, _spellings(name)))
        spelled = [posixpath.normpath(posixpath.join(folder, each)) for each in plain]
        found = ((each, path) for each in spelled if (path := self.index.locate(each)))
        image, path = next(found, (spelled[-1], None))
        if path is not None or not self.folder_may_lack:
            return image, path
        if folder and "/" in plain[-1]:  # "val2014/a.jpg" in captions_val2014.json, say
            found = ((each, path) for each in plain if (path := self.index.locate(each)))
            image, path = next(found, (image, None))
        if path is None:
            path = next(filter(None, map(self.index.locate, map(posixpath.basename, plain))), None)
        return image, path

    def embed(self, name: str, path: Path) -> str:
        """Name an image that lay inside another file and is at `path` now.

        Two different images may have one name there: the second is then called `name#2`.
        """
        if (name, path) not in self._embedded:
            self._twins[name] += 1
            number = self._twins[name]
            unique = name if number == 1 else f"{name}#{number}"
            self._embedded[name, path] = self._names["", unique] = unique
            self.images[unique] = path
        return self._embedded[name, path]

    def apart(self, name: str, split: str, where: str) -> str:
        """The name to add an image under in a split that may share images with another.

        Where it is in the other already, that is a name of its own, and counted.
        """
        plain = self.resolve(name)
        if self.splits.get(plain, split) == split:
            return name
        other = f"{plain}#{split}"
        if other not in self.captions:
            self.count("image{s} of one split also in another: scores there are too good", where)
            self._names["", other] = other
            if plain in self.images:
                self.images[other] = self.images[plain]
        return other

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
