"""How captions are reviewed. Loads neither a web server nor torch."""

from __future__ import annotations

from dataclasses import dataclass

from captioner.options import check_options, option


@dataclass(frozen=True)
class ReviewOptions:
    """Checked when made; ValueError names what is wrong.

    Attributes:
        images: the folder of the images, where a file of captions does not lie beside them.
        sidecar_suffix: of the files for each image, where a folder could mean several things.
        port: that the page is served on; 0 takes any free one.
    """

    images: str | None = option(None, "folder of the images", kind=str, metavar="DIR")
    sidecar_suffix: str | None = option(
        None,
        "review the files for each image that end in this, such as .txt or .xmp (default: those in "
        "the folder, if they are of one kind)",
        kind=str,
        metavar="SUFFIX",
    )
    port: int = option(
        0,
        "serve the page on this port",
        metavar="N",
        minimum=0,
        maximum=65535,
        default_text="any free one",
    )

    def __post_init__(self) -> None:
        check_options(self)
