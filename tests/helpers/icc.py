"""ICC profiles made for the tests (ISO 15076-1), and what they mean in plain arithmetic."""

from __future__ import annotations

import struct

import numpy as np

D50 = (0.9642, 1.0, 0.8249)
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
PROPHOTO = ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001))
SWAPPED = (SRGB[1], SRGB[0], SRGB[2])
D65_XY, D50_XY = (0.3127, 0.3290), (0.3457, 0.3585)

_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def _xyz(xy: tuple[float, float]) -> np.ndarray:
    x, y = xy
    return np.array([x / y, 1.0, (1 - x - y) / y])


def to_d50(primaries: tuple, white: tuple[float, float] = D65_XY) -> np.ndarray:
    """Linear RGB -> XYZ for the white of profiles."""
    columns = np.stack([_xyz(each) for each in primaries], axis=1)
    matrix = columns * np.linalg.solve(columns, _xyz(white))
    gains = (_BRADFORD @ np.array(D50)) / (_BRADFORD @ _xyz(white))
    return np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD @ matrix


def srgb_linear(levels: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1, levels from 0 to 255."""
    shares = np.asarray(levels, float) / 255
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


def encoded(
    srgb: tuple[int, ...], primaries: tuple, gamma: float, white: tuple[float, float] = D65_XY
) -> tuple[int, ...]:
    """The levels that a colour of sRGB has in another space."""
    linear = np.linalg.solve(to_d50(primaries, white), to_d50(SRGB) @ srgb_linear(srgb))
    return tuple(np.rint(255 * np.clip(linear, 0, 1) ** (1 / gamma)).astype(int).tolist())


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz_tag(values) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values))


def gamma_tag(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def srgb_tag() -> bytes:
    """The curve as a table of 1024 levels, as the profiles of many programs have it."""
    levels = np.rint(65535 * srgb_linear(np.linspace(0, 255, 1024))).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", 1024) + levels.tobytes()


def profile(
    space: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr", pcs: bytes = b"XYZ "
) -> bytes:
    """A profile of version 2.4 of these tags."""
    start = 128 + 4 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    head = struct.pack(
        ">I4sI4s4s4s12s4s", start + len(data), bytes(4), 0x02400000, kind, space, pcs,
        struct.pack(">6H", 2020, 1, 1, 0, 0, 0), b"acsp",
    )  # fmt: skip
    head = head.ljust(68, b"\0") + b"".join(map(_fixed, D50))
    return head.ljust(128, b"\0") + table + data


def rgb_profile(
    primaries: tuple,
    gamma: float | None,
    white: tuple[float, float] = D65_XY,
    others: dict[bytes, bytes] | None = None,
    **more,
) -> bytes:
    """Three primaries and one curve, None for sRGB's; and other tags."""
    columns = to_d50(primaries, white).T
    curve = srgb_tag() if gamma is None else gamma_tag(gamma)
    tags = {b"wtpt": _xyz_tag(D50)}
    tags |= {b"rgb"[i : i + 1] + b"XYZ": _xyz_tag(columns[i]) for i in range(3)}
    tags |= {name + b"TRC": curve for name in (b"r", b"g", b"b")}
    return profile(b"RGB ", tags | (others or {}), **more)


def grey_profile(gamma: float) -> bytes:
    return profile(b"GRAY", {b"wtpt": _xyz_tag(D50), b"kTRC": gamma_tag(gamma)})


def cmyk_profile() -> bytes:
    """A press whose paper is white, whose black is black, and whose cyan is pure grey of L* 50.

    A table of two levels of each ink (lut8Type): all that is printed is grey, which no formula
    without the profile gives.
    """
    straight = bytes(range(256))
    table = bytearray()
    for cyan in (0, 1):
        for others in range(8):
            black = others & 1 or others & 2 or others & 4
            lightness = 0 if black else 128 if cyan else 255
            table += bytes([lightness, 128, 128])
    head = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0])
    head += b"".join(map(_fixed, (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    lut = head + straight * 4 + bytes(table) + straight * 3
    tags = {b"wtpt": _xyz_tag(D50), b"A2B0": lut, b"A2B1": lut}
    return profile(b"CMYK", tags, kind=b"prtr", pcs=b"Lab ")
