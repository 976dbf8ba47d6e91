"""What files are by their first bytes, and what folders hold that is not read."""

from __future__ import annotations

from pathlib import Path

import pytest

from captioner.cli.options import say_what_was_passed_over
from captioner.files.finding import other_files
from captioner.files.recognising import HEAD_BYTES, recognise, recognised
from captioner.images import kinds
from captioner.images.kinds import IMAGES, images_to_find, notes_on_others
from captioner.images.reading import ImageError, read_image
from captioner.video.finding import VIDEOS
from helpers.images import noise


def box(main: bytes, *others: bytes) -> bytes:
    """The first box of an ISO base media file."""
    return (16 + 4 * len(others)).to_bytes(4, "big") + b"ftyp" + main + bytes(4) + b"".join(others)


PACKET = b"\x47" + bytes(187)
HEADS = {
    "IMG_1.heic": (box(b"heic", b"mif1", b"heic"), "HEIC"),
    "IMG_2.jpg": (box(b"mif1", b"mif1", b"heic"), "HEIC"),
    "a.avif": (box(b"avif", b"mif1"), "AVIF"),
    "b.avif": (box(b"mif1", b"mif1", b"avif"), "AVIF"),
    "a.jxl": (b"\xff\x0a\xfa\x1f", "JPEG XL"),
    "b.jxl": (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    "a.jp2": (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    "a.psd": (b"8BPS\0\1", "Photoshop"),
    "a.cr2": (b"II*\0\x10\0\0\0CR\2\0", "raw photo"),
    "a.cr3": (box(b"crx ", b"isom"), "raw photo"),
    "a.NEF": (b"MM\0*\0\0\0\x08", "raw photo"),
    "a.dng": (b"II*\0\x08\0\0\0", "raw photo"),
    "a.raf": (b"FUJIFILMCCD-RAW 0201", "raw photo"),
    "a.tif": (b"II*\0\x08\0\0\0", "TIFF"),
    "a.svg": (b'<?xml version="1.0"?>\n<svg xmlns="x">', "SVG"),
    "b.svg": (b"\xef\xbb\xbf<svg>", "SVG"),
    "a.mp4": (box(b"isom", b"mp42"), "video"),
    "a.insv": (box(b"avc1"), "video"),
    "a.lrv": (box(b"mp41"), "video"),
    "a.qt": (b"\0\0\0\x08wide\0\0\0\0mdat", "video"),
    "a.mod": (b"\0\0\1\xba\x44", "video"),
    "a.m2v": (b"\0\0\1\xb3\x14", "video"),
    "a.h264": (b"\0\0\0\1\x67\x64", "video"),
    "a.hevc": (b"\0\0\0\1\x40\1", "video"),
    "a.rmvb": (b".RMF\0\0", "video"),
    "a.tod": (PACKET * 2, "video"),
    "a.tp": (bytes(4) + PACKET + bytes(4) + PACKET, "video"),
    "a.dat": (b"\x1a\x45\xdf\xa3", "video"),
    "a.txt": (b"just words", None),
    "a.xml": (b"<?xml version='1.0'?><x:xmpmeta/>", None),
    "a.eps": (b"%!PS-Adobe-3.0 EPSF", "PostScript"),
    "a.dds": (b"DDS |", "DDS"),
    "a.dcm": (bytes(128) + b"DICM", "DICOM"),
    "a.pdf": (b"%PDF-1.7", "PDF"),
    "a.zip": (b"PK\3\4", "archive"),
    "b.htm": (b" <!DOCTYPE html>\n<html>", "web page"),
    "c.htm": (b"<HTML lang=en>", "web page"),
    "a.m4a": (box(b"M4A "), "sound"),
    "a.mp3": (b"ID3\4\0", "sound"),
    "a.wav": (b"RIFF\0\0\0\0WAVE", "sound"),
    "a.tgz": (b"\x1f\x8b\x08", "archive"),
    "a.tar": (bytes(257) + b"ustar", "archive"),
    "avci.heif": (box(b"avci", b"mif1"), "HEIC"),
    "annex.jpg": (b"/annex/objects/MD5E-s9--0.jpg\n\1", "pointer of git-annex"),
    "empty": (b"", None),
}


@pytest.mark.parametrize("name", HEADS)
def test_files_are_what_their_first_bytes_say(name: str) -> None:
    head, expected = HEADS[name]
    assert recognised(head, name) == expected
    assert recognised(head.ljust(HEAD_BYTES, b"\x01"), name) == expected


def test_any_bytes_are_something_or_nothing() -> None:
    for head, _ in HEADS.values():
        for end in range(len(head)):
            recognised(head[:end])


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (box(b"heic", b"mif1") + bytes(99), "damaged HEIC"),
        (b"\xff\x0a\xfa\x1f" + bytes(99), "damaged JPEG XL"),
        (b"8BPS\0\1" + bytes(99), "Photoshop is not supported: convert it to JPEG"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000 is not supported: convert it to JPEG"),
        (b"FUJIFILMCCD-RAW" + bytes(99), "damaged raw photo"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "a pointer of Git LFS and not the image: `git lfs pull` fetches it",
        ),
        (box(b"isom") + bytes(99), "a video and not an image: `captioner tag` reads videos"),
        (b"<!DOCTYPE html><html>", "a web page and not the image: download it again"),
        (b"PK\3\4" + bytes(99), "an archive and not an image: unpack it"),
        (b"%PDF-1.7", "PDF is not supported: convert it to JPEG"),
        (b"\xff\xd8\xff" + bytes(9), "not an image Pillow can read"),
        (b"words", "not an image Pillow can read"),
        (bytes(512), "zero bytes and not the image: copy or download it again"),
        (bytes(511), "not an image Pillow can read"),
        (b"\x1f\x8b\x08" + bytes(99), "an archive and not an image: unpack it"),
        (b"ID3\4" + bytes(99), "sound and not an image"),
        (
            b"/annex/objects/MD5E-s9--0.jpg\n",
            "a pointer of git-annex and not the image: `git annex get` fetches it",
        ),
    ],
)
def test_what_is_called_jpg_and_is_none_is_called_what_it_is(
    tmp_path: Path, head: bytes, reason: str
) -> None:
    (tmp_path / "x.jpg").write_bytes(head)
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "x.jpg")
    # What the libraries of the extras say, in brackets, is not the same in all their versions.
    assert caught.value.reason.split(" (")[0] == reason


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "phone"
    for name, (head, _) in HEADS.items():
        (folder / "DCIM" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "DCIM" / name).write_bytes(head)
    noise().save(folder / "photo.jpg")
    (folder / ".IMG_9.HEIC.icloud").write_bytes(b"bplist00")
    (folder / ".hidden.psd").write_bytes(b"8BPS")
    (folder / "@eaDir").mkdir()
    (folder / "@eaDir" / "x.psd").write_bytes(b"8BPS")
    monkeypatch.chdir(tmp_path)
    return folder


