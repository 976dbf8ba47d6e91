"""Finding and decoding real files: exact pixels, exact names, one reason per kind of damage."""

from __future__ import annotations

import os
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import (
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
from PIL import Image

from captioner.errors import CaptionerError
from captioner.finding import SourceFile, printable
from captioner.images import (
    IMAGES,
    ImageError,
    find_images,
    read_image,
    to_rgb,
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
def test_damaged_exif_is_no_reason_to_refuse_a_picture(tmp_path: Path, exif: bytes) -> None:
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
    "zeros": "not an image Pillow can read",
    "text": "not an image Pillow can read",
    "html": "not an image Pillow can read",
    "pdf": "not an image Pillow can read",
    "heic": "HEIC is not supported: convert it to JPEG",
}


def test_every_bad_file_has_its_reason(bad_files: dict[str, Path]) -> None:
    reasons = {}
    for kind, path in bad_files.items():
        with pytest.raises(ImageError) as caught:
            read_image(path)
        reasons[kind] = caught.value.reason
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
def test_any_flipped_bytes_give_a_picture_or_an_image_error(tmp_path: Path, suffix: str) -> None:
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


# --- finding -------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of empty files: finding does not open them. The tests run inside."""
    for name in [
        "2023/a.jpg",
        "2023/b.PNG",
        "2023/notes.txt",
        "2023/.hidden.jpg",
        "2023/._a.jpg",
        "2023/.thumbs/a.jpg",
        "2023/paris/a.jpg",
        "2023/paris/z.webp",
        "2024/a.jpg",
        "2024/raw.dat",
        "empty/readme.txt",
        "odd[1]/x.gif",
        "odd1/y.gif",
        "top.tiff",
    ]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*paths: str | Path) -> list[str]:
    return [file.name for file in find_images(paths)]


def test_a_folder_is_searched_with_its_subfolders_in_the_order_of_the_names(tree: Path) -> None:
    assert list(find_images("2023")) == [
        SourceFile(Path("2023/a.jpg"), "a.jpg", Path("2023")),
        SourceFile(Path("2023/b.PNG"), "b.PNG", Path("2023")),
        SourceFile(Path("2023/paris/a.jpg"), "paris/a.jpg", Path("2023")),
        SourceFile(Path("2023/paris/z.webp"), "paris/z.webp", Path("2023")),
    ]
    assert names(tree / "2023") == names("2023/")


