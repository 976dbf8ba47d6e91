"""XMP sidecars: what photo programs read in them, and that nobody's work is ever lost."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

import captioner
from captioner.captioning import sidecar_output
from captioner.captioning.formats import open_writer
from captioner.captioning.job import CaptionJob
from captioner.captioning.sidecars import XmpWriter
from captioner.captioning.xmp import is_untouched, render_xmp
from captioner.cli import entry as cli
from captioner.errors import CaptionerError
from captioner.model.caption_model import CaptionModel
from helpers.images import draw

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
DC = "{http://purl.org/dc/elements/1.1/}"
IPTC = "{http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/}"
LANG = "{http://www.w3.org/XML/1998/namespace}lang"
ODD = 'a <dog> & a "cat"\'s\r\n\ttail ]]> ä 日本 \U0001f436 &amp; \u2028'
needs_exiftool = pytest.mark.usefixtures("exiftool")

DARKTABLE = """\
<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:darktable="http://darktable.sf.net/"
   xmp:Rating="4" darktable:xmp_version="5" darktable:history_end="11">
   <dc:subject xmlns:dc="http://purl.org/dc/elements/1.1/">
    <rdf:Bag><rdf:li>holiday</rdf:li></rdf:Bag>
   </dc:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""


def parsed(sidecar: str | bytes | Path) -> tuple[str, str, list[str]]:
    """Description, alternative text and keywords, in the form that XMP prescribes."""
    data = sidecar.read_bytes() if isinstance(sidecar, Path) else sidecar
    top = ElementTree.fromstring(data)
    assert top.tag == "{adobe:ns:meta/}xmpmeta"
    (description,) = top.findall(f"{RDF}RDF/{RDF}Description")
    assert description.attrib == {f"{RDF}about": ""}
    texts = []
    for name in (f"{DC}description", f"{IPTC}AltTextAccessibility"):
        (item,) = description.findall(f"{name}/{RDF}Alt/{RDF}li")
        assert item.attrib == {LANG: "x-default"}
        texts.append(item.text or "")
    names = description.findall(f"{DC}subject/{RDF}Bag/{RDF}li")
    assert len(description) == 2 + bool(names)
    return texts[0], texts[1], [name.text or "" for name in names]


def read_by_exiftool(*paths: Path) -> list[dict[str, object]]:
    run = subprocess.run(
        ["exiftool", "-json", "-struct", "-XMP:all", "-warning", "-charset", "utf8", *paths],
        capture_output=True,
        check=True,
    )
    found: list[dict[str, object]] = json.loads(run.stdout)
    return found


# --- the text ------------------------------------------------------------------------------


