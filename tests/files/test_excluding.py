"""What a search of a folder leaves out, and what it never does."""

from __future__ import annotations

from pathlib import Path

import pytest

from captioner.errors import CaptionerError
from captioner.files.finding import find_files
from captioner.images.kinds import find_images
from captioner.video.finding import VIDEOS

NAS = [
    "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg",
    "#recycle/deleted.jpg",
    "2023/@eaDir/b.jpg/SYNOPHOTO_THUMB_M.jpg",
    "2023/#Recycle/old.png",
    "@Recycle/c.jpg",
    "$RECYCLE.BIN/S-1-5/x.jpg",
    "System Volume Information/x.jpg",
    "__MACOSX/._a.jpg",
    "__MACOSX/a.jpg",
    ".thumbnails/a.jpg",
    "Lightroom Catalog Previews.lrdata/1/1.jpg",
    "cat Smart Previews.lrdata/2.jpg",
    "lost+found/#123.jpg",
    "@tmp/a.jpg",
    "Network Trash Folder/a.jpg",
    "appdata_oc1a2b3c/preview/a.jpg",
    "work.cocatalog/Cache/Thumbnails/a.jpg",
    "@__thumb/s100a.jpg",
]
OWN = ["2023/b.jpg", "a.jpg", "eaDir/c.jpg", "recycle/d.jpg"]


@pytest.fixture
def nas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [*NAS, *OWN]:
        (tmp_path / "nas" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "nas" / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "nas"


def names(*paths: str, exclude: tuple[str, ...] | None = ()) -> list[str]:
    return [file.name for file in find_images(paths, exclude)]


def test_thumbnails_and_waste_bins_are_left_out(nas: Path) -> None:
    assert names("nas") == OWN
    assert names("nas/**/*.jpg") == OWN
    assert names("nas/**") == OWN
    hidden = [name for name in NAS if "/." in f"/{name}"]
    assert sorted(names("nas", exclude=None)) == sorted({*NAS, *OWN} - {*hidden})


def test_of_a_library_of_photos_its_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ["My.photoslibrary/originals/0/a.jpg", "Old.photolibrary/Masters/a.jpg"]
    own += ["Previews/a.jpg", "resources/a.jpg"]  # in no library
    made = ["My.photoslibrary/resources/derivatives/a.jpg", "Old.photolibrary/Previews/a.jpg"]
    made += ["Old.photolibrary/Thumbnails/a.jpg"]
    for name in [*own, *made]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert names(str(tmp_path)) == own
    assert names(str(tmp_path / "My.photoslibrary")) == ["originals/0/a.jpg"]
    monkeypatch.chdir(tmp_path / "Old.photolibrary")
    assert names(".") == ["Masters/a.jpg"]
    assert names("Previews") == ["a.jpg"]


def test_what_is_named_itself_is_never_left_out(nas: Path) -> None:
    assert names("nas/#recycle") == ["deleted.jpg"]
    assert names("nas/@eaDir") == ["a.jpg/SYNOPHOTO_THUMB_XL.jpg"]
    assert names("nas/@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg") == ["SYNOPHOTO_THUMB_XL.jpg"]
    assert names("nas/*/@eaDir/**/*.jpg") == ["2023/@eaDir/b.jpg/SYNOPHOTO_THUMB_M.jpg"]
    assert names("nas/#recycle/*") == ["deleted.jpg"]
    assert names("nas", "nas/#recycle") == [*OWN, "#recycle/deleted.jpg"]
    assert names("nas/#recycle", exclude=("#recycle/", "nas/")) == ["deleted.jpg"]
    assert names("nas/a.jpg", exclude=("*.jpg",)) == ["a.jpg"]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["b.jpg"], ["a.jpg", "eaDir/c.jpg", "recycle/d.jpg"]),
        (["2023/"], ["a.jpg", "eaDir/c.jpg", "recycle/d.jpg"]),
        (["/a.jpg", "recycle"], ["2023/b.jpg", "eaDir/c.jpg"]),
        (["/b.jpg"], OWN),
        (["*.jpg", "!c.jpg"], ["eaDir/c.jpg"]),
        (["**/d.*", "20??/"], ["a.jpg", "eaDir/c.jpg"]),
        (["# a comment", "", "*.PNG"], OWN),
        (["!/@Recycle/"], ["@Recycle/c.jpg", *OWN]),
        (["!#recycle/"], ["#recycle/deleted.jpg", *OWN]),
    ],
)
def test_patterns_of_the_option_and_of_a_file(
    nas: Path, patterns: list[str], expected: list[str]
) -> None:
    def inside() -> list[str]:
        return sorted(name for name in names("nas"))

    assert sorted(names("nas", exclude=tuple(patterns))) == sorted(expected)
    for start, end in [("", "\n"), ("\ufeff", "\r\n")]:
        text = start + end.join(patterns) + end
        (nas / ".captionerignore").write_text(text, encoding="utf-8", newline="")
        assert inside() == sorted(expected)


