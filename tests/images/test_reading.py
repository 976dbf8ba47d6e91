"""Decoding real files: exact pixels, one reason per kind of damage."""

from __future__ import annotations

import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner.images.reading import (
    ImageError,
    read_image,
    to_rgb,
)
from helpers.images import (
    BLUE,
    HEIGHT,
    RED,
    WHITE,
    WIDTH,
    exif_with,
    noise,
    quadrants,
    stored_for_orientation,
)


def pixels_of(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def only_colour(path: Path) -> tuple[int, ...]:
    colours = np.unique(pixels_of(path).reshape(-1, 3), axis=0)
    assert len(colours) == 1
    return tuple(colours[0].tolist())


# --- reading -------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_every_exif_orientation_is_turned_upright(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    path = tmp_path / f"turned.{suffix}"
    stored = Image.fromarray(stored_for_orientation(quadrants(), orientation))
    stored.save(
        path, exif=exif_with(orientation), **({"lossless": True} if suffix == "webp" else {})
    )
    assert np.array_equal(pixels_of(path), quadrants())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("min_side", [None, 8])
def test_jpeg_orientation_with_and_without_the_small_decode(
    tmp_path: Path, orientation: int, min_side: int | None
) -> None:
    path = tmp_path / "turned.jpg"
    stored = Image.fromarray(stored_for_orientation(quadrants(), orientation))
    stored.save(path, quality=100, subsampling=0, exif=exif_with(orientation))
    image = read_image(path, min_side=min_side)
    assert image.size == ((WIDTH, HEIGHT) if min_side is None else (WIDTH // 4, HEIGHT // 4))
    expected = quadrants(*image.size).astype(int)
    assert np.abs(np.asarray(image).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "odd.png"
    Image.fromarray(quadrants()).save(path, exif=exif_with(orientation))
    assert np.array_equal(pixels_of(path), quadrants())


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\xff\xff", b"Exif\0\0"])
def test_damaged_exif_is_no_reason_to_refuse_an_image(tmp_path: Path, exif: bytes) -> None:
    path = tmp_path / "exif.jpg"
    Image.fromarray(quadrants()).save(path, quality=100, subsampling=0, exif=exif)
    assert np.abs(pixels_of(path).astype(int) - quadrants()).max() <= 2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.png", {}),
        ("x.bmp", {}),
        ("x.ppm", {}),
        ("x.tif", {}),
        ("lzw.tif", {"compression": "tiff_lzw"}),
        ("x.webp", {"lossless": True}),
        ("x.gif", {}),
        ("wrong-suffix.jpg", {"format": "PNG"}),
        ("no-suffix", {"format": "PNG"}),
        ("with space äöü 日本.png", {}),
    ],
)
def test_lossless_files_give_their_pixels(tmp_path: Path, name: str, options: dict) -> None:
    Image.fromarray(quadrants()).save(tmp_path / name, **options)
    assert np.array_equal(pixels_of(tmp_path / name), quadrants())


@pytest.mark.parametrize("name", ["x.jpg", "progressive.jpg", "x.avif", "x.mpo"])
def test_lossy_files_come_close(tmp_path: Path, name: str) -> None:
    options = {"quality": 100, "subsampling": "4:4:4"} if name != "x.mpo" else {"quality": 95}
    if name == "progressive.jpg":
        options["progressive"] = True
    Image.fromarray(quadrants()).save(tmp_path / name, **options)
    assert np.abs(pixels_of(tmp_path / name).astype(int) - quadrants())[4:20, 4:28].max() <= 4


def test_cmyk_white_is_white_and_black_is_black(tmp_path: Path) -> None:
    for name, ink, expected in [
        ("white", (0, 0, 0, 0), (255, 255, 255)),
        ("black", (0, 0, 0, 255), (0, 0, 0)),
        ("cyan", (255, 0, 0, 0), (0, 255, 255)),
    ]:
        for suffix in ("jpg", "tif"):
            path = tmp_path / f"{name}.{suffix}"
            Image.new("CMYK", (16, 16), ink).save(path)
            assert np.abs(np.subtract(only_colour(path), expected)).max() <= 1, (name, suffix)


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.pgm"])
def test_16_bit_grey_is_scaled_and_not_cut(tmp_path: Path, name: str) -> None:
    values = np.array([[0, 128, 129, 257, 1000, 32767, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    grey = pixels_of(tmp_path / name)[0]
    # round(v / 257)
    assert grey[:, 0].tolist() == [0, 0, 1, 1, 4, 127, 128, 255]
    assert (grey[:, 1] == grey[:, 0]).all()
    assert (grey[:, 2] == grey[:, 0]).all()


def test_a_dark_16_bit_pgm_stays_dark(tmp_path: Path) -> None:
    (tmp_path / "dark.pgm").write_bytes(b"P5 2 1 65535\n" + struct.pack(">2H", 0, 255))
    assert pixels_of(tmp_path / "dark.pgm")[0, :, 0].tolist() == [0, 1]


def test_16_bit_big_endian_tiff(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 32768, 65535]], ">u2")).save(tmp_path / "be.tif")
    assert pixels_of(tmp_path / "be.tif")[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.25, 1.0]], np.float32), [0, 64, 255]),
        (np.array([[0.0, 64.0, 255.0]], np.float32), [0, 64, 255]),
        (np.array([[0.0, 32768.0, 65535.0]], np.float32), [0, 128, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[np.nan, 0.5, np.inf, 1.0]], np.float32), [128, 128, 128, 255]),
        (np.array([[7e9, 7e9]], np.float32), [0, 0]),
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[0, 25700, 65535]], np.int32), [0, 100, 255]),
        (np.array([[0, 500_000, 1_000_000]], np.int32), [0, 128, 255]),
    ],
)
def test_deep_tiffs_are_brought_to_8_bits(
    tmp_path: Path, values: np.ndarray, expected: list[int]
) -> None:
    Image.fromarray(values).save(tmp_path / "deep.tif")
    assert pixels_of(tmp_path / "deep.tif")[0, :, 0].tolist() == expected


