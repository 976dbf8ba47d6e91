"""Find input files: folders, files and patterns become a lazy list of names that never collide."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from captioner.errors import CaptionerError
from captioner.files.excluding import IGNORE_FILE, OptionPatterns, Scope, is_by_product
from captioner.files.kinds import FileKind, OtherFiles
from captioner.files.urls import refuse_url


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to work on.

    Attributes:
        path: where the file is.
        name: what results call it: a relative path with forward slashes; see `find_files`.
        root: the folder that was given, None for a file named by itself.
        load: gives what the file holds, where that does not lie at ``path``; called where the
            file is read.
    """

    path: Path
    name: str
    root: Path | None = None
    load: Callable[[], bytes] | None = field(default=None, repr=False, compare=False)


def printable(path: str | Path) -> str:
    r"""Return the path with forward slashes as valid text; bytes not UTF-8 become ``\xe4``."""
    return os.fsencode(Path(path).as_posix()).decode("utf-8", "backslashreplace")


def find_files(
    paths: str | Path | Sequence[str | Path], kind: FileKind, exclude: Sequence[str] | None = ()
) -> Iterator[SourceFile]:
    """List files lazily: memory grows with one folder's listing, not with the files.

    A file is taken whatever its suffix. A folder is searched with its subfolders, in the order of
    the names, for the kind's suffixes. Hidden files and folders (a leading dot) are passed over,
    links to folders are followed, and no folder is searched twice. A pattern (``*.jpg``,
    ``photos/**/*.png``) is expanded where nothing has that very name; it yields files only, and
    other suffixes than the kind's only where it spells one out (``*.dat``). A file that several
    paths lead to is listed once.

    Names are relative to the deepest folder that holds everything given: for one folder to that
    folder, for one file they are the file's name, and ``photos/2023`` with ``photos/2024`` give
    ``2023/a.jpg`` and ``2024/a.jpg``. Two files thus never share a name. A pattern counts as the
    folder before its first wildcard.

    Left out below a folder are those in which programs keep thumbnails and what was deleted
    (`captioner.files.excluding`), and what ``exclude`` and files called ``.captionerignore`` say.
    What is named itself is never left out, and a pattern may spell out such a folder.

    Args:
        paths: files, folders and patterns.
        kind: what folders are searched for.
        exclude: patterns as in a .gitignore file, relative to each folder; None leaves out nothing
            at all.

    Returns:
        An iterator. All paths are checked before it is returned.

    Raises:
        CaptionerError: for a path that does not exist, cannot be read or holds no such file, and
            for what is not a pattern.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    if not paths:
        example = min(kind.suffixes)
        raise CaptionerError(
            f"no {kind.noun}s given: name files, folders or patterns such as '*{example}'"
        )
    sources = _sources(paths, kind)
    scope = None
    if exclude is not None:
        scope = Scope(((OptionPatterns(exclude), ""),) if exclude else ())
    for source in sources:
        if source.rule is not None:
            _check_has_files(source, kind, scope)
    return _list_sources(sources, _common_folder(sources), scope)


def other_files(
    paths: Sequence[str | Path], kind: FileKind, exclude: Sequence[str] = ()
) -> Iterator[Path]:
    """List the files that `find_files` passes over, in folders it searches.

    Those are files with other suffixes than the kind's, and doubles.

    Hidden files are left out, except for the placeholders of iCloud.

    Args:
        paths: as for `find_files`.
        kind: what folders are searched for.
        exclude: see `find_files`.
    """
    scope = Scope(((OptionPatterns(exclude), ""),) if exclude else ())
    seen = _Seen()
    others = OtherFiles(kind.noun, kind.suffixes, kind.supported, doubles=kind.doubles)
    for source in _sources(paths, others):
        if source.rule is not None and source.rule.kind is not None:
            yield from _walk(source.path, _Listing(source.rule, scope), seen)


def base_folder(paths: Sequence[str | Path], kind: FileKind) -> Path:
    """The folder, absolute, that the names of `find_files` are relative to.

    Raises:
        CaptionerError: for a path that does not exist or cannot be read.
    """
    return Path(_common_folder(_sources(paths, kind)) or os.getcwd())


def _sources(paths: Sequence[str | Path], kind: FileKind) -> list[_Source]:
    # Each source once: a repeated one would only be found to be a duplicate file by file.
    return list(dict.fromkeys(_source(path, kind) for path in paths))


_NODES: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def why_unreadable(path: Path) -> str | None:
    """Why a path is not a file with content ("empty file", "a named pipe, ..."), or None.

    Raises:
        OSError: when it is not there or may not be looked at.
    """
    # stat and not open: opening a named pipe waits for a writer, a device may act on it.
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        with os.scandir(path):
            pass  # `find_files` lists a folder it may not read: that is the reason to give.
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for test, name in _NODES if test(found.st_mode)), "something else")
        return f"{kind}, not a regular file"
    return "empty file" if found.st_size == 0 else None


@dataclass(frozen=True)
class _Rule:
    """Which entries of one folder are listed: a pattern, and how far the folder is into it.

    ``**`` matches any number of folders, so a folder can stand at several positions at once.
    """

    parts: tuple[str, ...]
    kind: FileKind | None  # None: whatever the suffix
    positions: frozenset[int]

    @classmethod
    def start(cls, parts: tuple[str, ...], kind: FileKind | None) -> _Rule:
        return cls(parts, kind, frozenset()).at({0})

    def at(self, positions: set[int]) -> _Rule:
        reached = set(positions)
        for position in sorted(positions):
            while position < len(self.parts) and self.parts[position] == "**":
                position += 1
                reached.add(position)
        return _Rule(self.parts, self.kind, frozenset(reached - {len(self.parts)}))

    def _matching(self, name: str) -> Iterator[int]:
        for position in self.positions:
            part = self.parts[position]
            is_hidden = name.startswith(".") and not part.startswith(".")
            if is_hidden and not (self.kind is not None and self.kind.lists_hidden(name)):
                continue
            if fnmatchcase(os.path.normcase(name), os.path.normcase(part)):
                yield position

    def lists(self, name: str) -> bool:
        return (self.kind is None or self.kind.lists(name)) and self.matches(name)

    def matches(self, name: str) -> bool:
        """The same whatever the suffix."""
        return any(position == len(self.parts) - 1 for position in self._matching(name))

    def below(self, name: str, spelled: bool = False) -> _Rule | None:
        """The rule of a folder in the folder, if any; ``spelled``: by no wildcard."""
        stay_or_step = {
            position if self.parts[position] == "**" else position + 1
            for position in self._matching(name)
            if not (spelled and glob.has_magic(self.parts[position]))
        }
        rule = self.at(stay_or_step)
        return rule if rule.positions else None


_WHOLE_FOLDER = ("**", "*")


@dataclass(frozen=True)
class _Source:
    """One given path: a file (no rule), a folder, or a pattern below a folder."""

    given: str
    path: Path
    rule: _Rule | None


@dataclass(frozen=True)
class _Listing:
    """How a folder has been listed; a scope of None leaves out nothing."""

    rule: _Rule
    scope: Scope | None
    doubles: frozenset[str] = frozenset()  # names in the folder

    def has(self, name: str) -> bool:
        if name in self.doubles or not self.rule.lists(name):
            return False
        return self.scope is None or not self.scope.leave_out(name, is_folder=False)

    def within(self, folder: Path, names: Sequence[str]) -> _Listing:
        """The same with what is known from the names of the files in the folder."""
        scope = None if self.scope is None else self.scope.with_file_of(folder)
        kind = self.rule.kind
        if kind is None or not kind.doubles:
            return replace(self, scope=scope)
        # What is left out is nobody's double.
        known = [name for name in names if self.rule.matches(name)]
        left = [x for x in known if scope is None or not scope.leave_out(x, is_folder=False)]
        return replace(self, scope=scope, doubles=kind.passed_over(left))

    def below(self, name: str, parent: str) -> _Listing | None:
        left_out = None if self.scope is None else self.scope.leave_out(name, is_folder=True)
        if left_out:
            return None
        only_spelled = self.scope is not None and left_out is None and is_by_product(name, parent)
        rule = self.rule.below(name, spelled=only_spelled)
        return None if rule is None else _Listing(rule, self.scope and self.scope.below(name))


class _Seen:
    """What is listed already: files named by themselves, and the rules applied to each folder."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.folders: dict[tuple[int, int], list[_Listing]] = {}

    def take_file(self, path: Path) -> bool:
        """Whether a file named by itself is new."""
        real = os.path.realpath(path)
        folder, name = os.path.split(real)
        try:
            found = os.stat(folder)
        except OSError:
            return True  # Gone since it was checked: reading it will say so.
        listings = self.folders.get((found.st_dev, found.st_ino), [])
        if real in self.files or any(listing.has(name) for listing in listings):
            return False
        self.files.add(real)
        return True


