"""An image becomes a tensor in exactly one way."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from captioner.errors import CaptionerError
from captioner.images.transform import INTERPOLATIONS, ImageTransform
from helpers.images import noise, quadrants

QUARTERS = quadrants()
IDENTITY: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def test_defaults_are_those_of_the_shipped_encoder() -> None:
    assert ImageTransform().to_dict() == {
        "size": [224, 224],
        "resize": "squash",
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    }


def test_values_are_scaled_channel_by_channel() -> None:
    image = Image.new("RGB", (2, 1))
    image.putpixel((0, 0), (0, 51, 255))
    image.putpixel((1, 0), (255, 0, 102))
    transform = ImageTransform((2, 1), mean=(0.0, 0.2, 0.5), std=(1.0, 0.5, 0.25))
    expected = torch.tensor([[[0.0, 1.0]], [[0.0, -0.4]], [[2.0, -0.4]]])
    result = transform(image)
    assert result.dtype == torch.float32
    assert torch.allclose(result, expected, atol=1e-6)


def test_the_default_scale_is_from_minus_one_to_one() -> None:
    image = Image.new("RGB", (224, 224), (0, 255, 0))
    result = ImageTransform()(image)
    assert result.shape == (3, 224, 224)
    assert result.unique().tolist() == [-1.0, 1.0]
    assert result[1].min() == 1.0


def test_size_is_width_then_height() -> None:
    result = ImageTransform((32, 12), **IDENTITY)(Image.fromarray(QUARTERS))
    assert result.shape == (3, 12, 32)
    corners = result[:, [0, 0, -1, -1], [0, -1, 0, -1]].T
    assert corners.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_an_image_of_the_right_size_is_left_alone(resize: str) -> None:
    image = Image.fromarray(QUARTERS)
    transform = ImageTransform(image.size, resize, **IDENTITY)
    assert transform.fit(image) is image
    restored = (transform(image) * 255).round().byte().permute(1, 2, 0).numpy()
    assert (restored == QUARTERS).all()


def test_squash_ignores_the_aspect_ratio() -> None:
    squashed = pixels(ImageTransform((20, 40)).fit(Image.fromarray(QUARTERS)))
    assert squashed.shape == (40, 20, 3)
    # Away from the middle, where the interpolation mixes them, the quarters keep their colours.
    assert (squashed[:16, :8] == (255, 0, 0)).all()
    assert (squashed[:16, 12:] == (0, 255, 0)).all()
    assert (squashed[24:, :8] == (0, 0, 255)).all()
    assert (squashed[24:, 12:] == (255, 255, 255)).all()


@pytest.mark.parametrize("name", INTERPOLATIONS)
def test_interpolation_is_the_named_one(name: str) -> None:
    image = noise(3)
    method = Image.Resampling[name.upper()]
    expected = pixels(image.resize((40, 20), method))
    assert (pixels(ImageTransform((40, 20), interpolation=name).fit(image)) == expected).all()


@pytest.mark.parametrize("name", INTERPOLATIONS)
@pytest.mark.parametrize("size", [(64, 48), (333, 500), (500, 333), (1300, 1100), (640, 90)])
def test_pixels_are_those_of_pillow_up_to_rounding(name: str, size: tuple[int, int]) -> None:
    image = photo_like(size)
    transform = ImageTransform((96, 80), interpolation=name)
    found = transform.pixels(image)
    assert (found.dtype, found.shape) == (torch.uint8, (3, 80, 96))
    expected = np.asarray(transform.fit(image)).astype(int).transpose(2, 0, 1)
    difference = np.abs(found.numpy().astype(int) - expected)
    assert difference.max() <= 3
    assert difference.mean() < 0.2


def test_large_images_are_resized_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    image, transform = photo_like((300, 200)), ImageTransform((96, 80))
    in_torch = transform.pixels(image)
    monkeypatch.setattr("captioner.images.transform.COPIED_PIXELS", 300 * 200 - 1)
    in_pillow = transform.pixels(image)
    assert in_pillow.permute(1, 2, 0).tolist() == pixels(transform.fit(image)).tolist()
    assert not torch.equal(in_torch, in_pillow)


def test_an_image_is_scaled_after_it_is_resized() -> None:
    image, transform = photo_like((300, 200)), ImageTransform((96, 80), mean=(0.1, 0.2, 0.3))
    assert torch.equal(transform(image), transform.scale(transform.pixels(image)))


def photo_like(size: tuple[int, int]) -> Image.Image:
    """Soft colours with some grain, and no two sizes alike."""
    soft = np.asarray(noise(5, 12, 9).resize(size, Image.Resampling.BICUBIC)).astype(int)
    grain = np.random.default_rng(6).integers(-12, 13, soft.shape)
    return Image.fromarray((soft + grain).clip(0, 255).astype(np.uint8))


def test_interpolations_differ() -> None:
    image = noise(3)
    results = {
        ImageTransform((40, 20), interpolation=name).fit(image).tobytes() for name in INTERPOLATIONS
    }
    assert len(results) == len(INTERPOLATIONS)


def test_crop_cuts_the_middle_out() -> None:
    # 64 x 48: the shorter side fits already, so the columns 8 to 55 are kept as they are.
    cropped = ImageTransform((48, 48), "crop").fit(Image.fromarray(QUARTERS))
    assert (pixels(cropped) == QUARTERS[:, 8:56]).all()


def test_crop_of_a_tall_image() -> None:
    cropped = ImageTransform((64, 16), "crop").fit(Image.fromarray(QUARTERS))
    assert (pixels(cropped) == QUARTERS[16:32]).all()


def test_pad_adds_the_mean_colour_evenly() -> None:
    transform = ImageTransform((64, 64), "pad", mean=(0.2, 0.4, 0.6))
    padded = pixels(transform.fit(Image.fromarray(QUARTERS)))
    assert (padded[8:56] == QUARTERS).all()
    assert (padded[:8] == (51, 102, 153)).all()
    assert (padded[56:] == (51, 102, 153)).all()
    # After the normalisation, the padding is zero.
    assert transform(Image.fromarray(QUARTERS))[:, :8].abs().max() < 1e-6


def test_pad_of_a_tall_image() -> None:
    turned = QUARTERS.transpose(1, 0, 2).copy()
    padded = pixels(ImageTransform((64, 64), "pad").fit(Image.fromarray(turned)))
    assert (padded[:, 8:56] == turned).all()
    assert (padded[:, :8] == 128).all()
    assert (padded[:, 56:] == 128).all()


def test_pad_shrinks_the_longer_side() -> None:
    image = noise(1, 200, 50)
    padded = pixels(ImageTransform((40, 40), "pad").fit(image))
    expected = pixels(image.resize((40, 10), Image.Resampling.BICUBIC))
    assert (padded[15:25] == expected).all()
    assert (padded[:15] == 128).all()


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_the_thinnest_images_are_seen(resize: str, size: tuple[int, int]) -> None:
    result = ImageTransform((32, 24), resize, **IDENTITY)(Image.new("RGB", size, (255, 0, 0)))
    assert result.shape == (3, 24, 32)
    is_red = (result[0] == 1) & (result[1] == 0) & (result[2] == 0)
    assert is_red.any()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16"])
def test_other_modes_are_refused(mode: str) -> None:
    with pytest.raises(CaptionerError, match=f"mode {mode} .* captioner.images.reading.to_rgb"):
        ImageTransform()(Image.new(mode, (8, 8)))


def test_round_trip_through_json() -> None:
    transform = ImageTransform((320, 240), "pad", "lanczos", (0.485, 0.456, 0.406), (0.2, 0.3, 1))
    restored = ImageTransform.from_dict(json.loads(json.dumps(transform.to_dict())))
    assert restored == transform
    assert hash(restored) == hash(transform)
    assert restored.size == (320, 240)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 224)}, r"size=\(0, 224\): give \(width, height\)"),
        ({"size": (224, 100_000)}, "from 1 to 1024"),
        ({"size": (224,)}, "size="),
        ({"size": (224.0, 224.0)}, "whole pixels"),
        ({"size": 224}, "size=224: give"),
        ({"resize": "stretch"}, "resize='stretch': choose one of squash, crop, pad"),
        ({"interpolation": "nearest"}, "choose one of bilinear, bicubic, lanczos"),
        ({"interpolation": ["bicubic"]}, "interpolation="),
        ({"mean": (0.5, 0.5)}, "mean="),
        ({"mean": (0.5, 0.5, 123.7)}, "three from 0 to 1"),
        ({"mean": ("a", "b", "c")}, "mean="),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean="),
        ({"std": (1.0, 1.0, 0.0)}, "std=.*three above 0"),
        ({"std": (1.0, 1.0, float("inf"))}, "std="),
        ({"std": 1.0}, "std=1.0"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageTransform(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": [0, 0]}, r"transform cannot be used: size=\(0, 0\)"),
        ({"crop_pct": 0.9}, "crop_pct"),
        ({"size": None}, "size=None"),
        ({"size": {"a": 1}}, "size="),
    ],
)
def test_bad_dictionaries_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(CaptionerError, match=message):
        ImageTransform.from_dict(ImageTransform().to_dict() | change)


def test_missing_values_are_named() -> None:
    with pytest.raises(CaptionerError, match="mean, resize missing"):
        ImageTransform.from_dict({"size": [8, 8], "interpolation": "bicubic", "std": [1, 1, 1]})


@pytest.mark.parametrize("value", [None, 3, "squash", [["size", [8, 8]]]])
def test_what_is_no_dictionary_is_refused(value: object) -> None:
    with pytest.raises(CaptionerError, match="image transform cannot be used"):
        ImageTransform.from_dict(value)  # type: ignore[arg-type]
