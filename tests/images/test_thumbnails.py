"""Images of segments: which frame, which shape, how many bytes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from captioner.images import thumbnails
from captioner.images.thumbnails import LONG_SIDE, Filmstrip, within
from captioner.images.transform import ImageTransform
from helpers.images import noise, quadrants

SIZE = (320, 200)


def plain(colour: str) -> bytes:
    return Image.new("RGB", (64, 64), colour).tobytes()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == "JPEG"
    return image.convert("RGB")


def colour(image: bytes) -> str:
    red, green, blue = np.asarray(opened(image)).mean((0, 1))
    return max(("red", red), ("lime", green), ("blue", blue), key=lambda each: each[1])[0]


def test_the_surest_frame_of_each_segment() -> None:
    strip = Filmstrip(ImageTransform(size=(64, 64)))
    strip.add(plain("red"), 0.2, True, SIZE)
    strip.add(plain("lime"), 0.6, False, SIZE)
    strip.add(plain("blue"), 0.6, False, SIZE)  # no surer than the one before
    strip.add(plain("blue"), 0.1, True, SIZE)
    strip.add(None, 0.1, True, SIZE)  # looks like the one before, after a cut
    strip.add(plain("red"), 0.0, True, SIZE)
    assert [colour(each) for each in strip.finish(SIZE)] == ["lime", "blue", "blue", "red"]
    assert Filmstrip(ImageTransform()).finish(SIZE) == ()


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(640, 400), (90, 160), (1000, 3)])
def test_images_have_the_shape_of_the_video(resize: str, size: tuple[int, int]) -> None:
    transform = ImageTransform(size=(64, 48), resize=resize)
    fitted = transform.fit(Image.fromarray(quadrants(*size)))
    strip = Filmstrip(transform)
    strip.add(fitted.tobytes(), 0.5, True, size)
    (thumbnail,) = strip.finish(size)
    image = opened(thumbnail)
    expected = (64, 48) if resize == "crop" else size  # what was cut off is gone
    assert max(image.size) == 64 < LONG_SIDE
    assert abs(image.width / image.height - expected[0] / expected[1]) <= (
        0.1 * image.width / image.height if min(image.size) > 1 else np.inf
    )
    if min(image.size) > 20:
        # Upright, nothing of a margin in it: red, green, blue and white in their corners.
        pixels = np.asarray(image).astype(int)
        corners = [pixels[4, 4], pixels[4, -5], pixels[-5, 4], pixels[-5, -5]]
        wanted = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)])
        assert np.abs(np.array(corners) - wanted).max() < 40


def test_images_stay_within_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    data = io.BytesIO()
    noise(1, 240, 150).save(data, "JPEG", quality=90)
    images = [data.getvalue()] * 20
    assert within(images, [1.0] * 20) == images
    monkeypatch.setattr(thumbnails, "MOST_BYTES", 20 * len(images[0]) - 1)
    small = within(images, [1.0] * 20)
    assert {opened(each or b"").size for each in small} == {(112, 70)}
    most = 5 * len(small[0] or b"")
    monkeypatch.setattr(thumbnails, "MOST_BYTES", most)
    importance = [float(place % 7) for place in range(20)]
    few = within(images, importance)
    assert [place for place, each in enumerate(few) if each] == [5, 6, 12, 13, 19]
    assert sum(len(each) for each in few if each) <= most