def test_one_bit_images(tmp_path: Path) -> None:
    bits = Image.fromarray(np.array([[0, 255, 255, 0]], np.uint8)).convert("1")
    for name, options in [
        ("x.png", {}),
        ("x.pbm", {}),
        ("x.bmp", {}),
        ("x.tif", {"compression": "group4"}),
    ]:
        bits.save(tmp_path / name, **options)
        assert pixels_of(tmp_path / name)[0].tolist() == [[0] * 3, [255] * 3, [255] * 3, [0] * 3]


def test_palette_images(tmp_path: Path) -> None:
    for name in ("x.png", "x.gif", "x.bmp", "x.tif"):
        Image.fromarray(quadrants()).quantize(4).save(tmp_path / name)
        assert np.array_equal(pixels_of(tmp_path / name), quadrants()), name


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
@pytest.mark.parametrize(("alpha", "expected"), [(0, WHITE), (128, (255, 127, 127)), (255, RED)])
def test_transparency_is_laid_over_white(
    tmp_path: Path, suffix: str, alpha: int, expected: tuple[int, ...]
) -> None:
    path = tmp_path / f"x.{suffix}"
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    Image.new("RGBA", (8, 8), (*RED, alpha)).save(path, **options)
    assert only_colour(path) == expected


def test_grey_with_transparency(tmp_path: Path) -> None:
    Image.new("LA", (8, 8), (0, 128)).save(tmp_path / "x.png")
    assert only_colour(tmp_path / "x.png") == (127, 127, 127)


def test_transparent_palette_entries_and_colours(tmp_path: Path) -> None:
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:, 4:] = BLUE
    expected = stripes.copy()
    expected[:, :4] = WHITE  # Black is what is transparent below.
    coloured = Image.fromarray(stripes)
    palette = coloured.quantize(2)
    black = palette.getpixel((0, 0))
    palette.save(tmp_path / "entry.png", transparency=black)
    palette.save(tmp_path / "x.gif", transparency=black)
    coloured.save(tmp_path / "colour.png", transparency=(0, 0, 0))
    for name in ("entry.png", "x.gif", "colour.png"):
        assert np.array_equal(pixels_of(tmp_path / name), expected), name
    Image.new("L", (4, 4), 9).save(tmp_path / "grey.png", transparency=9)
    assert only_colour(tmp_path / "grey.png") == WHITE


