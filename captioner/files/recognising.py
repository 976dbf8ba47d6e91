"""What a file is, by its first bytes, for messages about files that are not read.

Nothing is decoded: a name is all that is wanted. The signatures are those of the formats' own
specifications, as collected in https://www.iana.org/assignments/media-types and in `file`.
"""

from __future__ import annotations

from pathlib import Path

HEAD_BYTES = 512
"""From the start of a file: enough for the second packet of an MPEG transport stream."""

IMAGE, RAW, VIDEO = "image", "raw photo", "video"
LFS, ANNEX = "pointer of Git LFS", "pointer of git-annex"
WEB_PAGE, ARCHIVE, PDF = "web page", "archive", "PDF"
SOUND, ZEROS = "sound", "zero bytes"
ICLOUD = ".icloud"

PILLOW_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".avif", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
)
"""Of images that Pillow reads, in the order in which help names them."""

HEIC_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
JPEG_XL_SUFFIXES = frozenset({".jxl"})

_RAW_SUFFIXES = (
    ".3fr .arw .cr2 .cr3 .dcr .dng .erf .iiq .k25 .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw"
    " .rw2 .rwl .sr2 .srf .srw .x3f"
)
RAW_SUFFIXES = frozenset(_RAW_SUFFIXES.split())
"""Of raw photos, most of which are TIFF files by their content."""

_WRITTEN_SUFFIXES = (
    ".txt .caption .xmp .json .jsonl .csv .tsv .html .srt .vtt .aae .ini .db .md .log"
)
WRITTEN_SUFFIXES = frozenset(_WRITTEN_SUFFIXES.split())
"""Of files that stand beside photos by the thousand: they are not even opened."""

READ = frozenset({"JPEG", "PNG", "GIF", "WebP", "AVIF", "TIFF", "BMP"})
"""Images that Pillow reads."""

DOCUMENTS = frozenset({WEB_PAGE, ARCHIVE, PDF, ZEROS})
"""What is named where it is called an image, and not counted where it is called what it is."""

IMAGES = READ | {
    *("HEIC", "JPEG XL", "JPEG 2000", RAW),
    *("Photoshop", "OpenEXR", "Radiance HDR", "GIMP", "icon", "SVG"),
}
"""All images that are recognised."""

_STARTS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF8", "GIF"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"gimp xcf", "GIMP"),
    (0, b"\0\0\1\0", "icon"),
    (0, b"icns", "icon"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"),  # with a preview
    (0, b"II\xbc", "JPEG XR"),
    (0, b"DDS ", "DDS"),
    (0, b"AT&TFORM", "DjVu"),
    (0, b"qoif", "QOI"),
    (0, b"\0\xffKA", "Affinity"),
    (128, b"DICM", "DICOM"),
    (0, b"%PDF", PDF),
    (0, b"PK\3\4", ARCHIVE),
    (0, b"Rar!", ARCHIVE),
    (0, b"7z\xbc\xaf", ARCHIVE),
    (0, b"\x1f\x8b\x08", ARCHIVE),  # gzip
    (0, b"BZh", ARCHIVE),
    (0, b"\xfd7zXZ\0", ARCHIVE),
    (0, b"\x28\xb5\x2f\xfd", ARCHIVE),  # Zstandard
    (257, b"ustar", ARCHIVE),
    (0, b"version https://git-lfs.github.com/", LFS),
    (0, b"/annex/objects/", ANNEX),
    (0, b"ID3", SOUND),
    (0, b"fLaC", SOUND),
    (8, b"CR\2\0", RAW),  # Canon, a TIFF otherwise
    (0, b"FUJIFILMCCD-RAW", RAW),
    (0, b"IIRO", RAW),
    (0, b"IIRS", RAW),
    (0, b"MMOR", RAW),
    (0, b"IIU\0", RAW),
    (0, b"FOVb", RAW),
    (0, b"\0MRM", RAW),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"\x1a\x45\xdf\xa3", VIDEO),  # Matroska, WebM
    (0, b"FLV\1", VIDEO),
    (0, b"OggS", VIDEO),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", VIDEO),  # ASF: WMV
    (0, b".RMF", VIDEO),
    (0, b"\0\0\1\xba", VIDEO),  # MPEG, with sound
    (0, b"\0\0\1\xb3", VIDEO),  # MPEG, video only
    (4, b"moov", VIDEO),
    (4, b"mdat", VIDEO),
    (4, b"wide", VIDEO),
)
_RIFF = {b"WEBP": "WebP", b"AVI ": VIDEO, b"WAVE": SOUND}
_BRANDS = {  # of ISO base media files
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis"), "HEIC"),
    **dict.fromkeys((b"hevc", b"hevx", b"hevm", b"hevs"), "HEIC"),  # sequences
    **dict.fromkeys((b"avci", b"avcs", b"jpeg", b"jpgs"), "HEIC"),  # with other codecs
    **dict.fromkeys((b"mif1", b"msf1", b"mif2"), "HEIC"),  # of no codec; AVIF says so as well
    b"crx ": RAW,
    b"jxl ": "JPEG XL",
    b"jp2 ": "JPEG 2000",
    **dict.fromkeys((b"M4A ", b"M4B "), SOUND),
}
# Starts of bare video streams: parameter sets of H.264 and HEVC (their first byte after 0 0 0 1).
_ANNEX_B = {0x67, 0x27, 0x09, 0x40, 0x42, 0x44, 0x46}


