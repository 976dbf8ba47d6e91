"""TIFF files whose samples Pillow misreads: exact pixels of files made bit by bit."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner.images import tiff_layout, tiff_samples
from captioner.images.reading import ImageError, read_image
from helpers.icc import PROPHOTO, rgb_profile
from helpers.images import exif_with

PHOTO = Path(__file__).parents[2] / "data" / "examples" / "cat.jpg"
WIDTH, HEIGHT = 41, 30


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A small photo, uint8 (HEIGHT, WIDTH, 3)."""
    return np.asarray(read_image(PHOTO).resize((WIDTH, HEIGHT)))


def packed(values: np.ndarray, bits: int) -> bytes:
    """Whole numbers (rows, samples of a row), each row filled up to whole bytes."""
    places = np.arange(bits - 1, -1, -1)
    flags = (values[..., None].astype(np.uint32) >> places & 1).astype(np.uint8)
    return np.packbits(flags.reshape(len(values), -1), axis=1).tobytes()


def write(
    path: Path,
    rows: list[bytes] | bytes,
    *,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    order: str = "<",
    **tags: int | tuple[int, ...] | bytes,
) -> Path:
    """A TIFF of these strips; tags by number, as ``t258=12``; shorts, or bytes as they are."""
    strips = [rows] if isinstance(rows, bytes) else rows
    values = {256: size[0], 257: size[1], 258: 1, 259: 1, 262: 1, 277: 1, 278: size[1]}
    values |= {int(name[1:]): value for name, value in tags.items()}
    start = 8 + 2 + 12 * (len(values) + 2) + 4
    blob, offsets = b"", []
    for strip in strips:
        offsets.append(start + len(blob))
        blob += strip
    entries: dict[int, tuple[int, int, bytes]] = {
        273: (4, len(strips), struct.pack(f"{order}{len(strips)}I", *offsets)),
        279: (4, len(strips), struct.pack(f"{order}{len(strips)}I", *map(len, strips))),
    }
    for tag, value in values.items():
        if isinstance(value, bytes):
            entries[tag] = (7, len(value), value)
        else:
            several = value if isinstance(value, tuple) else (value,)
            entries[tag] = (3, len(several), struct.pack(f"{order}{len(several)}H", *several))
    fields = b""
    for tag, (kind, count, data) in sorted(entries.items()):
        if len(data) > 4:
            data, blob = struct.pack(f"{order}I", start + len(blob)), blob + data
        fields += struct.pack(f"{order}HHI", tag, kind, count) + data.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    path.write_bytes(head + struct.pack(f"{order}H", len(entries)) + fields + bytes(4) + blob)
    return path


def pixels(path: Path) -> np.ndarray:
    return np.asarray(read_image(path)).astype(int)


def deep(levels: np.ndarray, bits: int) -> np.ndarray:
    return np.rint(levels.astype(float) * (2**bits - 1) / 255).astype(np.uint32)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("bits", [3, 6, 9, 10, 11, 12, 13, 14, 15, 16])
def test_grey_of_any_number_of_bits(
    tmp_path: Path, photo: np.ndarray, bits: int, white_is_zero: bool, order: str
) -> None:
    values = deep(photo[..., 1], bits)
    if white_is_zero:
        values = 2**bits - 1 - values
    data = values.astype(f"{order}u2").tobytes() if bits == 16 else packed(values, bits)
    path = write(tmp_path / "x.tif", data, order=order, t258=bits, t262=0 if white_is_zero else 1)
    found = pixels(path)
    most = 0 if bits > 8 else 255 / (2**bits - 1) / 2 + 0.5
    assert np.abs(found - photo[..., 1:2].astype(int)).max() <= most


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("strip_rows", [HEIGHT, 7])
@pytest.mark.parametrize("inflated", [False, True])
def test_planes_of_16_bits_are_the_image_of_chunks(
    tmp_path: Path, photo: np.ndarray, order: str, strip_rows: int, inflated: bool
) -> None:
    values = (photo.astype(np.uint16) * 257).astype(f"{order}u2")
    chunks = write(
        tmp_path / "chunks.tif", values.tobytes(), order=order,
        t258=(16, 16, 16), t262=2, t277=3,
    )  # fmt: skip
    strips = [
        values[top : top + strip_rows, :, plane].tobytes()
        for plane in range(3)
        for top in range(0, HEIGHT, strip_rows)
    ]
    planes = write(
        tmp_path / "planes.tif", [zlib.compress(each) for each in strips] if inflated else strips,
        order=order, t258=(16, 16, 16), t259=8 if inflated else 1, t262=2, t277=3, t284=2,
        t278=strip_rows,
    )  # fmt: skip
    assert np.array_equal(pixels(planes), photo)
    assert np.array_equal(pixels(chunks), photo)


