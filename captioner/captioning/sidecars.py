"""A file for each image: text files and XMP sidecars."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

from captioner.captioning.alternatives import (
    alternatives_of,
    captions_of,
    foremost,
    tag_names,
)
from captioner.captioning.writers import NamedFile, Record, Writer
from captioner.captioning.xmp import is_untouched, render_xmp
from captioner.errors import CaptionerError
from captioner.files.escaping import escaped, shown
from captioner.files.naming import output_stems, sidecar_journal
from captioner.files.writing import check_folder, exists, is_blank, make_folder, replace_file

LONGEST_SUFFIX = 32
"""Characters of the suffix of text files: the names of their journal must stay names."""


class SidecarWriter(Writer):
    """A text file with the caption for each image: ``a.txt`` for ``a.jpg``.

    The files lie beside the images, or below the output folder in the same subfolders. Of several
    images with one stem the first by name has ``a.txt``; the others, and files without an image's
    suffix, keep theirs: ``a.png.txt``. That depends on the folder alone and not on which of its
    images are captioned, so that a second run finds the files of the first. Images that failed
    get none.

    Of several languages the first has these files, and the others have theirs beside them with the
    language in the name: ``a.de.txt``.

    Attributes:
        suffix: of the files.
        languages: of the captions, the first one first; empty where there is one language.
        what: they are called in messages.
        journal: the name of the hidden file that a job keeps beside them.
        is_signed: whether a file says itself that captioner has written it.
    """

    format = "txt"
    summary = "a .txt file for each image, beside it or below the output folder"
    suffix = ".txt"
    what: ClassVar[str] = "text files"
    journal = sidecar_journal(".txt")
    is_signed: ClassVar[bool] = False

    def __init__(
        self,
        output: Path | None = None,
        *,
        overwrite: bool = False,
        suffix: str | None = None,
        languages: Sequence[str] = (),
    ) -> None:
        """As the others' one.

        Args:
            output: the folder, None for beside the images.
            overwrite: whether existing files may be replaced.
            suffix: of the files, by default that of the class; see `check_sidecar_suffix`.
            languages: of the captions, where there are several, the first one first.
        """
        super().__init__(output, overwrite=overwrite)
        self.languages = tuple(languages)
        if suffix is not None and suffix != self.suffix:
            # Text files of another suffix are another job's, with a journal of their own.
            self.suffix, self.journal = suffix, sidecar_journal(suffix)
        self._folder: str | None = None
        self._stems: dict[str, str] = {}

    def target(self, path: Path, name: str) -> Path:
        """The file that belongs to the image at `path` that the records call `name`.

        Of several languages it is that of the first, or of all.

        Raises:
            CaptionerError: the image cannot have one; names the image and the remedy.
        """
        sidecar = self._stem(path) + self.suffix
        if self.output is None:
            return path.parent / sidecar
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts:
            raise CaptionerError(f"{name} would be written outside of {self.output}")
        return self.output.joinpath(*inside.parent.parts, sidecar)

    def targets(self, path: Path, name: str) -> list[Path]:
        """All files that belong to an image: `target`, and one for each of the other languages.

        Raises:
            CaptionerError: as `target`, or one of them is that of another image.
        """
        first, stem = self.target(path, name), self._stem(path)
        others = [f"{stem}.{language}" for language in self.languages[1:]]
        taken = {each.casefold(): image for image, each in self._stems_beside(path).items()}
        for other in others:
            if other.casefold() in taken:
                image = path.with_name(taken[other.casefold()])
                raise CaptionerError(
                    f"{shown(path)} and {shown(image)} would share {shown(other + self.suffix)}: "
                    "rename one of them"
                )
        return [first, *(first.with_name(other + self.suffix) for other in others)]

    def texts(self, record: Record) -> list[str | None]:
        """What each of the `targets` of a record holds; None where it has no caption for it."""
        first = None if record["text"] is None else self.text(record)
        captions = captions_of(record)
        others = [captions.get(language, {}).get("text") for language in self.languages[1:]]
        return [first, *(None if each is None else f"{each}\n" for each in others)]

    def _stem(self, path: Path) -> str:
        return self._stems_beside(path).get(path.name, path.name)

    def _stems_beside(self, path: Path) -> dict[str, str]:
        """File name -> stem, for all images of the folder."""
        # Imported here: the command line's help lists the formats and must not load Pillow.
        from captioner.images.kinds import IMAGES

        folder = os.path.abspath(path.parent)
        if folder != self._folder:
            # One folder's names at a time: images come folder by folder.
            self._folder, self._stems = folder, output_stems(folder, IMAGES)
        return self._stems

    def text(self, record: Record) -> str:
        """What the file of a record with a caption holds."""
        return f"{record['text']}\n"

    def is_taken(self, target: Path) -> bool:
        """Whether the file exists and is not empty: an empty text file is not a caption."""
        return exists(target) and (self.is_signed or not is_blank(target))

    def may_replace(self, target: Path) -> bool:
        """Whether ``overwrite`` is enough to replace a file that is there."""
        return True

    def foreign(self, target: Path) -> CaptionerError:
        """The error to raise for a file that nothing replaces."""
        raise NotImplementedError("every text file may be replaced")

    def check(self, files: Iterable[NamedFile]) -> None:
        """Refuse files that exist and folders that cannot be written."""
        checked: Path | None = None
        for file in files:
            for target in self.targets(file.path, file.name):
                if target.parent != checked:
                    check_folder(target.parent)
                    checked = target.parent
                self._check_target(target)

    def open(self) -> None:
        """Create the output folder."""
        if self.output is not None:
            make_folder(self.output)
            check_folder(self.output)

    def write(self, record: Record, path: Path | None = None) -> None:
        """Write one image's files, each whole or not at all."""
        texts = self.texts(record)
        if not any(texts):
            return
        if path is None:
            raise CaptionerError(f"{self.what} need the path of each image: write(record, path)")
        targets = self.targets(path, record["file_name"])
        for target, text in zip(targets, texts, strict=True):
            if text is not None:
                self._check_target(target)
                replace_file(target, text)

    def _check_target(self, target: Path) -> None:
        if not exists(target):
            return
        if not self.may_replace(target):
            raise self.foreign(target)
        if not self.overwrite:
            raise CaptionerError(
                f"{shown(target)} exists: --overwrite replaces the {self.what} of these images"
            )


