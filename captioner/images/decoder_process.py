"""The child's side of `captioner.images.isolated`: one file after the other, within limits."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from PIL import Image

from captioner.files.recognising import RAW
from captioner.images.jxl_header import jxl_header
from captioner.images.kinds import HEIC, JPEG_XL
from captioner.images.limits import MAX_MEMORY_BYTES, MAX_PROFILE_BYTES

MAX_REASON = 120  # characters
_COLOUR_NUMBERS = ("color_primaries", "transfer_characteristics")
_FLIPS = {0: 1, 3: 3, 5: 8, 6: 6}  # LibRaw's number of a turn -> EXIF's

Answer = tuple[dict[str, Any], bytes, bytes]


class Refused(Exception):
    """The file is not decoded; the message says why."""


def main() -> None:
    """Answer standard input until it ends, which ends the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which decides.
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # A library's output is not an answer.
        _limit_memory()
        with suppress(BrokenPipeError):
            for line in sys.stdin:
                _send(out, *_answer(json.loads(line)))


def _send(out: IO[bytes], header: dict[str, Any], data: bytes, profile: bytes) -> None:
    sizes = {"bytes": len(data), "profile_bytes": len(profile)}
    out.write(json.dumps({**header, **sizes}).encode() + b"\n")
    out.write(data)
    out.write(profile)
    out.flush()


def _answer(request: dict[str, Any]) -> Answer:
    _limit_seconds(request["max_seconds"])
    try:
        decode = _DECODERS[request["kind"]]
        return decode(Path(request["path"]), request["max_pixels"])
    except Refused as error:
        return {"failed": str(error)}, b"", b""
    except MemoryError:
        return {"failed": "not enough memory to decode it"}, b"", b""
    except ImportError as error:
        return {"failed": f"the reader of {request['kind']} cannot be loaded ({error})"}, b"", b""
    except Exception as error:
        # Whatever these libraries raise for what nobody has foreseen, it costs this file alone.
        text = " ".join(_words(error).split())
        text = "".join(each if each.isprintable() else "\ufffd" for each in text)[:MAX_REASON]
        return {"failed": f"damaged {request['kind']} ({text or type(error).__name__})"}, b"", b""


def _words(error: Exception) -> str:
    # LibRaw's reasons come as bytes.
    first = error.args[0] if error.args else ""
    return first.decode(errors="replace") if isinstance(first, bytes) else str(error)


def _limit_memory() -> None:
    with suppress(ImportError, OSError, ValueError):  # Not every system has such limits.
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))


def _limit_seconds(seconds: float) -> None:
    """From here on: the system ends the process that works for longer."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + 1, hard))


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise Refused(f"{width} x {height} pixels are too many (limit {max_pixels})")


def _pixels(image: Image.Image, orientation: int = 1) -> Answer:
    profile = image.info.get("icc_profile") or b""
    if len(profile) > MAX_PROFILE_BYTES:
        profile = b""
    header = {"mode": image.mode, "size": image.size, "orientation": orientation}
    return header, image.tobytes(), profile


# --- the three libraries -------------------------------------------------------------------


def _heic(path: Path, max_pixels: int) -> Answer:
    """By libheif, which turns images upright itself."""
    import pi_heif

    for name in ("THUMBNAILS", "DEPTH_IMAGES", "AUX_IMAGES"):
        setattr(pi_heif.options, name, False)
    pi_heif.options.DECODE_THREADS = 1  # as many as there are workers
    with path.open("rb") as file:
        found = pi_heif.open_heif(file, convert_hdr_to_8bit=True)
    _check_size(found.size, max_pixels)
    image = found.to_pillow()
    _check_size(image.size, max_pixels)
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode.upper())
    header, data, profile = _pixels(image)
    numbers = found.info.get("nclx_profile") or {}
    header["colours"] = [numbers.get(name, 2) for name in _COLOUR_NUMBERS]  # 2: not said
    return header, data, profile


def _jpeg_xl(path: Path, max_pixels: int) -> Answer:
    """By libjxl, which turns images upright itself; a JPEG in other clothes stays one."""
    from pillow_jxl import Decoder

    data = path.read_bytes()
    said = jxl_header(data)
    if said is None:
        raise Refused(f"truncated {JPEG_XL}")
    _check_size(said.size, max_pixels)
    if said.is_animated:
        # The decoder gives pixels only when it has had all frames, and none of a file cut before.
        raise Refused(
            f"an animated {JPEG_XL}, whose first frame cannot be read: convert that to PNG or JPEG"
        )
    is_jpeg, info, pixels, profile, _ = Decoder(num_threads=0)(data)
    if is_jpeg:
        return {"orientation": 1}, bytes(pixels), b""
    _check_size((info.width, info.height), max_pixels)
    mode = "F" if info.mode == "F;16" else info.mode  # the samples are full floating numbers
    image = Image.frombytes(mode, (info.width, info.height), bytes(pixels))
    image.info["icc_profile"] = profile
    return _pixels(image)


def _raw(path: Path, max_pixels: int) -> Answer:
    """The largest image that the camera has put beside the samples."""
    import rawpy

    try:
        with path.open("rb") as file, rawpy.imread(file) as raw:
            orientation = _FLIPS.get(raw.sizes.flip, 1)
            found = raw.extract_thumb()
    except rawpy.LibRawFileUnsupportedError:
        return {"failed": "damaged raw photo (LibRaw does not know it)", "is_raw": False}, b"", b""
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        raise Refused(
            "a raw photo without an embedded image that can be read: convert it to JPEG"
        ) from None
    if found.format == rawpy.ThumbFormat.JPEG:
        return {"orientation": orientation}, bytes(found.data), b""
    image = Image.fromarray(cast(Any, found.data))  # (height, width, 3)
    _check_size(image.size, max_pixels)
    return _pixels(image, orientation)


_DECODERS: dict[str, Callable[[Path, int], Answer]] = {
    HEIC: _heic,
    JPEG_XL: _jpeg_xl,
    RAW: _raw,
}