def test_a_file_is_taken_whatever_its_suffix(tree: Path) -> None:
    assert list(find_images(Path("2023/notes.txt"))) == [
        SourceFile(Path("2023/notes.txt"), "notes.txt", None)
    ]
    assert names("2023/.hidden.jpg") == [".hidden.jpg"]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        # Equal names in two folders.
        (
            ["2023", "2024"],
            ["2023/a.jpg", "2023/b.PNG", "2023/paris/a.jpg", "2023/paris/z.webp", "2024/a.jpg"],
        ),
        (["2023/a.jpg", "2024/a.jpg"], ["2023/a.jpg", "2024/a.jpg"]),
        # One folder, as a shell gives its files.
        (["2023/a.jpg", "2023/b.PNG"], ["a.jpg", "b.PNG"]),
        # A folder and something beside it.
        (["2024", "top.tiff"], ["2024/a.jpg", "top.tiff"]),
        # One folder inside the other.
        (["2023/paris", "2023"], ["paris/a.jpg", "paris/z.webp", "a.jpg", "b.PNG"]),
        (["2023", "2023/paris"], ["a.jpg", "b.PNG", "paris/a.jpg", "paris/z.webp"]),
    ],
)
def test_names_are_relative_to_the_folder_that_holds_everything_given(
    tree: Path, paths: list[str], expected: list[str]
) -> None:
    assert names(*paths) == expected


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["2023", "2023"], ["a.jpg", "b.PNG", "paris/a.jpg", "paris/z.webp"]),
        (["2023/b.PNG", "2023/b.PNG"], ["b.PNG"]),
        (["2023/b.PNG", "2023"], ["b.PNG", "a.jpg", "paris/a.jpg", "paris/z.webp"]),
        (["2023", "2023/paris/a.jpg"], ["a.jpg", "b.PNG", "paris/a.jpg", "paris/z.webp"]),
        (
            ["2023", "2023/notes.txt"],
            ["a.jpg", "b.PNG", "paris/a.jpg", "paris/z.webp", "notes.txt"],
        ),
        (["2023/*.jpg", "2023"], ["a.jpg", "b.PNG", "paris/a.jpg", "paris/z.webp"]),
        (["2023", "2023/**/*.jpg"], ["a.jpg", "b.PNG", "paris/a.jpg", "paris/z.webp"]),
        (["2023/**/a.jpg", "2023/*.jpg"], ["a.jpg", "paris/a.jpg"]),
        (["2023/*.jpg", "2023/a.jpg"], ["a.jpg"]),
        (["2023/../2023/a.jpg", "2023"], ["a.jpg", "b.PNG", "paris/a.jpg", "paris/z.webp"]),
    ],
)
def test_a_file_that_several_paths_lead_to_is_listed_once(
    tree: Path, paths: list[str], expected: list[str]
) -> None:
    assert names(*paths) == expected
    absolute = [str(tree / path) if index else path for index, path in enumerate(paths)]
    assert names(*absolute) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("2023/*.jpg", ["a.jpg"]),
        ("2023/*", ["a.jpg", "b.PNG"]),
        ("2023/?.PNG", ["b.PNG"]),
        ("2023/[a-b].*", ["a.jpg", "b.PNG"]),
        ("2024/*.dat", ["raw.dat"]),
        ("2023/.*.jpg", ["._a.jpg", ".hidden.jpg"]),
        ("20*/a.jpg", ["2023/a.jpg", "2024/a.jpg"]),
        ("**/a.jpg", ["2023/a.jpg", "2023/paris/a.jpg", "2024/a.jpg"]),
        ("2023/**", ["a.jpg", "b.PNG", "paris/a.jpg", "paris/z.webp"]),
        ("**/paris/*.webp", ["2023/paris/z.webp"]),
        ("**/**/z.*", ["2023/paris/z.webp"]),
        ("odd[1-2]/*", ["odd1/y.gif"]),
        # A folder's real name comes before what it means as a pattern.
        ("odd[1]", ["x.gif"]),
        ("odd[1]/*", ["x.gif"]),
        ("odd[[]1]/*", ["odd[1]/x.gif"]),
    ],
)
def test_patterns(tree: Path, pattern: str, expected: list[str]) -> None:
    assert names(pattern) == expected


def test_the_name_of_a_pattern_starts_behind_its_fixed_folders(tree: Path) -> None:
    (file,) = find_images(["2023/par*/z.webp"])
    assert file == SourceFile(Path("2023/paris/z.webp"), "paris/z.webp", Path("2023"))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["nowhere"], "nowhere does not exist: check the path"),
        (["2023", "nowhere/x.jpg"], "nowhere/x.jpg does not exist"),
        (["top.tiff/x.jpg"], "top.tiff/x.jpg does not exist"),
        (["empty"], r"empty holds no image files \(\.jpg \.jpeg"),
        (["2023", "empty"], "empty holds no image files"),
        (["odd[1]/gone.jpg"], r"odd\[1\]/gone\.jpg matches no image files"),
        (["2023/*.gif"], r"2023/\*\.gif matches no image files"),
        (["nowhere/*.gif"], r"nowhere/\*\.gif matches nothing: nowhere is not a folder"),
        (["*/../2023/a.jpg"], r"'\.\.' after a wildcard"),
        ([""], "'' is not a path"),
        (["a\0b"], "is not a path"),
        ([], "no images given"),
    ],
)
def test_mistakes_are_told_before_anything_is_listed(
    tree: Path, paths: list[str], message: str
) -> None:
    with pytest.raises(CaptionerError, match=message):
        find_images(paths)


