"""Find image files and decode them; what cannot be decoded says why in one short reason."""

from __future__ import annotations

import glob
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from captioner.errors import CaptionerError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF")
"""Pillow's decoders that may run; the rest read formats nobody keeps photos in."""

UNSUPPORTED_SUFFIXES = frozenset({".heic", ".heif"})
"""Listed all the same, so that a folder of phone photos is reported and not passed over."""

_SUPPORTED_SUFFIXES = (
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .webp .gif .bmp .dib .tif .tiff .avif"
    " .ppm .pgm .pbm .pnm .pfm"
)

IMAGE_SUFFIXES = UNSUPPORTED_SUFFIXES | frozenset(_SUPPORTED_SUFFIXES.split())
"""Suffixes, in lower case, of the files that a folder is searched for."""

MAX_PIXELS = 178_000_000
"""Images with more pixels than this are refused: decoded they take over half a gigabyte."""

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


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file to caption.

    Attributes:
        path: where the file is.
        name: what results call it: a relative path with forward slashes; see `find_images`.
        root: the folder that was given, None for a file named by itself.
    """

    path: Path
    name: str
    root: Path | None = None


def printable(path: str | Path) -> str:
    r"""Return the path with forward slashes as valid text; bytes not UTF-8 become ``\xe4``."""
    return os.fsencode(Path(path).as_posix()).decode("utf-8", "backslashreplace")


# --- finding -------------------------------------------------------------------------------


def find_images(paths: str | Path | Sequence[str | Path]) -> Iterator[ImageFile]:
    """List image files lazily: memory grows with one folder's listing, not with the files.

    A file is taken whatever its suffix. A folder is searched with its subfolders, in the order of
    the names, for `IMAGE_SUFFIXES`. Hidden files and folders (a leading dot) are passed over,
    links to folders are followed, and no folder is searched twice. A pattern (``*.jpg``,
    ``photos/**/*.png``) is expanded where nothing has that very name; it yields files only, and
    other suffixes than an image's only where it spells one out (``*.dat``). A file that several
    paths lead to is listed once.

    Names are relative to the deepest folder that holds everything given: for one folder to that
    folder, for one file they are the file's name, and ``photos/2023`` with ``photos/2024`` give
    ``2023/a.jpg`` and ``2024/a.jpg``. Two files thus never share a name. A pattern counts as the
    folder before its first wildcard.

    Args:
        paths: files, folders and patterns.

    Returns:
        An iterator. All paths are checked before it is returned.

    Raises:
        CaptionerError: for a path that does not exist, cannot be read or holds no image.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    if not paths:
        raise CaptionerError("no images given: name files, folders or patterns such as '*.jpg'")
    # Each source once: a repeated one would only be found to be a duplicate file by file.
    sources = list(dict.fromkeys(_source(path) for path in paths))
    for source in sources:
        if source.rule is not None:
            _check_has_images(source)
    return _list_sources(sources, _common_folder(sources))


@dataclass(frozen=True)
class _Rule:
    """Which entries of one folder are listed: a pattern, and how far the folder is into it.

    ``**`` matches any number of folders, so a folder can stand at several positions at once.
    """

    parts: tuple[str, ...]
    any_suffix: bool
    positions: frozenset[int]

    @classmethod
    def start(cls, parts: tuple[str, ...], any_suffix: bool = False) -> _Rule:
        return cls(parts, any_suffix, frozenset()).at({0})

    def at(self, positions: set[int]) -> _Rule:
        reached = set(positions)
        for position in sorted(positions):
            while position < len(self.parts) and self.parts[position] == "**":
                position += 1
                reached.add(position)
        return _Rule(self.parts, self.any_suffix, frozenset(reached - {len(self.parts)}))

    def _matching(self, name: str) -> Iterator[int]:
        for position in self.positions:
            part = self.parts[position]
            if name.startswith(".") and not part.startswith("."):
                continue
            if fnmatchcase(os.path.normcase(name), os.path.normcase(part)):
                yield position

    def lists(self, name: str) -> bool:
        if not (self.any_suffix or Path(name).suffix.lower() in IMAGE_SUFFIXES):
            return False
        return any(position == len(self.parts) - 1 for position in self._matching(name))

    def below(self, name: str) -> _Rule | None:
        stay_or_step = {
            position if self.parts[position] == "**" else position + 1
            for position in self._matching(name)
        }
        rule = self.at(stay_or_step)
        return rule if rule.positions else None


_FOLDER_RULE = _Rule.start(("**", "*"))


@dataclass(frozen=True)
class _Source:
    """One given path: a file (no rule), a folder, or a pattern below a folder."""

    given: str
    path: Path
    rule: _Rule | None