def test_half_transparent_palette_entries(tmp_path: Path) -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, *RED])
    palette.save(tmp_path / "x.png", transparency=bytes([0, 128]))
    assert only_colour(tmp_path / "x.png") == (255, 127, 127)


@pytest.mark.parametrize("name", ["x.gif", "x.png", "x.webp", "x.tif", "x.avif"])
def test_the_first_frame_of_animations(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, BLUE, WHITE)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=100)
    with Image.open(tmp_path / name) as image:
        assert image.n_frames == 3
    assert np.abs(pixels_of(tmp_path / name).astype(int) - RED).max() <= 4


def test_a_gif_cut_in_its_second_frame_still_has_its_first(tmp_path: Path) -> None:
    noise(0).save(tmp_path / "x.gif", save_all=True, append_images=[noise(1)])
    data = (tmp_path / "x.gif").read_bytes()
    whole = pixels_of(tmp_path / "x.gif")
    (tmp_path / "x.gif").write_bytes(data[: len(data) * 4 // 5])
    assert np.array_equal(pixels_of(tmp_path / "x.gif"), whole)


@pytest.mark.parametrize(
    ("min_side", "expected"),
    [
        (None, (2000, 1504)),
        (1504, (2000, 1504)),
        (752, (1000, 752)),
        (753, (2000, 1504)),
        (224, (500, 376)),
        (1, (250, 188)),
    ],
)
def test_a_large_jpeg_is_decoded_no_larger_than_needed(
    tmp_path: Path, min_side: int | None, expected: tuple[int, int]
) -> None:
    noise(0, 2000, 1504).save(tmp_path / "x.jpg")
    assert read_image(tmp_path / "x.jpg", min_side=min_side).size == expected


def test_other_formats_ignore_min_side(tmp_path: Path) -> None:
    noise(0, 512, 512).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png", min_side=32).size == (512, 512)


REASONS = {
    "truncated jpg": "truncated file",
    "truncated png": "truncated file",
    "truncated gif": "truncated file",
    "truncated webp": "damaged file (could not create decoder object)",
    "truncated bmp": "truncated file",
    "truncated tif": "truncated file",
    "truncated ppm": "truncated file",
    "truncated avif": "truncated file",
    "empty": "empty file",
    "zeros": "zero bytes and not the image: copy or download it again",
    "text": "not an image Pillow can read",
    "html": "a web page and not the image: download it again",
    "pdf": "PDF is not supported: convert it to JPEG",
    "heic": "damaged HEIC",
}


def test_every_bad_file_has_its_reason(bad_files: dict[str, Path]) -> None:
    reasons = {}
    for kind, path in bad_files.items():
        with pytest.raises(ImageError) as caught:
            read_image(path)
        # What libheif says in brackets is not the same in all its versions.
        reasons[kind] = (
            caught.value.reason.split(" (")[0] if kind == "heic" else caught.value.reason
        )
        assert str(caught.value) == f"{path}: {caught.value.reason}"
        assert caught.value.path == path
    assert reasons == REASONS


def test_a_truncated_jpeg_is_refused_when_decoded_small_as_well(tmp_path: Path) -> None:
    noise(0, 1024, 1024).save(tmp_path / "x.jpg")
    data = (tmp_path / "x.jpg").read_bytes()
    (tmp_path / "x.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match="truncated file"):
        read_image(tmp_path / "x.jpg", min_side=64)


@pytest.mark.parametrize("kind", ["a named pipe", "a folder", "a device", "a socket"])
def test_what_is_no_regular_file_is_refused_without_opening(
    special_files: dict[str, Path], kind: str
) -> None:
    errors: list[ImageError] = []

    def read() -> None:
        try:
            read_image(special_files[kind])
        except ImageError as error:
            errors.append(error)

    # In a thread: opening a pipe would block for ever.
    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(timeout=10)
    assert [error.reason for error in errors] == [f"{kind}, not a regular file"]


def test_missing_and_looping_paths(special_files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="file not found"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match="too many levels of symbolic links"):
        read_image(tmp_path / "loop.jpg")
    with pytest.raises(ImageError, match="not a directory"):
        read_image(Path(__file__) / "x.jpg")


def test_permission_denied(shared_folder: Path, without_privileges) -> None:
    noise().save(shared_folder / "x.png")
    (shared_folder / "x.png").chmod(0)
    (shared_folder / "closed").mkdir(mode=0o700)
    (shared_folder / "closed").chmod(0o000)
    with without_privileges():
        with pytest.raises(ImageError) as caught:
            read_image(shared_folder / "x.png")
        assert caught.value.reason == "permission denied"
        with pytest.raises(ImageError) as caught:
            read_image(shared_folder / "closed")
        assert caught.value.reason == "permission denied"


def test_too_many_pixels(tmp_path: Path) -> None:
    noise().save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png", max_pixels=WIDTH * HEIGHT).size == (WIDTH, HEIGHT)
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "x.png", max_pixels=WIDTH * HEIGHT - 1)
    assert caught.value.reason == "64 x 48 pixels are too many (limit 3071)"


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("width", [178_001, 1_000_000])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path, width: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(width, 1000))
    with pytest.raises(ImageError, match="too many"):
        read_image(tmp_path / "bomb.png")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "tif", "webp", "bmp", "ppm"])