def recognised(head: bytes, name: str = "") -> str | None:
    """What a file is: the name of an image format, `RAW`, `VIDEO`, another word, or None.

    Args:
        head: its first `HEAD_BYTES`.
        name: the file's; the suffix distinguishes raw photos from TIFF files.
    """
    found = next((kind for at, start, kind in _STARTS if head[at : at + len(start)] == start), None)
    if found == "TIFF" and Path(name).suffix.lower() in RAW_SUFFIXES:
        return RAW
    if found is not None:
        return found
    if head[4:8] == b"ftyp":
        return _branded(head)
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if head[:1] == b"\x47" and head[188:189] == b"\x47":
        return VIDEO  # an MPEG transport stream
    if head[4:5] == b"\x47" and head[196:197] == b"\x47":
        return VIDEO  # the same with times, of a camcorder
    if head[:4] == b"\0\0\0\1" and len(head) > 4 and head[4] in _ANNEX_B:
        return VIDEO
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"<svg") or (text.startswith((b"<?xml", b"<!--")) and b"<svg" in text):
        return "SVG"
    if text.startswith((b"<!doctype html", b"<html")):
        return WEB_PAGE
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "BMP"
    if len(head) == HEAD_BYTES and not any(head):
        return ZEROS
    return None


_NOT_WHAT_IS_WANTED = {
    LFS: f"a {LFS} and not the {{noun}}: `git lfs pull` fetches it",
    ANNEX: f"a {ANNEX} and not the {{noun}}: `git annex get` fetches it",
    WEB_PAGE: f"a {WEB_PAGE} and not the {{noun}}: download it again",
    ARCHIVE: f"an {ARCHIVE} and not {{a_noun}}: unpack it",
    SOUND: f"{SOUND} and not {{a_noun}}",
    ZEROS: f"{ZEROS} and not the {{noun}}: copy or download it again",
}


def why_no_image_or_video(kind: str | None, noun: str) -> str | None:
    """What a file is that is neither, and what to do; None for what is not known as such.

    Args:
        kind: as `recognised` calls it.
        noun: what the file was taken for, `image` or `video`.
    """
    text = _NOT_WHAT_IS_WANTED.get(kind or "")
    a_noun = f"{'an' if noun == 'image' else 'a'} {noun}"
    return None if text is None else text.format(noun=noun, a_noun=a_noun)


def recognise(path: Path) -> str | None:
    """The same for a regular file; None for one that cannot be read."""
    if path.name.startswith(".") and path.name.endswith(ICLOUD):
        return "iCloud placeholder"
    if path.suffix.lower() in WRITTEN_SUFFIXES:
        return None
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return recognised(file.read(HEAD_BYTES), path.name)
    except OSError:
        return None


def _branded(head: bytes) -> str:
    """Of an ISO base media file, by its main brand and then by those it is compatible with."""
    size = int.from_bytes(head[:4], "big")
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, min(size, len(head)), 4))]
    kinds = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
    if not kinds:
        return VIDEO
    # Of the general brand of images, what else the file says of itself.
    return "AVIF" if "AVIF" in kinds and brands[0] in (b"mif1", b"msf1", b"mif2") else kinds[0]
