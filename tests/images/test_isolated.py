"""HEIC, JPEG XL and raw photos: their pixels, and what their decoders cannot do to a job."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pillow_jxl  # also writes JPEG XL
import pytest
from PIL import Image

from captioner.images import isolated, kinds, reading
from captioner.images.reading import ImageError, read_image
from helpers.heic import avif, clap, heic, icc, imir, irot
from helpers.icc import P3, encoded, rgb_profile
from helpers.images import RED, exif_with, quadrants, stored_for_orientation
from helpers.raw import dng

UPRIGHT = quadrants()
PREVIEW = np.repeat(np.repeat(UPRIGHT, 4, 0), 4, 1)  # LibRaw passes over smaller ones
TURNS = {  # EXIF's number -> what HEIC has instead
    2: [imir(1)],
    3: [irot(2)],
    4: [imir(0)],
    5: [irot(1), imir(0)],
    6: [irot(3)],
    7: [irot(1), imir(1)],
    8: [irot(1)],
}


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=100, subsampling=0, **options)
    return data.getvalue()


def jxl(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, "JXL", **{"lossless": True, **options})
    return path


def pixels(path: Path) -> np.ndarray:
    return np.asarray(read_image(path)).astype(int)


def distance(path: Path, expected: np.ndarray) -> int:
    found = pixels(path)
    assert found.shape == expected.shape
    return int(np.abs(found - expected).max())


def reason_of(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(path)
    return caught.value.reason


@pytest.fixture
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next file is read by a process that is started for it."""
    monkeypatch.setattr(isolated, "_idle", [])


# --- what comes out ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["IMG_1.heic", "IMG_1.jpg"])
def test_heic_whatever_its_suffix(tmp_path: Path, name: str) -> None:
    assert distance(heic(tmp_path / name, UPRIGHT), UPRIGHT) <= 2


@pytest.mark.parametrize("orientation", TURNS)
def test_heic_is_turned_once_and_not_by_exif(tmp_path: Path, orientation: int) -> None:
    stored = stored_for_orientation(UPRIGHT, orientation)
    exif = exif_with(orientation).tobytes().removeprefix(b"Exif\0\0")
    path = heic(tmp_path / "x.heic", stored, TURNS[orientation], exif=exif)
    assert distance(path, UPRIGHT) <= 2


@pytest.mark.parametrize("write", [heic, avif])
@pytest.mark.parametrize(
    ("stated", "edges"),
    [
        (clap(32, 32, 8, -4), (24, 4, 56, 36)),
        (clap(64, 96, -8, 0, divisor=2), (12, 0, 44, 48)),
        (clap(64, 48), (0, 0, 64, 48)),
    ],
)
def test_what_is_cut_off_is_not_shown(
    tmp_path: Path, write, stated: bytes, edges: tuple[int, int, int, int]
) -> None:
    whole = quadrants(64, 48)
    left, top, right, bottom = edges
    shown = whole[top:bottom, left:right]
    assert distance(write(tmp_path / "x", whole, [stated]), shown) <= 3
    assert distance(write(tmp_path / "y", whole, [stated, irot(1)]), np.rot90(shown)) <= 3


@pytest.mark.parametrize(
    "stated", [clap(65, 48), clap(32, 32, 30), clap(0, 8), clap(9, 9, divisor=0)]
)
def test_an_avif_cut_beyond_its_edges_is_shown_as_a_whole(tmp_path: Path, stated: bytes) -> None:
    whole = quadrants(64, 48)
    assert distance(avif(tmp_path / "x.avif", whole, [stated]), whole) <= 3


def test_colours_of_a_phone(tmp_path: Path) -> None:
    red = (200, 20, 20)
    stored = np.full((16, 16, 3), encoded(red, P3, 2.2), np.uint8)
    path = heic(tmp_path / "p3.heic", stored, [icc(rgb_profile(P3, 2.2))])
    assert distance(path, np.full((16, 16, 3), red)) <= 4
    assert distance(heic(tmp_path / "plain.heic", stored), np.full((16, 16, 3), red)) > 10


@pytest.mark.parametrize("use_container", [False, True])
def test_jpeg_xl_gives_its_pixels(tmp_path: Path, use_container: bool) -> None:
    path = jxl(tmp_path / "x.jxl", Image.fromarray(UPRIGHT), use_container=use_container)
    assert distance(path, UPRIGHT) == 0


# 8 x 8 pixels of (200, 0, 0), then of (0, 0, 200), by libjxl.
MOVING = bytes.fromhex(
    "ff0a41044d002026080401003c004b188b15805dd4ff00223053aa0924"
    "080405003c004b188b15805dd4ff002203abaa0924"
)