def _source(given: str | Path, kind: FileKind) -> _Source:
    text = os.fspath(given)
    if not text or "\0" in text:
        raise CaptionerError(f"{text!r} is not a path: name a file, a folder or a pattern")
    path = Path(text)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        refuse_url(text)
        if glob.has_magic(text):
            return _pattern(text, kind)
        link = "is a link to nothing" if path.is_symlink() else "does not exist"
        raise CaptionerError(f"{printable(text)} {link}: check the path") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CaptionerError(f"{printable(text)} cannot be read: {reason}") from None
    return _Source(text, path, _Rule.start(_WHOLE_FOLDER, kind) if stat.S_ISDIR(mode) else None)


def _pattern(text: str, kind: FileKind) -> _Source:
    parts = Path(text).parts
    fixed = 0
    # A folder "Photos [2023]" is itself and no pattern.
    while fixed < len(parts) - 1 and not (
        glob.has_magic(parts[fixed]) and not Path(*parts[: fixed + 1]).is_dir()
    ):
        fixed += 1
    folder = Path(*parts[:fixed])
    if not folder.is_dir():
        raise CaptionerError(
            f"{printable(text)} matches nothing: {printable(folder)} is not a folder"
        )
    # A final "**" stands for every file below, as it does in a shell.
    rest = (*parts[fixed:], "*") if parts[-1] == "**" else parts[fixed:]
    if ".." in rest:
        raise CaptionerError(f"{printable(text)}: '..' after a wildcard is not supported")
    suffix = Path(rest[-1]).suffix
    spelled = bool(suffix) and not glob.has_magic(suffix)
    return _Source(text, folder, _Rule.start(rest, None if spelled else kind))


