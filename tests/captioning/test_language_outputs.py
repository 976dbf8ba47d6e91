"""Captions in other languages, and in several at once, in every output: exact contents."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from captioner.captioning.embedding import Embedder, NotEmbedded
from captioner.captioning.formats import make_writer, open_writer
from captioner.captioning.sidecars import SidecarWriter
from captioner.captioning.xmp import Sidecar, read_xmp
from captioner.cli import entry as cli
from captioner.errors import CaptionerError
from captioner.files.exiftool import ExifTool
from captioner.files.finding import SourceFile
from captioner.files.resume import Fingerprint
from helpers.images import noise
from helpers.languages import write_languages
from helpers.models import make_talker
from helpers.programs import program

DOG: dict[str, Any] = {
    "file_name": "a.jpg",
    "text": "a dog runs",
    "confidence": 0.5123,
    "error": None,
}
FAILED = {"file_name": "bad.jpg", "text": None, "confidence": None, "error": "truncated file"}
CHINESE = {**DOG, "text": "一只狗，在跑", "language": "zh"}
GERMAN = {"text": "ein Hund läuft", "confidence": 0.25, "calibrated": True}
ARABIC = {"text": "كلب يركض.", "confidence": 0.75, "calibrated": True}
SEVERAL = {**DOG, "language": "en", "other_languages": {"de": GERMAN, "ar": ARABIC}}
UNSURE = {
    **SEVERAL,
    "text": None,
    "other_languages": {"de": {**GERMAN, "text": None}, "ar": ARABIC},
}
LANGUAGES = ("en", "de", "ar")


def write(output: Path | None, records: list[dict[str, Any]], **options: Any) -> None:
    with open_writer(output, **options) as writer:
        for record in records:
            writer.write(record)


def written(format: str, records: list[dict[str, Any]], output: Path, **options: Any) -> str:
    with make_writer(format, output, **options) as writer:
        for record in records:
            writer.write(record, output.parent / record["file_name"])
    return output.read_bytes().decode("utf-8") if output.is_file() else ""


def test_tsv(tmp_path: Path) -> None:
    records = [CHINESE, SEVERAL, FAILED, UNSURE]
    path = tmp_path / "a.jpg"
    assert written("tsv", records, tmp_path / "x.tsv") == (
        f"{path}\t一只狗，在跑\n{path}\ta dog runs\tein Hund läuft\tكلب يركض.\n"
        f"{path}\t\t\tكلب يركض.\n"
    )


def test_csv(tmp_path: Path) -> None:
    assert written("csv", [CHINESE, FAILED], tmp_path / "x.csv", languages=("zh",)) == (
        "file_name,language,text,confidence,error\r\n"
        "a.jpg,zh,一只狗，在跑,0.5123,\r\nbad.jpg,,,,truncated file\r\n"
    )
    records = [SEVERAL, FAILED, UNSURE]
    options: dict[str, Any] = {"languages": LANGUAGES, "csv_bom": True}
    assert written("csv", records, tmp_path / "y.csv", **options) == (
        "\ufefffile_name,language,text,confidence,text_de,confidence_de,text_ar,confidence_ar,error"
        "\r\na.jpg,en,a dog runs,0.5123,ein Hund läuft,0.25,كلب يركض.,0.75,\r\n"
        "bad.jpg,,,,,,,,truncated file\r\n"
        "a.jpg,en,,0.5123,,0.25,كلب يركض.,0.75,\r\n"
    )


def test_jsonl_and_coco_results_hold_the_letters_themselves(tmp_path: Path) -> None:
    assert written("jsonl", [SEVERAL], tmp_path / "x.jsonl") == (
        '{"file_name": "a.jpg", "text": "a dog runs", "confidence": 0.5123, "error": null,'
        ' "language": "en", "other_languages": {'
        '"de": {"text": "ein Hund läuft", "confidence": 0.25, "calibrated": true}, '
        '"ar": {"text": "كلب يركض.", "confidence": 0.75, "calibrated": true}}}\n'
    )
    assert written("json", [CHINESE], tmp_path / "x.json") == (
        '[\n{"image_id": "a.jpg", "caption": "一只狗，在跑"}\n]\n'
    )


def test_a_text_file_for_each_language(tmp_path: Path) -> None:
    images, texts = tmp_path / "images", tmp_path / "texts"
    images.mkdir()
    for name in ("a.jpg", "b.jpg", "bad.jpg"):
        (images / name).touch()
    with make_writer("txt", texts, languages=LANGUAGES) as writer:
        writer.write(SEVERAL, images / "a.jpg")
        writer.write({**UNSURE, "file_name": "b.jpg"}, images / "b.jpg")
        writer.write(FAILED, images / "bad.jpg")
    assert {path.name: path.read_bytes().decode("utf-8") for path in texts.iterdir()} == {
        "a.txt": "a dog runs\n",
        "a.de.txt": "ein Hund läuft\n",
        "a.ar.txt": "كلب يركض.\n",
        "b.ar.txt": "كلب يركض.\n",
    }
    caption = SidecarWriter(suffix=".caption", languages=LANGUAGES)
    assert [each.name for each in caption.targets(images / "a.jpg", "a.jpg")] == [
        "a.caption",
        "a.de.caption",
        "a.ar.caption",
    ]


def test_a_language_in_the_name_of_another_image(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.DE.jpg"):
        (tmp_path / name).touch()
    writer = SidecarWriter(languages=LANGUAGES)
    with pytest.raises(CaptionerError) as caught:
        writer.targets(tmp_path / "a.jpg", "a.jpg")
    assert str(caught.value) == (
        f"{tmp_path}/a.jpg and {tmp_path}/a.DE.jpg would share a.de.txt: rename one of them"
    )
    assert SidecarWriter().targets(tmp_path / "a.jpg", "a.jpg") == [tmp_path / "a.txt"]


def test_xmp_has_all_languages_as_alternatives(tmp_path: Path) -> None:
    tags = [{"name": "dog"}, {"name": "run"}]
    record = {**SEVERAL, "tags": tags}
    record["other_languages"] = {"de": {**GERMAN, "tags": [{"name": "Hund"}, {"name": "dog"}]}}
    with make_writer("xmp", languages=("en", "de")) as writer:
        writer.write(record, tmp_path / "a.jpg")
        writer.write(CHINESE, tmp_path / "b.jpg")
        writer.write(UNSURE, tmp_path / "c.jpg")
    alternatives = (
        "    <rdf:Alt>\n"
        '     <rdf:li xml:lang="x-default">a dog runs</rdf:li>\n'
        '     <rdf:li xml:lang="en">a dog runs</rdf:li>\n'
        '     <rdf:li xml:lang="de">ein Hund läuft</rdf:li>\n'
        "    </rdf:Alt>\n"
    )
    text = (tmp_path / "a.jpg.xmp").read_bytes().decode("utf-8")
    assert text[text.index("   <dc:") :] == (
        f"   <dc:description>\n{alternatives}   </dc:description>\n"
        f"   <Iptc4xmpCore:AltTextAccessibility>\n{alternatives}"
        "   </Iptc4xmpCore:AltTextAccessibility>\n"
        "   <dc:subject>\n    <rdf:Bag>\n"
        "     <rdf:li>dog</rdf:li>\n     <rdf:li>run</rdf:li>\n     <rdf:li>Hund</rdf:li>\n"
        "    </rdf:Bag>\n   </dc:subject>\n  </rdf:Description>\n </rdf:RDF>\n</x:xmpmeta>\n"
    )
    assert read_xmp(tmp_path / "a.jpg.xmp") == Sidecar(
        "a dog runs", ("dog", "run", "Hund"), {"en": "a dog runs", "de": "ein Hund läuft"}
    )
    assert read_xmp(tmp_path / "b.jpg.xmp") == Sidecar("一只狗，在跑", (), {"zh": "一只狗，在跑"})
    assert read_xmp(tmp_path / "c.jpg.xmp") == Sidecar("كلب يركض.", (), {"ar": "كلب يركض."})


def test_fields_from_right_to_left_keep_their_places_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [
        {**DOG, "file_name": "صورة 1.jpg", "text": "كلب يركض."},
        {**DOG, "text": "一只狗"},
        {**DOG, "text": "ה\u2069dog"},
    ]
    write(None, records)
    plain = "صورة 1.jpg\tكلب يركض.\na.jpg\t一只狗\na.jpg\tה\\u2069dog\n"
    assert capsys.readouterr().out == plain
    write(tmp_path / "x.tsv", records)
    assert (tmp_path / "x.tsv").read_text("utf-8") == plain
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    write(None, records)
    assert capsys.readouterr().out == (
        "\u2068صورة 1.jpg\u2069\t 51%\t\u2068كلب يركض.\u2069\n"
        "a.jpg\t 51%\t一只狗\na.jpg\t 51%\t\u2068ה\\u2069dog\u2069\n"
    )


def test_languages_inside_of_an_image(tmp_path: Path) -> None:
    program("exiftool")
    path = tmp_path / "a.jpg"
    noise(3).save(path)
    file = SourceFile(path, path.name)
    tags = ["XMP-dc:all", "IFD0:ImageDescription", "IPTC:Caption-Abstract"]
    everywhere = {"IFD0:ImageDescription", "IPTC:Caption-Abstract", "XMP-dc:Description"}
    chinese = {"en": "a dog runs", "zh": "一只狗，在跑"}

    with closing(ExifTool()) as reader, closing(Embedder()) as embedder:

        def embed(text: str, keywords: list[str], alternatives: dict[str, str]) -> dict[str, Any]:
            embedder.embed(path, text, keywords, Fingerprint.of(file), alternatives)
            found = reader.read(path, tags)
            assert {found[tag] for tag in everywhere} == {text}
            del found["SourceFile"]
            return {tag: found[tag] for tag in found if tag not in everywhere}

        assert embed("a dog runs", ["dog", "狗"], chinese | {"ar": "كلب يركض."}) == {
            "XMP-dc:Description-en": "a dog runs",
            "XMP-dc:Description-zh": "一只狗，在跑",
            "XMP-dc:Description-ar": "كلب يركض.",
            "XMP-dc:Subject": ["dog", "狗"],
        }
        # It is captioner's own, and replaced as a whole.
        assert embed("一只狗", ["狗"], {"zh": "一只狗"}) == {
            "XMP-dc:Description-zh": "一只狗",
            "XMP-dc:Subject": "狗",
        }
        before = path.stat()
        assert embed("一只狗", ["狗"], {"zh": "一只狗"})["XMP-dc:Description-zh"] == "一只狗"
        assert path.stat() == before
        assert embed("a dog", [], {}) == {}
        # One that somebody has added is not.
        embed("a dog runs", [], chinese)
        command = ["exiftool", "-q", "-overwrite_original", "-XMP-dc:Description-de=mein Hund"]
        subprocess.run([*command, str(path)], check=True)
        with pytest.raises(NotEmbedded, match="which captioner has not written"):
            embed("a dog", [], chinese)
    assert (
        subprocess.run(
            ["exiftool", "-s3", "-XMP-dc:Description-de", str(path)],
            capture_output=True,
            check=True,
        ).stdout
        == b"mein Hund\n"
    )


# --- the command ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_and_languages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A model file, and language files in German, Arabic and Chinese for ``--language``."""
    folder = tmp_path_factory.mktemp("models")
    model = make_talker()
    model.save(folder / "model.safetensors", half=False)
    files = write_languages(model, folder, "de", "ar", "zh")
    return folder / "model.safetensors", ",".join(map(str, files))


