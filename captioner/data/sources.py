"""Several data sets in one training: which images, how often, with captions in which style."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from captioner.data.datasets import CaptionData, Example, load_caption_data
from captioner.data.image_index import composed
from captioner.data.streams import is_streamed
from captioner.errors import CaptionerError
from captioner.text.languages import TAG_REMEDY, is_tag, language_of

TEXT = "text"
"""Format of a source that has sentences and no images."""


@dataclass(frozen=True)
class DataSource:
    """One of the data sets that a model is trained on.

    Args:
        root: the data's folder, or its annotation file; see data/README.md for the layouts.
        name: what logs and errors call it; must differ from the others' names.
        format: ``auto``, or one of ``captioner.data.datasets.FORMATS``; ``text``: a file of
            sentences without images, one a line (.txt or .txt.gz), for
            ``model.objective=language``.
        images: the image folder, where it is not beside the annotations.
        only: patterns such as ``coco/*``; images whose names match none of them are left out.
            Empty: all.
        weight: how often an image comes in an epoch: 0.5 draws half of the images for each epoch,
            2 shows each twice.
        captions: of an image in one step, drawn again each time; 0: all that it has.
        views: kept of each image instead of ``data.views``.
        min_captions: training images with fewer are left out.
        rewards: whether ``model.objective=self_critical`` trains on its images.
        style: how its captions are written. Sources with the same style share it; the decoder is
            given the style, and writes the first source's unless asked for another. Empty in
            all sources: the decoder knows no styles.
        sidecar_suffix: what the text files beside the images end in, where it is not ``.txt``.
        language: of its captions, a BCP 47 tag such as ``de``; empty: ``data.language``.

    Raises:
        ValueError: when an option has a value that cannot be used.
    """

    root: str
    name: str
    format: str = "auto"
    images: str | None = None
    only: list[str] | None = None
    weight: float = 1.0
    captions: int = 0
    views: int | None = None
    min_captions: int = 1
    rewards: bool = True
    style: str = ""
    sidecar_suffix: str | None = None
    language: str = ""

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(f"name={self.name!r}: give each source a name without a slash")
        if not self.weight > 0:
            raise ValueError(f"source {self.name}: weight={self.weight}: must be above 0")
        if self.views is not None and self.views < 1:
            raise ValueError(f"source {self.name}: views={self.views}: must be at least 1")
        if self.captions < 0:
            raise ValueError(f"source {self.name}: captions={self.captions}: must be at least 0")
        if self.min_captions < 1:
            raise ValueError(
                f"source {self.name}: min_captions={self.min_captions}: must be at least 1"
            )
        if self.language and not is_tag(self.language):
            raise ValueError(f"source {self.name}: language={self.language!r}: {TAG_REMEDY}")


def sources_of(
    root: str | None,
    layout: str,
    images: str | None,
    sources: list[DataSource] | None,
    sidecar_suffix: str | None,
) -> list[DataSource]:
    """The sources that the options of a training name: several, or one root.

    Args:
        root: of the only one.
        layout: its format.
        images: its image folder.
        sources: all of several.
        sidecar_suffix: of the only one.

    Raises:
        CaptionerError: not one of the two is named, or two sources have one name.
    """
    if (root is None) == (not sources):
        raise CaptionerError(
            f"data.root={root}, data.sources={sources}: name the data with one of the two"
        )
    if root is not None:
        name = Path(root).expanduser().resolve().name or "data"
        return [DataSource(root, name, layout, images, sidecar_suffix=sidecar_suffix)]
    assert sources is not None
    names = [source.name for source in sources]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise CaptionerError(f"data.sources: two are called {twice!r}; give each its own name")
    return sources


def styles_of(sources: Sequence[DataSource]) -> tuple[str, ...]:
    """The names of all styles, each once, the first source's first; none where none has a name.

    Raises:
        CaptionerError: when some sources name a style and others do not.
    """
    named = [source for source in sources if source.style]
    if named and len(named) < len(sources):
        without = next(source.name for source in sources if not source.style)
        raise CaptionerError(
            f"data.sources: {without} has no style, {named[0].name} has; name one for each source, "
            "or for none"
        )
    return tuple(dict.fromkeys(source.style for source in named))


def language_of_sources(sources: Sequence[DataSource], default: str | None) -> str | None:
    """The language of all captions; None where nothing names it.

    Args:
        sources: all of them.
        default: of those that name none.

    Raises:
        CaptionerError: when it is not one language.
    """
    by_language = {source.language or default: source.name for source in sources}
    first, *others = by_language
    if others and None in by_language:
        raise CaptionerError(
            f"data.sources: {by_language[None]} has no language, others have; name one for each "
            "source, or data.language"
        )
    if others:
        raise CaptionerError(
            f"data.sources: {by_language[first]} is in {first}, {by_language[others[0]]} in "
            f"{others[0]}; a decoder has one language: train one for each"
        )
    return None if first is None else language_of(first).tag


def load_source(source: DataSource, *, prefix: bool = True) -> CaptionData:
    """The images of a source without those that ``only`` leaves out.

    Args:
        source: where they are.
        prefix: name them ``SOURCE/IMAGE``, so that two sources may have the same names.

    Raises:
        CaptionerError: the data cannot be read, or ``only`` leaves nothing.
    """
    if source.format == TEXT:
        return _load_text(source)
    if is_streamed(source.root):
        raise CaptionerError(
            f"data.sources, {source.name}: patterns and addresses are streamed as the only source, "
            "by data.root; name a folder or a file on this machine here"
        )
    try:
        data = load_caption_data(
            source.root, source.format, source.images, sidecar_suffix=source.sidecar_suffix
        )
    except CaptionerError as error:
        if not prefix:
            raise
        raise CaptionerError(f"data.sources, {source.name}: {error}") from error
    examples = tuple(
        replace(example, image_id=f"{source.name}/{example.image_id}") if prefix else example
        for example in data.examples
        if not source.only or any(_matches(example.image_id, each) for each in source.only)
    )
    if not examples:
        raise CaptionerError(
            f"data.sources, {source.name}: only={source.only} matches none of the "
            f"{len(data.examples)} images in {source.root}, such as {data.examples[0].image_id}"
        )
    return replace(data, examples=examples)


def _matches(image_id: str, pattern: str) -> bool:
    return fnmatchcase(composed(image_id), composed(pattern))


def _load_text(source: DataSource) -> CaptionData:
    path = Path(source.root).expanduser()
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise CaptionerError(
            f"data.sources, {source.name}: {path}: {error}; give a text file in UTF-8, one "
            "sentence a line, plain or compressed with gzip"
        ) from error
    examples = tuple(
        Example(f"{source.name}/{number}", path, (line,), "train")
        for number, line in enumerate(lines, 1)
        if line
    )
    if not examples:
        raise CaptionerError(f"data.sources, {source.name}: {path}: there is no sentence in it")
    return CaptionData(TEXT, path, examples)


def check_no_photo_twice(parts: Sequence[Sequence[Example]]) -> None:
    """Refuse a photo that is in two sources: one may teach it while the other validates it.

    Args:
        parts: the images of each source.

    Raises:
        CaptionerError: two files of different sources have the same content; both are named.
    """
    by_size: dict[int, list[tuple[int, Path]]] = defaultdict(list)
    for number, examples in enumerate(parts):
        for path in {example.path for example in examples}:
            by_size[_size(path)].append((number, path))
    for same_size in map(sorted, by_size.values()):
        if len({number for number, _ in same_size}) == 1:
            continue
        first: dict[str, tuple[int, Path]] = {}
        for number, path in same_size:
            other, found = first.setdefault(_content(path), (number, path))
            if other != number:
                raise CaptionerError(
                    f"data.sources: {found} and {path} are the same photo in two sources; leave it "
                    "out of one, with only or in its annotations"
                )


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise CaptionerError(f"image {path}: {error.strerror or error}") from error


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CaptionerError(f"image {path}: {error.strerror or error}") from error
