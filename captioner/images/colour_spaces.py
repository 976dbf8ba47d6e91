"""Colours that a file describes by numbers, as profiles of the ICC.

PNG says them in the chunks cICP, cHRM and gAMA (PNG, third edition, section 11.3.2), HEIC and AVIF
in a box of the same numbers as cICP (ITU-T H.273). Made into a profile (ISO 15076-1, three
components and a matrix), they are converted as any other. HDR is brought to the range of sRGB: the
white of its texts and papers (ITU-R BT.2408) is white, and what is brighter is white as well.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any

import numpy as np
from PIL import Image

from captioner.images.avif_properties import avif_numbers
from captioner.images.limits import png_chunk

Array = np.ndarray[Any, Any]
Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""x and y of white, red, green and blue, in the order of PNG's cHRM."""

LEVELS = 4096  # of a curve
WHITE_NITS = 203.0  # of HDR's white
NEARLY = 0.01  # by which a gamma may differ from 1/2.2, the usual way to say sRGB's curve

_D65, _DCI, _C = (0.3127, 0.3290), (0.314, 0.351), (0.310, 0.316)
_SRGB: Chromaticities = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_PRIMARIES: dict[int, Chromaticities] = {
    1: _SRGB,
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # BT.2020
    11: (*_DCI, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # Display P3
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def describe_colours(image: Image.Image, file: IO[bytes]) -> None:
    """Give a PNG or AVIF image the profile that it means without having one.

    Args:
        image: opened, not loaded; gets ``info["icc_profile"]``.
        file: that it was opened from.
    """
    find = {"PNG": _png_profile, "AVIF": _avif_profile}.get(image.format or "")
    if find is None:
        return
    place = file.tell()
    profile = find(image, file)
    file.seek(place)
    if profile is not None:
        image.info["icc_profile"] = profile


def _png_profile(image: Image.Image, file: IO[bytes]) -> bytes | None:
    cicp = png_chunk(file, b"cICP")
    if cicp is None and ("srgb" in image.info or image.info.get("icc_profile")):
        return None
    is_grey = image.mode in ("L", "LA") or image.mode.startswith("I")
    return profile_of_png(image.info.get("gamma"), image.info.get("chromaticity"), is_grey, cicp)


def _avif_profile(image: Image.Image, file: IO[bytes]) -> bytes | None:
    # A profile says more than the numbers, which then tell how the colours are encoded.
    numbers = None if image.info.get("icc_profile") else avif_numbers(file)
    return None if numbers is None else profile_of_numbers(*numbers)


def profile_of_png(
    gamma: object, chromaticities: object, is_grey: bool, cicp: bytes | None = None
) -> bytes | None:
    """The profile of a PNG without one.

    Args:
        gamma: what its chunk gAMA says, as a number; None for no chunk.
        chromaticities: the same of cHRM, eight numbers.
        is_grey: whether its pixels are.
        cicp: the chunk cICP, which counts more than the others.

    Returns:
        None where nothing is said, or nothing that makes sense.
    """
    if cicp is not None and len(cicp) >= 2:
        return profile_of_numbers(cicp[0], cicp[1], is_grey)
    if gamma is None and chromaticities is None:
        return None
    points = _chromaticities(chromaticities)
    curve: _Curve = _srgb
    if isinstance(gamma, float) and abs(gamma - 1 / 2.2) > NEARLY:
        if not 0.05 <= gamma <= 5:
            return None
        curve = _Power(1 / gamma)
    return None if points is None else _profile(points, curve, is_grey)


def profile_of_numbers(primaries: int, transfer: int, is_grey: bool = False) -> bytes | None:
    """The profile of colours by the numbers of ITU-T H.273; None for what is not known or said."""
    points, curve = _PRIMARIES.get(primaries), _TRANSFERS.get(transfer)
    return None if points is None or curve is None else _profile(points, curve, is_grey)


def _chromaticities(given: object) -> Chromaticities | None:
    if given is None:
        return _SRGB
    if not isinstance(given, tuple) or len(given) != 8:
        return None
    white_x, white_y, red_x, red_y, green_x, green_y, blue_x, blue_y = map(float, given)
    points = (white_x, white_y, red_x, red_y, green_x, green_y, blue_x, blue_y)
    return points if min(points[1::2]) > 0 and min(points) >= 0 and max(points) <= 1 else None


# --- curves: from a level to light, both from 0 to 1 ----------------------------------------


_Curve = Callable[[float], float]


@dataclass(frozen=True)
class _Power:
    exponent: float

    def __call__(self, level: float) -> float:
        return float(level**self.exponent)


def _srgb(level: float) -> float:
    return level / 12.92 if level <= 0.04045 else float(((level + 0.055) / 1.055) ** 2.4)


def _pq(level: float) -> float:
    """SMPTE ST 2084."""
    power = level ** (1 / 78.84375)
    light = max(power - 0.8359375, 0.0) / (18.8515625 - 18.6875 * power)
    return float(light ** (1 / 0.1593017578125)) * 10_000 / WHITE_NITS


def _hlg(level: float) -> float:
    """ARIB STD-B67 on a screen of 1000 nits (ITU-R BT.2100)."""
    if level <= 0.5:
        light = level**2 / 3
    else:
        light = (math.exp((level - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return float(light**1.2) * 1000 / WHITE_NITS


_TRANSFERS: dict[int, _Curve] = {
    **dict.fromkeys((1, 6, 13, 14, 15), _srgb),  # those of video as a screen shows them
    4: _Power(2.2),
    5: _Power(2.8),
    8: _Power(1.0),
    16: _pq,
    17: _Power(2.6),
    18: _hlg,
}

HDR_TRANSFERS = (16, 18)
"""The numbers of PQ and HLG."""


# --- profiles ------------------------------------------------------------------------------


@lru_cache(maxsize=16)  # All files of a program say the same, and a profile is compared often.
def _profile(points: Chromaticities, curve: _Curve, is_grey: bool) -> bytes | None:
    levels = [min(curve(i / (LEVELS - 1)), 1.0) for i in range(LEVELS)]
    numbers = [round(65535 * level) for level in levels]
    table = b"curv\0\0\0\0" + struct.pack(f">I{LEVELS}H", LEVELS, *numbers)
    tags = {b"wtpt": _xyz_tag(_D50)}
    if is_grey:
        return _file(b"GRAY", tags | {b"kTRC": table})
    columns = _to_d50(points)
    if columns is None:
        return None
    for name, column in zip((b"r", b"g", b"b"), columns, strict=True):
        tags |= {name + b"XYZ": _xyz_tag(column), name + b"TRC": table}
    return _file(b"RGB ", tags)


def _file(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    start = 132 + 12 * len(tags)
    entries, data, places = struct.pack(">I", len(tags)), b"", dict[bytes, int]()
    for name, content in tags.items():
        if content not in places:
            places[content] = start + len(data)
            data += content + bytes(-len(content) % 4)
        entries += name + struct.pack(">II", places[content], len(content))
    head = struct.pack(">I4xI4s4s4s", start + len(data), 0x02400000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp"
    head = head.ljust(68, b"\0") + b"".join(map(_fixed, _D50))
    return head.ljust(128, b"\0") + entries + data


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(max(-32768.0, min(value, 32767.0)) * 65536))


def _xyz_tag(values: Iterable[float]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values))


def _to_d50(points: Chromaticities) -> Array | None:
    """X, Y and Z of red, green and blue under the white of profiles; None if they form no triangle.

    As http://www.brucelindbloom.com/index.html?Eqn_RGB_XYZ_Matrix.html, with Bradford's adaptation.
    """
    white, *primaries = (_xyz(points[i], points[i + 1]) for i in range(0, 8, 2))
    columns = np.stack(primaries, axis=1)
    if abs(np.linalg.det(columns)) < 1e-6:
        return None
    gains = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD
    found: Array = (adapted @ (columns * np.linalg.solve(columns, white))).T
    return found


def _xyz(x: float, y: float) -> Array:
    return np.array([x / y, 1.0, (1 - x - y) / y])