def test_a_link_to_nothing(tree: Path) -> None:
    Path("2024/dead.jpg").symlink_to("gone.jpg")
    with pytest.raises(CaptionerError, match=r"2024/dead\.jpg is a link to nothing"):
        find_images("2024/dead.jpg")
    # In a folder it is a bad file among others, and not passed over.
    assert names("2024") == ["a.jpg", "dead.jpg"]


def test_links_to_folders_are_followed_once_and_never_in_circles(tree: Path) -> None:
    Path("2023/again").symlink_to(".")
    Path("2023/up").symlink_to("..")
    Path("2023/zz").symlink_to("../2024")
    Path("2024/back").symlink_to("../2023")
    Path("2024/twice").symlink_to("../2023")
    Path("2024/self").symlink_to("self")
    assert names("2024") == [
        "a.jpg",
        "back/a.jpg",
        "back/b.PNG",
        "back/paris/a.jpg",
        "back/paris/z.webp",
    ]
    assert names("2023") == ["a.jpg", "b.PNG", "paris/a.jpg", "paris/z.webp", "zz/a.jpg"]
    assert names("2023/**/a.jpg") == ["a.jpg", "paris/a.jpg", "zz/a.jpg"]


def test_a_link_to_a_file_named_as_well_is_the_same_file(tree: Path) -> None:
    Path("2024/link.jpg").symlink_to("../2023/a.jpg")
    assert names("2024") == ["a.jpg", "link.jpg"]
    assert names("2023/a.jpg", "2024") == ["2023/a.jpg", "2024/a.jpg"]
    assert names("2023/a.jpg", "2024/link.jpg") == ["2023/a.jpg"]


def test_special_files_in_a_folder_are_listed_to_be_refused(tree: Path) -> None:
    os.mkfifo("2024/pipe.jpg")
    Path("2024/folder.jpg").mkdir()
    assert names("2024") == ["a.jpg", "pipe.jpg"]


def test_a_folder_that_cannot_be_read(shared_folder: Path, without_privileges) -> None:
    (shared_folder / "a.jpg").touch()
    (shared_folder / "closed").mkdir()
    (shared_folder / "closed" / "b.jpg").touch()
    (shared_folder / "closed").chmod(0)
    with without_privileges():
        with pytest.raises(CaptionerError, match="closed cannot be read: permission denied"):
            find_images(shared_folder / "closed")
        # Below a folder it is listed, so that reading it gives an error record.
        assert names(shared_folder) == ["a.jpg", "closed"]


def test_folders_are_listed_only_when_they_are_reached(tree: Path) -> None:
    files = find_images(["2023", "2024"])
    assert next(files).name == "2023/a.jpg"
    Path("2024/late.jpg").touch()
    assert [file.name for file in files][-1] == "2024/late.jpg"


def test_names_that_are_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.fsencode(tmp_path) + b"/gr\xfcn\xff.png"
    noise().save(tmp_path / "x.png")
    os.rename(tmp_path / "x.png", path)
    (file,) = find_images(tmp_path)
    assert file.name == "gr\\xfcn\\xff.png"
    assert file.name.encode("utf-8")
    assert read_image(file.path).size == (WIDTH, HEIGHT)
    assert printable(os.fsdecode(path)) == f"{tmp_path}/gr\\xfcn\\xff.png"
    file.path.write_bytes(b"")
    with pytest.raises(ImageError) as caught:
        read_image(file.path)
    assert str(caught.value).encode("utf-8").endswith(b"gr\\xfcn\\xff.png: empty file")


def test_heic_is_listed_to_be_refused_and_text_is_not() -> None:
    assert ".heic" in IMAGES.suffixes
    assert ".jpg" in IMAGES.suffixes
    assert ".txt" not in IMAGES.suffixes
