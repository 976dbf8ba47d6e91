"""Which captioned images are read. Loads nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from captioner.data.datasets import DEV_FRACTION, FORMATS
from captioner.options import check_options, option


@dataclass(frozen=True)
class DataOptions:
    """See `captioner.data.datasets.load_caption_data`.

    Attributes:
        format: layout of the data; ``auto``: by its files.
        images: folder of the images, if it is elsewhere.
        sidecar_suffix: what the text files beside the images end in.
        split: which images are taken; ``all``: every one.
        dev_fraction: share of the images that are held out as dev where the data has no such split,
            as in training.
        limit: how many of them, from the first on; None takes all.
    """

    format: str = option(
        "auto",
        "layout of the data; auto goes by its files; data/README.md explains each",
        choices=("auto", *FORMATS),
    )
    images: str | None = option(
        None,
        "folder of the images, if it is elsewhere",
        kind=str,
        metavar="DIR",
    )
    sidecar_suffix: str | None = option(
        None,
        "what the text files beside the images end in",
        kind=str,
        metavar="SUFFIX",
        default_text=".txt, else .caption, else what captioner has written there",
    )
    split: str = option(
        "dev",
        "which images: dev, test, train or what the data calls them; all takes every image",
        metavar="NAME",
    )
    dev_fraction: float = option(
        DEV_FRACTION,
        "share of the images that are held out as dev where the data has no such split: the same "
        "images as in captioner fit",
        metavar="P",
        above=0.0,
        below=1.0,
    )
    limit: int | None = option(None, "only the first N images", kind=int, metavar="N", minimum=1)

    def __post_init__(self) -> None:
        check_options(self)
