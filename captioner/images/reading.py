"""Decode image files; what cannot be decoded says why in one short reason."""

from __future__ import annotations

import re
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from captioner.errors import CaptionerError
from captioner.files.finding import printable, why_unreadable
from captioner.files.recognising import HEAD_BYTES, RAW, recognise, recognised
from captioner.images.avif_properties import avif_edges
from captioner.images.colour_spaces import describe_colours
from captioner.images.colours import is_converted, to_srgb
from captioner.images.depths import grey8, in_tiles, scaled
from captioner.images.isolated import DecoderFailed, NotRaw, Request, decode
from captioner.images.kinds import EXTRAS, Extra, why_not_read
from captioner.images.limits import LimitedFile, TooMuchWork, count_parts
from captioner.images.partial import PARTIAL, EndedFile, has_content, is_cut_short, load_rows
from captioner.images.tiff_layout import layout_of
from captioner.images.tiff_samples import read_samples

READER_VERSION = 6
"""Goes up whenever the same file gives other pixels: what was computed from the pixels of another
version is not mixed with what is computed from these. 2: colours by profiles and by what PNG says
of them, deep TIFFs. 4: colours by the numbers of AVIF and of HDR's profiles.
5: AVIF files cut as they say. 6: resized by torch."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF")
"""Pillow's decoders that may run; the rest read formats nobody keeps photos in."""

MAX_PIXELS = 178_000_000
"""Images with more pixels than this are refused: decoded they take over half a gigabyte."""

MAX_BYTES = 512_000_000
"""Longer files are refused unopened: some decoders take all of a file into memory first."""

MAX_SECONDS = 60.0
"""Processor time after which decoding is given up; the largest photos take a tenth of it."""

MAX_READINGS = 8
"""How often each byte of a file may be read; twice or three times is usual."""

MAX_SCANS = 100
"""Scans in a JPEG file. Progressive ones have about ten, and every one goes over the whole
image: a file of a few megabytes could keep the decoder busy for hours."""

MAX_PARTS = 1_000_000
"""Strips or tiles in a TIFF file; a list of those that it takes 80 MB to name fills 7 GB."""

_REASON_LENGTH = 120

_ORIENTATION_TAG = 0x0112
_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow was seen to raise on damaged files. Named one by one: a mistake in this module
# must not turn into "damaged file".
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    RuntimeError,
    struct.error,
    EOFError,
    MemoryError,
    TooMuchWork,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


class ImageError(CaptionerError):
    """One image cannot be used.

    Attributes:
        reason: why, in a few words, without the path ("truncated file").
        path: the file, None for an image that was in memory.
    """

    def __init__(self, reason: str, path: Path | None = None) -> None:
        """Keep both; the message is ``path: reason``."""
        super().__init__(reason if path is None else f"{printable(path)}: {reason}")
        self.reason = reason
        self.path = path


# --- reading -------------------------------------------------------------------------------


REDUCED = "captioner_reduced"
"""Key in the ``info`` of an image that was decoded at a part of its size."""


def read_image(
    path: str | Path,
    *,
    min_side: int | None = None,
    max_pixels: int = MAX_PIXELS,
    may_be_partial: bool = False,
    data: bytes | None = None,
) -> Image.Image:
    """Decode one file: upright, opaque, 8 bits, first frame.

    EXIF orientation is applied, colours become sRGB by the image's ICC profile, transparency is
    laid over white, CMYK and grey become RGB, deeper samples are scaled to 8 bits (see `to_rgb`).

    Args:
        path: a JPEG, PNG, WebP, GIF, BMP, TIFF, PPM or AVIF file, whatever its suffix; with their
            extras also HEIC, JPEG XL and raw photos (their embedded image is read).
        min_side: pixels that the shorter side needs at least. Large JPEGs are then decoded at
            1/2, 1/4 or 1/8 of their size where that still leaves this many, and ``REDUCED in
            image.info`` says that it was done; None decodes in full.
        max_pixels: width * height above which the file is refused before it is decoded.
        may_be_partial: take what there is of a file that is cut short, without the rows that are
            missing; ``PARTIAL in image.info`` then says that it is one.
        data: what the file holds, where it lies in an archive or on another machine: ``path`` is
            then only what it is called.

    Returns:
        An image of mode RGB.

    Raises:
        ImageError: the file cannot be read, is larger than :data:`MAX_BYTES`, or is not decoded
            within the other limits; anything but a regular file is refused unopened.
    """
    path = Path(path)
    source = path if data is None else data
    with _refusing(path, data):
        _check_source(path, data)
        # Not the path: Pillow would map some files into memory, and reading a page of a mapped
        # file that another process cuts short ends this one.
        wanted = _Wanted(min_side, max_pixels, may_be_partial)
        try:
            with LimitedFile(source, MAX_SECONDS, MAX_READINGS) as file:
                kind = recognised(file.read(HEAD_BYTES), path.name)
                file.seek(0)
                if kind is not None and kind in EXTRAS:
                    with _on_disk(path, data) as place:
                        return _read_with_extra(EXTRAS[kind], place, file, wanted)
                return _read(file, wanted)
        except (OSError, EOFError) as error:
            if not (may_be_partial and is_cut_short(error)):
                raise
            with EndedFile(source, MAX_SECONDS, MAX_READINGS) as file:
                if not file.is_jpeg:
                    raise
                image = _read(file, replace(wanted, may_be_partial=False))
            if not has_content(image):
                raise
            image.info[PARTIAL] = True
            return image


