"""The colours of photos: what a profile says they are becomes sRGB, which the models have learnt.

The profiles are those of the ICC (ISO 15076-1). A profile that is damaged, of another kind of
pixels than the image's, or too costly is ignored, as if there were none.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
from PIL import Image, ImageCms, features

from captioner.images.colour_spaces import HDR_TRANSFERS, profile_of_numbers
from captioner.images.limits import MAX_PROFILE_BYTES

MAX_PROGRAM_BYTES = 16_384
"""The same for the multi-process elements in a profile: any number of steps, all of them
taken for every pixel. Tables, which nearly all profiles have instead, are bounded by themselves."""

UNTOUCHED = 2
"""Levels of 255. A profile that moves no colour by more is one of the many ways to say sRGB."""

Array = np.ndarray[Any, Any]
_Conversion = Callable[[Image.Image], Image.Image]

_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}  # mode -> the profile's colour space
_CLASSES = ("scnr", "mntr", "prtr", "spac")  # of cameras, screens, printers, and colour spaces
_TAGS_START, _TAG = 132, struct.Struct(">4sII")
_PROGRAMS = (b"D2B0", b"D2B1", b"D2B2", b"D2B3")


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert an image to sRGB.

    Args:
        image: of mode RGB, L or CMYK. It stays as it is.
        profile: an ICC profile, or what claims to be one; None for none.

    Returns:
        An image of mode RGB; the same image if it is of mode RGB and its colours are sRGB's.
    """
    convert = _conversion(profile, image.mode)
    if convert is not None:
        return convert(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def is_converted(mode: str, profile: bytes | None) -> bool:
    """Whether a profile changes the colours of images of this mode."""
    return _conversion(profile, mode) is not None


def _conversion(profile: bytes | None, mode: str) -> _Conversion | None:
    if not isinstance(profile, bytes) or len(profile) > MAX_PROFILE_BYTES:
        return None
    return _made_conversion(profile, mode)


@lru_cache(maxsize=16)  # All photos of a camera have the same one; making it takes milliseconds.
def _made_conversion(profile: bytes, mode: str) -> _Conversion | None:
    """What turns the pixels of a mode into sRGB; None for sRGB and for a bad profile."""
    if mode not in _SPACES or not features.check("littlecms2") or not _is_usable(profile):
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(_of_hdr(profile) or profile))
        space = source.profile.xcolor_space
        # Grey with the profile of a screen is red, green and blue of one level.
        own = "RGB" if (mode, space) == ("L", "RGB ") else mode
        if space != _SPACES[own]:
            return None
        if source.profile.device_class not in _CLASSES:
            return None
        # Without its compensation the black of a printing press, a dark grey, would stay one.
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
        if mode == "L":
            flags |= ImageCms.Flags.NOOPTIMIZE  # 256 levels are soon done, and exactly
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            own,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags,
        )
        convert = (
            partial(_by_table, _table(transform, own)) if mode == "L" else partial(_by, transform)
        )
        return None if _changes_nothing(convert, mode) else convert
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _of_hdr(profile: bytes) -> bytes | None:
    """The profile by the numbers in a profile of HDR (ICC.1:2022, section 9.2.17), if it is one.

    What else such a profile holds brings the brightest lights to the range of sRGB, and makes white
    grey.
    """
    for name, place, size in _tags(profile) or ():
        if name == b"cicp" and size >= 10 and place + 10 <= len(profile):
            primaries, transfer = profile[place + 8], profile[place + 9]
            return profile_of_numbers(primaries, transfer) if transfer in HDR_TRANSFERS else None
    return None


def _by(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # it is None only in place
    return converted


def _table(transform: ImageCms.ImageCmsTransform, mode: str) -> Array:
    """The colours (256, 3) of all levels of grey; the mode is that of the transform."""
    levels = Image.fromarray(np.arange(256, dtype=np.uint8)[None]).convert(mode)
    table: Array = np.asarray(_by(transform, levels))[0]
    return table


def _by_table(table: Array, image: Image.Image) -> Image.Image:
    return Image.merge("RGB", [image.point(levels) for levels in table.T.tolist()])


def _changes_nothing(convert: _Conversion, mode: str) -> bool:
    if mode == "CMYK":
        return False
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    samples = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3)
    if mode == "L":
        samples = np.arange(256, dtype=np.uint8)[None]
    before = Image.fromarray(samples)
    after = np.asarray(convert(before), np.int16)
    moved = np.abs(after - np.asarray(before.convert("RGB"), np.int16))
    return int(moved.max()) <= UNTOUCHED


def _is_usable(profile: bytes) -> bool:
    """Whether its list of tags is whole, and leads to no long program."""
    tags = _tags(profile)
    return tags is not None and not any(
        name in _PROGRAMS and size > MAX_PROGRAM_BYTES for name, _, size in tags
    )


def _tags(profile: bytes) -> list[tuple[bytes, int, int]] | None:
    """Name, place and size in bytes of each tag (section 7.3); None if their list is not whole."""
    if len(profile) < _TAGS_START:
        return None
    (count,) = struct.unpack_from(">I", profile, _TAGS_START - 4)
    end = _TAGS_START + count * _TAG.size
    return None if end > len(profile) else list(_TAG.iter_unpack(profile[_TAGS_START:end]))