def check_sidecar_suffix(suffix: str) -> None:
    """Refuse a suffix that text files cannot have.

    Raises:
        ValueError: it is not a dot and some characters, or it is that of other files; says which.
    """
    # Imported here: the command line's help lists the formats and must not load Pillow.
    from captioner.images.kinds import IMAGES
    from captioner.video.finding import VIDEOS

    name = suffix.removeprefix(".")
    if name in ("", suffix) or name.endswith((".", " ")) or "/" in name or "\\" in name:
        raise ValueError(f"sidecar_suffix={suffix!r}: give a dot and a name, such as .caption")
    if escaped(suffix) != suffix or len(suffix) > LONGEST_SUFFIX:
        raise ValueError(
            f"sidecar_suffix={suffix!r}: give at most {LONGEST_SUFFIX} printable characters"
        )
    for kind in (IMAGES, VIDEOS):
        if kind.lists(f"a{suffix}"):
            raise ValueError(
                f"sidecar_suffix={suffix!r}: such files would be taken for {kind.noun}s"
            )
    if suffix.lower().endswith(XmpWriter.suffix):
        raise ValueError(
            f"sidecar_suffix={suffix!r}: photo programs keep their own work there; the format xmp "
            "writes such files"
        )


class XmpWriter(SidecarWriter):
    """An XMP sidecar for each image: its caption as the description, its tags as keywords.

    ``a.jpg.xmp`` for ``a.jpg``, the name that darktable and digiKam give, is every image's own.
    Adobe's ``a.xmp`` belongs to all files of that stem: images that share one are refused.

    A sidecar that another program has written or added to, or that somebody has changed, is never
    replaced: it may hold the development of a photo.
    """

    format = "xmp"
    summary = "an XMP sidecar for each image, with its caption and tags, for photo programs"
    suffix = ".xmp"
    what = "XMP sidecars"
    journal = sidecar_journal(".xmp")
    is_signed = True

    def __init__(
        self, output: Path | None = None, *, overwrite: bool = False, naming: str = "darktable"
    ) -> None:
        """As the text files' one; the naming is one of `XMP_NAMINGS`.

        All languages of an image are in one sidecar.
        """
        super().__init__(output, overwrite=overwrite)
        self.naming = naming
        self._sharing: dict[str, list[str]] = {}  # stem -> names, of the folder of `_stems`

    def _stem(self, path: Path) -> str:
        if self.naming == "darktable":
            return path.name
        stem = os.path.splitext(path.name)[0]
        others = [name for name in self._names_with(stem, path) if name != path.name]
        if others:
            raise CaptionerError(
                f"{shown(path)} and {shown(others[0])} would share {shown(stem)}.xmp: --xmp-name "
                "darktable gives each image its own sidecar; or rename one of them"
            )
        return stem

    def _names_with(self, stem: str, path: Path) -> list[str]:
        before = self._folder
        names = self._stems_beside(path)
        if self._folder != before:
            self._sharing = {}
            for name in names:
                # Compared as Windows and macOS do.
                key = os.path.splitext(name)[0].casefold()
                self._sharing.setdefault(key, []).append(name)
        return self._sharing.get(stem.casefold(), [])

    def text(self, record: Record) -> str:
        """The whole sidecar."""
        return render_xmp(foremost(record) or "", tag_names(record), alternatives_of(record))

    def texts(self, record: Record) -> list[str | None]:
        """The sidecar, of all languages with a caption; see `SidecarWriter.texts`."""
        return [None if foremost(record) is None else self.text(record)]

    def may_replace(self, target: Path) -> bool:
        """Whether captioner has made it, and nobody has changed it since."""
        return is_untouched(target)

    def foreign(self, target: Path) -> CaptionerError:
        """Names the sidecar and where ours can go."""
        return CaptionerError(
            f"{shown(target)} holds what captioner has not written (perhaps the development of a "
            "photo), and is never replaced: write into a folder of their own with --output DIR; "
            "docs/formats.md says how to merge them"
        )


XMP_NAMINGS = ("darktable", "adobe")
"""How XMP sidecars can be called: ``a.jpg.xmp``, or ``a.xmp``."""
