"""A page for one video: a player, its shots, segments and tags over time, a transcript.

The page is one file, the small images in it; the video stays where it is and is referred to. What
the page shows is in its data block, from which it can be made again (`read_data`): see
``templates/video.js`` for what it does with them.
"""

from __future__ import annotations

import json
import os
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from captioner.files.escaping import shown
from captioner.pages.languages import page_languages
from captioner.pages.render import render_page
from captioner.version import __version__

Record = Mapping[str, Any]

_HEAD = 4096  # bytes, in which the page says which video it is of
_DATA = re.compile(rb'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


def href(path: Path, folder: Path) -> str:
    """A file as pages in a folder refer to it: a relative URL, all but plain letters escaped."""
    here, there = os.path.abspath(folder), os.path.abspath(path)
    try:
        relative = os.path.relpath(there, here)
    except ValueError:  # Windows: on another drive
        return Path(there).as_uri()
    # By parts: of the bytes that the system knows the name by, only "/" cannot be part of a name.
    return "/".join(quote(os.fsencode(part), safe="") for part in Path(relative).parts)


def page_data(
    record: Record,
    video: str | None = None,
    thumbnails: Sequence[bytes | None] = (),
    index: str | None = None,
) -> dict[str, Any]:
    """What a page shows, JSON primitives.

    Args:
        record: as the writers get it.
        video: the URL of the file, relative to the page; None makes a page without a player.
        thumbnails: a JPEG file for each segment, or none at all.
        index: the URL of the page of all videos, if there is one.
    """
    # A page does not show single frames, nor which of them are a tag's evidence.
    return {
        "src": video,
        "index": index,
        "version": __version__,
        "model": record["model"].get("sha256", "")[:12],
        "calibrated": record["model"].get("calibrated"),
        "language": record["model"].get("language"),
        "languages": page_languages([record["model"]]),
        **{key: record[key] for key in ("status", "error", "video", "shots")},
        "segments": [_without_frames(segment) for segment in record["segments"]],
        "tags": [
            {**tag, "segments": [_without_frames(span) for span in tag["segments"]]}
            for tag in record["tags"]
        ],
        "thumbnails": [each and b64encode(each).decode("ascii") for each in thumbnails],
    }


def render(data: Mapping[str, Any]) -> str:
    """The page of what `page_data` gave."""
    video, error = data["video"], data["error"]
    about = [_clock(video["duration_s"])]
    if video["width"] is not None:
        about.append(f"{video['width']}\u00a0×\u00a0{video['height']}")
    about += [_counted(len(data[key]), key[:-1]) for key in ("shots", "segments", "tags")]
    about.append(f"captioner {data['version']}")
    if data["model"]:
        about.append(f"model {data['model']}")
    note = None
    if error is not None:
        what = "Nothing" if data["status"] == "failed" else "Only a part"
        note = f"{what} of this video could be read: {error['message']}."
    return render_page(
        "video.html",
        title=shown(video["file_name"]),
        about=" · ".join(about),
        note=note,
        index=data["index"],
        generator=_generator(data["src"]),
        data=data,
    )


def is_page_of(page: Path, video: str) -> bool:
    """Whether a file is the page of the video with this URL; it is not read to its end."""
    try:
        with page.open("rb") as file:
            return _generator(video).encode() in file.read(_HEAD)
    except OSError:
        return False


def read_data(page: Path) -> dict[str, Any] | None:
    """What a page shows, out of the page; None if it is not one of these pages, or damaged."""
    try:
        found = _DATA.search(page.read_bytes())
        data = json.loads(found[1]) if found is not None else None
        render(data)  # type: ignore[arg-type]  # Whatever it is: that is the question.
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    assert isinstance(data, dict)
    return data


def _generator(video: str | None) -> str:
    return f"captioner tag {sha256(str(video).encode()).hexdigest()[:16]}"


def _without_frames(part: Record) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != "frames"}


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _clock(time_s: float) -> str:
    minutes, seconds = divmod(round(time_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