def test_a_sidecar_in_full() -> None:
    text = render_xmp("a dog runs", ["dog", "run"])
    checksum = text.partition(" crc32 ")[2][:8]
    assert (
        text
        == f"""\
<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="captioner {captioner.__version__} crc32 {checksum}">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:Iptc4xmpCore="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/">
   <dc:description>
    <rdf:Alt>
     <rdf:li xml:lang="x-default">a dog runs</rdf:li>
    </rdf:Alt>
   </dc:description>
   <Iptc4xmpCore:AltTextAccessibility>
    <rdf:Alt>
     <rdf:li xml:lang="x-default">a dog runs</rdf:li>
    </rdf:Alt>
   </Iptc4xmpCore:AltTextAccessibility>
   <dc:subject>
    <rdf:Bag>
     <rdf:li>dog</rdf:li>
     <rdf:li>run</rdf:li>
    </rdf:Bag>
   </dc:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""
    )


def test_without_tags_there_is_no_empty_bag() -> None:
    assert parsed(render_xmp("a dog")) == ("a dog", "a dog", [])
    assert "subject" not in render_xmp("a dog")


@given(st.text(), st.lists(st.text(min_size=1), max_size=3))
def test_every_text_comes_back_but_for_what_xml_cannot_hold(text: str, tags: list[str]) -> None:
    def held(text: str) -> str:
        forbidden = {*range(0x20), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF} - {9, 10, 13}
        return "".join("\ufffd" if ord(char) in forbidden else char for char in text)

    data = render_xmp(text, tags).encode()
    assert parsed(data) == (held(text), held(text), [held(tag) for tag in tags])


@pytest.mark.parametrize("text", ["\0", "\x1b[31m", "\ud800", "\ufffe", "a\x0bb"])
def test_what_xml_forbids_is_replaced(text: str) -> None:
    caption, _, tags = parsed(render_xmp(f"a {text}", [text]).encode())
    assert "\ufffd" in caption and "\ufffd" in tags[0]


@needs_exiftool
def test_exiftool_reads_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "ä b.jpg.xmp").write_text(render_xmp(ODD, ["dog", "R&B <3", "日本"]), "utf-8")
    (found,) = read_by_exiftool(tmp_path / "ä b.jpg.xmp")
    assert "Warning" not in found
    assert found["Description"] == found["AltTextAccessibility"] == ODD
    assert found["Subject"] == ["dog", "R&B <3", "日本"]


@pytest.mark.usefixtures("exiv2")
def test_the_library_of_darktable_and_digikam_reads_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "a.jpg.xmp").write_text(render_xmp("a <b> & ä", ["dog", "R&B"]), "utf-8")
    command = ["exiv2", "-PXkyct", str(tmp_path / "a.jpg.xmp")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [line.split() for line in run.stdout.splitlines()]
    assert [(line[0], line[1], " ".join(line[3:])) for line in found] == [
        ("Xmp.dc.description", "LangAlt", 'lang="x-default" a <b> & ä'),
        ("Xmp.dc.subject", "XmpBag", "dog, R&B"),
        ("Xmp.iptc.AltTextAccessibility", "LangAlt", 'lang="x-default" a <b> & ä'),
    ]


def test_what_was_changed_is_not_ours_any_more(tmp_path: Path) -> None:
    path = tmp_path / "a.xmp"
    for text in (render_xmp("a dog", ["dog"]), render_xmp(ODD)):
        path.write_bytes(text.encode())
        assert is_untouched(path)
        for changed in (
            text.replace("x-default", "en", 1),
            text + "\n",
            text.replace("crc32 ", "crc32 0", 1),
            text.replace("captioner", "XMP Core", 1),
            text[:-20],
        ):
            path.write_bytes(changed.encode())
            assert not is_untouched(path)
    for foreign in (DARKTABLE, "", "x" * 5000):
        path.write_text(foreign)
        assert not is_untouched(path)
    assert not is_untouched(tmp_path)
    assert not is_untouched(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe.xmp")
    assert not is_untouched(tmp_path / "pipe.xmp")


# --- the command ---------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "Meine Fotos"
    draw(folder, ["a.jpg", "ä b.png", "sub/a.png"])
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def run(tagging_model: CaptionModel, capsys: pytest.CaptureFixture[str]):
    """Run `captioner caption --format xmp` in this process; returns (exit code, stderr)."""

    def run(*arguments: str, model: Path | None = None) -> tuple[int, str]:
        options = ["--model", str(model or tagging_model.path), "--device", "cpu", "--quiet"]
        try:
            code = cli.main(["caption", "--format", "xmp", *options, *map(str, arguments)])
        except SystemExit as end:
            code = int(end.code or 0)
        return code, capsys.readouterr().err

    return run


def as_jsonl(photos: Path, model: CaptionModel, *options: str) -> dict[str, dict[str, object]]:
    output = photos.parent / "out.jsonl"
    arguments = ["--model", str(model.path), "--device", "cpu", "--quiet", "--overwrite"]
    arguments += ["--output", str(output), *options]
    assert cli.main(["caption", str(photos), *arguments]) in (0, 1)
    records = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    return {record["file_name"]: record for record in records}


def sidecars(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.xmp")
    }


def test_caption_and_tags_beside_the_photos_which_stay_as_they_are(
    photos: Path, run, tagging_model: CaptionModel
) -> None:
    before = {path: path.read_bytes() for path in photos.rglob("*.*g")}
    assert run(photos) == (0, "")
    records = as_jsonl(photos, tagging_model, "--tags")
    assert any(record["tags"] for record in records.values())
    assert set(sidecars(photos)) == {"a.jpg.xmp", "ä b.png.xmp", "sub/a.png.xmp"}
    for name, record in records.items():
        tags = [tag["name"] for tag in record["tags"]]
        assert parsed(photos / f"{name}.xmp") == (record["text"], record["text"], tags)
    assert {path: path.read_bytes() for path in before} == before
    assert (photos / ".captions.xmp.captioner").exists()


@needs_exiftool
def test_exiftool_reads_what_the_command_wrote(photos: Path, run) -> None:
    assert run(photos, "--tags", "0")[0] == 0
    for path in photos.rglob("*.xmp"):
        (found,) = read_by_exiftool(path)
        caption, _, tags = parsed(path)
        # A list of one is shown as its item.
        subject = found.get("Subject", [])
        assert found["Description"] == found["AltTextAccessibility"] == caption
        assert (subject if isinstance(subject, list) else [subject]) == tags


def test_which_tags(photos: Path, run, tagging_model: CaptionModel) -> None:
    assert run(photos, "--output", "all", "--tags", "0")[0] == 0
    assert run(photos, "--output", "none", "--no-tags")[0] == 0
    name = "sub/a.png.xmp"
    record = as_jsonl(photos, tagging_model, "--tags", "0")["sub/a.png"]
    assert len(parsed(Path("all") / name)[2]) == len(record["tags"]) > 3
    assert parsed(Path("none") / name) == (record["text"], record["text"], [])


def test_a_model_without_a_lexicon(photos: Path, run, tiny_model: CaptionModel) -> None:
    tiny_model.save("plain.safetensors", half=False)
    plain = Path("plain.safetensors")
    code, errors = run(photos, "--tags", model=plain)
    assert code == 2 and "this model has no lexicon" in errors
    assert sidecars(photos) == {}
    assert run(photos, model=plain) == (0, "")
    assert parsed(photos / "a.jpg.xmp")[2] == []


def test_adobes_names(photos: Path, run) -> None:
    assert run(photos, "--xmp-name", "adobe") == (0, "")
    assert set(sidecars(photos)) == {"a.xmp", "ä b.xmp", "sub/a.xmp"}
    again = sidecars(photos)
    code, errors = run(photos)
    assert code == 2
    assert "settings.format: xmp (adobe) there, xmp (darktable) now" in errors
    assert sidecars(photos) == again


def test_images_that_would_share_adobes_name_are_refused(photos: Path, run) -> None:
    draw(photos, ["A.png"], first_seed=7)
    message = (
        f"captioner: error: {photos}/A.png and {photos.name}/a.jpg would share A.xmp: --xmp-name "
        "darktable gives each image its own sidecar; or rename one of them\n"
    ).replace(f"{photos.name}/a.jpg", "a.jpg")
    assert run(photos, "--xmp-name", "adobe") == (2, message)
    assert run(photos / "A.png", "--xmp-name", "adobe") == (2, message)
    assert run(photos, "--xmp-name", "adobe", "--output", "new")[0] == 2
    assert sidecars(photos.parent) == {}
    assert run(photos) == (0, "")
    assert {"A.png.xmp", "a.jpg.xmp"} < set(sidecars(photos))


@pytest.mark.parametrize("options", [[], ["--overwrite"], ["--append"]])
def test_another_programs_sidecar_is_never_replaced(photos: Path, run, options) -> None:
    theirs = photos / "sub" / "a.png.xmp"
    theirs.write_text(DARKTABLE)
    code, errors = run(photos, *options)
    assert code == 2
    assert errors == (
        f"captioner: error: {theirs} holds what captioner has not written (perhaps the development"
        " of a photo), and is never replaced: write into a folder of their own with --output DIR; "
        "docs/formats.md says how to merge them\n"
    )
    assert sidecars(photos) == {"sub/a.png.xmp": DARKTABLE.encode()}
    assert run(photos, "--output", "beside", *options)[0] == 0
    assert set(sidecars(Path("beside"))) == {"a.jpg.xmp", "ä b.png.xmp", "sub/a.png.xmp"}
    assert theirs.read_text() == DARKTABLE


def test_a_sidecar_that_appears_while_the_job_runs_is_kept(
    photos: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = photos / "sub" / "a.png.xmp"
    replace = sidecar_output.replace_file

    def meanwhile(*arguments) -> None:
        theirs.write_text(DARKTABLE)
        replace(*arguments)

    monkeypatch.setattr(sidecar_output, "replace_file", meanwhile)
    code, errors = run(photos, "--batch-size", "1")
    assert code == 2
    assert f"{theirs} holds what captioner has not written" in errors
    assert theirs.read_text() == DARKTABLE
    monkeypatch.undo()
    monkeypatch.chdir(photos.parent)
    assert run(photos)[0] == 0  # the rest; theirs stays
    assert theirs.read_text() == DARKTABLE
    assert set(sidecars(photos)) == {"a.jpg.xmp", "ä b.png.xmp", "sub/a.png.xmp"}


def test_our_own_sidecars_are_replaced_when_told_and_edited_ones_are_not(photos: Path, run) -> None:
    assert run(photos, "--no-tags")[0] == 0
    before = sidecars(photos)
    code, errors = run(photos, "--tags", "0")
    assert code == 2 and "another model or other options made" in errors
    (photos / ".captions.xmp.captioner").unlink()
    code, errors = run(photos, "--tags", "0")
    assert code == 2
    assert "exists, and this job has not made it: " in errors
    assert "--overwrite replaces the XMP sidecars" in errors
    assert sidecars(photos) == before
    assert run(photos, "--tags", "0", "--overwrite")[0] == 0
    assert all(sidecars(photos)[name] != data for name, data in before.items())
    edited = photos / "a.jpg.xmp"
    edited.write_text(edited.read_text("utf-8").replace("x-default", "en", 1), "utf-8")
    words = edited.read_bytes()
    code, errors = run(photos, "--overwrite")
    assert code == 2 and "holds what captioner has not written" in errors
    assert edited.read_bytes() == words


def test_run_again_with_new_images_and_a_developed_photo(photos: Path, run) -> None:
    assert run(photos)[0] == 0
    developed = photos / "a.jpg.xmp"
    developed.write_text(DARKTABLE)
    draw(photos, ["new.png"], first_seed=5)
    assert run(photos) == (0, "")
    assert "new.png.xmp" in sidecars(photos)
    assert developed.read_text() == DARKTABLE
    others = photos.parent / "others"
    draw(others, ["x.png"], first_seed=6)
    assert run(others, "--output", photos, "--append")[0] == 0
    assert "x.png.xmp" in sidecars(photos)


@needs_exiftool
def test_the_documented_way_to_merge_keeps_the_development(photos: Path, run) -> None:
    theirs = photos / "sub" / "a.png.xmp"
    theirs.write_text(DARKTABLE)
    assert run(photos, "--output", "captions", "--tags", "0")[0] == 0
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text("utf-8")
    line = page[page.index("\nexiftool ") :].partition("\n```")[0]
    subprocess.run(["sh", "-c", line], cwd=photos, check=True, capture_output=True)
    (merged,) = read_by_exiftool(theirs)
    caption, _, tags = parsed(Path("captions/sub/a.png.xmp"))
    assert (merged["Description"], merged["Subject"]) == (caption, ["holiday", *tags])
    assert merged["AltTextAccessibility"] == caption
    assert (merged["Rating"], "history_end" in theirs.read_text()) == (4, True)
    assert (photos / "sub" / "a.png.xmp_original").read_text() == DARKTABLE


def test_options_that_do_not_suit(photos: Path, run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(photos, "--tags", "--no-tags")[0] == 2
    assert run(photos, "--xmp-name", "apple")[0] == 2
    for option in (["--no-tags"], ["--xmp-name", "adobe"]):
        assert cli.main(["caption", str(photos), "--format", "csv", *option]) == 2
        err = capsys.readouterr().err
        assert f"{option[0]}: " in err
        assert "--format xmp" in err
        assert "not for csv" in err
    code, errors = run(photos, "--num-captions", "2")
    assert code == 2 and "xmp holds one caption for each image" in errors
    with pytest.raises(ValueError, match="xmp_name='apple': choose from darktable, adobe"):
        CaptionJob(("x",), xmp_name="apple")
    assert sidecars(photos) == {}


# --- the writer ----------------------------------------------------------------------------


def test_the_writer_alone(photos: Path, tmp_path: Path) -> None:
    record = {"file_name": "a.jpg", "text": "a dog", "confidence": 0.5, "error": None}
    record["tags"] = [{"name": "dog", "type": "noun", "confidence": 0.9}]
    with open_writer(None, "xmp") as writer:
        writer.write(record, photos / "a.jpg")
        writer.write({**record, "text": None, "error": "gone"}, photos / "ä b.png")
        with pytest.raises(CaptionerError, match="exists: --overwrite replaces the XMP sidecars"):
            writer.write(record, photos / "a.jpg")
    assert set(sidecars(photos)) == {"a.jpg.xmp"}
    assert parsed(photos / "a.jpg.xmp") == ("a dog", "a dog", ["dog"])
    with XmpWriter(overwrite=True) as writer:
        writer.write({**record, "text": "a cat"}, photos / "a.jpg")
    assert parsed(photos / "a.jpg.xmp")[0] == "a cat"
    (photos / "a.jpg.xmp").write_text(DARKTABLE)
    with XmpWriter(overwrite=True) as writer, pytest.raises(CaptionerError, match="never replaced"):
        writer.write(record, photos / "a.jpg")
    assert (photos / "a.jpg.xmp").read_text() == DARKTABLE