@pytest.mark.parametrize("is_in_boxes", [False, True])
def test_an_animated_jpeg_xl_is_not_taken_for_its_last_frame(
    tmp_path: Path, is_in_boxes: bool
) -> None:
    # The reason: its decoder gives no pixels before it has had all frames.
    decoder = pillow_jxl.Decoder(num_threads=0)
    assert decoder(MOVING)[2][:3] == bytes([0, 0, 200])
    for size in range(len(MOVING)):
        with pytest.raises(RuntimeError):
            decoder(MOVING[:size])
    boxes = b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl \0\0\0\0jxl \0\0\0\0jxlc"
    (tmp_path / "x.jxl").write_bytes(boxes + MOVING if is_in_boxes else MOVING)
    assert reason_of(tmp_path / "x.jxl") == (
        "an animated JPEG XL, whose first frame cannot be read: convert that to PNG or JPEG"
    )


def test_jpeg_xl_of_grey_of_16_bits_and_with_alpha(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 32768, 65535]] * 4, np.uint16)
    path = jxl(tmp_path / "deep.jxl", Image.fromarray(deep))
    # Of light, as the profile says that the plugin writes: 12.92 / 257, and 0.5 of it.
    assert pixels(path)[0, :, 0].tolist() == [0, 13, 188, 255]
    path = jxl(tmp_path / "half.jxl", Image.new("RGBA", (4, 4), (*RED, 128)))
    assert pixels(path)[0, 0].tolist() == [255, 127, 127]


