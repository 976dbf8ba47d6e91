"""Images that are cut short, as far as they go."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captioner.images.partial import PARTIAL
from captioner.images.reading import ImageError, read_image

PHOTO = Path(__file__).parents[2] / "data/examples/cat.jpg"
FORMATS: list[tuple[str, str, dict[str, Any]]] = [
    ("RGB", "JPEG", {"quality": 95}),
    ("L", "JPEG", {}),
    ("CMYK", "JPEG", {}),
    ("RGB", "PNG", {}),
    ("RGBA", "PNG", {}),
    ("P", "PNG", {}),
    ("RGB", "BMP", {}),
    ("RGB", "TIFF", {}),
    ("RGB", "PPM", {}),
    ("P", "GIF", {"interlace": False}),
]


def encoded(image: Image.Image, format: str, options: dict[str, Any]) -> bytes:
    data = io.BytesIO()
    image.save(data, format, **options)
    return data.getvalue()


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    with Image.open(PHOTO) as image:
        return image.convert("RGB").resize((300, 200))


@pytest.mark.parametrize(("mode", "format", "options"), FORMATS)
def test_the_rows_that_are_there_are_those_of_the_whole(
    tmp_path: Path, photo: Image.Image, mode: str, format: str, options: dict[str, Any]
) -> None:
    path = tmp_path / "x"
    path.write_bytes(encoded(photo.convert(mode), format, options))
    whole = read_image(path, may_be_partial=True)
    assert PARTIAL not in whole.info
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ImageError, match="truncated file"):
        read_image(path)
    part = read_image(path, may_be_partial=True)
    assert part.info[PARTIAL] is True
    assert part.width == 300
    assert 80 <= part.height < 200
    bottom_up = format == "BMP"
    rows = np.asarray(whole)[-part.height :] if bottom_up else np.asarray(whole)[: part.height]
    # The last rows of a JPEG may be half there.
    sure = part.height - (16 if format == "JPEG" else 1)
    start = int(bottom_up)
    assert np.array_equal(np.asarray(part)[start : start + sure], rows[start : start + sure])


def test_a_progressive_jpeg_is_coarser_and_whole(tmp_path: Path, photo: Image.Image) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(encoded(photo, "JPEG", {"progressive": True, "quality": 90}))
    whole = np.asarray(read_image(path), np.float32)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match="truncated file"):
        read_image(path)
    part = read_image(path, may_be_partial=True)
    assert (part.size, PARTIAL in part.info) == ((300, 200), True)
    assert np.abs(np.asarray(part, np.float32) - whole).mean() < 12


@pytest.mark.parametrize("orientation", [3, 6])
def test_it_is_upright(tmp_path: Path, photo: Image.Image, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "x.jpg"
    data = encoded(photo, "JPEG", {"exif": exif})
    path.write_bytes(data[: len(data) // 2])
    part = read_image(path, may_be_partial=True)
    assert part.info[PARTIAL] is True
    assert (part.width == 300) is (orientation == 3)
    assert (part.height == 300) is (orientation == 6)


@pytest.mark.parametrize(
    ("progressive", "behind"), [(False, 14), (False, 30), (True, 0), (True, -60)]
)
def test_of_nothing_there_is_nothing(
    tmp_path: Path, photo: Image.Image, progressive: bool, behind: int
) -> None:
    """Not a whole row of a JPEG's blocks, or not even the start of its pixels."""
    data = encoded(photo, "JPEG", {"progressive": progressive})
    path = tmp_path / "x.jpg"
    path.write_bytes(data[: data.index(b"\xff\xda") + behind])
    reasons = []
    for may_be_partial in (False, True):
        with pytest.raises(ImageError) as caught:
            read_image(path, may_be_partial=may_be_partial)
        reasons.append(caught.value.reason)
    assert reasons[0] == reasons[1]


@pytest.mark.parametrize("format", ["WEBP", "AVIF"])
def test_what_is_decoded_as_a_whole_only_stays_an_error(
    tmp_path: Path, photo: Image.Image, format: str
) -> None:
    path = tmp_path / "x"
    data = encoded(photo, format, {})
    path.write_bytes(data[: len(data) // 2])
    for may_be_partial in (False, True):
        with pytest.raises(ImageError):
            read_image(path, may_be_partial=may_be_partial)
