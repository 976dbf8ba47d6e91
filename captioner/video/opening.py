"""Find videos, and open them with one of two readers.

Two readers do the same job. PyAV is the default: it gives the container's own timestamps as exact
fractions, reports every packet that could not be decoded, decodes AV1, and was as fast as OpenCV
or faster on the clips tried (`benchmarks/tag.py` measures it). OpenCV serves where PyAV cannot;
it counts no failures, because it does not report them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from captioner.errors import CaptionerError
from captioner.files.finding import SourceFile, find_files, printable, why_unreadable
from captioner.files.kinds import FileKind
from captioner.video import animations
from captioner.video.frames import Video, VideoError
from captioner.video.opencv import OpenCvVideo
from captioner.video.options import READERS
from captioner.video.pyav import PyAvVideo
from captioner.video.webp import WebPVideo

_SUFFIXES = (
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .mts .m2ts .vob .wmv .asf .flv .f4v .ogv .3gp"
    " .3g2 .mxf .dv .ivf .y4m"
)
_LATER = (
    " .m1v .m2v .mpe .m2p .mod .tod .tp .trp .qt .divx .h264 .264 .hevc .h265 .265 .rm .rmvb"
    " .mk3d .insv .360 .wtv .gxf .nut"
)
"""Of cameras, recorders and coders. Not .lrv and .lrf, small copies that cameras put beside."""

VIDEOS = FileKind(
    "video",
    frozenset((_SUFFIXES + _LATER).split()),
    _SUFFIXES + _LATER,
    later=(frozenset(_LATER.split()),),
)
"""What a folder is searched for, in addition to animated images."""

_MOVING = " .gif .webp .apng .png"
_VIDEOS_AND_MOVING = FileKind(
    "video", VIDEOS.suffixes | animations.SUFFIXES, VIDEOS.supported + _MOVING
)


def find_videos(
    paths: str | Path | Sequence[str | Path], exclude: Sequence[str] | None = ()
) -> Iterator[SourceFile]:
    """List video files lazily; see `captioner.files.finding.find_files`, also for the errors.

    GIF, WebP and PNG files that a folder holds or a pattern matches are listed if they have more
    than one frame, those that are named by themselves always.
    """
    kind = _VIDEOS_AND_MOVING
    found = find_files(paths, kind, exclude)
    videos = (each for each in found if each.root is None or not _is_still(each.path))
    first = next(videos, None)
    if first is None:
        given = paths if isinstance(paths, str | Path) else ", ".join(map(printable, paths))
        raise CaptionerError(f"{printable(given)} holds no video files ({kind.supported})")
    return chain([first], videos)


def _is_still(path: Path) -> bool:
    return path.suffix.lower() in animations.SUFFIXES and not animations.is_animated(path)


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
