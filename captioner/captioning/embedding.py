"""Captions inside of image files, where photo programs and websites look for them.

The caption becomes EXIF ImageDescription, IPTC Caption-Abstract (where the format has IPTC) and XMP
dc:description, the tags are added to dc:subject. Of several languages the first one is in all
three, and dc:description has each as an alternative of its own. ExifTool writes a changed copy,
which takes the file's place when it is whole. A mark in the place where XMP names its writer tells
which text is ours: other programs replace it by their own name when they change anything.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any
from zlib import crc32

from captioner.captioning.xmp import held_by_xml
from captioner.files.exiftool import ExifTool, ExifToolError
from captioner.files.recognising import recognise
from captioner.files.resume import NO_LOCKS, Fingerprint, acquire
from captioner.files.writing import part_beside
from captioner.version import __version__

HAS_IPTC = {"JPEG": True, "PNG": True, "TIFF": True, "WebP": False}
"""The formats that captions are embedded in -> whether IPTC goes with them."""

IPTC_BYTES = 2000
"""What IPTC's Caption-Abstract holds (IIM 4.2, 2:120); longer captions are cut there."""

CAMERA_TEXTS = frozenset(
    {
        "DIGITAL CAMERA",
        "KODAK DIGITAL STILL CAMERA",
        "MINOLTA DIGITAL CAMERA",
        "OLYMPUS DIGITAL CAMERA",
        "SAMSUNG DIGITAL CAMERA",
        "SONY DSC",
    }
)
"""What cameras write into ImageDescription of every photo: nobody's words."""

_EXIF, _IPTC = "IFD0:ImageDescription", "IPTC:Caption-Abstract"
_XMP, _SUBJECT = "XMP-dc:Description", "XMP-dc:Subject"
_WRITER, _DIGEST = "XMP-x:XMPToolkit", "Photoshop:IPTCDigest"
_CHARSET = "IPTC:CodedCharacterSet"
# ExifTool adds these with the first tag of EXIF, unless they are removed at the same time.
_ADDED = ("XResolution", "YResolution", "ResolutionUnit", "YCbCrPositioning")
_READ = ("XMP-dc:all", "IPTC:all", _EXIF, _WRITER, _DIGEST, *(f"IFD0:{tag}" for tag in _ADDED))
_MARK = re.compile(r"captioner \S+ crc32 ([0-9a-f]{8}) tags ([0-9]+)")


class NotEmbedded(Exception):
    """Why a caption is not embedded in one file, in a few words without its path."""


@dataclass(frozen=True)
class _Content:
    """What a file holds of what is written.

    Attributes:
        texts: tag -> text, of the three descriptions that are there, with the alternatives in
            other languages of the last.
        others: dc:subject without our tags.
        tags: those that captioner wrote.
        is_ours: whether captioner has written all the texts.
    """

    texts: Mapping[str, str]
    others: tuple[str, ...]
    tags: tuple[str, ...]
    is_ours: bool

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> _Content:
        texts = {tag: _text(found[tag]) for tag in found if tag.startswith((_EXIF, _IPTC, _XMP))}
        subject = _list(found.get(_SUBJECT) or found.get("IPTC:Keywords"))
        mark = _MARK.fullmatch(_text(found.get(_WRITER, "")))
        if mark is not None:
            first = max(0, len(subject) - int(mark[2]))
            tags, text = subject[first:], texts.get(_XMP, "")
            alternatives = {
                tag.removeprefix(f"{_XMP}-"): texts[tag]
                for tag in texts
                if tag.startswith(f"{_XMP}-")
            }
            is_same = _is_same(texts, text)
            is_ours = is_same and mark[1] == _checksum(text, tags, alternatives)
            if is_ours:
                return cls(texts, subject[:first], tags, True)
        return cls(texts, subject, (), False)

    @property
    def is_written_by_people(self) -> bool:
        return not self.is_ours and any(
            text.strip() and text.strip().upper() not in CAMERA_TEXTS
            for text in self.texts.values()
        )


class Embedder:
    """Writes captions into image files, until it is closed.

    A description that somebody else has written stays; so do all keywords but our own. The file
    keeps its permissions and its time of modification. Of a link the target is changed.
    """

    def __init__(self) -> None:
        """CaptionerError if ExifTool is not installed."""
        self._exiftool = ExifTool()

    def close(self) -> None:
        """End ExifTool."""
        self._exiftool.close()

    def embed(
        self,
        path: Path,
        text: str,
        tags: Sequence[str],
        captioned: Fingerprint,
        alternatives: Mapping[str, str] | None = None,
    ) -> Fingerprint:
        """Write a caption into its image, whole or not at all.

        Args:
            path: of the image.
            text: the caption.
            tags: of the image, surest first.
            captioned: of the file whose caption this is.
            alternatives: language (a BCP 47 tag) -> caption, as `render_xmp` has them.

        Returns:
            By what the file is known again, now that it holds the caption. A file that holds it
            already is not touched.

        Raises:
            NotEmbedded: why not. The file is as it was.
        """
        real = Path(os.path.realpath(path))
        if not text.strip():
            raise NotEmbedded("its caption is empty")
        try:
            kind = recognise(real)
            if kind not in HAS_IPTC:
                raise NotEmbedded(f"{kind or 'this format'} takes none: {', '.join(HAS_IPTC)} do")
            _check_writable(real)
            _check_same(path, captioned)
            with _own_files(real) as (copy, part):
                _copy(real, copy)
                if not self._change(copy, part, text, tags, alternatives or {}, kind):
                    return captioned
                return _replace(real, part, path, captioned)
        except OSError as error:
            raise NotEmbedded((error.strerror or str(error)).lower()) from None
        except ExifToolError as error:
            raise NotEmbedded(str(error)) from None

    def _change(
        self,
        copy: Path,
        part: Path,
        text: str,
        tags: Sequence[str],
        alternatives: Mapping[str, str],
        kind: str,
    ) -> bool:
        """Write the file with the caption; False if the copy has it already."""
        found = self._exiftool.read(copy, _READ)
        content = _Content.of(found)
        text = held_by_xml(text).strip()
        alternatives = {each: held_by_xml(alternatives[each]).strip() for each in alternatives}
        wanted = {_EXIF: text, _XMP: text} | ({_IPTC: _cut(text)} if HAS_IPTC[kind] else {})
        # After the text without a language, whose writing removes those that are there.
        wanted |= {f"{_XMP}-{language}": each for language, each in alternatives.items()}
        own = tuple(
            tag for tag in dict.fromkeys(map(held_by_xml, tags)) if tag not in content.others
        )
        if dict(content.texts) == wanted and content.is_ours and content.tags == own:
            return False
        if content.is_written_by_people:
            raise NotEmbedded("it already has a description, which captioner has not written")
        changes = [*wanted.items(), (_WRITER, _mark(text, own, alternatives))]
        if own or content.tags:
            changes += [(_SUBJECT, tag) for tag in (*content.others, *own) or ("",)]
        changes += _consequences(found, text, kind)
        self._exiftool.write(copy, part.name, changes)
        return True


