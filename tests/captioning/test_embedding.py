"""`captioner caption --embed`: captions inside of image files, and nothing else of them changed."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from captioner.captioning import embedding
from captioner.captioning.embedding import Embedder, NotEmbedded
from captioner.cli import entry as cli
from captioner.files import exiftool as exiftool_module
from captioner.files.exiftool import ExifTool
from captioner.files.finding import SourceFile
from captioner.files.resume import Fingerprint, acquire
from captioner.files.writing import part_beside
from captioner.model.caption_model import CaptionModel
from helpers.images import draw, noise
from helpers.jobs import ended, forked, hidden
from helpers.programs import program

pytestmark = pytest.mark.usefixtures("one_thread")

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = json.loads((DOCS / "captions.schema.json").read_text("utf-8"))
LONG = "ein Hund läuft & bellt – <b>'\"\u00a0\U0001f436, 犬 $HOME @x #1 = C:\\ "
# What has to follow from the new tags, and what ExifTool says of itself.
FOLLOWS = (
    *("SourceFile", "ExifTool:", "System:", "File:CurrentIPTCDigest", "File:ExifByteOrder"),
    *("IPTC:ApplicationRecordVersion", "IPTC:EnvelopeRecordVersion", "IPTC:CodedCharacterSet"),
    *("XMP-x:XMPToolkit", "File:FileType", "RIFF:WebP_Flags", "MPImage2:MPImageStart"),
    *("IFD0:StripOffsets", "IFD1:StripOffsets", "Photoshop:IPTCDigest"),
)
TEXTS = ["IFD0:ImageDescription", "IPTC:Caption-Abstract", "XMP-dc:Description"]
WRITTEN = [*TEXTS, "XMP-dc:Subject"]


_SHARED: list[Any] = []
"""An ExifTool that reads and an embedder: each start of ExifTool takes a fifth of a second."""


@pytest.fixture(scope="module", autouse=True)
def shared() -> Iterator[None]:
    program("exiftool")
    with closing(ExifTool()) as reader, closing(Embedder()) as embedder:
        _SHARED[:] = reader, embedder
        yield
    _SHARED.clear()


def metadata(path: Path) -> dict[str, Any]:
    return dict(_SHARED[0].read(path, ["a", "b", "struct", "all"]))


def others(found: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in found.items()
        if key not in WRITTEN and not key.startswith(FOLLOWS)
    }


def frames(path: Path) -> list[tuple[str, tuple[int, int], bytes]]:
    with Image.open(path) as image:
        found = []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            found.append((image.mode, image.size, image.tobytes()))
        return found


def change(path: Path, *arguments: str) -> None:
    subprocess.run(
        ["exiftool", "-q", "-q", "-overwrite_original", *arguments, str(path)], check=True
    )


def fingerprint(path: Path) -> Fingerprint:
    return Fingerprint.of(SourceFile(path, path.name))


def embed(path: Path, text: str = "a dog runs", tags: tuple[str, ...] = ()) -> Fingerprint:
    now: Fingerprint = _SHARED[1].embed(path, text, tags, fingerprint(path))
    return now


def rgb() -> Image.Image:
    return noise(3)


def alpha() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 4), dtype=np.uint8)
    return Image.fromarray(pixels)


def two() -> dict[str, Any]:
    return {"save_all": True, "append_images": [noise(4)]}


IMAGES: dict[str, Callable[[Path], None]] = {
    "grey.jpg": lambda path: rgb().convert("L").save(path),
    "dpi.jpg": lambda path: rgb().save(path, dpi=(300, 300), progressive=True),
    "cmyk.jpg": lambda path: rgb().convert("CMYK").save(path),
    "two.mpo": lambda path: rgb().save(path, format="MPO", **two()),
    "alpha.png": lambda path: alpha().save(path),
    "palette.png": lambda path: rgb().convert("P").save(path, transparency=3),
    "moving.png": lambda path: rgb().save(path, **two()),
    "lossy.webp": lambda path: rgb().save(path),
    "lossless.webp": lambda path: alpha().save(path, lossless=True),
    "lossy alpha.webp": lambda path: alpha().save(path),
    "moving.webp": lambda path: rgb().save(path, **two()),
    "plain.tif": lambda path: rgb().save(path),
    "two.tif": lambda path: rgb().save(path, compression="tiff_lzw", **two()),
    "deep.tiff": lambda path: Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)).save(
        path
    ),
    "a PNG called.jpg": lambda path: alpha().save(path, format="PNG"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_only_the_caption_and_the_tags_are_added(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    IMAGES[name](path)
    before = metadata(path), frames(path)
    embed(path, LONG, ("dog", "a, b", "ß"))
    found = metadata(path)
    texts = [LONG.strip()] * 3
    if name.endswith(".webp"):
        texts[1] = None
    assert [found.get(tag) for tag in TEXTS] == texts
    assert found["XMP-dc:Subject"] == ["dog", "a, b", "ß"]
    assert (others(found), frames(path)) == (others(before[0]), before[1])
    assert hidden(tmp_path) == []


def test_what_photo_programs_have_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    rgb().save(path, exif=Image.Exif(), icc_profile=b"profile" * 30)
    change(path, "-Artist=Jörg", "-Orientation#=6", "-GPSLatitude=50", "-XMP:Rating=4")
    change(path, "-IPTC:Keywords=Ferien", "-IPTC:City=Köln", "-IPTCDigest=new")
    change(path, "-IPTC:CodedCharacterSet=UTF8", "-XMP-dc:Creator=Jörg", "-XMP-dc:Subject=Ferien")
    before = metadata(path)
    embed(path, "zwei Hunde", ("dog", "Ferien"))
    found = metadata(path)
    assert others(found) == others(before)
    assert found["Photoshop:IPTCDigest"] == found["File:CurrentIPTCDigest"]
    assert found["XMP-dc:Subject"] == ["Ferien", "dog"]
    embed(path, "drei Hunde", ("cat",))  # those of the other caption go
    assert metadata(path)["XMP-dc:Subject"] == ["Ferien", "cat"]
    embed(path, "drei Hunde")
    assert metadata(path)["XMP-dc:Subject"] in ("Ferien", ["Ferien"])


def test_keywords_that_only_iptc_has_are_not_hidden_by_ours(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    rgb().save(path)
    change(path, "-IPTC:Keywords=Ferien", "-IPTC:Keywords=Meer")
    embed(path, "a dog", ("dog",))
    assert metadata(path)["XMP-dc:Subject"] == ["Ferien", "Meer", "dog"]
    assert metadata(path)["IPTC:Keywords"] == ["Ferien", "Meer"]


@pytest.mark.parametrize(
    "written",
    [
        "-IFD0:ImageDescription=Oma",
        "-IPTC:Caption-Abstract=Oma",
        "-XMP-dc:Description=Oma",
        "-XMP-dc:Description-de=Oma",
    ],
)
def test_a_description_of_somebody_else_stays(tmp_path: Path, written: str) -> None:
    path = tmp_path / "a.jpg"
    rgb().save(path)
    change(path, written)
    data = path.read_bytes()
    with pytest.raises(NotEmbedded, match="it already has a description"):
        embed(path)
    assert path.read_bytes() == data
    # Ours, changed by somebody, is theirs.
    change(path, written.partition("=")[0] + "=")
    embed(path, "a dog", ("dog",))
    change(path, written)
    with pytest.raises(NotEmbedded, match="it already has a description"):
        embed(path, "a cat")
    assert hidden(tmp_path) == []


def test_what_a_camera_says_of_every_photo_is_no_description(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    rgb().save(path)
    change(path, "-IFD0:ImageDescription=OLYMPUS DIGITAL CAMERA         ")
    embed(path, "a dog")
    assert [metadata(path)[tag] for tag in TEXTS] == ["a dog"] * 3


def test_a_second_time_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    rgb().save(path)
    now = embed(path, LONG, ("dog", "dog", "a"))
    inode = path.stat().st_ino
    assert now == fingerprint(path)
    assert embed(path, LONG, ("dog", "a")) == now
    assert path.stat().st_ino == inode
    embed(path, "a cat", ("dog", "a"))
    assert [metadata(path)[tag] for tag in TEXTS] == ["a cat"] * 3


def test_iptc_holds_2000_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    rgb().save(path)
    text = "ä" * 1500
    now = embed(path, text)
    found = metadata(path)
    assert [found[tag] for tag in TEXTS] == [text, "ä" * 1000, text]
    assert embed(path, text) == now


def test_iptc_of_an_unknown_encoding_is_not_mixed_with_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    rgb().save(path)
    change(path, "-charset", "iptc=latin", "-IPTC:City=Köln")
    with pytest.raises(NotEmbedded, match="IPTC texts do not say that they are UTF-8"):
        embed(path, "日本")
    embed(path, "a dog")
    assert metadata(path)["IPTC:City"] == "Köln"


@pytest.mark.parametrize(
    "name",
    [
        "ä ö.jpg",
        'it\'s "so".jpg',
        "-dash.jpg",
        "#hash $HOME @x.jpg",
        "two\nlines.jpg",
        " blanks .jpg",
        "back\\slash.jpg",
        "%d.jpg",
        os.fsdecode(b"caf\xe9.jpg"),
        "n" * 246 + ".jpg",
    ],
)
def test_names_of_all_kinds(tmp_path: Path, name: str) -> None:
    for path in (tmp_path / name, tmp_path / name.removesuffix(".jpg") / name):
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            rgb().save(file, "JPEG")
    for path in (tmp_path / name.removesuffix(".jpg") / name, tmp_path / name):
        embed(path, "a dog")
        with Image.open(path) as image:
            assert image.getexif()[0x010E] == "a dog"
    assert hidden(tmp_path) == []


def test_permissions_times_and_links_stay(tmp_path: Path) -> None:
    path, link = tmp_path / "a.jpg", tmp_path / "link.jpg"
    rgb().save(path)
    path.chmod(0o640)
    os.utime(path, ns=(10**18, 10**18 + 123456789))
    link.symlink_to("a.jpg")
    embed(link)
    found = path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o640
    assert found.st_mtime_ns == 10**18 + 123456789
    assert os.readlink(link) == "a.jpg"
    assert metadata(path)["IFD0:ImageDescription"] == "a dog runs"


def test_one_process_at_a_time_writes_into_a_photo(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    rgb().save(path)
    data, lock = path.read_bytes(), part_beside(path).with_suffix(".lock")
    with ExitStack() as stack:
        assert acquire(lock, stack)
        part_beside(path).write_bytes(b"the other's")
        with pytest.raises(NotEmbedded, match="another captioner is writing into it"):
            embed(path)
        assert (path.read_bytes(), part_beside(path).read_bytes()) == (data, b"the other's")
    embed(path)  # a lock file that nobody holds is in nobody's way
    assert hidden(tmp_path) == []


def test_what_a_killed_run_has_left_goes(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    rgb().save(path)
    part = part_beside(path)
    for left in (part, part.with_suffix(".copy")):
        left.write_bytes(b"half a file")
    embed(path)
    assert hidden(tmp_path) == []
    part.write_bytes(b"half a file")
    embed(path)  # also where nothing is to be written
    assert hidden(tmp_path) == []


def test_what_takes_no_caption_says_why(tmp_path: Path) -> None:
    rgb().save(tmp_path / "a.gif")
    rgb().save(tmp_path / "a.bmp")
    rgb().save(tmp_path / "big.tif", big_tiff=True)
    rgb().save(tmp_path / "ro.jpg")
    (tmp_path / "ro.jpg").chmod(0o444)
    rgb().save(tmp_path / "damaged.png")
    data = (tmp_path / "damaged.png").read_bytes()
    (tmp_path / "damaged.png").write_bytes(data[:200])
    why = {
        "a.gif": "GIF takes none: JPEG, PNG, TIFF, WebP do",
        "a.bmp": "BMP takes none: JPEG, PNG, TIFF, WebP do",
        "big.tif": "ExifTool does not support writing of BigTIFF images",
        "ro.jpg": "it is read-only",
    }
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for name, reason in why.items():
        with pytest.raises(NotEmbedded) as caught:
            embed(tmp_path / name)
        assert str(caught.value) == reason
    for name, text in (("damaged.png", "a dog"), ("a.gif", " ")):
        with pytest.raises(NotEmbedded):
            embed(tmp_path / name, text)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_written(shared_folder: Path, without_privileges) -> None:
    path = shared_folder / "a.jpg"
    rgb().save(path)
    path.chmod(0o666)
    with without_privileges(), pytest.raises(NotEmbedded, match="permission denied"):
        embed(path)


def test_a_photo_that_changed_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jpg"
    rgb().save(path)
    captioned = fingerprint(path)
    noise(9).save(path)
    data = path.read_bytes()
    with pytest.raises(NotEmbedded, match="changed since it was captioned"):
        _SHARED[1].embed(path, "a dog", (), captioned)
    real_copystat = embedding.shutil.copystat

    def edited(source: Path, target: Path) -> None:  # while ExifTool worked
        real_copystat(source, target)
        path.write_bytes(data + b" ")

    monkeypatch.setattr(embedding.shutil, "copystat", edited)
    with pytest.raises(NotEmbedded, match="changed since it was captioned"):
        embed(path)
    assert path.read_bytes() == data + b" "
    assert hidden(tmp_path) == []


def test_an_exiftool_that_hangs_or_dies_costs_one_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    with closing(Embedder()) as embedder:
        embedder.embed(tmp_path / "a.jpg", "a dog", (), fingerprint(tmp_path / "a.jpg"))
        process = embedder._exiftool._process
        assert process is not None
        os.killpg(process.pid, signal.SIGSTOP)
        monkeypatch.setattr(exiftool_module, "MAX_SECONDS", 0.05)
        with pytest.raises(NotEmbedded, match="ExifTool ended, or took longer"):
            embedder.embed(tmp_path / "b.jpg", "a dog", (), fingerprint(tmp_path / "b.jpg"))
        monkeypatch.undo()
        embedder.embed(tmp_path / "c.jpg", "a dog", (), fingerprint(tmp_path / "c.jpg"))
    assert hidden(tmp_path) == []


# --- the command ---------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "photos"
    draw(folder, ["a.jpg", "b.gif", "c.png", "sub/d.webp", "sub/ü.tif"])
    (folder / "bad.jpg").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def command(tagging_model: CaptionModel, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tmp_path_factory.mktemp("model") / "tagging.safetensors"
    tagging_model.save(path, half=False)
    command = ["caption", "--model", str(path), "--device", "cpu", "--workers", "0"]
    return [*command, "--batch-size", "2", "--max-length", "6"]


@pytest.fixture
def run(command: list[str], capsys: pytest.CaptureFixture[str]):
    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = cli.main([*command, *arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def records(output: str) -> dict[str, Any]:
    lines = Path(output).read_text("utf-8").splitlines()
    return {record["file_name"]: record for record in map(json.loads, lines)}


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_ino)
        for path in folder.rglob("*")
        if path.is_file()
    }


GIF = "GIF takes none: JPEG, PNG, TIFF, WebP do"


def test_the_command_embeds_and_says_what_it_did(photos: Path, run) -> None:
    code, _, err = run("photos", "--output", "out.jsonl", "--embed")
    assert code == 1
    assert err.splitlines()[-1].endswith("5 captioned, 1 failed; 4 embedded, 1 not embedded")
    assert f"b.gif: caption not embedded: {GIF}" in err
    found = records("out.jsonl")
    for record in found.values():
        jsonschema.Draft202012Validator(SCHEMA).validate(record)
    assert found["b.gif"]["embed_error"] == GIF
    assert "embed_error" not in found["bad.jpg"]
    for name in ("a.jpg", "c.png", "sub/d.webp", "sub/ü.tif"):
        assert found[name]["embed_error"] is None
        written = metadata(photos / name)
        tags = [tag["name"] for tag in found[name]["tags"]]
        subject = written.get("XMP-dc:Subject", [])
        assert (subject if isinstance(subject, list) else [subject]) == tags
        texts = {written[tag] for tag in TEXTS if tag in written}
        assert texts == {found[name]["text"]}
    assert any(record.get("tags") for record in found.values())


@pytest.mark.parametrize("output", [["--output", "out.csv"], ["--format", "txt"], []])
def test_a_second_run_touches_nothing(photos: Path, run, output: list[str]) -> None:
    assert run("photos", "--embed", *output)[0] == 1
    before = contents(photos)
    code, _, err = run("photos", "--embed", *output)
    assert (code, contents(photos)) == (1, before)
    last = err.splitlines()[-1]
    if output:
        assert last.endswith("0 captioned, 5 finished before, 1 failed; 0 embedded, 1 not embedded")
    else:
        assert last.endswith("5 captioned, 1 failed; 4 embedded, 1 not embedded")
    # Nor does a run without it, which does not caption again what has changed by ours.
    code, _, err = run("photos", "--no-tags" if not output else "--quiet", *output)
    assert contents(photos) == before


def test_captions_of_an_earlier_run_are_embedded_without_captioning_again(
    photos: Path, run
) -> None:
    before = contents(photos)
    run("photos", "--output", "out.jsonl", "--tags")
    assert contents(photos) == before  # never unasked
    plain = records("out.jsonl")
    code, _, err = run("photos", "--output", "out.jsonl", "--embed")
    assert err.splitlines()[-1].endswith(
        "0 captioned, 5 finished before, 1 failed; 4 embedded, 1 not embedded"
    )
    found = records("out.jsonl")
    assert {**found["c.png"]} == {**plain["c.png"], "embed_error": None}
    assert metadata(photos / "c.png")["XMP-dc:Description"] == plain["c.png"]["text"]
    # What could not be embedded is tried again.
    (photos / "a.jpg").chmod(0o444)
    noise(77).save(photos / "c.png")
    _, _, err = run("photos", "--output", "out.jsonl", "--embed")
    assert err.splitlines()[-1].endswith(
        "1 captioned, 4 finished before, 1 failed; 1 embedded, 1 not embedded"
    )


def test_an_edited_photo_is_captioned_again_and_gets_the_new_caption(photos: Path, run) -> None:
    run("photos", "--output", "out.jsonl", "--embed")
    old = metadata(photos / "a.jpg")
    with Image.open(photos / "a.jpg") as image:
        exif, xmp = image.getexif(), image.info["xmp"]
    noise(50).save(photos / "a.jpg", exif=exif, xmp=xmp)  # by a program that keeps metadata
    run("photos", "--output", "out.jsonl", "--embed")
    new = metadata(photos / "a.jpg")
    record = records("out.jsonl")["a.jpg"]
    assert record["embed_error"] is None
    assert new["XMP-dc:Description"] == record["text"] != old["XMP-dc:Description"]


@pytest.mark.parametrize(
    ("signal_number", "number", "is_renamed", "code"),
    [
        (signal.SIGKILL, 1, False, -signal.SIGKILL),
        (signal.SIGKILL, 1, True, -signal.SIGKILL),
        (signal.SIGINT, 3, False, 130),
        (signal.SIGINT, 3, True, 130),
    ],
)
def test_an_ended_run_leaves_nothing_half(
    photos: Path,
    command: list[str],
    run,
    signal_number: int,
    number: int,
    is_renamed: bool,
    code: int,
) -> None:
    """Ended by a signal while a photo gets its caption, the first or the third one."""
    arguments = [*command, "photos", "--output", "out.jsonl", "--embed"]
    images = [path for path in photos.rglob("*.*") if path.suffix not in (".gif", "")]
    pixels = {path: frames(path) for path in images if path.name != "bad.jpg"}
    real_replace, left = os.replace, [number]

    def replace(source: Path, target: Path) -> None:
        left[0] -= Path(target) in pixels
        if left[0]:
            return real_replace(source, target)
        if is_renamed:
            real_replace(source, target)
        os.kill(os.getpid(), signal_number)
        return None

    def work() -> int:
        os.replace = replace
        return cli.main(arguments)

    assert ended(forked(work)) == code
    assert {path: frames(path) for path in pixels} == pixels
    embedded = sum(b"captioner " in path.read_bytes() for path in pixels)
    assert embedded == (number if is_renamed else number - 1)
    if signal_number == signal.SIGINT:
        assert [name for name in hidden(photos) if name.startswith(".captioner-")] == []
    run("photos", "--output", "out.jsonl", "--embed")
    found = records("out.jsonl")
    assert {found[path.relative_to(photos).as_posix()]["embed_error"] for path in pixels} == {None}
    assert {path: frames(path) for path in pixels} == pixels
    assert hidden(photos) == []


def test_a_missing_exiftool_is_said_before_any_work(
    photos: Path, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    before = contents(photos)
    code, out, err = run("photos", "--embed", "--model", "missing.safetensors")
    assert (code, out) == (2, "")
    for part in ("--embed", "ExifTool", "apt install libimage-exiftool-perl", "brew", "winget"):
        assert part in err
    assert contents(photos) == before