JXL_NOTE = "pip install 'captioner[jxl]' (its licence is the GPL-3)"


@pytest.mark.parametrize(
    ("installed", "raw", "jxl", "raw_photos"),
    [
        (False, "alone", f"2 JPEG XL (.jxl; {JXL_NOTE}), ", "pip install 'captioner[raw]'"),
        (True, "alone", "", "--raw all takes those beside another image"),
        (True, "none", "", "--raw all takes them"),
    ],
)
def test_what_a_folder_holds_besides_is_counted_by_kind_in_one_line(
    phone: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    installed: bool,
    raw: str,
    jxl: str,
    raw_photos: str,
) -> None:
    monkeypatch.setattr(kinds, "is_installed", lambda module: installed)
    say_what_was_passed_over(
        ["phone"], images_to_find(raw), ["*.rmvb"], notes_on_others(raw), wanted=True
    )
    assert capsys.readouterr().err == (
        "captioner: passed over in folders: 1 DDS (.dds), 1 DICOM (.dcm), 1 JPEG 2000 (.jp2), "
        f"{jxl}1 Photoshop (.psd), 1 PostScript (.eps), 2 SVG (.svg), 1 iCloud placeholder "
        "(.icloud), 5 raw photos "
        f"(.cr2 .cr3 .dng .nef .raf; {raw_photos}), 3 sounds (.m4a .mp3 .wav), 11 videos "
        "(.dat .h264 .hevc .insv .lrv .m2v .mod .mp4 .qt .tod .tp)\n"
    )


def test_videos_with_other_suffixes_are_counted(
    phone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say_what_was_passed_over(["phone"], VIDEOS, [], wanted=True)
    assert capsys.readouterr().err == "captioner: passed over in folders: 2 videos (.dat .lrv)\n"


def test_what_was_not_asked_for_is_not_counted(
    phone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say_what_was_passed_over(["phone"], IMAGES, [], wanted=False)
    say_what_was_passed_over(["phone/photo.jpg", "phone/*.jpg"], IMAGES, [], wanted=True)
    assert capsys.readouterr().err == ""
    assert recognise(phone / "gone.psd") is None
    assert recognise(phone) is None
    assert list(other_files(["phone/DCIM/*.psd"], IMAGES)) == []
