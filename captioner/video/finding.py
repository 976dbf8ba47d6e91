"""Find videos: by the suffix in a folder, and images that move by their first bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from captioner.errors import CaptionerError
from captioner.files.finding import SourceFile, find_files, printable
from captioner.files.kinds import FileKind
from captioner.video import animations

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
