"""The command line, in process and as a real process, with a tiny untrained model."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

import captioner
from captioner.cli import entry as cli
from captioner.cli.options import DECODING_ARGUMENTS, SAMPLING_ARGUMENTS
from captioner.decoding.options import DecodingOptions
from captioner.model.caption_model import CaptionModel
from captioner.networks.configs import DecoderConfig, EncoderConfig
from captioner.text.tokenizer import Tokenizer

WORDS = ["a", "dog", "runs", "in", "the", "snow", "man", "red", "ball", "on", "grass", "jumps"]


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = CaptionModel.build(
        EncoderConfig(name="timm/test_efficientnet", weights="none", image_size=64),
        DecoderConfig(hidden_size=32, embed_size=32, heads=2),
        Tokenizer(WORDS),
    )
    # Untrained weights are so small that every image would get the same caption.
    for name, parameter in model.decoder.named_parameters():
        parameter.data.mul_(240 if name.endswith("projection.weight") else 4)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def model(model_file: Path) -> CaptionModel:
    return CaptionModel.load(model_file, device="cpu")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three images, one of them in a subfolder; the tests run beside it."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for index, name in enumerate(["a.png", "b.jpg", "sub/a.png"]):
        pixels = np.random.default_rng(index).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((80, 60)).save(folder / name)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def run(model_file: Path, capsys: pytest.CaptureFixture[str]):
    """Run main() in this process; returns (exit code, standard output, standard error)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        command, *rest = arguments
        if command != "export":
            rest = ["--model", str(model_file), "--device", "cpu", "--workers", "0", *rest]
        try:
            code = cli.main([command, *rest])
        except SystemExit as end:  # argparse ends so
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def texts_of(model: CaptionModel, paths: list[Path], options: DecodingOptions) -> list[list[str]]:
    results = model.caption(paths, options)
    return [[candidate.text for candidate in result.candidates] for result in results]