def to_rgb(image: Image.Image | np.ndarray[Any, Any]) -> Image.Image:
    """Bring an image in memory to what `read_image` returns.

    Args:
        image: a Pillow image, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) in the order
            RGB or RGBA: uint8, uint16 (0 to 65535) or floating (0 to 1).

    Returns:
        An image of mode RGB. Grey Pillow images of more than 8 bits are taken to range to 255,
        65535 or (floating) 1, whichever is the first to hold all values; with none they are
        stretched from their smallest to their largest value.

    Raises:
        ImageError: the image cannot be used; says why.
    """
    with _refusing(None):
        if isinstance(image, Image.Image):
            return _normalise(image, _Wanted())
        if isinstance(image, np.ndarray):
            return _normalise(_from_array(image), _Wanted())
        raise ImageError(
            f"a {type(image).__name__} is not an image: pass a path, a Pillow image or an array"
        )


@dataclass(frozen=True)
class _Wanted:
    """The arguments of `read_image`, and the orientation and edges that Pillow does not tell."""

    min_side: int | None = None
    max_pixels: int = MAX_PIXELS
    may_be_partial: bool = False
    orientation: int = 1
    edges: tuple[int, int, int, int] | None = None


def _read(file: LimitedFile, wanted: _Wanted) -> Image.Image:
    with _open(file, wanted.max_pixels) as image:
        _check_size(image.size, wanted.max_pixels)
        if image.format in ("JPEG", "MPO") and _has_too_many_scans(file):
            raise ImageError(f"more than {MAX_SCANS} scans")
        if isinstance(file, EndedFile) and "progressive" not in image.info:
            raise EOFError  # Of all other files the first attempt has had what there is.
        describe_colours(image, file)
        whole_size = image.size
        if wanted.min_side is not None:
            image.draft(None, (wanted.min_side, wanted.min_side))
        is_reduced = image.size != whole_size
        result = _normalise(image, replace(wanted, edges=avif_edges(image, file)))
        if is_reduced:
            result.info[REDUCED] = True
        return result


def _read_with_extra(extra: Extra, path: Path, file: LimitedFile, wanted: _Wanted) -> Image.Image:
    if not extra.is_installed:
        what = "a raw photo" if extra.kind == RAW else extra.kind
        raise ImageError(f"{what} needs an extra: {extra.remedy}; or convert it to JPEG")
    try:
        found = decode(Request(extra.kind, path, wanted.max_pixels, MAX_BYTES, MAX_SECONDS))
    except NotRaw as error:
        try:
            return _read(file, wanted)  # a TIFF file with the suffix of raw photos
        except UnidentifiedImageError:
            raise ImageError(str(error)) from None
    except DecoderFailed as error:
        raise ImageError(str(error)) from None
    if found.image is not None:
        return _normalise(found.image, _Wanted(orientation=found.orientation))
    with LimitedFile(found.jpeg, MAX_SECONDS, MAX_READINGS) as jpeg:
        return _read(jpeg, replace(wanted, orientation=found.orientation))


def _open(file: LimitedFile, max_pixels: int) -> Image.Image:
    if count_parts(file) > MAX_PARTS:
        raise ImageError(f"more than {MAX_PARTS} strips or tiles")
    file.seek(0)
    layout = layout_of(file)
    if layout is None or not layout.is_misread_by_pillow:
        file.seek(0)
        try:
            return Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            if layout is None:
                raise
    _check_size(layout.size, max_pixels)
    return read_samples(file, layout)


def _check_source(path: Path, data: bytes | None) -> None:
    problem = ("" if data else "empty file") if data is not None else why_unreadable(path)
    if problem:
        raise ImageError(problem)
    size = path.stat().st_size if data is None else len(data)
    if size > MAX_BYTES:
        raise ImageError(f"{size} bytes are too many (limit {MAX_BYTES})")


@contextmanager
def _on_disk(path: Path, data: bytes | None) -> Iterator[Path]:
    """The file for decoders that take nothing but one with a path."""
    if data is None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="captioner-") as folder:
        file = Path(folder, "image").with_suffix(path.suffix)
        file.write_bytes(data)
        yield file


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(f"{width} x {height} pixels are too many (limit {max_pixels})")