@pytest.fixture
def run(model_and_languages: tuple[Path, str], capsys: pytest.CaptureFixture[str]):
    """Caption in English, German, Arabic and Chinese; returns (exit code, stdout, stderr)."""
    model, languages = model_and_languages
    options = ["--model", str(model), "--device", "cpu", "--quiet", "--max-length", "5"]

    def run(*arguments: str, language: str = f"en,{languages}") -> tuple[int, str, str]:
        code = cli.main(["caption", *options, "--language", language, *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def read_texts(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().decode("utf-8")
        for path in sorted(folder.rglob("*.txt"))
    }


def test_the_command_in_four_languages(photos: Path, run) -> None:
    """Every format has the same captions; a run that finds files missing writes them again."""
    code, _, _ = run(str(photos), "--output", "x.jsonl")
    assert code == 1  # one image cannot be read
    records = list(map(json.loads, Path("x.jsonl").read_text("utf-8").splitlines()))
    texts = {}
    for record in records:
        if record["error"] is None:
            stem = record["file_name"].removesuffix(".png")
            assert list(record["other_languages"]) == ["de", "ar", "zh"]
            texts[f"{stem}.txt"] = f"{record['text']}\n"
            for language, each in record["other_languages"].items():
                texts[f"{stem}.{language}.txt"] = f"{each['text']}\n"
    assert len(texts) == 24 and len(set(texts.values())) > 8
    assert run(str(photos), "--format", "txt")[0] == 1
    assert read_texts(photos) == texts
    (photos / "a.ar.txt").unlink()
    (photos / "sub dir" / "a.txt").unlink()
    assert run(str(photos), "--format", "txt", "--missing-only")[0] == 1
    assert read_texts(photos) == texts
    (photos / "a.ar.txt").write_text("رجل\n", "utf-8")
    assert run(str(photos), "--format", "txt", "--missing-only")[0] == 1
    assert read_texts(photos) == texts | {"a.ar.txt": "رجل\n"}
    code, _, err = run(str(photos), "--format", "txt", "--overwrite")
    assert code == 2 and f"1 file ({photos}/a.ar.txt)" in err

    run(str(photos), "--output", "x.csv")
    table = list(csv.DictReader(io.StringIO(Path("x.csv").read_text("utf-8"), newline="")))
    for row, record in zip(table, records, strict=True):
        others = record.get("other_languages", {})
        assert row["language"] == record.get("language", "")
        assert row["text"] == (record["text"] or "")
        for language in ("de", "ar", "zh"):
            assert row[f"text_{language}"] == others.get(language, {}).get("text", "")
    out = run(str(photos), language="en")[1]
    assert out == run(str(photos), language="en")[1] and len(out.splitlines()[0].split("\t")) == 2
    lines = [line.split("\t") for line in run(str(photos))[1].splitlines()]
    assert [line[1:] for line in lines] == [
        [record["text"], *(each["text"] for each in record["other_languages"].values())]
        for record in records
        if record["error"] is None
    ]


def test_coco_results_are_of_one_language(photos: Path, run, model_and_languages) -> None:
    chinese = model_and_languages[1].split(",")[-1]
    code, _, err = run(str(photos), "--output", "x.json")
    assert code == 2 and "json (COCO results) holds one caption for each image" in err
    assert run(str(photos), "--output", "x.json", language=chinese)[0] == 1
    run(str(photos), "--output", "y.jsonl", language=chinese)
    records = map(json.loads, Path("y.jsonl").read_text("utf-8").splitlines())
    captions = [
        {"image_id": record["file_name"], "caption": record["text"]}
        for record in records
        if record["error"] is None
    ]
    assert json.loads(Path("x.json").read_text("utf-8")) == captions


def test_metadata_of_people_gets_rows_in_its_columns(photos: Path, run) -> None:
    """Rows that ``--missing-only`` adds fill the columns of languages that the table has."""
    before = "file_name,text,text_de\r\na.png,my dog,mein Hund\r\n"
    Path("own.csv").write_bytes(before.encode())
    run(str(photos), "--output", "own.csv", "--missing-only")
    run(str(photos), "--output", "x.jsonl")
    records = map(json.loads, Path("x.jsonl").read_text("utf-8").splitlines())
    rows = [
        f"{record['file_name']},{record['text']},{record['other_languages']['de']['text']}\r\n"
        for record in records
        if record["error"] is None and record["file_name"] != "a.png"
    ]
    assert Path("own.csv").read_bytes().decode("utf-8") == before + "".join(rows)


def test_all_languages_inside_of_images_and_beside_them(photos: Path, run) -> None:
    program("exiftool")
    run(str(photos), "--format", "xmp", "--embed")
    run(str(photos), "--output", "x.jsonl", "--overwrite")
    image, sidecar = photos / "a.png", photos / "a.png.xmp"
    with closing(ExifTool()) as reader:
        inside, beside = (reader.read(path, ["XMP-dc:all"]) for path in (image, sidecar))
        alt_text = reader.read(sidecar, ["XMP-iptcCore:AltTextAccessibility-ar"])
    written = read_xmp(sidecar)
    assert written is not None and list(written.alternatives) == ["en", "de", "ar", "zh"]
    expected = {"XMP-dc:Description": written.text} | {
        f"XMP-dc:Description-{language}": text for language, text in written.alternatives.items()
    }
    del inside["SourceFile"], beside["SourceFile"]
    assert inside == beside == expected
    assert alt_text["XMP-iptcCore:AltTextAccessibility-ar"] == written.alternatives["ar"]
