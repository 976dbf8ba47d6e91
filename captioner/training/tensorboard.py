"""Images with their captions in TensorBoard, after each validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger

from captioner.images.reading import read_image
from captioner.training.datamodule import CaptionDataModule

SAMPLE_SIDE = 512  # pixels: the longest side of the images


class SampleImages(Callback):
    """Show the first images of validation with the captions they were given.

    Args:
        count: how many images; those without a caption are left out, as in a trial run.
        captions: of the images by their ids; filled in while a validation runs.
    """

    def __init__(self, count: int, captions: Mapping[str, str]) -> None:
        super().__init__()
        self._count, self._captions = count, captions

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the images to all TensorBoard loggers of the run."""
        if not trainer.is_global_zero:
            return
        loggers = [each for each in trainer.loggers if isinstance(each, TensorBoardLogger)]
        if not loggers or trainer.sanity_checking:
            return
        data: CaptionDataModule = trainer.datamodule  # type: ignore[attr-defined]
        for example in data.examples["dev"][: self._count]:
            if example.image_id not in self._captions:
                continue
            image = read_image(example.path, min_side=SAMPLE_SIDE)
            image.thumbnail((SAMPLE_SIDE, SAMPLE_SIDE))
            pixels = np.asarray(captioned_image(image, self._captions[example.image_id]))
            for logger in loggers:
                logger.experiment.add_image(
                    f"captions/{example.image_id}", pixels, trainer.global_step, dataformats="HWC"
                )


def captioned_image(image: Image.Image, text: str) -> Image.Image:
    """The image with its caption written below it."""
    font = ImageFont.load_default(size=14)
    lines = _wrap(text, font, image.width - 8)
    sheet = Image.new("RGB", (image.width, image.height + 18 * len(lines) + 6), "white")
    sheet.paste(image)
    ImageDraw.Draw(sheet).text((4, image.height + 2), "\n".join(lines), fill="black", font=font)
    return sheet


def _wrap(text: str, font: Any, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