@pytest.mark.parametrize("kind", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("top", [1.0, 255.0])
def test_half_full_and_double_floating_numbers(
    tmp_path: Path, photo: np.ndarray, kind: str, colours: int, top: float
) -> None:
    levels = photo[..., :colours].copy()
    levels[0, 0] = 255
    values = (levels / 255 * top).astype(kind)
    path = write(
        tmp_path / "x.tif", values.tobytes(), order=kind[0], t258=(8 * values.itemsize,) * colours,
        t262=2 if colours == 3 else 1, t277=colours, t339=(3,) * colours,
    )  # fmt: skip
    assert np.abs(pixels(path) - levels).max() <= (kind[1:] == "f2")


def test_numbers_that_are_none_and_a_range_of_their_own(tmp_path: Path) -> None:
    values = np.array([[np.nan, -2.0, 0.0, 2.0, np.inf]], np.float16)
    path = write(tmp_path / "x.tif", values.tobytes(), size=(5, 1), t258=16, t339=3)
    assert pixels(path)[0, :, 0].tolist() == [0, 0, 128, 255, 0]
    path = write(tmp_path / "y.tif", values.tobytes(), size=(5, 1), t258=16, t339=3, t262=0)
    assert pixels(path)[0, :, 0].tolist() == [255, 255, 127, 0, 255]


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("alpha", [1, 2])
@pytest.mark.parametrize("colours", [1, 3])
def test_16_bits_with_alpha_over_white(
    tmp_path: Path, photo: np.ndarray, colours: int, alpha: int, planar: bool
) -> None:
    levels, share = photo[..., :colours] / 255, photo[..., 2:] / 255
    stored = np.concatenate([levels * share if alpha == 1 else levels, share], axis=-1)
    values = np.rint(stored * 65535).astype("<u2")
    data = [values[..., i].tobytes() for i in range(colours + 1)] if planar else values.tobytes()
    path = write(
        tmp_path / "x.tif", data, t258=(16,) * (colours + 1), t262=2 if colours == 3 else 1,
        t277=colours + 1, t338=alpha, t284=2 if planar else 1,
    )  # fmt: skip
    expected = 255 * (levels * share + 1 - share)
    most = 2 if alpha == 2 else 6  # divided by a small alpha, a level is many
    assert np.abs(pixels(path) - expected).max() <= most


def test_inks_of_16_bits_in_planes(tmp_path: Path) -> None:
    inks = np.array([[[65535, 0, 0, 0], [0, 0, 0, 65535], [0, 0, 0, 0]]], "<u2")
    path = write(
        tmp_path / "x.tif", [inks[..., i].tobytes() for i in range(4)], size=(3, 1),
        t258=(16,) * 4, t262=5, t277=4, t284=2,
    )  # fmt: skip
    assert pixels(path)[0].tolist() == [[0, 255, 255], [0, 0, 0], [255, 255, 255]]


def test_alpha_of_signed_numbers(tmp_path: Path) -> None:
    values = np.array([[[0, 127], [127, 127], [0, 0], [0, 64]]], np.int8)
    path = write(
        tmp_path / "x.tif", values.tobytes(), size=(4, 1), t258=(8, 8), t277=2, t338=2, t339=(2, 2)
    )
    assert pixels(path)[0, :, 0].tolist() == [0, 127, 255, 126]


def test_the_long_form_of_big_endian_files(tmp_path: Path) -> None:
    entries = {256: 3, 257: 1, 258: 16, 259: 1, 262: 1, 273: 16, 277: 1, 278: 1, 279: 6}
    fields = b"".join(
        struct.pack(">HHQHxxxxxx", tag, 3, 1, value) for tag, value in entries.items()
    )
    head = struct.pack(">2sHHHQ", b"MM", 43, 8, 0, 24)
    levels = struct.pack(">3H", 0, 128 * 257, 65535)
    path = tmp_path / "x.tif"
    path.write_bytes(head + levels + bytes(2) + struct.pack(">Q", len(entries)) + fields + bytes(8))
    assert pixels(path)[0, :, 0].tolist() == [0, 128, 255]


def test_signed_bytes_and_32_bits(tmp_path: Path) -> None:
    values = np.array([[-128, -1, 127]], np.int8)
    path = write(tmp_path / "x.tif", values.tobytes(), size=(3, 1), t258=8, t339=2)
    assert pixels(path)[0, :, 0].tolist() == [0, 127, 255]
    whole = np.array([[0, 2**31, 2**32 - 1]], "<u4")
    path = write(tmp_path / "y.tif", whole.tobytes(), size=(3, 1), t258=32)
    assert pixels(path)[0, :, 0].tolist() == [0, 128, 255]


def test_bits_in_the_other_order(tmp_path: Path) -> None:
    values = np.array([[0, 4095, 2048, 16]])
    mirrored = bytes(int(f"{byte:08b}"[::-1], 2) for byte in packed(values, 12))
    path = write(tmp_path / "x.tif", mirrored, size=(4, 1), t258=12, t266=2)
    assert pixels(path)[0, :, 0].tolist() == [0, 255, 128, 1]


def test_differences_of_16_bits_and_of_floating_numbers(tmp_path: Path, photo: np.ndarray) -> None:
    values = photo.astype("<u2") * 257
    steps = np.diff(values, axis=1, prepend=np.zeros((HEIGHT, 1, 3), "<u2")).astype("<u2")
    planes = [zlib.compress(steps[..., i].tobytes()) for i in range(3)]
    # In a plane the neighbour is a sample further, whatever the number of planes.
    path = write(tmp_path / "x.tif", planes, t258=(16,) * 3, t259=8, t262=2, t277=3, t284=2, t317=2)
    assert np.array_equal(pixels(path), photo)
    levels = photo.copy()
    levels[0, 0] = 255
    numbers = (levels / 255).astype(">f2").reshape(HEIGHT, -1)
    by_place = numbers.view(np.uint8).reshape(HEIGHT, -1, 2).transpose(0, 2, 1)
    by_place = by_place.reshape(HEIGHT, -1, 3)
    steps = np.diff(by_place, axis=1, prepend=np.zeros((HEIGHT, 1, 3), np.uint8))
    path = write(
        tmp_path / "y.tif", zlib.compress(steps.astype(np.uint8).tobytes()), t258=(16,) * 3,
        t259=8, t262=2, t277=3, t317=3, t339=(3,) * 3,
    )  # fmt: skip
    assert np.abs(pixels(path) - levels).max() <= 1


def test_orientation_and_profile(tmp_path: Path, photo: np.ndarray) -> None:
    values = photo.astype("<u2") * 257
    planes = [values[..., i].tobytes() for i in range(3)]
    stamp = rgb_profile(PROPHOTO, 1.8)
    path = write(
        tmp_path / "x.tif", planes, t258=(16,) * 3, t262=2, t277=3, t284=2, t274=6, t34675=stamp
    )
    Image.fromarray(photo).save(tmp_path / "x.png", icc_profile=stamp, exif=exif_with(6))
    found = pixels(path)
    assert found.shape == (WIDTH, HEIGHT, 3)
    assert np.array_equal(found, pixels(tmp_path / "x.png"))


def reason(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(path)
    return caught.value.reason


def test_what_is_damaged_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.zeros((HEIGHT, WIDTH), "<f2").tobytes()
    path = write(tmp_path / "cut.tif", values[:-100], t258=16, t339=3, t279=len(values))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 200])
    assert reason(path) == "truncated file"
    garbage = write(tmp_path / "x.tif", b"garbage", t258=16, t339=3, t259=8)
    assert reason(garbage).startswith("damaged file (decoder error")
    monkeypatch.setattr(tiff_samples, "MAX_PART_BYTES", len(values) - 1)
    large = write(tmp_path / "y.tif", zlib.compress(values), t258=16, t339=3, t259=8)
    assert reason(large) == f"damaged file (a strip or tile of {len(values)} bytes)"