def test_a_hash_in_the_option_is_no_comment(nas: Path) -> None:
    (nas / "#1").mkdir()
    (nas / "#1" / "x.jpg").touch()
    assert names("nas") == ["#1/x.jpg", *OWN]
    assert names("nas", exclude=("#1",)) == OWN


def test_a_file_in_a_subfolder_is_relative_to_it_and_counts_more(nas: Path) -> None:
    (nas / ".captionerignore").write_text("*.jpg\n!a.jpg\n")
    (nas / "2023" / ".captionerignore").write_text("!/b.jpg\n")
    assert names("nas") == ["2023/b.jpg", "a.jpg"]
    assert names("nas", exclude=("/2023/b.jpg",)) == ["a.jpg"]
    assert names("nas", exclude=("!d.jpg",)) == ["2023/b.jpg", "a.jpg", "recycle/d.jpg"]
    # Only those in the folders that are searched.
    assert names("nas/eaDir") == ["c.jpg"]


def test_a_pattern_in_the_bytes_of_a_name_that_is_no_utf8(nas: Path) -> None:
    import os

    os.rename(nas / "a.jpg", os.fsencode(nas) + b"/\xfc.jpg")
    (nas / ".captionerignore").write_bytes(b"\xfc.jpg\n")
    assert names("nas") == [name for name in OWN if name != "a.jpg"]


def test_nothing_left_is_told_with_the_reason(nas: Path) -> None:
    with pytest.raises(CaptionerError) as caught:
        find_images("nas", ("*.jpg",))
    assert str(caught.value) == (
        "nas holds only image files that are left out: in folders such as @eaDir and #recycle, by "
        "--exclude or by .captionerignore; name the folder or the files themselves to take them"
    )


@pytest.mark.parametrize("line", ["!", "a\\"])
def test_what_is_not_a_pattern_is_named(nas: Path, line: str) -> None:
    remedy = "is not a pattern; write it as in a .gitignore file, such as '*.png' or 'drafts/'"
    with pytest.raises(CaptionerError) as caught:
        find_images("nas", ("*.png", line))
    assert str(caught.value) == f"--exclude: {line!r} {remedy}"
    (nas / ".captionerignore").write_text(f"ok\n{line}\n")
    with pytest.raises(CaptionerError) as caught:
        find_images("nas")
    assert str(caught.value) == f"nas/.captionerignore: {line!r} {remedy}"


def test_an_ignore_file_that_cannot_be_read(shared_folder: Path, without_privileges) -> None:
    (shared_folder / "a.jpg").touch()
    (shared_folder / ".captionerignore").touch(mode=0)
    (shared_folder / ".captionerignore").chmod(0)
    with without_privileges(), pytest.raises(CaptionerError, match="ignore cannot be read: perm"):
        find_images(shared_folder)
    (shared_folder / ".captionerignore").unlink()
    (shared_folder / ".captionerignore").mkdir()
    assert [file.name for file in find_images(shared_folder)] == ["a.jpg"]


def test_links_in_circles_end_with_patterns_as_well(nas: Path) -> None:
    (nas / "2023" / "zz").symlink_to("../eaDir")
    (nas / "eaDir" / "back").symlink_to("../2023")
    for folder in ("2023", "eaDir"):
        (nas / folder / ".captionerignore").write_text("*.png\n")
    expected = ["2023/b.jpg", "2023/zz/c.jpg", "a.jpg", "recycle/d.jpg"]
    assert names("nas", exclude=("*.gif",)) == expected


def test_videos_are_left_out_alike(nas: Path) -> None:
    for name in ("clip.mp4", "@eaDir/clip.mp4", "2023/raw.mov"):
        (nas / name).touch()
    assert [file.name for file in find_files("nas", VIDEOS, ["*.mov"])] == ["clip.mp4"]
