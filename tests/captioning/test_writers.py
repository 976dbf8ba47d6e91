"""Output files: exact contents, nothing overwritten unasked, nothing lost on an error."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from captioner.captioning.formats import WRITERS, open_writer
from captioner.captioning.sidecars import SidecarWriter
from captioner.errors import CaptionerError
from captioner.files.naming import output_stem
from captioner.files.writing import replace_file
from captioner.images.kinds import IMAGES, find_images
from captioner.video.finding import VIDEOS

DOG = {"file_name": "a.jpg", "text": "a dog runs", "confidence": 0.5123, "error": None}
CAT = {"file_name": "sub/käse.png", "text": 'ein "Käse", 猫', "confidence": 0.25, "error": None}
BAD = {"file_name": "bad.jpg", "text": None, "confidence": None, "error": "truncated file"}
RECORDS: list[dict[str, Any]] = [DOG, BAD, CAT]


def write(output: Path | None, records: list[dict[str, Any]], **options: Any) -> None:
    with open_writer(output, **options) as writer:
        for record in records:
            writer.write(record)


# --- formats -------------------------------------------------------------------------------


def test_jsonl(tmp_path: Path) -> None:
    output = tmp_path / "new" / "folder" / "metadata.jsonl"
    with_more = {**DOG, "candidates": [{"text": "a dog runs", "words": [["a", 0.5], [None, 1.0]]}]}
    write(output, [with_more, BAD, CAT])
    assert output.read_bytes().decode("utf-8") == (
        '{"file_name": "a.jpg", "text": "a dog runs", "confidence": 0.5123, "error": null,'
        ' "candidates": [{"text": "a dog runs", "words": [["a", 0.5], [null, 1.0]]}]}\n'
        '{"file_name": "bad.jpg", "text": null, "confidence": null, "error": "truncated file"}\n'
        '{"file_name": "sub/käse.png", "text": "ein \\"Käse\\", 猫", "confidence": 0.25,'
        ' "error": null}\n'
    )


def test_a_name_that_no_encoding_can_hold_is_still_valid_json(tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl", [{**DOG, "file_name": "gr\udcfcn.jpg"}])
    assert json.loads((tmp_path / "x.jsonl").read_bytes())["file_name"] == "gr\udcfcn.jpg"


def test_csv(tmp_path: Path) -> None:
    write(tmp_path / "x.csv", RECORDS)
    assert (tmp_path / "x.csv").read_bytes().decode("utf-8") == (
        "file_name,text,confidence,error\r\n"
        "a.jpg,a dog runs,0.5123,\r\n"
        "bad.jpg,,,truncated file\r\n"
        'sub/käse.png,"ein ""Käse"", 猫",0.25,\r\n'
    )


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＠"])
def test_csv_cells_cannot_be_formulas(tmp_path: Path, start: str) -> None:
    dangerous = f'{start}HYPERLINK("http://x")'
    record = {"file_name": dangerous, "text": dangerous, "confidence": 0.5, "error": dangerous}
    write(tmp_path / "x.csv", [record, {**DOG, "file_name": f"a{start}b"}])
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[1] == ["'" + dangerous, "'" + dangerous, "0.5", "'" + dangerous]
    assert rows[2][0] == f"a{start}b"


def test_json_is_a_coco_result_list(tmp_path: Path) -> None:
    names = {
        "000000123456.jpg": 123456,
        "COCO_val2014_000000000042.jpg": 42,
        "val/COCO_val2014_000000000042.jpg": "val/COCO_val2014_000000000042.jpg",
        "42.png": "42.png",
        "IMG_0042.jpg": "IMG_0042.jpg",
        "sub/a.jpg": "sub/a.jpg",
        "12a.jpg": "12a.jpg",
        "٣.jpg": "٣.jpg",
    }
    write(tmp_path / "x.json", [BAD, *({**CAT, "file_name": name} for name in names)])
    text = (tmp_path / "x.json").read_text("utf-8")
    assert json.loads(text) == [
        {"image_id": image_id, "caption": CAT["text"]} for image_id in names.values()
    ]
    assert "猫" in text
    write(tmp_path / "none.json", [BAD])
    assert json.loads((tmp_path / "none.json").read_text()) == []


def test_tsv(tmp_path: Path) -> None:
    many = {**DOG, "candidates": [{"text": "a dog"}, {"text": "two\tdogs"}]}
    write(tmp_path / "x.tsv", [DOG, BAD, CAT, many])
    assert (tmp_path / "x.tsv").read_text("utf-8") == (
        'a.jpg\ta dog runs\nsub/käse.png\tein "Käse", 猫\na.jpg\ta dog\ttwo\\tdogs\n'
    )


# --- standard output -----------------------------------------------------------------------


def test_standard_output_is_tsv_with_the_paths(capsys: pytest.CaptureFixture[str]) -> None:
    for output in (None, "-"):
        with open_writer(output) as writer:
            writer.write(DOG, Path("photos/a.jpg"))
            writer.write(BAD, Path("photos/bad.jpg"))
            writer.write(CAT, Path("photos/sub/käse.png"))
        assert capsys.readouterr().out == (
            'photos/a.jpg\ta dog runs\nphotos/sub/käse.png\tein "Käse", 猫\n'
        )


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\tb\nc\x1b[31m\x7f\x9b\u2028\u202egpj.exe"
    write(None, [{**DOG, "file_name": name}])
    assert capsys.readouterr().out == (
        "a\\tb\\nc\\x1b[31m\\x7f\\x9b\\u2028\\u202egpj.exe\ta dog runs\n"
    )


@pytest.mark.parametrize("format", ["csv", "jsonl", "json"])
def test_no_format_steers_a_terminal(
    format: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "a\x1b]0;x\x07\x9b2J\u202egpj.jpg"

    def written() -> str:
        with open_writer(None, format) as writer:
            writer.write({**DOG, "file_name": name})
        return capsys.readouterr().out

    # A pipe gets what a file gets.
    assert "\x9b" in written()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown = written()
    assert "a\\u001b]0;x\\u0007\\u009b2J\\u202egpj.jpg" in shown
    assert shown.replace("\n", "").replace("\r", "").isprintable()
    if format == "jsonl":
        assert json.loads(shown)["file_name"] == name


def test_a_path_that_is_not_utf8_is_shown_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    with open_writer(None) as writer:
        writer.write(DOG, Path(os.fsdecode(b"gr\xfcn.jpg")))
    assert capsys.readouterr().out == "gr\\xfcn.jpg\ta dog runs\n"


@pytest.mark.parametrize("format", ["jsonl", "csv", "json"])
def test_other_formats_on_standard_output(
    tmp_path: Path, format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(None, RECORDS, format=format)
    write(tmp_path / f"x.{format}", RECORDS)
    assert capsys.readouterr().out.encode() == (tmp_path / f"x.{format}").read_bytes()


def test_a_terminal_that_is_not_utf8(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from captioner.captioning.formats import open_writer\n"
        "print('before')\n"
        "with open_writer(None, sys.argv[1]) as writer:\n"
        "    writer.write({'file_name': 'k\\u00e4se.jpg', 'text': '\\u732b', 'confidence': 1.0})\n"
        "print('after')\n"
    )
    found = {}
    for format in ("tsv", "csv"):
        found[format] = subprocess.run(
            [sys.executable, "-c", script, format],
            env={**os.environ, "PYTHONIOENCODING": "latin-1"},
            capture_output=True,
            check=True,
        ).stdout
    # For people what the terminal can show, for programs UTF-8 wherever it goes.
    assert found["tsv"] == "before\nkäse.jpg\t\\u732b\nafter\n".encode("latin-1")
    assert found["csv"].splitlines()[2] == "käse.jpg,猫,1.0,".encode()


def test_a_notebook_that_takes_text_only(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    write(None, [CAT])
    write(None, [CAT], format="jsonl")
    lines = stream.getvalue().splitlines()
    assert lines[0] == 'sub/käse.png\tein "Käse", 猫'
    assert json.loads(lines[1]) == CAT


def test_a_closed_pipe_is_the_callers_matter() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open(write_end, "wb", buffering=0) as pipe, open_writer(None, "jsonl") as writer:
        writer._stream = pipe  # type: ignore[attr-defined]
        with pytest.raises(BrokenPipeError):
            writer.write(DOG)


# --- choosing ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "format", "expected"),
    [
        (None, None, "tsv"),
        ("-", None, "tsv"),
        ("x.jsonl", None, "jsonl"),
        ("x.NDJSON", None, "jsonl"),
        ("x.csv", None, "csv"),
        ("x.json", None, "json"),
        ("x.tsv", None, "tsv"),
        ("x.dat", "csv", "csv"),
        ("texts", "txt", "txt"),
        (None, "txt", "txt"),
    ],
)
def test_the_format_comes_from_its_name_or_the_suffix(
    output: str | None, format: str | None, expected: str
) -> None:
    assert type(open_writer(output, format)) is WRITERS[expected]


def test_every_format_is_in_the_registry_under_its_name() -> None:
    assert {name: writer.format for name, writer in WRITERS.items()} == {
        name: name for name in ("tsv", "jsonl", "csv", "json", "txt", "xmp")
    }
    assert all(writer.summary for writer in WRITERS.values())


@pytest.mark.parametrize(
    ("output", "format", "message"),
    [
        (
            "x.xml",
            None,
            "output x.xml does not say the format: end it in one of .tsv .jsonl .ndjson .csv .json",
        ),
        ("captions", None, "output captions does not say the format"),
        ("x.csv", "xml", "format 'xml' is unknown: choose from tsv, jsonl, csv, json, txt"),
        ("x.txt", None, "output x.txt could mean two things: --format txt writes a text file for"),
        (".", None, "output . is a folder: --format txt writes a text file for each image"),
    ],
)
def test_a_format_that_is_not_known(output: str, format: str | None, message: str) -> None:
    with pytest.raises(CaptionerError) as caught:
        open_writer(output, format)
    assert str(caught.value).startswith(message)


# --- existing and unwritable output --------------------------------------------------------

FILE_FORMATS = ["tsv", "jsonl", "csv", "json"]


@pytest.mark.parametrize("format", FILE_FORMATS)
def test_an_existing_file_is_kept_unless_overwriting(tmp_path: Path, format: str) -> None:
    output = tmp_path / "out"
    output.write_text("precious")
    with pytest.raises(CaptionerError) as caught:
        write(output, RECORDS, format=format)
    assert str(caught.value) == f"output {output} exists: --overwrite replaces it"
    assert output.read_text() == "precious"
    write(output, RECORDS, format=format, overwrite=True)
    write(tmp_path / "fresh", RECORDS, format=format)
    assert output.read_bytes() == (tmp_path / "fresh").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "out"]


@pytest.mark.parametrize("format", FILE_FORMATS)
def test_an_output_that_cannot_be_is_refused_on_entering(tmp_path: Path, format: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for output, message in [
        (tmp_path / "folder", f"output {tmp_path}/folder is a folder: name a file in it"),
        (tmp_path / "file" / "x", f"folder {tmp_path}/file cannot be created: a file has its name"),
        (tmp_path / "file" / "sub" / "x", f"folder {tmp_path}/file/sub cannot be created"),
        (tmp_path / ("x" * 300), f"{tmp_path}/{'x' * 300} cannot be written: file name too long"),
    ]:
        writer = open_writer(output, format)
        with pytest.raises(CaptionerError) as caught:
            writer.open()
        assert str(caught.value).startswith(message)


@pytest.mark.parametrize("format", FILE_FORMATS)
def test_a_folder_without_permission(
    shared_folder: Path, format: str, without_privileges: Any
) -> None:
    output = shared_folder / "x"
    with without_privileges():
        if os.access(shared_folder, os.W_OK, effective_ids=True):
            shared_folder.chmod(0o555)
        with pytest.raises(CaptionerError) as caught:
            open_writer(output, format).open()
        assert str(caught.value) == f"{output} cannot be written: permission denied"
        with pytest.raises(CaptionerError, match="cannot be written: permission denied"):
            open_writer(shared_folder, "txt").open()
    assert list(shared_folder.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("format", FILE_FORMATS)
def test_a_full_disk_is_an_error_that_names_the_file(format: str) -> None:
    before = os.stat("/dev/full")
    with pytest.raises(CaptionerError) as caught:
        write(Path("/dev/full"), RECORDS, format=format)
    assert str(caught.value) == "/dev/full cannot be written: no space left on device"
    # A device stays one, although files are replaced by renaming.
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    assert os.stat("/dev/full").st_ino == before.st_ino


# --- errors in the middle ------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("format", ["tsv", "jsonl", "csv"])
def test_what_was_written_is_kept(tmp_path: Path, format: str, error: type[BaseException]) -> None:
    with pytest.raises(error), open_writer(tmp_path / "x", format) as writer:
        writer.write(DOG)
        # On disk before anything else happens: a killed program leaves it as well.
        assert b"a dog runs" in (tmp_path / "x").read_bytes()
        raise error
    write(tmp_path / "whole", [DOG], format=format)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "whole").read_bytes()


def test_an_unfinished_json_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    output = tmp_path / "x.json"
    output.write_text("[]")
    with pytest.raises(KeyboardInterrupt), open_writer(output, overwrite=True) as writer:
        writer.write(DOG)
        assert output.read_text() == "[]"
        raise KeyboardInterrupt
    assert output.read_text() == "[]"
    assert list(tmp_path.iterdir()) == [output]


def test_closing_twice_changes_nothing(tmp_path: Path) -> None:
    for format in FILE_FORMATS:
        writer = open_writer(tmp_path / format, format)
        writer.open()
        writer.write(DOG)
        writer.close()
        before = (tmp_path / format).read_bytes()
        writer.close()
        assert (tmp_path / format).read_bytes() == before
    json.loads((tmp_path / "json").read_text())


def test_a_link_to_an_output_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    for name in ("x.json", "x.csv"):
        (tmp_path / name).symlink_to(f"real/{name}")
        write(tmp_path / name, [DOG])
        assert (tmp_path / name).is_symlink()
        assert "a dog runs" in (tmp_path / "real" / name).read_text()


def test_output_files_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write(tmp_path / "x.json", [DOG])
    replace_file(tmp_path / "x.txt", "x")
    for name in ("x.json", "x.txt"):
        assert (tmp_path / name).stat().st_mode == (tmp_path / "usual").stat().st_mode


# --- text files ----------------------------------------------------------------------------


def caption_all(paths: Path | list[Path], output: Path | None, overwrite: bool = False) -> None:
    """Check, then write a caption that names the image, as the command line does."""
    with open_writer(output, "txt", overwrite) as writer:
        writer.check(find_images(paths))
        for file in find_images(paths):
            writer.write({**DOG, "file_name": file.name, "text": f"this is {file.name}"}, file.path)


def texts_in(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text("utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in (".jpg", ".png", ".gif", ".arw")
    }


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ["a.jpg", "sub/a.jpg", "sub/ä b.png", "sub/deep/c.d.gif"]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


EXPECTED = {
    "a.txt": "this is a.jpg\n",
    "sub/a.txt": "this is sub/a.jpg\n",
    "sub/deep/c.d.txt": "this is sub/deep/c.d.gif\n",
    "sub/ä b.txt": "this is sub/ä b.png\n",
}


def test_text_files_beside_the_images(photos: Path) -> None:
    caption_all(photos, None)
    assert texts_in(photos) == EXPECTED


def test_text_files_mirror_the_tree_below_an_output_folder(photos: Path, tmp_path: Path) -> None:
    caption_all(photos, tmp_path / "new" / "texts")
    assert texts_in(tmp_path / "new" / "texts") == EXPECTED
    assert texts_in(photos) == {}


def test_equal_names_from_two_folders_stay_apart(photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.jpg").touch()
    caption_all([photos, other], tmp_path / "texts")
    assert texts_in(tmp_path / "texts") == {
        "other/a.txt": "this is other/a.jpg\n",
        **{
            f"photos/{name}": text.replace("this is ", "this is photos/")
            for name, text in EXPECTED.items()
        },
    }


def test_images_with_one_stem_have_a_file_each(tmp_path: Path) -> None:
    # A raw file is no image here and takes no name away.
    for name in ["a.png", "a.jpg", "a.gif", "a.arw", "A.jpg", "b.png", "b.png.jpg", "b.jpg"]:
        (tmp_path / name).touch()
    caption_all(tmp_path, None)
    assert texts_in(tmp_path) == {
        "A.txt": "this is A.jpg\n",
        "a.gif.txt": "this is a.gif\n",
        "a.jpg.txt": "this is a.jpg\n",
        "a.png.txt": "this is a.png\n",
        "b.txt": "this is b.jpg\n",
        "b.png.txt": "this is b.png.jpg\n",
        "b.png.2.txt": "this is b.png\n",
    }


def test_the_name_does_not_depend_on_which_images_are_captioned(tmp_path: Path) -> None:
    for name in ["a.png", "a.jpg", "odd.dat"]:
        (tmp_path / name).touch()
    writer = SidecarWriter()
    alone = writer.target(tmp_path / "a.png", "a.png")
    assert alone == tmp_path / "a.png.txt"
    assert writer.target(tmp_path / "a.jpg", "a.jpg") == tmp_path / "a.txt"
    assert writer.target(tmp_path / "odd.dat", "odd.dat") == tmp_path / "odd.dat.txt"


def test_output_files_are_named_after_the_videos_of_their_folder(tmp_path: Path) -> None:
    stems = {
        "A.webm": "A",
        "a.mkv": "a.mkv",
        "a.mp4": "a.mp4",
        "b.MP4": "b",
        "b.mkv": "b.mkv.2",
        "b.mkv.mp4": "b.mkv",
        "c.d.mov": "c.d",
        "odd.dat": "odd.dat",
    }
    for name in [*stems, "c.jpg", "c.d.txt"]:
        (tmp_path / name).touch()
    assert {name: output_stem(tmp_path / name, VIDEOS) for name in stems} == stems
    for name in ("d.mp4", "d.360", "e.360", "IMG.ARW", "IMG.HEIC", "IMG.jxl", "IMG.png", "x.CR3"):
        (tmp_path / name).touch()
    os.utime(tmp_path, ns=(1, 1))
    # What captioner has read for longer keeps the short name.
    assert output_stem(tmp_path / "d.mp4", VIDEOS) == "d"
    assert output_stem(tmp_path / "d.360", VIDEOS) == "d.360"
    assert output_stem(tmp_path / "e.360", VIDEOS) == "e"
    for name in ("IMG.ARW", "IMG.HEIC", "IMG.jxl"):
        assert output_stem(tmp_path / name, IMAGES) == name
    assert output_stem(tmp_path / "IMG.png", IMAGES) == "IMG"
    assert output_stem(tmp_path / "x.CR3", IMAGES) == "x"
    # Another kind, another folder and one that has changed are looked at anew.
    assert output_stem(tmp_path / "c.jpg", IMAGES) == "c"
    assert output_stem(tmp_path / "none" / "a.mkv", VIDEOS) == "a.mkv"
    (tmp_path / "A.webm").unlink()
    os.utime(tmp_path, ns=(0, 0))
    assert output_stem(tmp_path / "a.mkv", VIDEOS) == "a"
    assert output_stem(tmp_path / "a.mp4", VIDEOS) == "a.mp4"


def test_failed_images_get_no_text_file(photos: Path) -> None:
    with open_writer(None, "txt") as writer:
        writer.write({**BAD, "file_name": "a.jpg"}, photos / "a.jpg")
    assert texts_in(photos) == {}


def test_an_existing_text_file_is_kept_and_told_before_the_work(
    photos: Path, tmp_path: Path
) -> None:
    mine = photos / "sub" / "ä b.txt"
    mine.write_text("my own notes")
    message = f"{mine} exists: --overwrite replaces the text files of these images"
    with open_writer(None, "txt") as writer, pytest.raises(CaptionerError) as caught:
        writer.check(find_images(photos))
    assert str(caught.value) == message
    with open_writer(None, "txt") as writer, pytest.raises(CaptionerError) as caught:
        writer.write(DOG, photos / "sub" / "ä b.png")
    assert str(caught.value) == message
    assert texts_in(photos) == {"sub/ä b.txt": "my own notes"}
    caption_all(photos, tmp_path / "texts")
    assert mine.read_text() == "my own notes"
    caption_all(photos, None, overwrite=True)
    assert texts_in(photos) == EXPECTED


def test_a_text_file_in_place_of_a_folder(photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "texts"
    output.touch()
    with pytest.raises(CaptionerError, match="texts cannot be created: a file has its name"):
        open_writer(output, "txt").open()
    output.unlink()
    output.mkdir()
    (output / "sub").touch()
    with open_writer(output, "txt") as writer, pytest.raises(CaptionerError) as caught:
        writer.check(find_images(photos))
    assert str(caught.value) == f"{output}/sub is not a folder: files cannot be written below it"


def test_a_photo_folder_without_permission(shared_folder: Path, without_privileges: Any) -> None:
    (shared_folder / "a.jpg").touch()
    shared_folder.chmod(0o555)
    with (
        without_privileges(),
        open_writer(None, "txt") as writer,
        pytest.raises(CaptionerError) as caught,
    ):
        writer.check(find_images(shared_folder))
    assert str(caught.value) == f"folder {shared_folder} cannot be written: permission denied"


def test_a_text_file_whose_name_is_too_long_is_told_before_the_work(tmp_path: Path) -> None:
    for name in ("x" * 251 + ".jpg", "x" * 251 + ".png"):
        (tmp_path / name).touch()
    with open_writer(None, "txt") as writer, pytest.raises(CaptionerError) as caught:
        writer.check(find_images(tmp_path))
    assert str(caught.value).endswith("x.png.txt cannot be written: file name too long")


def test_no_text_file_leaves_the_output_folder(tmp_path: Path) -> None:
    for name in ("../a.jpg", "/etc/a.jpg", "sub/../../a.jpg"):
        with open_writer(tmp_path / "texts", "txt") as writer, pytest.raises(CaptionerError):
            writer.write({**DOG, "file_name": name}, tmp_path / "a.jpg")
    assert texts_in(tmp_path) == {}


def test_text_files_need_the_path() -> None:
    with open_writer(None, "txt") as writer, pytest.raises(CaptionerError, match="need the path"):
        writer.write(DOG)


# --- whole files ---------------------------------------------------------------------------


def test_replace_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.json"
    replace_file(path, "ä\n")
    replace_file(path, "ö\n")
    assert path.read_bytes() == "ö\n".encode()
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(CaptionerError, match="cannot be written: is a directory"):
        replace_file(tmp_path / "new", "x")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["new", "x.json"]