# --- caption -------------------------------------------------------------------------------


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
        (["--beam-size", "0"], "beam_size=0: give a whole number of at least 1"),
        (["--beam-size", "two"], "argument --beam-size: invalid int value: 'two'"),
        (["--num-captions", "4"], "num_captions=4: beam search gives at most beam_size=3"),
        (["--temperature", "0.5"], "temperature=0.5 works on sampling only"),
        (["--length-penalty", "nan"], "length_penalty=nan: give a number"),
        (["--batch-size", "0"], "argument --batch-size: '0': give a whole number of at least 1"),
        (["--workers", "-1"], "argument --workers: '-1': give a whole number of at least 0"),
        (["--precision", "fp8"], "argument --precision: invalid choice: 'fp8'"),
        (["--ban", "two words"], "banned word 'two words'"),
        (["--output", "out.xyz"], "out.xyz"),
        (["--device", "cuda:99"], "device 'cuda:99' cannot be used"),
        (["--device", "tpu!"], "device 'tpu!' cannot be used"),
        (["--candidates"], "--candidates: tsv has no place for them; use --format jsonl"),
        (
            ["--num-captions", "2", "--output", "out.csv"],
            "--num-captions 2: csv holds one caption for each image; use --format jsonl or tsv",
        ),
        (["--beam", "2"], "unrecognized arguments: --beam 2"),
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["caption", "nowhere"], "captioner: error: nowhere does not exist"),
        (["caption", "photos", "--model", "no.safetensors"], "model no.safetensors: no such file"),
        (["caption"], "the following arguments are required: PATH"),
        ([], "the following arguments are required: COMMAND"),
        (["describe"], "invalid choice: 'describe'"),
    ],
)
def test_mistakes_end_with_2_and_their_name(
    photos: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    try:
        code = cli.main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert message in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["caption", "no\x1b[2J\x9bsuch.jpg"],
        ["caption", "photos", "--model", "no\x1b[2J.safetensors"],
        ["caption", "photos", "--output", "no\x1b[2J/such.foo"],
        ["caption", "photos", "--device", "cpu\x1b[2J"],
        ["evaluate", "--data", "no\x1b[2Jsuch"],
        ["export", "--checkpoint", "no\x1b[2J.ckpt", "--output", "x.safetensors"],
        ["tag", "no\x1b[2J.mp4", "--output-dir", "tags"],
    ],
)
def test_no_message_steers_the_terminal(
    photos: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert "\\x1b[2J" in err
    assert err.replace("\n", "").isprintable()


def test_json_names_images_that_share_a_number(run, photos: Path) -> None:
    for name, new in (("a.png", "7.png"), ("b.jpg", "007.jpg"), ("sub/a.png", "sub/7.png")):
        (photos / name).rename(photos / new)
    code, _, errors = run("caption", "photos", "--output", "x.json")
    assert code == 0
    ids = [entry["image_id"] for entry in json.loads(Path("x.json").read_text("utf-8"))]
    assert ids == [7, "7.png", "sub/7.png"]
    assert "2 images have the number of another" in errors
    assert "(first: 7.png, as 007.jpg)" in errors


# --- evaluate ------------------------------------------------------------------------------


@pytest.fixture
def data(photos: Path) -> Path:
    lines = [
        {"file_name": "a.png", "captions": ["A dog runs.", "Red ball"], "split": "dev"},
        {"file_name": "b.jpg", "captions": ["The man jumps"], "split": "dev"},
        {"file_name": "sub/a.png", "captions": ["Snow on grass"], "split": "test"},
    ]
    path = photos / "metadata.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return photos


def test_evaluate_writes_scores_protocol_and_captions(
    run, data: Path, model_file: Path, model: CaptionModel
) -> None:
    code, out, errors = run(
        *("evaluate", "--data", "photos", "--split", "val", "--beam-size", "2"),
        *("--output", "scores.json", "--coco-results", "results.json"),
    )
    assert code == 0
    assert "results.json: the images are numbered from 1" in errors
    assert "the name a.png is not a number" in errors
    scores = json.loads(Path("scores.json").read_text("utf-8"))
    results = model.caption([data / "a.png", data / "b.jpg"], DecodingOptions(beam_size=2))
    texts = [result.text for result in results]
    assert [image["caption"] for image in scores["images"]] == texts
    assert scores["protocol"]["data"] == {
        "format": "jsonl",
        "split": "dev",
        "limit": None,
        "warnings": [],
        "images": 2,
        "references": {"min": 1, "max": 2, "mean": 1.5},
    }
    digest = hashlib.sha256(model_file.read_bytes()).hexdigest()
    assert scores["protocol"]["model"]["sha256"] == digest
    assert scores["protocol"]["decoding"]["beam_size"] == 2
    assert json.loads(Path("results.json").read_text("utf-8")) == [
        {"image_id": 1, "caption": texts[0], "file_name": "a.png"},
        {"image_id": 2, "caption": texts[1], "file_name": "b.jpg"},
    ]
    table = dict(re.findall(r"^(\S+) +(\d+\.\d\d)$", out, re.MULTILINE))
    assert table == {name: f"{100 * score:.2f}" for name, score in scores["scores"].items()}
    assert out.endswith("(times 100; 2 images of the split dev, beam 2)\n")


def test_evaluate_writes_what_coco_reads(run, photos: Path) -> None:
    ids = {391898: "a.png", 391895: "b.jpg", 7: "sub/a.png"}
    notes = {
        "images": [{"id": number, "file_name": name} for number, name in ids.items()],
        "annotations": [
            {"id": 10 * k, "image_id": number, "caption": "A dog runs."}
            for k, number in enumerate(ids)
        ],
    }
    for name in ids.values():
        (photos / "val2014" / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).rename(photos / "val2014" / name)
    truth = photos / "annotations" / "captions_val2014.json"
    truth.parent.mkdir()
    truth.write_text(json.dumps(notes))
    code, _, errors = run("evaluate", "--data", "photos", "--coco-results", "r.json")
    assert (code, errors) == (0, "")
    results = COCO(str(truth)).loadRes("r.json")
    assert results.getImgIds() == [391898, 391895, 7]
    assert all(len(results.imgToAnns[number]) == 1 for number in ids)


def test_evaluate_reads_images_in_an_archive(
    run, photos: Path, model: CaptionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(photos / "cache"))
    (photos / "a.txt").write_text("A dog runs.")
    with tarfile.open("val-0000.tar", "w") as archive:
        archive.add(photos / "a.png", "7.png")
        archive.add(photos / "a.txt", "7.txt")
    code, _, errors = run("evaluate", "--data", "val-0000.tar", "--coco-results", "r.json")
    assert (code, errors) == (0, "")
    (text,) = (result.text for result in model.caption([photos / "a.png"]))
    results = json.loads(Path("r.json").read_text("utf-8"))
    assert results == [{"image_id": 7, "caption": text}]


def test_evaluate_limit(run, data: Path) -> None:
    code, out, _ = run("evaluate", "--data", "photos", "--limit", "1")
    assert code == 0
    assert out.endswith("(times 100; 1 images of the split dev, beam 3)\n")


def test_evaluate_with_the_tokenizer_of_papers(run, data: Path) -> None:
    code, out, _ = run(
        *("evaluate", "--data", "photos", "--tokenizer", "ptb", "--metrics", "METEOR-stem"),
        *("--output", "scores.json"),
    )
    assert code == 0
    scores = json.loads(Path("scores.json").read_text("utf-8"))
    assert scores["protocol"]["metrics"]["tokenizer"] == "nltk-ptb-1"
    assert f"METEOR-stem {100 * scores['scores']['METEOR-stem']:6.2f}\n" in out


@pytest.mark.parametrize(("option", "value"), [("--tokenizer", "java"), ("--metrics", "meteor")])
def test_evaluate_refuses_unknown_names(run, data: Path, option: str, value: str) -> None:
    code, _, err = run("evaluate", "--data", "photos", option, value)
    assert code == 2
    assert f"{option}: invalid choice: '{value}'" in err


def test_evaluate_refuses_a_bad_image_and_writes_nothing(run, data: Path) -> None:
    (data / "b.jpg").write_bytes(b"no image")
    code, out, err = run("evaluate", "--data", "photos", "--output", "scores.json")
    assert (code, out) == (2, "")
    assert "b.jpg: not an image Pillow can read" in err
    assert not Path("scores.json").exists()


def test_evaluate_refuses_an_unknown_split_and_a_taken_output(run, data: Path) -> None:
    code, _, err = run("evaluate", "--data", "photos", "--split", "train")
    assert code == 2
    assert "dev (2 images)" in err
    Path("scores.json").write_text("mine")
    code, _, err = run("evaluate", "--data", "photos", "--output", "scores.json")
    assert code == 2
    assert "output scores.json already exists; pass --overwrite" in err
    assert Path("scores.json").read_text() == "mine"


# --- export --------------------------------------------------------------------------------


def test_export_makes_a_model_that_captions_alike(run, photos: Path, model: CaptionModel) -> None:
    torch.save(
        {
            "captioner": model.description(),
            "state_dict": {f"model.{name}": t for name, t in model.state_dict().items()},
        },
        "last.ckpt",
    )
    code, out, _ = run("export", "--checkpoint", "last.ckpt", "--output", "new.safetensors")
    assert code == 0
    content = Path("new.safetensors").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert out == f"new.safetensors: {len(content) / 1e6:.1f} MB, sha256 {digest}\n"
    new = CaptionModel.load("new.safetensors", device="cpu")
    assert new.caption([photos / "a.png"]) == model.caption([photos / "a.png"])
    code, _, err = run("export", "--checkpoint", "last.ckpt", "--output", "new.safetensors")
    assert code == 2
    assert "--overwrite" in err
    overwrite = ["--output", "new.safetensors", "--overwrite"]
    assert run("export", "--checkpoint", "last.ckpt", *overwrite)[0] == 0


def test_export_refuses_what_is_no_checkpoint(run, photos: Path) -> None:
    Path("bad.ckpt").write_bytes(b"no checkpoint")
    code, _, err = run("export", "--checkpoint", "bad.ckpt", "--output", "new.safetensors")
    assert code == 2
    assert "checkpoint bad.ckpt: refused" in err
    assert not Path("new.safetensors").exists()
    code, _, err = run("export", "--checkpoint", "no.ckpt", "--output", "new.safetensors")
    assert code == 2
    assert "checkpoint no.ckpt: no such file" in err


def test_a_model_file_has_decoding_defaults_of_its_own(run, photos: Path) -> None:
    tokenizer = Tokenizer(["a", "dog", "runs"])
    encoder = EncoderConfig(name="timm/test_efficientnet", weights="none", image_size=64)
    shape = {"hidden_size": 16, "embed_size": 16, "heads": 2}
    torch.manual_seed(0)
    model = CaptionModel.build(encoder, DecoderConfig(**shape, styles=("people", "web")), tokenizer)
    for parameter in model.decoder.parameters():
        parameter.data.mul_(3)  # as decided as trained ones
    torch.nn.init.normal_(model.decoder.style_embedding.weight, std=5.0)
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"captioner": model.description(), "state_dict": state}, "last.ckpt")
    own = ["--style", "web", "--beam-size", "2", "--max-length", "4", "--no-repeat-ngram", "0"]
    assert run("export", "--checkpoint", "last.ckpt", "--output", "own.safetensors", *own)[0] == 0
    assert run("export", "--checkpoint", "last.ckpt", "--output", "plain.safetensors")[0] == 0

    def caption(*options: str) -> str:
        code, out, _ = run("caption", "photos/a.png", *options)
        assert code == 0
        return str(out)

    plain, kept = ["--model", "plain.safetensors"], ["--model", "own.safetensors"]
    assert caption(*kept) == caption(*plain, *own)
    assert caption(*kept) != caption(*plain)
    given = ["--style", "people", "--max-length", "3"]
    assert caption(*kept, *given) == caption(*plain, *own, *given)
    loaded = CaptionModel.load("own.safetensors", device="cpu")
    assert loaded.caption([photos / "a.png"])[0].text in caption(*kept)
    for command in (["caption", "photos/a.png", *plain], ["export", "--checkpoint", "last.ckpt"]):
        more = ["--output", "x.jsonl", "--style", "film"]
        code, _, err = run(*command, *more)
        assert code == 2
        assert "style 'film': this model knows people, web" in err
        assert not Path("x.jsonl").exists()