def test_a_jpeg_in_jpeg_xl_is_that_jpeg(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(jpeg(UPRIGHT, exif=exif_with(6)))
    with (
        pytest.warns(UserWarning, match="JPEG reconstruction"),
        Image.open(tmp_path / "x.jpg") as image,
    ):
        image.save(tmp_path / "x.jxl", "JXL")
    assert np.array_equal(pixels(tmp_path / "x.jxl"), pixels(tmp_path / "x.jpg"))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("is_jpeg", [True, False])
def test_the_image_embedded_in_a_raw_photo(tmp_path: Path, orientation: int, is_jpeg: bool) -> None:
    stored = stored_for_orientation(PREVIEW, orientation)
    path = dng(tmp_path / "IMG_1.dng", jpeg(stored) if is_jpeg else stored, orientation)
    assert distance(path, PREVIEW) <= 2


def test_a_jpeg_that_says_how_to_turn_it_is_not_turned_by_the_raw_photo(tmp_path: Path) -> None:
    stored = stored_for_orientation(PREVIEW, 3)
    preview = jpeg(stored, exif=exif_with(3))
    assert preview[2:4] == b"\xff\xe0"
    path = dng(tmp_path / "IMG_1.dng", preview[:2] + preview[20:], 6)  # as cameras begin: with EXIF
    assert distance(path, PREVIEW) <= 2


def test_a_plain_tiff_with_the_suffix_of_raw_photos(tmp_path: Path) -> None:
    Image.fromarray(UPRIGHT).save(tmp_path / "x.dng", "TIFF")
    assert distance(tmp_path / "x.dng", UPRIGHT) == 0


# --- what goes wrong -----------------------------------------------------------------------


def test_a_relative_path_is_of_the_folder_where_the_job_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heic(tmp_path / "x.heic", UPRIGHT)
    assert distance(tmp_path / "x.heic", UPRIGHT) <= 2
    monkeypatch.chdir(tmp_path)
    assert distance(Path("x.heic"), UPRIGHT) <= 2


def write_all(folder: Path) -> dict[str, Path]:
    """A file of each kind."""
    return {
        kinds.HEIC: heic(folder / "x.heic", UPRIGHT),
        kinds.JPEG_XL: jxl(folder / "x.jxl", Image.fromarray(UPRIGHT)),
        kinds.RAW: dng(folder / "x.dng", jpeg(PREVIEW)),
    }


@pytest.mark.parametrize(
    ("kind", "module", "reason"),
    [
        (
            "HEIC",
            "pi_heif",
            "HEIC needs an extra: pip install 'captioner[heif]'; or convert it to JPEG",
        ),
        (
            "JPEG XL",
            "pillow_jxl",
            "JPEG XL needs an extra: pip install 'captioner[jxl]' (its licence is the GPL-3); or "
            "convert it to JPEG",
        ),
        (
            "raw photo",
            "rawpy",
            "a raw photo needs an extra: pip install 'captioner[raw]'; or convert it to JPEG",
        ),
    ],
)
def test_without_its_extra_a_file_says_which_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, module: str, reason: str
) -> None:
    path = write_all(tmp_path)[kind]
    monkeypatch.setattr(kinds, "is_installed", lambda name: name != module)
    assert reason_of(path) == reason


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("x.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "damaged HEIC (Invalid input"),
        ("x.jxl", b"\0\0\0\x0cJXL \r\n\x87\n", "truncated JPEG XL"),
        ("x.jxl", b"\xff\x0a\xfa\x1f\x41\x91\x08", "damaged JPEG XL ("),
        ("x.cr2", b"II*\0\x10\0\0\0CR\2\0", "damaged raw photo ("),
        ("y.cr2", b"II*\0\x10\0\0\0CR\2\0" + bytes(50), "damaged raw photo (Input/output"),
        ("x.cr3", b"\0\0\0\x14ftypcrx \0\0\0\0isom", "damaged raw photo ("),
        ("x.nef", b"MM\0*\0\0\0\x08", "damaged raw photo ("),
    ],
)
def test_damaged_files_say_what_they_are(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(data)
    assert reason_of(tmp_path / name).startswith(reason)


def test_a_raw_photo_without_an_image_in_it(tmp_path: Path) -> None:
    assert "without an embedded image" in reason_of(dng(tmp_path / "x.dng", None))


@pytest.mark.parametrize("kind", kinds.EXTRAS)
def test_too_many_pixels_are_refused(tmp_path: Path, kind: str) -> None:
    path = write_all(tmp_path)[kind]
    with pytest.raises(ImageError, match="pixels are too many"):
        read_image(path, max_pixels=1000)


@pytest.mark.parametrize(
    ("name", "size"), [("x.heic", (30_000, 20_000)), ("x.jxl", (400_000, 2_000))]
)
def test_a_header_of_many_pixels_is_refused_before_they_are_decoded(
    tmp_path: Path, name: str, size: tuple[int, int]
) -> None:
    if name == "x.heic":
        heic(tmp_path / name, UPRIGHT, size=size)
    else:  # division by eight: no; height and width of 30 bits; no ratio
        bits = 3 << 1 | size[1] - 1 << 3 | 0 << 33 | 3 << 36 | size[0] - 1 << 38
        (tmp_path / name).write_bytes(b"\xff\x0a" + bits.to_bytes(9, "little") + bytes(99))
    assert reason_of(tmp_path / name) == (
        f"{size[0]} x {size[1]} pixels are too many (limit 178000000)"
    )


@pytest.mark.parametrize("kind", kinds.EXTRAS)
def test_any_flipped_bytes_give_an_image_or_an_image_error(tmp_path: Path, kind: str) -> None:
    path = write_all(tmp_path)[kind]
    whole, random = path.read_bytes(), np.random.default_rng(5)
    outcomes = set()
    for _ in range(60):
        data = bytearray(whole)
        for place in random.integers(0, len(data), random.integers(1, 6)):
            data[place] = random.integers(256)
        path.write_bytes(data)
        try:
            assert read_image(path, max_pixels=10**7).mode == "RGB"
            outcomes.add("decoded")
        except ImageError as error:
            assert error.reason.isprintable() and 0 < len(error.reason) < 200
            outcomes.add("refused")
    assert "refused" in outcomes


@pytest.mark.usefixtures("no_child")
@pytest.mark.parametrize(
    ("decoder", "reason"),
    [
        ("import os; os.abort()", "damaged HEIC (its decoder's process ended)"),
        ("bytearray(10 ** 12)", "not enough memory to decode it"),
        ("while True: pass", "too much work to decode (more than 1 s)"),
        ("import nothing_like_it", "the reader of HEIC cannot be loaded"),
    ],
)
def test_a_decoder_that_crashes_or_spins_costs_its_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder: str, reason: str
) -> None:
    path = heic(tmp_path / "x.heic", UPRIGHT)
    (tmp_path / "pi_heif.py").write_text(decoder)
    monkeypatch.setattr(reading, "MAX_SECONDS", 1.0)
    with monkeypatch.context() as changed:
        changed.syspath_prepend(tmp_path)
        assert reason_of(path).startswith(reason)
    monkeypatch.setattr(isolated, "_idle", [])
    assert distance(path, UPRIGHT) <= 2


@pytest.mark.usefixtures("no_child")
def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    heic(tmp_path / "x.heic", UPRIGHT)
    code = (
        "import os, sys; from captioner.images import isolated; "
        "from captioner.images.reading import read_image; "
        "read_image(sys.argv[1]); print(isolated._idle[0]._process.pid, flush=True); os._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.heic")],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    ends_s = time.monotonic() + 10
    while time.monotonic() < ends_s:
        try:
            os.kill(int(done.stdout), 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{int(done.stdout)}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the child is still there")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_starts_a_child_of_its_own(tmp_path: Path) -> None:
    path = heic(tmp_path / "x.heic", UPRIGHT)
    code = (
        "import os, sys; from captioner.images.reading import read_image; "
        "first = read_image(sys.argv[1]).tobytes(); pid = os.fork(); "
        "assert read_image(sys.argv[1]).tobytes() == first; "
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if pid else 0)"
    )
    command = [sys.executable, "-c", code, str(path)]
    assert subprocess.run(command, check=False, cwd=Path(__file__).parents[2]).returncode == 0
