"""Open videos with one of two readers.

Two readers do the same job. PyAV is the default: it gives the container's own timestamps as exact
fractions, reports every packet that could not be decoded, decodes AV1, and was as fast as OpenCV
or faster on the clips tried (`benchmarks/tag.py` measures it). OpenCV serves where PyAV cannot;
it counts no failures, because it does not report them.
"""

from __future__ import annotations

from pathlib import Path

from captioner.files.finding import why_unreadable
from captioner.video import animations
from captioner.video.frames import Video, VideoError
from captioner.video.opencv import OpenCvVideo
from captioner.video.options import READERS
from captioner.video.pyav import PyAvVideo
from captioner.video.webp import WebPVideo


def open_video(path: str | Path, reader: str = "pyav") -> Video:
    """Open a video and decode its first frame.

    Args:
        path: a video file, whatever its suffix. Playlists are refused.
        reader: ``pyav`` or ``opencv``.

    Raises:
        VideoError: no frame can be read from it; its ``code`` says why.
        ValueError: an unknown reader.
    """
    path = Path(path)
    if reader not in READERS:
        raise ValueError(f"reader={reader!r}: choose one of {', '.join(READERS)}")
    try:
        problem = why_unreadable(path)
        if problem is None:
            path.open("rb").close()  # The readers do not both say that they were not allowed to.
    except FileNotFoundError:
        raise VideoError("not_found", "file not found", path) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise VideoError("unreadable", reason, path) from None
    if problem is not None:
        code = "empty_file" if problem == "empty file" else "unreadable"
        raise VideoError(code, problem, path)
    with path.open("rb") as file:
        if animations.is_webp(file.read(12)):
            return WebPVideo(path)
    return PyAvVideo(path) if reader == "pyav" else OpenCvVideo(path)