# --- help ----------------------------------------------------------------------------------


def test_the_help_states_the_decoders_defaults() -> None:
    defaults = {field.name: str(field.default) for field in dataclasses.fields(DecodingOptions)}
    stated = {
        name: match[1]
        for name, _, _, text in (*DECODING_ARGUMENTS, *SAMPLING_ARGUMENTS)
        if (match := re.search(r"\(default: (.*)\)$", text))
    }
    without_number = {"num_captions", "sample", "prompt", "must_include", "style"}
    without_number |= {"banned_words", "joining_words"}
    assert stated.pop("style") == "its first"
    assert (stated.pop("joining_words"),) == DecodingOptions().joining_words
    assert stated == {n: d for n, d in defaults.items() if n not in without_number}
    assert defaults["num_captions"] == "1"
    assert "(jsonl and tsv; default: 1)" in " ".join(help_of("caption").split())


def help_of(command: str) -> str:
    parser = cli.make_parser()
    subparsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return str(subparsers.choices[command].format_help())


def test_the_command_line_offers_every_decoding_option() -> None:
    offered = {
        action.dest
        for action in cli.make_parser()
        ._subparsers._group_actions[0]  # type: ignore[union-attr]
        .choices["caption"]
        ._actions
    }
    assert {field.name for field in dataclasses.fields(DecodingOptions)} <= offered


