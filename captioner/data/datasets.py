"""Captioned images on disk -> `CaptionData`, whatever the layout; data/README.md shows each.

`load_caption_data("data/flickr8k")` looks at what is in the folder, reads it with the format found
and returns one `Example` for each image that exists and has at least one caption. What is wrong
with single entries (a missing image, an empty caption) is counted in `CaptionData.warnings`; what
makes the whole set doubtful (a broken line, an image in two splits) is a `CaptionerError`.

Every caption has an annotation key: its number in Flickr's files, its id in COCO, its place in a
Karpathy or LAVIS list, none in tables, sidecars and archives. A caption is a duplicate, and
dropped, when image, text and key are all the same. So two people who wrote the same sentence about
a Flickr or COCO image both stay (the published reference sets), and a repeated line in one's own
file does not.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from captioner.data.entries import (
    IMAGE_FOLDERS,
    SPLITS,
    TEXT_FOLDERS,
    Entries,
    canonical_split,
)
from captioner.data.formats import FORMATS, LAST_RESORTS, Format, sidecar_format
from captioner.data.image_index import ImageIndex
from captioner.errors import CaptionerError

__all__ = ["FORMATS", "CaptionData", "Example", "canonical_split", "load_caption_data"]

DEV_FRACTION = 0.1
"""The share of the images that is held out where data has no dev split."""

ALL = "all"
"""Instead of a split: every image, whatever split it is in."""


@dataclass(frozen=True)
class Example:
    """One image with its captions.

    Attributes:
        image_id: its name relative to the image folder.
        path: where the file is.
        captions: what people wrote about it.
        split: `train`, `dev`, `test` or another; None if it is in none.
        given_id: the id that the annotations give it, as COCO's do; None if they give none.
    """

    image_id: str
    path: Path
    captions: tuple[str, ...]
    split: str | None = None
    given_id: int | str | None = None


@dataclass(frozen=True)
class CaptionData:
    """A loaded set of captioned images, in the order of its annotation file.

    `warnings` holds one counted sentence for each kind of entry that was left out.
    """

    format: str
    root: Path
    examples: tuple[Example, ...]
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The folder's (or annotation file's) own name."""
        return self.root.resolve().name

    @property
    def splits(self) -> dict[str, int]:
        """Split name -> number of examples; train, dev, test first. Images without one left out."""
        counts = Counter(e.split for e in self.examples if e.split is not None)
        return {s: counts[s] for s in (*SPLITS, *sorted(counts.keys() - set(SPLITS))) if counts[s]}

    def split(self, name: str) -> list[Example]:
        """The examples of one split; `val`, `valid` and `validation` mean `dev`, `all` every one.

        Raises:
            CaptionerError: no example has this split.
        """
        wanted = canonical_split(name)
        found = [example for example in self.examples if wanted in (ALL, example.split)]
        if not found:
            there = ", ".join(f"{s} ({n} images)" for s, n in self.splits.items())
            raise CaptionerError(
                f"{self.root}: there is no split {name!r}; "
                + (f"choose one of: {there}" if there else "no image here belongs to any split")
                + f"; {ALL!r} takes every image, CaptionData.with_random_split makes train and dev"
            )
        return found

    def with_random_split(
        self, dev_fraction: float = DEV_FRACTION, seed: int = 0, *, prefix: str = ""
    ) -> CaptionData:
        """Hold out about `dev_fraction` of the training images as `dev`; the rest is `train`.

        The choice is a hash of the image id and the seed, image by image: adding or removing
        images moves no other image, and the same set splits the same way on every machine. A split
        that is there stays: with a `dev` split the data is returned as it is; with named splits
        but no `dev`, only `train` images are moved; images that no split lists stay outside.

        Args:
            dev_fraction: of the images.
            seed: of the choice.
            prefix: a beginning of the image ids that is not part of the images' own names; the
                choice ignores it.

        Raises:
            CaptionerError: `dev_fraction` is not between 0 and 1, or one side would be empty.
        """
        if not 0.0 < dev_fraction < 1.0:
            raise CaptionerError(f"dev_fraction is {dev_fraction}; give a number between 0 and 1")
        if "dev" in self.splits:
            return self
        source = "train" if self.splits else None

        def fraction_of(example: Example) -> float:
            return _hash_fraction(example.image_id.removeprefix(prefix), seed)

        examples = tuple(
            replace(e, split="dev" if fraction_of(e) < dev_fraction else "train")
            if e.split == source
            else e
            for e in self.examples
        )
        data = replace(self, examples=examples)
        if not {"train", "dev"} <= data.splits.keys():
            raise CaptionerError(
                f"{self.root}: dev_fraction {dev_fraction} leaves the train or the dev split "
                f"without an image (sizes: {data.splits}); give another fraction or more images"
            )
        return data


def joined(sets: Sequence[CaptionData]) -> CaptionData:
    """Several data sets as one; their images are then named ``SET/IMAGE``.

    Raises:
        CaptionerError: two sets have the same name.
    """
    if len(sets) == 1:
        return sets[0]
    names = [each.name for each in sets]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise CaptionerError(f"two data sets are called {twice!r}; rename one of the folders")
    examples = tuple(
        replace(example, image_id=f"{each.name}/{example.image_id}")
        for each in sets
        for example in each.examples
    )
    formats = dict.fromkeys(each.format for each in sets)
    return CaptionData(" + ".join(formats), Path(" + ".join(names)), examples)


def _hash_fraction(image_id: str, seed: int) -> float:
    """A number in [0, 1) that depends on the image id and the seed only."""
    text = f"{seed}:{image_id}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=6).digest(), "big") / 2.0**48