class _Seen:
    """What is listed already: files named by themselves, and the rules applied to each folder."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.folders: dict[tuple[int, int], list[_Rule]] = {}

    def take_file(self, path: Path) -> bool:
        """Whether a file named by itself is new."""
        real = os.path.realpath(path)
        folder, name = os.path.split(real)
        try:
            found = os.stat(folder)
        except OSError:
            return True  # Gone since it was checked: reading it will say so.
        rules = self.folders.get((found.st_dev, found.st_ino), [])
        if real in self.files or any(rule.lists(name) for rule in rules):
            return False
        self.files.add(real)
        return True


def _source(given: str | Path) -> _Source:
    text = os.fspath(given)
    if not text or "\0" in text:
        raise CaptionerError(f"{text!r} is not a path: name a file, a folder or a pattern")
    path = Path(text)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if glob.has_magic(text):
            return _pattern(text)
        link = "is a link to nothing" if path.is_symlink() else "does not exist"
        raise CaptionerError(f"{printable(text)} {link}: check the path") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CaptionerError(f"{printable(text)} cannot be read: {reason}") from None
    return _Source(text, path, _FOLDER_RULE if stat.S_ISDIR(mode) else None)


def _pattern(text: str) -> _Source:
    parts = Path(text).parts
    fixed = 0
    # A folder "Photos [2023]" is itself and no pattern.
    while fixed < len(parts) - 1 and not (
        glob.has_magic(parts[fixed]) and not Path(*parts[: fixed + 1]).is_dir()
    ):
        fixed += 1
    folder = Path(*parts[:fixed])
    if not folder.is_dir():
        raise CaptionerError(
            f"{printable(text)} matches nothing: {printable(folder)} is not a folder"
        )
    # A final "**" stands for every file below, as it does in a shell.
    rest = (*parts[fixed:], "*") if parts[-1] == "**" else parts[fixed:]
    if ".." in rest:
        raise CaptionerError(f"{printable(text)}: '..' after a wildcard is not supported")
    suffix = Path(rest[-1]).suffix
    spelled = bool(suffix) and not glob.has_magic(suffix)
    return _Source(text, folder, _Rule.start(rest, any_suffix=spelled))


def _check_has_images(source: _Source) -> None:
    assert source.rule is not None
    try:
        with os.scandir(source.path):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CaptionerError(f"{printable(source.path)} cannot be read: {reason}") from None
    if next(_walk(source.path, source.rule, _Seen()), None) is None:
        what = "holds no image files" if source.rule is _FOLDER_RULE else "matches no image files"
        raise CaptionerError(f"{printable(source.given)} {what} ({_SUPPORTED_SUFFIXES})")


def _list_sources(sources: list[_Source], base: str) -> Iterator[ImageFile]:
    seen = _Seen()
    for source in sources:
        name = _name_below(source.path, base)
        if source.rule is not None:
            prefix = "" if name == "." else f"{name}/"
            for path in _walk(source.path, source.rule, seen):
                yield ImageFile(
                    path, prefix + printable(path.relative_to(source.path)), source.path
                )
        elif seen.take_file(source.path):
            yield ImageFile(source.path, name)


def _walk(folder: Path, rule: _Rule, seen: _Seen) -> Iterator[Path]:
    """Files below the folder that the rule lists and that are new, in the order of the names."""
    try:
        found = folder.stat()
        with os.scandir(folder) as scan:
            entries = sorted((entry.name, _is_folder(entry)) for entry in scan)
        real = os.path.realpath(folder)
    except OSError:
        # As an image it is refused with the reason: nothing below it goes missing in silence.
        yield folder
        return
    # By inode and not by path: links then neither loop nor list a folder's files twice.
    rules = seen.folders.setdefault((found.st_dev, found.st_ino), [])
    if rule in rules:
        return
    earlier = tuple(rules)
    rules.append(rule)
    for name, is_folder in entries:
        if is_folder:
            below = rule.below(name)
            if below is not None and not _leads_up(folder / name, real):
                yield from _walk(folder / name, below, seen)
        elif rule.lists(name) and not any(other.lists(name) for other in earlier):
            if seen.files and os.path.realpath(os.path.join(real, name)) in seen.files:
                continue
            yield folder / name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # A link to itself: listed, it is refused with the reason.


def _leads_up(folder: Path, real_parent: str) -> bool:
    """Whether the folder is a link to one it lies in: following it would leave what was given."""
    if not folder.is_symlink():
        return False
    target = Path(os.path.realpath(folder))
    return Path(real_parent).is_relative_to(target)


def _common_folder(sources: Sequence[_Source]) -> str:
    """The deepest folder that holds all sources, absolute; "" if none does (Windows drives)."""
    folders = [
        os.path.abspath(source.path if source.rule is not None else source.path.parent)
        for source in sources
    ]
    try:
        return os.path.commonpath(folders)
    except ValueError:
        return ""


def _name_below(path: Path, base: str) -> str:
    full = os.path.abspath(path)
    if base:
        return printable(os.path.relpath(full, base))
    drive, rest = os.path.splitdrive(full)
    return printable(drive.strip("/\\:") + rest)


# --- reading -------------------------------------------------------------------------------


def read_image(
    path: str | Path, *, min_side: int | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decode one file: upright, opaque, 8 bits, first frame.

    EXIF orientation is applied, transparency is laid over white, CMYK and grey become RGB, deeper
    grey is scaled to 8 bits (see `to_rgb`).

    Args:
        path: a JPEG, PNG, WebP, GIF, BMP, TIFF, PPM or AVIF file, whatever its suffix.
        min_side: pixels that the shorter side needs at least. Large JPEGs are then decoded at
            1/2, 1/4 or 1/8 of their size where that still leaves this many; None decodes in full.
        max_pixels: width * height above which the file is refused before it is decoded.

    Returns:
        An image of mode RGB.

    Raises:
        ImageError: the file cannot be read; anything but a regular file is refused unopened.
    """
    path = Path(path)
    with _refusing(path):
        _check_file(path)
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(f"{width} x {height} pixels are too many (limit {max_pixels})")
            if min_side is not None:
                image.draft(None, (min_side, min_side))
            return _normalise(image)


