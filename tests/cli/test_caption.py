"""`captioner caption`, in process, with a tiny untrained model."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import captioner
from captioner.cli import entry as cli
from captioner.decoding.options import DecodingOptions
from captioner.images.reading import read_image
from captioner.model.caption_model import CaptionModel


def texts_of(model: CaptionModel, paths: list[Path], options: DecodingOptions) -> list[list[str]]:
    results = model.caption(paths, options)
    return [[candidate.text for candidate in result.candidates] for result in results]


def test_a_line_for_each_image_on_standard_output(run, photos: Path, model: CaptionModel) -> None:
    code, out, err = run("caption", "photos")
    paths = [photos / name for name in ("a.png", "b.jpg", "sub/a.png")]
    texts = [texts[0] for texts in texts_of(model, paths, DecodingOptions())]
    assert code == 0
    assert out == (
        f"photos/a.png\t{texts[0]}\nphotos/b.jpg\t{texts[1]}\nphotos/sub/a.png\t{texts[2]}\n"
    )
    assert err == "captioner: 3 captioned, 0 failed\n"
    assert len(set(texts)) > 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_shows_the_confidence(
    photos: Path, model_file: Path, model: CaptionModel
) -> None:
    reader, terminal = os.openpty()
    command = [sys.executable, "-m", "captioner", "caption", "photos", "--workers", "0", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(Path(captioner.__file__).parents[1])}
    subprocess.run(
        [*command, "--model", str(model_file), "--device", "cpu"],
        stdout=terminal,
        env=environment,
        check=True,
    )
    os.close(terminal)
    lines = os.read(reader, 10_000).decode().splitlines()
    paths = [photos / name for name in ("a.png", "b.jpg", "sub/a.png")]
    assert lines == [
        f"{path.relative_to(photos.parent)}\t{result.confidence:4.0%}\t{result.text}"
        for path, result in zip(paths, model.caption(paths), strict=True)
    ]


def test_every_decoding_option_reaches_the_decoder(run, photos: Path, model: CaptionModel) -> None:
    options = DecodingOptions(
        beam_size=4,
        num_captions=3,
        max_length=5,
        length_penalty=0.5,
        no_repeat_ngram=2,
        banned_words=("dog", "snow"),
    )
    _, out, _ = run(
        *("caption", "photos/a.png", "--beam-size", "4", "--num-captions", "3"),
        *("--max-length", "5", "--length-penalty", "0.5", "--no-repeat-ngram", "2"),
        *("--ban", "dog", "--ban", "snow"),
    )
    expected = texts_of(model, [photos / "a.png"], options)[0]
    assert out == "\t".join(["photos/a.png", *expected]) + "\n"
    assert len(expected) == 3
    assert expected[0] != texts_of(model, [photos / "a.png"], DecodingOptions())[0][0]


def test_every_sampling_option_reaches_the_decoder(run, photos: Path, model: CaptionModel) -> None:
    arguments = ["--sample", "--temperature", "0.8", "--top-k", "9", "--top-p", "0.9"]
    options = DecodingOptions(
        sample=True, num_captions=2, temperature=0.8, top_k=9, top_p=0.9, seed=7
    )
    seeded = [*arguments, "--num-captions", "2", "--seed", "7"]
    _, out, _ = run("caption", "photos/a.png", *seeded)
    expected = texts_of(model, [photos / "a.png"], options)[0]
    assert out == "\t".join(["photos/a.png", *expected]) + "\n"
    _, again, _ = run("caption", "photos/a.png", *seeded)
    assert again == out
    _, other, _ = run("caption", "photos/a.png", *arguments, "--num-captions", "2", "--seed", "8")
    assert other != out


def test_a_bad_image_is_named_the_rest_captioned_and_the_exit_code_is_1(run, photos: Path) -> None:
    (photos / "b.jpg").write_bytes(b"no image")
    code, out, err = run("caption", "photos", "--batch-size", "2")
    assert code == 1
    assert [line.split("\t")[0] for line in out.splitlines()] == [
        "photos/a.png",
        "photos/sub/a.png",
    ]
    assert err == (
        "captioner: photos/b.jpg: not an image Pillow can read\ncaptioner: 2 captioned, 1 failed\n"
    )


def test_damaged_metadata_is_no_matter_for_the_user(
    run, photos: Path, recwarn: pytest.WarningsRecorder
) -> None:
    exif = Image.Exif()
    exif[0x010E] = "x" * 50
    Image.open(photos / "a.png").save(photos / "b.jpg", exif=exif.tobytes()[:40])
    with pytest.warns(UserWarning, match="Tag data larger"):
        read_image(photos / "b.jpg")
    recwarn.clear()
    code, _, err = run("caption", "photos/b.jpg")
    assert (code, err) == (0, "captioner: 1 captioned, 0 failed\n")
    assert recwarn.list == []


def test_quiet_leaves_the_errors_only(run, photos: Path) -> None:
    assert run("caption", "photos", "--quiet")[2] == ""
    (photos / "b.jpg").write_bytes(b"")
    assert run("caption", "photos", "--quiet")[2] == "captioner: photos/b.jpg: empty file\n"


def test_a_name_with_a_tab_stays_one_line(run, photos: Path) -> None:
    (photos / "a.png").rename(photos / "a\t\n.png")
    _, out, _ = run("caption", "photos/a\t\n.png")
    assert out.startswith("photos/a\\t\\n.png\t")
    assert out.count("\n") == 1


def test_jsonl_with_candidates(run, photos: Path, model: CaptionModel) -> None:
    code, out, _ = run(
        *("caption", "photos", "--output", "out.jsonl", "--num-captions", "2", "--candidates")
    )
    assert (code, out) == (0, "")
    records = [json.loads(line) for line in Path("out.jsonl").read_text("utf-8").splitlines()]
    assert [record["file_name"] for record in records] == ["a.png", "b.jpg", "sub/a.png"]
    result = model.caption([photos / "a.png"], DecodingOptions(num_captions=2))[0]
    first = records[0]
    assert first["text"] == result.text
    assert first["confidence"] == pytest.approx(result.confidence, abs=1e-4)
    for written, candidate in zip(first["candidates"], result.candidates, strict=True):
        assert written["text"] == candidate.text
        assert [word for word, _ in written["words"]][: len(candidate.words)] == [*candidate.words]
        probs = [prob for _, prob in written["words"]]
        assert probs == pytest.approx(candidate.word_probs, abs=1e-4)


def test_csv_by_its_suffix(run, photos: Path, model: CaptionModel) -> None:
    assert run("caption", "photos", "--output", "out.csv")[0] == 0
    with Path("out.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file_name"] for row in rows] == ["a.png", "b.jpg", "sub/a.png"]
    assert rows[1]["text"] == model.caption([photos / "b.jpg"])[0].text


def test_text_files_mirror_the_folders(run, photos: Path, model: CaptionModel) -> None:
    assert run("caption", "photos", "--output", "texts", "--format", "txt")[0] == 0
    written = {
        path.relative_to("texts").as_posix(): path.read_text("utf-8").strip()
        for path in Path("texts").rglob("*.txt")
    }
    assert written == {
        "a.txt": model.caption([photos / "a.png"])[0].text,
        "b.txt": model.caption([photos / "b.jpg"])[0].text,
        "sub/a.txt": model.caption([photos / "sub/a.png"])[0].text,
    }


def test_an_output_is_replaced_only_when_told(run, photos: Path) -> None:
    Path("out.jsonl").write_text("mine\n")
    code, _, err = run("caption", "photos", "--output", "out.jsonl")
    assert code == 2
    assert "out.jsonl" in err
    assert "--overwrite" in err
    assert Path("out.jsonl").read_text() == "mine\n"
    code, _, err = run("caption", "photos", "--output", "out.jsonl", "--overwrite")
    assert (code, "--overwrite would replace 1 file (out.jsonl)" in err) == (2, True)
    assert Path("out.jsonl").read_text() == "mine\n"
    assert run("caption", "photos", "--output", "out.jsonl", "--overwrite", "--yes")[0] == 0
    assert len(Path("out.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--beam-size", "0"], "argument --beam-size: '0': give a whole number of at least 1"),
        (["--beam-size", "two"], "argument --beam-size: 'two': give a whole number of at least 1"),
        (
            ["--num-captions", "4", "--beam-size", "3"],
            "--num-captions 4: beam search gives at most --beam-size 3",
        ),
        (["--temperature", "0.5"], "--temperature 0.5 works on sampling only: set --sample"),
        (["--length-penalty", "nan"], "argument --length-penalty: 'nan': give a number from 0"),
        (["--batch-size", "0"], "argument --batch-size: '0': give a whole number of at least 1"),
        (["--workers", "-1"], "argument --workers: '-1': give a whole number of at least 0"),
        (["--precision", "fp8"], "argument --precision: invalid choice: 'fp8'"),
        (["--precision", "int8"], "precision int8: the model's file lacks what this needs"),
        (["--ban", "two words"], "banned word 'two words'"),
        (["--output", "out.xyz"], "out.xyz"),
        (["--device", "cuda:99"], "device 'cuda:99' cannot be used"),
        (["--device", "tpu!"], "device 'tpu!' cannot be used"),
        (["--candidates"], "--candidates: tsv has no place for them; use --format jsonl"),
        (
            ["--num-captions", "2", "--output", "out.csv"],
            "--num-captions 2: csv holds one caption for each image; use --format jsonl or tsv",
        ),
        (["--beam", "2"], "there is no option --beam; did you mean --beam-size?"),
    ],
)
def test_options_that_cannot_be_used_end_with_2(
    run, photos: Path, arguments: list[str], message: str
) -> None:
    code, out, err = run("caption", "photos", *arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_json_names_images_that_share_a_number(run, photos: Path) -> None:
    for name, new in (("a.png", "7.png"), ("b.jpg", "007.jpg"), ("sub/a.png", "sub/7.png")):
        (photos / name).rename(photos / new)
    code, _, errors = run("caption", "photos", "--output", "x.json")
    assert code == 0
    ids = [entry["image_id"] for entry in json.loads(Path("x.json").read_text("utf-8"))]
    assert ids == [7, "7.png", "sub/7.png"]
    assert "2 images have the number of another" in errors
    assert "(first: 7.png, as 007.jpg)" in errors


def test_tags_go_into_jsonl(
    tagging_model: CaptionModel, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "captions.jsonl"
    arguments = ["caption", str(photos), "--model", str(tagging_model.path), "--device", "cpu"]
    assert cli.main([*arguments, "--output", str(output), "--tags", "0", "--quiet"]) == 0
    records = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    assert [record["file_name"] for record in records] == ["a.png", "b.jpg", "sub/a.png"]
    for record in records:
        assert list(record) == [*("file_name", "text", "confidence", "calibrated", "tags", "error")]
        assert record["calibrated"] is False
        confidences = [tag["confidence"] for tag in record["tags"]]
        assert confidences == sorted(confidences, reverse=True)
        assert {tag["type"] for tag in record["tags"]} <= {"noun", "verb", "adjective"}
    assert any(record["tags"] for record in records)
    assert cli.main([*arguments, "--tags"]) == 2
    assert "--tags: tsv has no place for them; use --format jsonl or xmp" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        cli.main([*arguments, "--tags", "2"])
    assert end.value.code == 2
    assert "'2': give a number from 0 to 1" in capsys.readouterr().err


def test_a_model_without_a_lexicon_gives_no_tags(
    model_file: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "captions.jsonl"
    arguments = ["--model", str(model_file), "--output", str(output), "--tags"]
    assert cli.main(["caption", str(photos), *arguments]) == 2
    assert "this model has no lexicon" in capsys.readouterr().err
    assert not output.exists()


def test_captions_that_are_not_sure_enough_are_left_out(
    tagging_model: CaptionModel, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["caption", str(photos), "--model", str(tagging_model.path), "--device", "cpu"]
    assert cli.main([*arguments, "--min-confidence", "1"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "captioner: 0 captioned, 3 not sure enough, 0 failed\n"
    assert cli.main([*arguments, "--min-confidence", "0"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