def test_too_many_pixels_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", b"", size=(65535, 65535), t258=16, t339=3)
    assert reason(path) == "65535 x 65535 pixels are too many (limit 178000000)"


@pytest.mark.parametrize(
    "tags",
    [
        {"t262": 32803, "t258": 16},  # a camera's raw samples
        {"t258": (16, 8), "t277": 2},
        {"t258": 16, "t339": 6},  # complex numbers
        {"t258": 16, "t277": 3},  # grey, and two more of nobody knows what
        {"t258": 24, "t339": 3},
        {"t258": 16, "t259": 7, "t339": 3},
        {"t258": (16,) * 4, "t277": 4, "t262": 5, "t332": 2, "t284": 2},
    ],
)
def test_what_is_known_nowhere_is_refused(tmp_path: Path, tags: dict) -> None:
    path = write(tmp_path / "x.tif", bytes(WIDTH * HEIGHT * 8), **tags)
    with path.open("rb") as file:
        assert tiff_layout.layout_of(file) is None


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_flipped_bytes_give_an_image_or_an_image_error(
    tmp_path: Path, photo: np.ndarray
) -> None:
    halves = (photo / 255).astype("<f2")
    whole = write(
        tmp_path / "x.tif", zlib.compress(halves.tobytes()), t258=(16,) * 3, t259=8, t262=2,
        t277=3, t339=(3,) * 3,
    ).read_bytes()  # fmt: skip
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(400):
        damaged = bytearray(whole)
        for at in rng.integers(0, 240, 2):
            damaged[at] = rng.integers(0, 256)
        (tmp_path / "y.tif").write_bytes(damaged)
        try:
            outcomes.add(read_image(tmp_path / "y.tif", max_pixels=10**7).mode)
        except ImageError as error:
            assert error.reason.isprintable()
            outcomes.add("error")
    assert outcomes == {"RGB", "error"}
