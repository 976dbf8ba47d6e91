"""`captioner caption` on folders as phones, cameras and NAS leave them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from captioner.cli import entry as cli
from captioner.images import kinds
from captioner.model.caption_model import CaptionModel
from helpers.heic import heic
from helpers.images import noise, quadrants
from helpers.raw import dng

Caption = list[str]


@pytest.fixture
def caption(
    tagging_model: CaptionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Caption:
    """The command, in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    return ["caption", "photos", "--model", str(tagging_model.path), "--device", "cpu"]


def written(folder: Path, suffix: str = ".txt") -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(f"*{suffix}"))


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    """A JPEG with its HEIC and its raw photo, and a HEIC and a raw photo that stand alone."""
    folder = tmp_path / "photos"
    folder.mkdir()
    preview = io.BytesIO()
    noise(0, 256, 192).save(preview, "JPEG")
    noise(0).save(folder / "IMG_1.jpg")
    for name in ("IMG_1.DNG", "IMG_3.dng"):
        dng(folder / name, preview.getvalue())
    for name in ("IMG_1.HEIC", "IMG_2.heic"):
        heic(folder / name, quadrants())
    return folder


def test_new_kinds_of_images_do_not_take_the_names_of_outputs(
    camera: Path, caption: Caption, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*caption, "--format", "txt"]) == 0
    assert written(camera) == ["IMG_1.HEIC.txt", "IMG_1.txt", "IMG_2.txt", "IMG_3.txt"]
    jpeg = (camera / "IMG_1.txt").read_bytes()
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "captioner: 4 captioned, 0 failed",
        "captioner: passed over in folders: 1 raw photo (.dng; --raw all takes those beside "
        "another image)",
    ]
    assert cli.main([*caption, "--format", "txt", "--raw", "all"]) == 0
    assert capsys.readouterr().err == "captioner: 1 captioned, 4 finished before, 0 failed\n"
    assert written(camera) == [
        *("IMG_1.DNG.txt", "IMG_1.HEIC.txt", "IMG_1.txt", "IMG_2.txt", "IMG_3.txt")
    ]
    assert (camera / "IMG_1.txt").read_bytes() == jpeg


def test_rows_of_raw_photos_stay_when_they_are_not_asked_for_any_more(
    camera: Path, caption: Caption, tmp_path: Path
) -> None:
    command = [*caption, "--quiet", "--output", "captions.csv"]
    assert cli.main([*command, "--raw", "all"]) == 0
    everything = (tmp_path / "captions.csv").read_bytes()
    assert everything.count(b"\n") == 6
    for raw in ("alone", "none"):
        assert cli.main([*command, "--raw", raw]) == 0
        assert (tmp_path / "captions.csv").read_bytes() == everything


def test_without_extras_all_that_is_not_read_is_said(
    camera: Path,
    caption: Caption,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(kinds, "is_installed", lambda module: False)
    (camera / "IMG_4.jxl").write_bytes(b"\xff\x0a" + bytes(99))
    (camera / "IMG_5.jpg").write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99))
    (camera / ".IMG_6.HEIC.icloud").write_bytes(b"bplist00")
    assert cli.main(caption) == 1
    needs = "needs an extra: pip install 'captioner[heif]'; or convert it to JPEG"
    gpl = "pip install 'captioner[jxl]' (its licence is the GPL-3)"
    assert capsys.readouterr().err.splitlines() == [
        f"captioner: photos/IMG_1.HEIC: HEIC {needs}",
        f"captioner: photos/IMG_2.heic: HEIC {needs}",
        f"captioner: photos/IMG_5.jpg: JPEG XL needs an extra: {gpl}; or convert it to JPEG",
        "captioner: 1 captioned, 3 failed",
        f"captioner: passed over in folders: 1 JPEG XL (.jxl; {gpl}), 1 iCloud placeholder "
        "(.icloud), 2 raw photos (.dng; pip install 'captioner[raw]')",
    ]


def test_nothing_is_written_into_what_a_nas_keeps(caption: Caption, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in (
        *("a.jpg", "sub/b.jpg", "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg", "#recycle/old.jpg"),
        *("__MACOSX/a.jpg", "sub/@eaDir/b.jpg/SYNOPHOTO_THUMB_M.jpg"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise(0).save(folder / name)
    assert cli.main([*caption, "--quiet", "--format", "txt"]) == 0
    assert written(folder) == ["a.txt", "sub/b.txt"]
    assert cli.main([*caption, "--quiet", "--format", "xmp"]) == 0
    assert written(folder, ".xmp") == ["a.jpg.xmp", "sub/b.jpg.xmp"]