def _detect(root: Path) -> str:
    found = {
        name: files
        for name, f in FORMATS.items()
        if name not in LAST_RESORTS and (files := f.find(root))
    }
    if not found and (name := next((n for n in LAST_RESORTS if FORMATS[n].find(root)), None)):
        return name
    if len(found) == 1:
        return next(iter(found))
    if found:
        which = "; ".join(f"{name} ({files[0].name})" for name, files in found.items())
        raise CaptionerError(
            f"{root}: more than one format fits: {which}; say which, for example "
            f"format={next(iter(found))!r}"
        )
    looked = "".join(f"\n  {name}: {f.looks_for}" for name, f in FORMATS.items())
    raise CaptionerError(
        f"{root}: no captions found. Looked for:{looked}\n"
        f"Give the annotation file itself as the path, or name the format, for example "
        f"format={next(iter(FORMATS))!r}"
    )


def _chosen(name: str, sidecar_suffix: str | None) -> Format:
    if sidecar_suffix is None:
        return FORMATS[name]
    if name != "sidecar":
        raise CaptionerError(
            f"sidecar_suffix={sidecar_suffix!r}: is for the format sidecar, not for {name}"
        )
    if not sidecar_suffix.startswith("."):
        raise CaptionerError(
            f"sidecar_suffix={sidecar_suffix!r}: give a dot and a name, such as .caption"
        )
    return sidecar_format(sidecar_suffix)


def load_caption_data(
    root: str | Path,
    format: str = "auto",
    images: str | Path | None = None,
    *,
    sidecar_suffix: str | None = None,
) -> CaptionData:
    """Load the captioned images of a folder or an annotation file.

    Args:
        root: the folder, or the annotation file itself (images are then looked for around it).
        format: a name in `FORMATS`, or `auto`: what the folder holds decides.
        images: the folder that image names are relative to, where it is not in the usual places.
        sidecar_suffix: what the text files beside the images end in, for `sidecar`; by default
            .txt, or where there are none .caption, or what captioner has written there.

    Raises:
        CaptionerError: nothing or more than one thing to read, a broken line (named), an image in
            two splits, or not a single image found.
    """
    root = Path(root).expanduser()
    if not root.exists():
        raise CaptionerError(f"{root}: there is no such file or folder")
    if format not in ("auto", *FORMATS):
        raise CaptionerError(f"format is {format!r}; give one of: auto, {', '.join(FORMATS)}")
    if sidecar_suffix is not None and format == "auto":
        format = "sidecar"
    name = _detect(root) if format == "auto" else format
    chosen = _chosen(name, sidecar_suffix)
    files = [root] if root.is_file() and name != "sidecar" else chosen.find(root)
    if not files:
        raise CaptionerError(f"{root}: nothing to read as {name}: no {chosen.looks_for}")
    here = root if root.is_dir() else root.parent
    base = here.parent if here.name in TEXT_FOLDERS else here
    folders = [
        *dict.fromkeys((here, base)),
        *(base / f for f in IMAGE_FOLDERS if (base / f).is_dir()),
    ]
    if images is not None:
        folders = [Path(images).expanduser()]
        if not folders[0].is_dir():
            raise CaptionerError(f"images is {str(images)!r}; there is no such folder")
        if name == "sidecar":
            raise CaptionerError(
                "format 'sidecar': the images lie beside their text files; leave images out"
            )
    entries = Entries(base, ImageIndex(folders))
    chosen.read(files, entries)
    examples = _examples(entries, files)
    return CaptionData(name, root, examples, entries.warnings())


def _examples(entries: Entries, files: list[Path]) -> tuple[Example, ...]:
    """The images that exist and have captions; everything else is counted."""
    examples, missing = [], []
    for name, captions in entries.captions.items():
        path = entries.images.get(name)
        if path is None:
            missing.append(name)
        elif not captions:
            entries.count("image{s} without a caption left out", name)
        else:
            texts = tuple(text for text, _ in captions)
            split, given_id = entries.splits.get(name), entries.ids.get(name)
            examples.append(Example(name, path, texts, split, given_id))
    if not examples:
        raise _nothing_found(entries, files[0], missing)
    if missing:
        entries.count("image{s} not found", _hinted(missing, entries), len(missing))
    for example in examples:
        if example.split not in (*SPLITS, None):
            entries.count(
                "image{s} in a split that is none of train, dev and test",
                f"{example.image_id} in {example.split!r}",
            )
        elif example.split is None and entries.splits:
            entries.count("image{s} in no split, so never used", example.image_id)
    return tuple(examples)


def _nothing_found(entries: Entries, file: Path, missing: list[str]) -> CaptionerError:
    if not missing:
        return CaptionerError(f"{file}: there is no caption in it")
    looked = ", ".join(str(folder) for folder in entries.index.folders)
    hinted = _hinted(missing, entries)
    remedy = "name the image folder, for example images='photos'"
    if hinted != missing[0]:
        remedy = "write the names in the annotations as the files have them"
    elif all(re.match(r"/|[A-Za-z]:/", name) for name in missing):
        remedy = "these are full paths of another place: leave out what stands before the folder"
    return CaptionerError(
        f"{file}: none of its {len(missing)} images was found (the first: {hinted}); looked in "
        f"{looked}; {remedy}"
    )


def _hinted(missing: list[str], entries: Entries) -> str:
    """The first missing image, rather one whose file is there in other capitals or so."""
    for difference, find in (
        ("in other capitals", entries.index.but_for_case),
        ("with another suffix", entries.index.but_for_suffix),
    ):
        for name in missing[:1000]:  # of a set without its images, not all are looked for
            names = [name, posixpath.basename(name)] if entries.folder_may_lack else [name]
            found = next(filter(None, map(find, names)), None)
            if found is not None:
                return f"{name}; there is {found}, {difference}"
    return missing[0]
