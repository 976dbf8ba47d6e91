"""Images with their captions, as TensorBoard shows them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from captioner.training.tensorboard import captioned_image


def test_a_caption_is_written_below_its_image() -> None:
    image = Image.new("RGB", (200, 100), "red")
    short, long = captioned_image(image, "a dog"), captioned_image(image, "a dog " * 20)
    assert (short.size, long.size[0]) == ((200, 124), 200)
    assert long.height > short.height
    for sheet in (short, long):
        pixels = np.asarray(sheet)
        assert np.all(pixels[:100] == (255, 0, 0))
        assert pixels[100:].min() < 50 < 250 < pixels[100:].max()  # black on white
        assert np.all(pixels[100:, -2:] == 255)  # nothing runs over the edge