def _consequences(found: Mapping[str, Any], text: str, kind: str) -> Iterator[tuple[str, str]]:
    """What has to be changed with the texts so that all else stays as it is."""
    # TIFF files have EXIF's first folder anyway, and nothing is added to it.
    if kind != "TIFF" and not any(f"IFD0:{tag}" in found for tag in (*_ADDED, "ImageDescription")):
        yield from ((f"IFD0:{tag}", "") for tag in _ADDED)
    if not HAS_IPTC[kind]:
        return
    if _DIGEST in found:
        yield _DIGEST, "new"  # by which programs see that XMP and IPTC say the same
    if text.isascii() or found.get(_CHARSET) == "UTF8":
        return
    if not all(str(found[tag]).isascii() for tag in found if tag.startswith("IPTC:")):
        raise NotEmbedded("its IPTC texts do not say that they are UTF-8")
    yield _CHARSET, "UTF8"


def _is_same(texts: Mapping[str, str], text: str) -> bool:
    return bool(text) and all(
        there == (_cut(text) if tag == _IPTC else text)
        for tag, there in texts.items()
        if not tag.startswith(f"{_XMP}-")
    )


def _mark(text: str, tags: Sequence[str], alternatives: Mapping[str, str]) -> str:
    checksum = _checksum(text, tags, alternatives)
    return f"captioner {__version__} crc32 {checksum} tags {len(tags)}"


def _checksum(text: str, tags: Sequence[str], alternatives: Mapping[str, str]) -> str:
    parts = (text, *tags, *chain.from_iterable(sorted(alternatives.items())))
    return f"{crc32(chr(0).join(parts).encode('utf-8', 'replace')):08x}"


def _cut(text: str) -> str:
    return text.encode()[:IPTC_BYTES].decode(errors="ignore")


def _text(value: Any) -> str:
    # ExifTool writes some texts as JSON's true and false.
    return str(value).lower() if isinstance(value, bool) else str(value)


def _list(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(map(_text, value)) if isinstance(value, list) else (_text(value),)


def _check_writable(path: Path) -> None:
    # The system's superuser may write everything; a file that is marked is left alone all the same.
    effective = os.access in os.supports_effective_ids
    if not path.stat().st_mode & 0o222 or not os.access(path, os.W_OK, effective_ids=effective):
        raise NotEmbedded("it is read-only")


def _check_same(path: Path, captioned: Fingerprint) -> None:
    found = path.stat()
    if (found.st_size, found.st_mtime_ns) != (captioned.size_bytes, captioned.modified_ns):
        raise NotEmbedded("it has changed since it was captioned")


@contextmanager
def _own_files(path: Path) -> Iterator[tuple[Path, Path]]:
    """Two temporary files beside a file; both are removed, also those of a killed run.

    Hidden, short, and without a suffix that ExifTool could hold against what the file is. They are
    one process's at a time, where the file system has locks.
    """
    part = part_beside(path)
    copy, lock = part.with_suffix(".copy"), part.with_suffix(".lock")
    with ExitStack() as stack:
        try:
            is_free = acquire(lock, stack)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            is_free = True
        if not is_free or not lock.exists():  # Its last owner has just removed it.
            raise NotEmbedded("another captioner is writing into it")
        try:
            for each in (copy, part):
                each.unlink(missing_ok=True)
            yield copy, part
        finally:
            for each in (copy, part, lock):
                with suppress(OSError):
                    each.unlink(missing_ok=True)


def _copy(path: Path, copy: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(copy, flags, 0o600)
    with open(descriptor, "wb") as target, path.open("rb") as source:
        shutil.copyfileobj(source, target, 1 << 20)


def _replace(real: Path, part: Path, path: Path, captioned: Fingerprint) -> Fingerprint:
    """Give the finished file its name, and copy the old one's owner, mode and attributes."""
    owner = real.stat()
    if hasattr(os, "chown"):
        with suppress(OSError):  # Only the superuser gives files away.
            os.chown(part, owner.st_uid, owner.st_gid)
    shutil.copystat(real, part)
    descriptor = os.open(part, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    now = part.stat()
    _check_same(path, captioned)
    os.replace(part, real)
    return replace(captioned, size_bytes=now.st_size, modified_ns=now.st_mtime_ns)
