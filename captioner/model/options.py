"""Which model is loaded, where it computes and on how many images at once. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

from captioner.networks.precisions import PRECISIONS
from captioner.options import check_options, option
from captioner.text.languages import TAG_REMEDY, is_tag

SHIPPED = ("default", "flickr8k")
"""Models inside the package: of the wider world, and the best one for photos like Flickr8k's."""

SHIPPED_LANGUAGES = ("zh", "de", "ar")
"""Languages inside the package, for the default model."""

LANGUAGE_SUFFIX = ".safetensors"
"""What ends in it is a language file."""


@dataclass(frozen=True)
class ModelOptions:
    """See `captioner.model.shipped.load_model`.

    Attributes:
        model: one of :data:`SHIPPED`, or a model file.
        language: of the captions: the tag of the language that the model has or of one of
            :data:`SHIPPED_LANGUAGES`, or a language file. With several, each image is captioned in
            each of them, the first one foremost. Empty: the model's own.
        device: a torch device; ``auto``: see `captioner.model.device.find_device`.
        precision: of the CNN, and with int8 of the decoder too; ``auto``: see
            `captioner.model.device.find_precision`.
    """

    model: str = option(
        SHIPPED[0],
        "model file; or flickr8k, the shipped model that knows only people and dogs",
        metavar="FILE",
        default_text="the shipped model that knows more",
    )
    language: tuple[str, ...] = option(
        (),
        f"of the captions: en, {', '.join(SHIPPED_LANGUAGES)}, or a language file (docs/languages"
        ".md); several, with commas between them, where a command can write them",
        kind=tuple,
        metavar="TAG|FILE",
        default_text="the model's own, English",
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps")
    precision: str = option(
        "auto",
        "of the CNN, and with int8 of the decoder too; auto is bf16 on GPUs that support it, else "
        "fp32; int8 is twice as fast on CPUs with VNNI, and a little less exact",
        choices=("auto", *PRECISIONS),
    )

    def __post_init__(self) -> None:
        check_options(self)
        for language in self.language:
            if not language.endswith(LANGUAGE_SUFFIX) and not is_tag(language):
                raise ValueError(
                    f"language={language!r}: {TAG_REMEDY}, or a file that ends in {LANGUAGE_SUFFIX}"
                )
            if self.language.count(language) > 1:
                raise ValueError(f"language={language!r}: it is given twice")


@dataclass(frozen=True)
class BatchOptions:
    """How a command goes through many images.

    Attributes:
        batch_size: images that the model sees at once.
        workers: threads that read images while the model works; 0 reads between the batches.
    """

    batch_size: int = option(32, "images at once", metavar="B", minimum=1)
    workers: int = option(
        2, "threads that read images while the model works", metavar="N", minimum=0
    )

    def __post_init__(self) -> None:
        check_options(self)