def _check_has_files(source: _Source, kind: FileKind, scope: Scope | None) -> None:
    assert source.rule is not None
    try:
        with os.scandir(source.path):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CaptionerError(f"{printable(source.path)} cannot be read: {reason}") from None
    if next(_walk(source.path, _Listing(source.rule, scope), _Seen()), None) is not None:
        return
    does = "holds" if source.rule.parts == _WHOLE_FOLDER else "matches"
    if next(_walk(source.path, _Listing(source.rule, None), _Seen()), None) is not None:
        raise CaptionerError(
            f"{printable(source.given)} {does} only {kind.noun} files that are left out: in "
            f"folders such as @eaDir and #recycle, by --exclude or by {IGNORE_FILE}; name the "
            "folder or the files themselves to take them"
        )
    raise CaptionerError(
        f"{printable(source.given)} {does} no {kind.noun} files ({kind.supported})"
    )


def _list_sources(sources: list[_Source], base: str, scope: Scope | None) -> Iterator[SourceFile]:
    seen = _Seen()
    for source in sources:
        name = _name_below(source.path, base)
        if source.rule is not None:
            prefix = "" if name == "." else f"{name}/"
            for path in _walk(source.path, _Listing(source.rule, scope), seen):
                yield SourceFile(
                    path, prefix + printable(path.relative_to(source.path)), source.path
                )
        elif seen.take_file(source.path):
            yield SourceFile(source.path, name)


def _walk(folder: Path, listing: _Listing, seen: _Seen) -> Iterator[Path]:
    """Files below the folder that are listed and new, in the order of the names."""
    try:
        found = folder.stat()
        with os.scandir(folder) as scan:
            entries = sorted((entry.name, _is_folder(entry)) for entry in scan)
        real = os.path.realpath(folder)
    except OSError:
        # As an image it is refused with the reason: nothing below it goes missing in silence.
        yield folder
        return
    listing = listing.within(folder, [name for name, is_folder in entries if not is_folder])
    # By inode and not by path: links then neither loop nor list a folder's files twice.
    listings = seen.folders.setdefault((found.st_dev, found.st_ino), [])
    if any(other.rule == listing.rule for other in listings):
        return
    earlier = tuple(listings)
    listings.append(listing)
    for name, is_folder in entries:
        if is_folder:
            below = listing.below(name, os.path.basename(real))
            if below is not None and not _leads_up(folder / name, real):
                yield from _walk(folder / name, below, seen)
        elif listing.has(name) and not any(other.has(name) for other in earlier):
            if seen.files and os.path.realpath(os.path.join(real, name)) in seen.files:
                continue
            yield folder / name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # A link to itself: listed, it is refused with the reason.


def _leads_up(folder: Path, real_parent: str) -> bool:
    """Whether the folder is a link to one it lies in: following it would leave what was given."""
    if not folder.is_symlink():
        return False
    target = Path(os.path.realpath(folder))
    return Path(real_parent).is_relative_to(target)


def _common_folder(sources: Sequence[_Source]) -> str:
    """The deepest folder that holds all sources, absolute; "" if none does (Windows drives)."""
    folders = [
        os.path.abspath(source.path if source.rule is not None else source.path.parent)
        for source in sources
    ]
    try:
        return os.path.commonpath(folders)
    except ValueError:
        return ""


def _name_below(path: Path, base: str) -> str:
    full = os.path.abspath(path)
    if base:
        return printable(os.path.relpath(full, base))
    drive, rest = os.path.splitdrive(full)
    return printable(drive.strip("/\\:") + rest)
