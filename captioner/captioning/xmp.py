"""XMP sidecars: the caption and the tags of one image, as photo programs read them.

Adobe's XMP specification (ISO 16684-1) says how RDF is written: a description is a language
alternative, keywords are a bag. The alternative text is IPTC's (Photo Metadata Standard 2021.1).
Captioner's own sidecar is one fixed text with few places to fill, so escaping is all it takes to
write it, and no other program's is ever parsed: a checksum shows that a file is captioner's own and
untouched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, unescape
from zlib import crc32

from captioner.version import __version__

# What XML 1.0 (section 2.2, `Char`) has no way to hold, not even as a reference.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_HEAD = """\
<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="captioner {version} crc32 {checksum}">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:Iptc4xmpCore="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/">
"""
_TAIL = """\
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""
_UNKNOWN = "0" * 8  # in the place of the checksum while it is taken
_REFERENCES = {"&#13;": "\r"}
_DEFAULT = "x-default"
_CAPTIONS, _TAGS = "dc:description", "dc:subject"
_ITEM = re.compile(r'<rdf:li(?: xml:lang="([^"]*)")?>([^<]*)</rdf:li>')
_STAMP = re.compile(rb'(x:xmptk="captioner [^"<\n]* crc32 )([0-9a-f]{8})(?=")')


def render_xmp(
    text: str, tags: Iterable[str] = (), alternatives: Mapping[str, str] | None = None
) -> str:
    """The whole sidecar of an image.

    Args:
        text: its caption, which becomes ``dc:description`` and the IPTC alternative text.
        tags: become ``dc:subject``, in this order; without any it is left out.
        alternatives: language (a BCP 47 tag) -> caption; each is an alternative in both, after the
            first one, which programs show that know no language.

    Characters that XML cannot hold become U+FFFD.
    """
    captions = {_DEFAULT: text, **(alternatives or {})}
    lines = [_HEAD.format(version=_escaped(__version__), checksum=_UNKNOWN)]
    items = "".join(
        f'     <rdf:li xml:lang="{_escaped(language)}">{_escaped(caption)}</rdf:li>\n'
        for language, caption in captions.items()
    )
    for name in (_CAPTIONS, "Iptc4xmpCore:AltTextAccessibility"):
        lines.append(f"   <{name}>\n    <rdf:Alt>\n{items}    </rdf:Alt>\n   </{name}>\n")
    items = "".join(f"     <rdf:li>{_escaped(tag)}</rdf:li>\n" for tag in tags)
    if items:
        lines.append(f"   <{_TAGS}>\n    <rdf:Bag>\n{items}    </rdf:Bag>\n   </{_TAGS}>\n")
    lines.append(_TAIL)
    unsigned = "".join(lines)
    checksum = f"crc32 {crc32(unsigned.encode()):08x}"
    return unsigned.replace(f"crc32 {_UNKNOWN}", checksum, 1)


def is_untouched(path: Path) -> bool:
    """Whether a file is a sidecar of `render_xmp`, of whatever caption, and holds nothing else.

    A program that adds to it rewrites it with its own name in place of captioner's; after a change
    in an editor the checksum no longer matches.
    """
    try:
        data = path.read_bytes() if path.is_file() else b""  # a pipe would never end
    except OSError:
        return False
    found = _STAMP.search(data[:1024])
    if found is None:
        return False
    unsigned = data[: found.start(2)] + _UNKNOWN.encode() + data[found.end(2) :]
    return int(found[2], 16) == crc32(unsigned)


@dataclass(frozen=True)
class Sidecar:
    """What an untouched sidecar of `render_xmp` holds.

    Attributes:
        text: the caption.
        tags: the keywords.
        alternatives: language -> caption.
    """

    text: str
    tags: tuple[str, ...]
    alternatives: Mapping[str, str]


def read_xmp(path: Path) -> Sidecar | None:
    """What an untouched sidecar of `render_xmp` holds; None of any other file."""
    if not is_untouched(path):
        return None
    whole = path.read_text("utf-8")
    captions = dict(_items(whole, _CAPTIONS))
    tags = tuple(tag for _, tag in _items(whole, _TAGS))
    return Sidecar(captions.pop(_DEFAULT), tags, captions)


def _items(whole: str, name: str) -> list[tuple[str, str]]:
    """The language (empty for none) and the text of each item of a property."""
    _, _, inside = whole.partition(f"<{name}>")
    inside, _, _ = inside.partition(f"</{name}>")
    return [(found[1] or "", unescape(found[2], _REFERENCES)) for found in _ITEM.finditer(inside)]


def held_by_xml(text: str) -> str:
    """The text with U+FFFD in the place of what XML cannot hold."""
    return _NO_XML.sub("\ufffd", text)


def _escaped(text: str) -> str:
    # A carriage return would be read as the end of a line, which is one character less.
    return escape(held_by_xml(text), {to: each for each, to in _REFERENCES.items()})
