"""The pages of a batch of videos: one for each, and ``index.html`` with all of them.

The index shows whatever the batch's ledger knows. Beside it, in ``index_files``, lies an image of
each video: a JPEG file under another suffix, so that a search of the folder does not find it.
"""

from __future__ import annotations

import os
import re
import time
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.finding import SourceFile
from captioner.files.writing import check_no_folder, replace_bytes, replace_file
from captioner.images.thumbnails import within
from captioner.pages.render import render_page
from captioner.pages.video_page import href, is_page_of, page_data, read_data, render
from captioner.version import __version__

INDEX, FOLDER = "index.html", "index_files"
PAUSE_S = 10.0
"""While a batch runs, the index is brought up to date no more often."""

_GENERATOR = "captioner tag index"
_POSTER = re.compile(r"[0-9a-f]{32}\.thumb")

Line = Mapping[str, Any]


class TagPages:
    """Keeps the pages of one output folder.

    Args:
        output_dir: the folder.
    """

    def __init__(self, output_dir: Path) -> None:
        self._output_dir = output_dir
        self._index = output_dir / INDEX
        self._folder = output_dir / FOLDER
        self._next_s = 0.0

    def has_index(self) -> bool:
        """Whether an index is there that a batch has made."""
        try:
            with self._index.open("rb") as file:
                return f'content="{_GENERATOR}"'.encode() in file.read(4096)
        except OSError:
            return False

    def check(self, overwrite: bool) -> None:
        """Refuse to take the place of somebody else's files.

        Raises:
            CaptionerError: names what is in the way and the remedy.
        """
        check_no_folder(self._index)
        if self._folder.exists() and not self._folder.is_dir():
            raise CaptionerError(
                f"{shown(self._folder)} is a file: the pages need a folder there; choose another "
                "--output-dir, or leave out --format html"
            )
        if self._index.exists() and not overwrite and not self.has_index():
            raise CaptionerError(
                f"{shown(self._index)} exists, and no run of `captioner tag` has made it; choose "
                "another --output-dir, replace it with --overwrite, or leave out --format html"
            )

    def data(
        self, file: SourceFile, page: Path, record: Line, thumbnails: Sequence[bytes]
    ) -> dict[str, Any]:
        """What the page of a video shows; also keeps its image for the index."""
        weights = [
            (segment["end"] - segment["start"]) * segment["confidence"]
            for segment in record["segments"]
        ]
        if thumbnails:
            best = max(range(len(weights)), key=lambda place: (weights[place], -place))
            self._keep_poster(file, thumbnails[best])
        lengths = [segment["end"] - segment["start"] for segment in record["segments"]]
        return page_data(
            record,
            href(file.path, page.parent),
            within(thumbnails, lengths),
            href(self._index, page.parent),
        )

    def is_current(self, file: SourceFile, page: Path) -> bool:
        """Whether the page of a finished video is there; one that only lost its video finds it.

        A page refers to its video by a relative path. If one of both was moved, the page is made
        again, from what it holds itself.
        """
        video = href(file.path, page.parent)
        poster = self._poster(file.name)
        if is_page_of(page, video) and poster.is_file():
            return True
        data = read_data(page)
        if data is None or data["video"]["file_name"] != file.name:
            return False
        replace_file(page, render({**data, "src": video}))
        image = next((each for each in data["thumbnails"] if each), None)
        if image is not None and not poster.is_file():
            self._keep_poster(file, b64decode(image))
        return True

    def href(self, page: Path) -> str:
        """The page as the index refers to it, and as the ledger keeps it."""
        return href(page, self._output_dir)

    def is_there(self, line: Line) -> bool:
        """Whether the page that a line of the ledger names is still there."""
        name = line.get("page")
        return name is not None and self._path(name).is_file()

    def write_index(self, lines: Iterable[Line], *, is_last: bool = True) -> None:
        """Write the index, if it is time for it.

        Args:
            lines: of the ledger, in the order of the videos.
            is_last: whether no video will follow: it is always time then, and images that
                nothing needs any more are removed.

        Raises:
            CaptionerError: it cannot be written.
        """
        start_s = time.monotonic()
        if not is_last and start_s < self._next_s:
            return
        videos = [self._video(line) for line in lines]
        replace_file(self._index, self._render(videos))
        # However many videos there are: a twentieth of the time goes into it at most.
        spent_s = time.monotonic() - start_s
        self._next_s = time.monotonic() + max(PAUSE_S, 20 * spent_s)
        if is_last and self._folder.is_dir():
            used = {Path(video["poster"]).name for video in videos if "poster" in video}
            for path in self._folder.iterdir():
                if _POSTER.fullmatch(path.name) and path.name not in used:
                    path.unlink(missing_ok=True)

    def _video(self, line: Line) -> dict[str, Any]:
        """A video as the index's script reads it; see ``items`` there."""
        video: dict[str, Any] = {key: line[key] for key in ("file_name", "status")}
        if line["status"] == "failed":
            return {**video, "error": (line["error"] or {}).get("message", "")}
        video["duration_s"] = line["duration_s"]
        video["segments"] = line.get("segments")
        video["tags"] = [
            {key: tag[key] for key in ("name", "confidence", "coverage")} for tag in line["tags"]
        ]
        if line["error"] is not None:
            video["error"] = line["error"]["message"]
        if self.is_there(line):
            video["page"] = line["page"]
        poster = self._poster(line["file_name"])
        if poster.is_file():
            video["poster"] = f"{FOLDER}/{poster.name}"
        return video

    def _render(self, videos: Sequence[Mapping[str, Any]]) -> str:
        failed = sum(video["status"] == "failed" for video in videos)
        about = [f"{len(videos):,} video{'' if len(videos) == 1 else 's'}"]
        if failed:
            about.append(f"{failed:,} could not be read")
        return render_page(
            "videos.html",
            title="Videos",
            about=" · ".join([*about, f"captioner {__version__}"]),
            generator=_GENERATOR,
            data={"videos": videos},
        )

    def _path(self, name: str) -> Path:
        return self._output_dir / os.fsdecode(unquote_to_bytes(name))

    def _poster(self, file_name: str) -> Path:
        digest = blake2b(file_name.encode(), digest_size=16).hexdigest()
        return self._folder / f"{digest}.thumb"

    def _keep_poster(self, file: SourceFile, image: bytes) -> None:
        path = self._poster(file.name)
        # Of the same name in every run, so that one left by a killed run is written over.
        replace_bytes(path, [image], temporary=path.with_name(f".{path.name}.part"))