def _has_too_many_scans(file: LimitedFile) -> bool:
    # Inside of a scan's data no byte 255 is followed by 218. Thumbnails have scans as well, but
    # few enough.
    file.seek(0)
    count, last = 0, b""
    while data := file.read(2**20):
        count += (last + data).count(b"\xff\xda")
        last = data[-1:]
    return count > MAX_SCANS


@contextmanager
def _refusing(path: Path | None, data: bytes | None = None) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise ImageError(error.reason, path) from None
    except _DECODE_ERRORS as error:
        raise ImageError(_reason(error, path, data), path) from error


def _reason(error: BaseException, path: Path | None, data: bytes | None = None) -> str:
    text = " ".join(str(error).split())
    text = "".join(each if each.isprintable() else "\ufffd" for each in text)[:_REASON_LENGTH]
    if isinstance(error, FileNotFoundError):
        return "file not found"
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, UnidentifiedImageError):
        if path is None or data is None:
            return why_not_read(None if path is None else recognise(path))
        return why_not_read(recognised(data[:HEAD_BYTES], path.name))
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return "too many pixels"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if isinstance(error, TooMuchWork):
        return f"too much work to decode ({text})"
    if isinstance(error, OSError) and error.errno is not None:
        return (error.strerror or text).lower()
    if isinstance(error, EOFError) or re.search("truncated", text, re.IGNORECASE):
        return "truncated file"
    return f"damaged file ({text})" if text else "damaged file"


def _normalise(image: Image.Image, wanted: _Wanted) -> Image.Image:
    # Loaded first: a PNG's EXIF may follow its pixels, and a TIFF turns itself upright on load.
    rows = None
    try:
        if wanted.may_be_partial:
            rows = load_rows(image)
        else:
            image.load()
    except TypeError as error:  # Pillow, of TIFF tags that have another type than they should.
        raise ImageError("damaged file") from error
    if image.mode in ("P", "PA") and image.palette is None:
        raise ImageError("damaged file (it has no palette)")
    result = image
    if image.mode.startswith("I") or image.mode == "F":
        result = grey8(image)
    profile = image.info.get("icc_profile")
    if result.has_transparency_data:
        result = in_tiles(result, "RGB", partial(_over_white, profile=profile))
    elif is_converted(_plain_mode(result), profile):
        result = in_tiles(result, "RGB", partial(_in_srgb, profile=profile))
    elif result.mode != "RGB":
        result = result.convert("RGB")
    if wanted.edges is not None:
        result = result.crop(wanted.edges)
    turn = _ORIENTATIONS.get(_orientation(image, wanted.orientation))
    if rows is not None:
        result = result.crop((0, rows[0], result.width, rows[1]))
        result.info[PARTIAL] = True
    if turn is not None:
        return result.transpose(turn)
    # The copy leaves the caller's image, or the open file, behind.
    return result.copy() if result is image else result


def _over_white(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")  # Pillow knows no other way from there.
    alpha = image.convert("RGBA").getchannel("A")
    result = Image.new("RGB", image.size, "white")
    result.paste(_in_srgb(image, profile), mask=alpha)
    return result


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The colours of an image, without its transparency, as sRGB."""
    mode = _plain_mode(image)
    if image.mode == "P" and image.has_transparency_data:
        image = image.convert("RGBA")  # Pillow warns of any other way.
    return to_srgb(image if image.mode == mode else image.convert(mode), profile)


def _plain_mode(image: Image.Image) -> str:
    """The mode that an image's profile is for."""
    return {"L": "L", "LA": "L", "CMYK": "CMYK"}.get(image.mode, "RGB")


def _orientation(image: Image.Image, default: int) -> int:
    # Not ImageOps.exif_transpose: it rewrites the EXIF block, which fails on an odd tag.
    try:
        value = image.getexif().get(_ORIENTATION_TAG, default)
    except (*_DECODE_ERRORS, TypeError):
        return default  # Do not refuse the image because of a damaged EXIF block.
    return value if isinstance(value, int) else default


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    shape = array.shape
    channels = shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4):
        hint = ""
        if array.ndim == 3 and shape[0] in (1, 3, 4):
            hint = "; channels come last: array.transpose(1, 2, 0)"
        raise ImageError(f"an array of shape {shape} is not (H, W), (H, W, 3) or (H, W, 4){hint}")
    if array.size == 0:
        raise ImageError(f"an array of shape {shape} has no pixels")
    if array.dtype == np.uint16:
        array = scaled(array, 0.0, 65535.0)
    elif np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0.0 and array.max() <= 1.0):  # Refuses NaN as well.
            raise ImageError(
                f"a floating array from {array.min()} to {array.max()} is not in [0, 1]:"
                " divide it by 255 or convert it to uint8"
            )
        array = scaled(array, 0.0, 1.0)
    elif array.dtype != np.uint8:
        raise ImageError(f"an array of {array.dtype} is not uint8, uint16 or floating in [0, 1]")
    if channels == 1:
        array = array.reshape(shape[:2])
    return Image.fromarray(np.ascontiguousarray(array))
