"""From a decoded frame to the sRGB image that a player shows, with PyAV.

FFmpeg's scaler turns what is stored into RGB by the matrix that the file names. This module adds
what it leaves to the player: which matrix is meant where the file names none, high dynamic range
and wide gamuts, and what lies behind transparent pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

# Numbers of ITU-T H.273, which FFmpeg uses as well.
BT709, UNSPECIFIED, BT601, BT2020 = 1, 2, 6, 9  # primaries and matrices
DCI_P3, DISPLAY_P3 = 11, 12  # primaries
PQ, HLG = 16, 18  # transfer functions of high dynamic range

REFERENCE_WHITE = 203.0
"""Luminance of white paper in HDR, in cd/m2 (ITU-R BT.2408): it becomes (almost) white in SDR."""

PEAK = 1000.0
"""Luminance in cd/m2 that becomes white: of the display that HLG is defined on, and of phones."""

KNEE = 0.85
"""Linear light, as a share of reference white, above which highlights are compressed."""

_TABLE_SIDE = 65  # The most that Pillow interpolates in.

_XY = {
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), (0.3127, 0.3290)),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), (0.3127, 0.3290)),
    DCI_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    DISPLAY_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.3127, 0.3290)),
}
"""Chromaticities of red, green, blue and white, of ITU-T H.273 table 2."""

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Values = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Colours:
    """How a file says that its colours are meant, as numbers of ITU-T H.273.

    Attributes:
        matrix: from RGB to what is stored.
        transfer: from light to numbers.
        primaries: which red, green and blue.
    """

    matrix: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    primaries: int = UNSPECIFIED

    @classmethod
    def of(cls, source: Any) -> Colours:
        """Those of a PyAV frame or codec context."""
        return cls(int(source.colorspace), int(source.color_trc), int(source.color_primaries))

    def or_else(self, other: Colours) -> Colours:
        """What is not specified here is taken from there."""

        def either(a: int, b: int) -> int:
            return b if a == UNSPECIFIED else a

        return Colours(
            either(self.matrix, other.matrix),
            either(self.transfer, other.transfer),
            either(self.primaries, other.primaries),
        )


def guessed_colours(colours: Colours, width: int, height: int) -> Colours:
    """What players take for unspecified: BT.2020 for HDR, BT.709 for HD, BT.601 for the rest."""
    is_hdr = colours.transfer in (PQ, HLG)
    is_hd = width >= 1280 or height > 576  # as mpv has it
    matrix = BT2020 if is_hdr else BT709 if is_hd else UNSPECIFIED
    return colours.or_else(Colours(matrix, primaries=BT2020 if is_hdr else UNSPECIFIED))


class FrameConverter:
    """Turns decoded frames into images.

    Args:
        declared: colours that the container states, for frames that say nothing themselves.
        reformat: of a `VideoReformatter`. Each size has its own, because setting up the scaling
            costs several times what scaling costs.
        interpolation: PyAV's name of the way to scale, or its number.
        may_be_unset: whether alpha that is 0 everywhere was just never written, as in AVI files
            of 32 bits a pixel.
    """

    def __init__(
        self,
        declared: Colours,
        reformat: Callable[..., Any],
        *,
        interpolation: str | int = "BILINEAR",
        may_be_unset: bool = False,
    ) -> None:
        self._declared = declared
        self._reformat = reformat
        self._interpolation = interpolation
        self._may_be_unset = may_be_unset

    def is_opaque_sdr(self, frame: Any) -> bool:
        """Whether each pixel is shown as it is: none is clear, and the colours are those of SDR."""
        return not _has_alpha(frame.format) and _table_for(self._colours(frame)) is None

    def _colours(self, frame: Any) -> Colours:
        said = Colours.of(frame).or_else(self._declared)
        return guessed_colours(said, frame.width, frame.height)

    def rgb(self, frame: Any, width: int, height: int) -> Pixels:
        """The frame as sRGB (height, width, 3) in the order RGB, transparency over white.

        Raises:
            av.error.FFmpegError: its format cannot be converted.
        """
        colours = self._colours(frame)
        if not frame.format.is_rgb:
            frame.colorspace = colours.matrix
        is_clear = _has_alpha(frame.format)
        scaled = self._reformat(
            frame,
            width=width,
            height=height,
            format="rgba" if is_clear else "rgb24",
            interpolation=self._interpolation,
            threads=1,  # With more, they take longer to meet than to scale.
        )
        pixels: Pixels = scaled.to_ndarray()
        if is_clear and self._may_be_unset and not pixels[:, :, 3].any():
            pixels, is_clear = np.ascontiguousarray(pixels[:, :, :3]), False
        table = _table_for(colours)
        if table is None and not is_clear:
            return pixels
        image = Image.fromarray(pixels)
        if table is not None:
            image = image.filter(table)
        return np.asarray(_over_white(image))


def _has_alpha(pixel_format: Any) -> bool:
    # A palette's colours have alpha, which its one component does not show.
    return pixel_format.has_palette or any(each.is_alpha for each in pixel_format.components)


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    result = Image.new("RGB", image.size, "white")
    result.paste(image, mask=image.getchannel("A"))
    return result


# --- tables of colours ---------------------------------------------------------------------


def _table_for(colours: Colours) -> ImageFilter.Color3DLUT | None:
    """What makes sRGB of RGB with these colours; None where a player shows it as it is."""
    is_hdr = colours.transfer in (PQ, HLG)
    is_wide = colours.primaries in (BT2020, DCI_P3, DISPLAY_P3)
    if not is_hdr and not is_wide:
        return None
    primaries = colours.primaries if is_wide else BT709
    return _table(colours.transfer if is_hdr else UNSPECIFIED, primaries)


@lru_cache(maxsize=8)
def _table(transfer: int, primaries: int) -> ImageFilter.Color3DLUT:
    steps = np.linspace(0.0, 1.0, _TABLE_SIDE)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")  # red changes fastest
    values = to_srgb(np.stack([red, green, blue], axis=-1), transfer, primaries)
    flat = np.ascontiguousarray(values.reshape(-1), dtype=np.float32)
    return ImageFilter.Color3DLUT(_TABLE_SIDE, flat)


def to_srgb(values: Values, transfer: int, primaries: int) -> Values:
    """RGB with the transfer function PQ or HLG, or of SDR, as sRGB.

    HDR is left as it is up to KNEE and compressed from there to PEAK, each channel by itself as in
    ITU-R BT.2390: what a camera recorded as SDR would show.

    Args:
        values: RGB in the last axis, from 0 to 1.
        transfer: PQ, HLG or anything else for SDR.
        primaries: a key of the table above.

    Returns:
        The same shape, from 0 to 1.
    """
    if transfer == PQ:
        light = _pq_light(values) / REFERENCE_WHITE
    elif transfer == HLG:
        light = _hlg_light(values) / REFERENCE_WHITE
    else:
        light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    light = np.maximum(light @ _to_bt709(primaries).T, 0.0)
    light = _compressed(light) if transfer in (PQ, HLG) else np.minimum(light, 1.0)
    srgb: Values = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return srgb


def _compressed(light: Values) -> Values:
    """Reinhard's curve (2002, equation 4) from KNEE to the peak, which becomes 1."""
    above = np.maximum(light - KNEE, 0.0) / (1 - KNEE)
    peak = (PEAK / REFERENCE_WHITE - KNEE) / (1 - KNEE)
    curve = above * (1 + above / peak**2) / (1 + above)
    return np.minimum(np.minimum(light, KNEE) + (1 - KNEE) * curve, 1.0)


def _pq_light(values: Values) -> Values:
    """SMPTE ST 2084: luminance in cd/m2."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = values ** (1 / m2)
    light: Values = 10_000 * (np.maximum(power - c1, 0.0) / (c2 - c3 * power)) ** (1 / m1)
    return light


def _hlg_light(values: Values) -> Values:
    """ITU-R BT.2100, table 5: luminance in cd/m2 on a display of PEAK cd/m2."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
    light: Values = PEAK * luminance[..., np.newaxis] ** 0.2 * scene
    return light


def _to_bt709(primaries: int) -> Values:
    """The matrix from linear RGB with these primaries to BT.709's; white stays white."""
    matrix: Values = np.linalg.inv(_rgb_to_xyz(BT709)) @ _rgb_to_xyz(primaries)
    scaled: Values = matrix / matrix.sum(axis=1, keepdims=True)
    return scaled


def _rgb_to_xyz(primaries: int) -> Values:
    red, green, blue, white = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in _XY[primaries])
    columns = np.stack([red, green, blue], axis=1)
    scaled: Values = columns * np.linalg.solve(columns, white)
    return scaled