@pytest.mark.parametrize("command", ["caption", "fill", "evaluate", "export"])
def test_the_examples_in_the_help_parse(command: str) -> None:
    lines = [
        shlex.split(line[2:].split("  ")[0])[1:]
        for line in help_of(command).partition("example")[2].splitlines()
        if line.startswith("  captioner ")
    ]
    assert len(lines) >= 2
    for arguments in lines:
        assert callable(cli.make_parser().parse_args(arguments).command)


# --- as a process --------------------------------------------------------------------------


def captioner_process(*arguments: str, **options) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    # From another folder, the package is found where these tests found it.
    environment["PYTHONPATH"] = str(Path(captioner.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "captioner", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
        **options,
    )


def test_the_process_exits_with_the_code_and_prints_the_captions(
    photos: Path, model_file: Path, model: CaptionModel
) -> None:
    (photos / "b.jpg").write_bytes(b"no image")
    process = captioner_process("caption", "photos", "--model", str(model_file), "--device", "cpu")
    out, err = process.communicate(timeout=300)
    texts = [model.caption([photos / name])[0].text for name in ("a.png", "sub/a.png")]
    assert process.returncode == 1
    assert out == f"photos/a.png\t{texts[0]}\nphotos/sub/a.png\t{texts[1]}\n"
    assert "photos/b.jpg: not an image Pillow can read" in err
    assert "2 captioned, 1 failed" in err


def test_a_closed_pipe_is_no_traceback(photos: Path, model_file: Path) -> None:
    process = captioner_process(
        *("caption", "photos", "--model", str(model_file), "--workers", "0", "--quiet")
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=300) == 141


def test_ctrl_c_ends_with_130_and_keeps_what_was_written(photos: Path, model_file: Path) -> None:
    for index in range(2000):  # Many more than are captioned before the signal arrives.
        os.link(photos / "a.png", photos / f"x{index:04}.png")
    process = captioner_process(
        *("caption", "photos", "--model", str(model_file), "--batch-size", "1", "--device", "cpu"),
        *("--output", "out.jsonl"),
    )
    output = photos.parent / "out.jsonl"
    while process.poll() is None and not (output.exists() and output.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err == (
        "captioner: what is finished is kept: run the same command again and it goes on\n"
        "captioner: interrupted\n"
    )
    records = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    assert 1 <= len(records) < 2003
    assert records[0]["file_name"] == "a.png"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"captioner {captioner.__version__}\n"


def test_an_output_that_is_a_device_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--checkpoint", "any.ckpt", "--output", os.devnull, "--overwrite"]
    assert cli.main(["export", *arguments]) == 2
    assert f"output {os.devnull} is not a regular file" in capsys.readouterr().err


# --- tags ----------------------------------------------------------------------------------


def test_tags_go_into_jsonl(
    tagging_model: CaptionModel, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "captions.jsonl"
    arguments = ["caption", str(photos), "--model", str(tagging_model.path), "--device", "cpu"]
    assert cli.main([*arguments, "--output", str(output), "--tags", "0", "--quiet"]) == 0
    records = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    assert [record["file_name"] for record in records] == ["a.png", "b.jpg", "sub/a.png"]
    for record in records:
        assert list(record) == ["file_name", "text", "confidence", "tags", "error"]
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