def to_rgb(image: Image.Image | np.ndarray[Any, Any]) -> Image.Image:
    """Bring an image in memory to what `read_image` returns.

    Args:
        image: a Pillow image, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) in the order
            RGB or RGBA: uint8, uint16 (0 to 65535) or floating (0 to 1).

    Returns:
        An image of mode RGB. Grey Pillow images of more than 8 bits are taken to range to 255,
        65535 or (floating) 1, whichever is the first to hold all values; with none they are
        stretched from their least to their greatest value.

    Raises:
        ImageError: the image cannot be used; says why.
    """
    with _refusing(None):
        if isinstance(image, Image.Image):
            return _normalise(image)
        if isinstance(image, np.ndarray):
            return _normalise(_from_array(image))
        raise ImageError(
            f"a {type(image).__name__} is not an image: pass a path, a Pillow image or an array"
        )


@contextmanager
def _refusing(path: Path | None) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise ImageError(error.reason, path) from None
    except _DECODE_ERRORS as error:
        raise ImageError(_reason(error, path), path) from error


def _reason(error: BaseException, path: Path | None) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, FileNotFoundError):
        return "file not found"
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, UnidentifiedImageError):
        if path is not None and path.suffix.lower() in UNSUPPORTED_SUFFIXES:
            return "HEIC is not supported: convert it to JPEG"
        return "not an image Pillow can read"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return "too many pixels"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if isinstance(error, OSError) and error.errno is not None:
        return (error.strerror or text).lower()
    if isinstance(error, EOFError) or re.search("truncated", text, re.IGNORECASE):
        return "truncated file"
    return f"damaged file ({text})" if text else "damaged file"


_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def _check_file(path: Path) -> None:
    # stat and not open: opening a named pipe waits for a writer, a device may act on it.
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        with os.scandir(path):
            pass  # `find_images` lists a folder it may not read: that is the reason to give.
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for test, name in _KINDS if test(found.st_mode)), "something else")
        raise ImageError(f"{kind}, not a regular file")
    if found.st_size == 0:
        raise ImageError("empty file")


def _normalise(image: Image.Image) -> Image.Image:
    # Loaded first: a PNG's EXIF may follow its pixels, and a TIFF turns itself upright on load.
    try:
        image.load()
    except TypeError as error:  # Pillow, of TIFF tags that have another type than they should.
        raise ImageError("damaged file") from error
    orientation = _orientation(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _grey8(image)
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        image = Image.new("RGB", clear.size, "white")
        image.paste(clear, mask=clear.getchannel("A"))
    elif image.mode != "RGB":
        image = image.convert("RGB")
    turn = _ORIENTATIONS.get(orientation)
    # The copy leaves the caller's image, or the open file, behind.
    return image.copy() if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    # Not ImageOps.exif_transpose: it writes the EXIF block anew, which fails on an odd tag.
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except (*_DECODE_ERRORS, TypeError):
        return 1  # A damaged EXIF block is no reason to refuse the picture.
    return value if isinstance(value, int) else 1


def _grey8(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits or floating -> 8 bits."""
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray(_scaled(values, 0.0, 65535.0))
    values = values.astype(np.float64)
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    tops = [1.0, 255.0, 65535.0] if image.mode == "F" else [255.0, 65535.0]
    if image.format == "PPM" and image.mode == "I":
        tops = [65535.0]  # Pillow scales deep PGM files to 16 bits, however dark they are.
    top = next((top for top in tops if low >= 0 and high <= top), None)
    values = np.where(finite, values, low)
    return Image.fromarray(_scaled(values, low, high) if top is None else _scaled(values, 0.0, top))


def _scaled(values: np.ndarray[Any, Any], low: float, high: float) -> np.ndarray[Any, Any]:
    span = high - low or 1.0
    return np.rint((values.astype(np.float64) - low) * (255.0 / span)).astype(np.uint8)


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
        array = _scaled(array, 0.0, 65535.0)
    elif np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0.0 and array.max() <= 1.0):  # Refuses NaN as well.
            raise ImageError(
                f"a floating array from {array.min()} to {array.max()} is not in [0, 1]:"
                " divide it by 255 or convert it to uint8"
            )
        array = _scaled(array, 0.0, 1.0)
    elif array.dtype != np.uint8:
        raise ImageError(f"an array of {array.dtype} is not uint8, uint16 or floating in [0, 1]")
    if channels == 1:
        array = array.reshape(shape[:2])
    return Image.fromarray(np.ascontiguousarray(array))