def test_any_flipped_bytes_give_an_image_or_an_image_error(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"whole.{suffix}"
    noise(3, 24, 16).save(whole)
    data = whole.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        for at in rng.integers(0, min(len(data), 200), 4):
            damaged[at] = rng.integers(0, 256)
        whole.write_bytes(damaged)
        try:
            assert read_image(whole, max_pixels=10**7).mode == "RGB"
        except ImageError as error:
            assert error.reason
            refused += 1
    assert refused > 0


# --- in memory -----------------------------------------------------------------------------


def test_arrays() -> None:
    quarters = quadrants()
    alpha = np.dstack([quarters, np.full((HEIGHT, WIDTH), 255, np.uint8)])
    for array in (
        quarters,
        alpha,
        quarters.astype(np.uint16) * 257,
        (quarters / 255).astype(np.float32),
        (quarters / 255).astype(np.float64),
        np.asfortranarray(quarters),
    ):
        assert np.array_equal(np.asarray(to_rgb(array)), quarters)
    clear = alpha.copy()
    clear[..., 3] = 0
    assert np.asarray(to_rgb(clear)).min() == 255
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for array in (grey, grey[..., None]):
        assert np.array_equal(np.asarray(to_rgb(array)), np.stack([grey] * 3, axis=-1))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((3, 8, 9), np.uint8),
            r"shape \(3, 8, 9\) is not \(H, W\), .*channels come last: array.transpose\(1, 2, 0\)",
        ),
        (np.zeros((2, 8, 9, 3), np.uint8), r"shape \(2, 8, 9, 3\) is not"),
        (np.zeros(5, np.uint8), r"shape \(5,\) is not"),
        (np.zeros((0, 4, 3), np.uint8), "has no pixels"),
        (np.full((2, 2), 200.0), r"from 200.0 to 200.0 is not in \[0, 1\]: divide it by 255"),
        (np.full((2, 2), np.nan), r"is not in \[0, 1\]"),
        (np.zeros((2, 2), np.int64), "an array of int64 is not uint8"),
        (np.zeros((2, 2), bool), "an array of bool is not uint8"),
        ("photo.jpg", "a str is not an image"),
        (None, "a NoneType is not an image"),
    ],
)
def test_what_is_no_image_in_memory(array: object, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        to_rgb(array)  # type: ignore[arg-type]
    assert caught.value.path is None


def test_an_open_image_is_treated_as_its_file(tmp_path: Path) -> None:
    path = tmp_path / "turned.png"
    stored = Image.fromarray(stored_for_orientation(quadrants(), 6))
    stored.save(path, exif=exif_with(6))
    with Image.open(path) as image:
        upright = to_rgb(image)
    # The file is closed: the pixels are there.
    assert np.array_equal(np.asarray(upright), quadrants())


def test_an_open_truncated_image_is_an_image_error(bad_files: dict[str, Path]) -> None:
    with Image.open(bad_files["truncated jpg"]) as image, pytest.raises(ImageError) as caught:
        to_rgb(image)
    assert caught.value.reason == "truncated file"


def test_the_callers_image_is_not_touched() -> None:
    image = Image.new("RGB", (4, 4), RED)
    result = to_rgb(image)
    result.putpixel((0, 0), BLUE)
    assert image.getpixel((0, 0)) == RED
