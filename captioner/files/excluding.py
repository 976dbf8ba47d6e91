"""What a search of a folder leaves out: thumbnails and waste bins, and what the user says.

The user says it with patterns in the syntax of a .gitignore file, in the option ``--exclude`` or
in files called ``.captionerignore``. As with git, later patterns count more than earlier ones, a
file in a subfolder more than one above it, and the option most; ``!`` takes back what another
pattern leaves out, but nothing below a folder that is left out is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioner.errors import CaptionerError

IGNORE_FILE = ".captionerignore"
MAX_BYTES = 1_000_000
"""Of an ignore file: nobody writes longer ones."""

_FOLDERS = frozenset(
    {
        "@eadir",  # Synology: thumbnails
        "@__thumb",  # QNAP: thumbnails
        "@recycle", "#recycle",  # QNAP and Synology: waste bins
        "@recently-snapshot", "#snapshot", "~snapshot",  # NAS: copies of everything
        "@tmp", "@sharebin", "trashbox", "@synofiledb",  # more of Synology, Buffalo
        "network trash folder", "temporary items",  # macOS on file servers
        "$recycle.bin", "recycler", "recycled", "system volume information",  # Windows
        "__macosx",  # in ZIP archives of macOS: resource forks
        "lost+found",
    }
)  # fmt: skip
"""In lower case; such folders as .thumbnails and .Trash-1000 are hidden anyway."""

_FOLDER_SUFFIXES = (".lrdata", ".lrcat-data", ".cocatalog")  # Lightroom, Capture One: previews
_FOLDER_STARTS = ("appdata_oc",)  # Nextcloud: previews


_LIBRARIES = (".photoslibrary", ".photolibrary", ".migratedphotolibrary", ".aplibrary")
_IN_LIBRARIES = frozenset({"resources", "previews", "thumbnails", "database", "private"})
"""Apple Photos, iPhoto and Aperture: the photos lie beside these, in originals or Masters."""


def is_by_product(name: str, parent: str) -> bool:
    """Whether a folder holds what programs keep, and nobody's own images.

    Args:
        name: of the folder.
        parent: of the folder that it lies in.
    """
    lower = name.lower()
    if lower in _IN_LIBRARIES and parent.lower().endswith(_LIBRARIES):
        return True
    ends = lower.startswith(_FOLDER_STARTS) or lower.endswith(_FOLDER_SUFFIXES)
    return lower in _FOLDERS or ends


class Patterns:
    """Some patterns, relative to a folder.

    Args:
        lines: in the syntax of a .gitignore file.
        said_by: the option or the file, for messages.

    Raises:
        CaptionerError: a pattern is not valid; names it.
    """

    def __init__(self, lines: Sequence[str], said_by: str) -> None:
        # Imported here: it is not needed where nothing is left out.
        from pathspec import GitIgnoreSpec

        for line in lines:
            try:
                GitIgnoreSpec.from_lines([line])
            except ValueError:
                raise CaptionerError(
                    f"{said_by}: {line!r} is not a pattern; write it as in a .gitignore file, "
                    "such as '*.png' or 'drafts/'"
                ) from None
        self._spec: Any = GitIgnoreSpec.from_lines(lines)

    def leave_out(self, path: str) -> bool | None:
        """Whether they leave a path out; None if they say nothing of it.

        Args:
            path: below the folder, with forward slashes; that of a folder ends in one.
        """
        found: bool | None = self._spec.check_file(path).include
        return found


@dataclass(frozen=True)
class Scope:
    """The patterns that hold in one folder of a search.

    Attributes:
        patterns: each with the path of the folder below theirs, ``""`` or ``a/b/``; those that
            count most come first.
    """

    patterns: tuple[tuple[Patterns, str], ...] = ()

    def leave_out(self, name: str, is_folder: bool) -> bool | None:
        """Whether they leave out an entry of the folder; None if they say nothing of it."""
        for patterns, below in self.patterns:
            found = patterns.leave_out(f"{below}{name}{'/' if is_folder else ''}")
            if found is not None:
                return found
        return None

    def below(self, name: str) -> Scope:
        """The scope of a folder in the folder."""
        return Scope(tuple((patterns, f"{below}{name}/") for patterns, below in self.patterns))

    def with_file_of(self, folder: Path) -> Scope:
        """The scope with what the folder's own ignore file says.

        Raises:
            CaptionerError: that file cannot be read, or holds what is not a pattern.
        """
        path = folder / IGNORE_FILE
        if not path.is_file():
            return self
        patterns = Patterns(_lines(path), str(path))
        # Behind those of the option, which holds for all folders, before those of folders above.
        option = [pair for pair in self.patterns if isinstance(pair[0], OptionPatterns)]
        files = [pair for pair in self.patterns if not isinstance(pair[0], OptionPatterns)]
        return Scope((*option, (patterns, ""), *files))


class OptionPatterns(Patterns):
    """Those of the option, relative to each folder that is searched."""

    def __init__(self, lines: Sequence[str]) -> None:
        # In a file such a line is a comment; here it is the name of a waste bin.
        super().__init__([f"\\{x}" if x.startswith("#") else x for x in lines], "--exclude")


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CaptionerError(f"{path} cannot be read: {reason}") from None
    if len(data) > MAX_BYTES:
        raise CaptionerError(f"{path} has more than {MAX_BYTES} bytes: is it a list of patterns?")
    # Decoded as file names are: not all of them are UTF-8.
    return data.decode("utf-8", "surrogateescape").removeprefix("\ufeff").splitlines()
