"""A language for a model: trained on its CNN, kept in a file of its own, asked for by its tag."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from captioner.cli import entry as cli
from captioner.decoding.options import DecodingOptions
from captioner.model.caption_model import CaptionModel
from captioner.model.checkpoints import load_checkpoint
from captioner.model.language_file import cnn_sha256
from captioner.model.shipped import load_model
from captioner.networks.configs import DecoderConfig, EncoderConfig
from captioner.text.tokenizer import Tokenizer
from helpers.images import noise
from helpers.training import QUIET

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[2]
SAID = {
    "zh": ("一只狗在草地上跑。", "一只狗在草地上跑", {"rule": "captioner-chinese-1"}),
    "de": (
        "Ein Hund läuft über die Straße!",
        "ein Hund läuft über die Straße",
        {"rule": "captioner-words-1", "spelling": {"hund": "Hund", "straße": "Straße"}},
    ),
    "ar": ("كَلْبٌ يركض في الثلج", "كلب يركض في الثلج", {"rule": "captioner-arabic-1"}),
}
"""What all captions of a language say, what the model says then, and its tokenizer."""


def make_start(path: Path, seed: int = 3) -> Path:
    """A small English model with styles, as the shipped one has them."""
    torch.manual_seed(seed)
    model = CaptionModel.build(
        EncoderConfig("timm/test_resnet", "none", image_size=32),
        DecoderConfig(
            hidden_size=16, embed_size=16, heads=2, dropout=0.0, styles=("people", "web")
        ),
        Tokenizer(["a", "dog", "runs"]),
    )
    model.save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images, captions of them in each language, a model, and a language file for each."""
    top = tmp_path_factory.mktemp("languages")
    (top / "images").mkdir()
    for place in range(12):
        noise(place).save(top / "images" / f"{place}.png")
    start = make_start(top / "start.safetensors")
    for language, (caption, _, _) in SAID.items():
        lines = [
            {"file_name": f"{n}.png", "captions": [caption], "split": "train" if n < 9 else "dev"}
            for n in range(12)
        ]
        data = top / f"{language}.jsonl"
        data.write_text("".join(json.dumps(line) + "\n" for line in lines))
        run = top / language
        source = {"name": "noise", "root": str(data), "images": str(top / "images")}
        source |= {"language": language}
        given = [
            f"--config={ROOT / 'configs' / f'language_{language}.yaml'}",
            f"--model.init_from={start}",
            "--model.decoder.dropout=0",
            "--model.lr_decoder=0.03",
            f"--data.sources={json.dumps([source])}",
            f"--data.cache_dir={top / 'cache'}",
            f"--run_dir={run}",
            "--trainer.max_epochs=12",
            # Where all captions are alike, CIDEr-D is 0 however good they are.
            "--early_stopping.patience=12",
            "--average.decay=0",
            "--data.batch_size=3",
        ]
        assert cli.main(["fit", *given, *QUIET]) == 0
        made = ["--checkpoint", str(run / "checkpoints/last.ckpt"), "--without-cnn"]
        output = top / f"{language}.safetensors"
        assert cli.main(["export", *made, "--output", str(output)]) == 0
    return top


def caption(folder: Path, output: Path, *options: str) -> list[dict[str, Any]]:
    """What `captioner caption` writes of the images, by the model of the folder."""
    given = ["--model", str(folder / "start.safetensors"), "--quiet", "--output", str(output)]
    assert cli.main(["caption", str(folder / "images"), *given, *options]) == 0
    return [json.loads(line) for line in output.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("language", SAID)
def test_a_language_is_learnt_and_written_as_people_write_it(
    folder: Path, tmp_path: Path, language: str
) -> None:
    file = folder / f"{language}.safetensors"
    records = caption(folder, tmp_path / "c.jsonl", "--language", str(file))
    assert {record["text"] for record in records} == {SAID[language][1]}
    assert {record["language"] for record in records} == {language}
    assert len(records) == 12
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
        names = set(opened.keys())
    description = json.loads(metadata["model"])
    assert metadata["format"] == "captioner-language-1"
    tokenizer = description["tokenizer"]
    assert {key: tokenizer[key] for key in SAID[language][2]} == SAID[language][2]
    assert tokenizer["language"] == language
    assert not any(name.startswith("encoder.") for name in names)
    assert {"encoder", "encoder_graph", "transform"}.isdisjoint(description)
    assert description["decoder"]["styles"] == []


def test_several_languages_are_those_that_each_alone_would_be(folder: Path, tmp_path: Path) -> None:
    german, arabic = (folder / f"{language}.safetensors" for language in ("de", "ar"))
    alone = caption(folder, tmp_path / "en.jsonl", "--language", "en")
    assert alone == caption(folder, tmp_path / "plain.jsonl")
    assert "language" not in alone[0]
    in_german = caption(folder, tmp_path / "de.jsonl", "--language", str(german))
    together = caption(folder, tmp_path / "all.jsonl", "--language", f"en,{german},{arabic}")
    for english, one, record in zip(alone, in_german, together, strict=True):
        others = record.pop("other_languages")
        assert record == {**english, "language": "en"}
        assert list(others) == ["de", "ar"]
        assert others["de"] == {key: one[key] for key in ("text", "confidence", "calibrated")}
        assert others["ar"]["text"] == SAID["ar"][1]


def test_a_result_has_the_other_languages(folder: Path) -> None:
    start = folder / "start.safetensors"
    files = [str(folder / f"{language}.safetensors") for language in ("zh", "de")]
    model = load_model(start, language=files, device="cpu")
    result = model.caption(folder / "images/0.png", DecodingOptions(num_captions=2))
    assert (result.language, result.text) == ("zh", SAID["zh"][1])
    assert list(result.by_language) == ["zh", "de"]
    german = result.other_languages["de"]
    assert (german.text, len(german.candidates)) == (SAID["de"][1], 2)
    assert (german.language, german.other_languages) == ("de", {})
    alone = load_model(start, language=files[1], device="cpu")
    assert alone.caption(folder / "images/0.png", DecodingOptions(num_captions=2)) == german


def test_unsure_captions_are_left_out_in_each_language_alone(folder: Path, tmp_path: Path) -> None:
    both = f"en,{folder / 'de.safetensors'}"
    found = caption(folder, tmp_path / "both.jsonl", "--language", both)
    english = max(record["confidence"] for record in found)
    assert english < min(record["other_languages"]["de"]["confidence"] for record in found)
    given = ("--language", both, "--min-confidence", f"{english + 0.001}")
    for record in caption(folder, tmp_path / "c.jsonl", *given):
        assert record["text"] is None
        assert record["other_languages"]["de"]["text"] == SAID["de"][1]


def test_an_interrupted_job_in_other_languages_is_not_resumed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "c.jsonl"
    caption(folder, output, "--language", str(folder / "de.safetensors"))
    given = ["--model", str(folder / "start.safetensors"), "--output", str(output)]
    assert cli.main(["caption", str(folder / "images"), *given, "--quiet"]) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("language", SAID)
def test_evaluation_names_the_language_and_its_tokenizer(
    folder: Path, tmp_path: Path, language: str
) -> None:
    output = tmp_path / "scores.json"
    given = ["--data", str(folder / f"{language}.jsonl"), "--images", str(folder / "images")]
    given += ["--split", "dev", "--model", str(folder / "start.safetensors")]
    given += ["--language", str(folder / f"{language}.safetensors"), "--quiet"]
    assert cli.main(["evaluate", *given, "--output", str(output)]) == 0
    found = json.loads(output.read_text("utf-8"))
    # Every caption is its reference; BLEU-4 of four words and more is 1 then.
    assert found["scores"]["BLEU-4"] == pytest.approx(1)
    assert found["scores"]["ROUGE-L"] == pytest.approx(1)
    rule = "captioner-arabic-score-1" if language == "ar" else "captioner-words-1"
    assert found["protocol"]["metrics"]["tokenizer"] == rule
    assert found["protocol"]["model"]["language"] == language


def test_prompt_and_blanks_are_in_the_language(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chinese = ("--language", str(folder / "zh.safetensors"))
    for record in caption(folder, tmp_path / "c.jsonl", *chinese, "--prompt", "草地上一只狗"):
        assert record["text"].startswith("草地上一只狗")
    model = ["--model", str(folder / "start.safetensors"), "--quiet"]
    german = ["--language", str(folder / "de.safetensors")]
    image = str(folder / "images/0.png")
    assert cli.main(["fill", image, "ein ___ läuft über die Straße", *model, *german]) == 0
    assert "ein Hund läuft über die Straße" in capsys.readouterr().out
    sentence = "ein ___ läuft über die Straße"
    assert cli.main(["fill", image, sentence, *model, *german, "--format", "jsonl"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["blanks"][0][0][0] == "Hund"


def test_a_language_is_trained_on_by_rewards_in_its_own_words(folder: Path, tmp_path: Path) -> None:
    start = folder / "de/checkpoints/last.ckpt"
    source = {"name": "noise", "root": str(folder / "de.jsonl"), "images": str(folder / "images")}
    given = [
        f"--config={ROOT / 'configs/language_de.yaml'}",
        f"--model.init_from={start}",
        "--model.objective=self_critical",
        f"--data.sources={json.dumps([source])}",
        f"--data.cache_dir={folder / 'cache'}",
        f"--run_dir={tmp_path / 'run'}",
        "--trainer.max_epochs=1",
        "--average.decay=0",
    ]
    assert cli.main(["fit", *given, *QUIET]) == 0
    model, before = load_checkpoint(tmp_path / "run/checkpoints/last.ckpt"), load_checkpoint(start)
    # No source names the language: it is that of the model to start from.
    assert model.tokenizer == before.tokenizer
    assert model.language == "de"
    assert not torch.equal(model.decoder.readout.weight, before.decoder.readout.weight)


# --- refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--language", "german"), "--language 'german': give a tag such as en, zh, de, ar"),
        (("--language", "de,de"), "--language 'de': it is given twice"),
        (("--language", "fr"), "language fr: the model has en, and captioner brings zh, de, ar"),
        (("--language", "gone.safetensors"), "language gone.safetensors: no such file"),
        (("--language", "{start}"), "it is a whole model: --model {start}"),
        (("--model", "{de}"), "it adds a language to a model: --language {de}"),
        (("--language", "en,{de}", "--prompt", "a dog"), "words to say are in one language"),
    ],
)
def test_what_cannot_be_a_language_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    places = {"start": folder / "start.safetensors", "de": folder / "de.safetensors"}
    model = ["--model", str(places["start"])]
    given = [option.format(**places) for option in options]
    assert cli.main(["caption", str(folder / "images"), *model, *given]) == 2
    assert message.format(**places) in capsys.readouterr().err


def test_a_language_of_another_cnn_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_start(tmp_path / "other.safetensors", seed=4)
    german = folder / "de.safetensors"
    given = ["--model", str(other), "--language", str(german)]
    assert cli.main(["caption", str(folder / "images"), *given]) == 2
    said = capsys.readouterr().err
    wanted = cnn_sha256(load_model(folder / "start.safetensors", device="cpu"))
    assert f"language {german}: it was trained on another CNN ('{wanted[:12]}')" in said
    assert f"that of the model {other}" in said


def test_commands_that_write_one_language_refuse_several(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(folder / "images/0.png")
    assert cli.main(["explain", image, "--language", "en,de"]) == 2
    assert "--language en,de: this command works in one language at a time" in (
        capsys.readouterr().err
    )


# --- calibrated ----------------------------------------------------------------------------


def test_a_language_is_calibrated_in_its_own_words(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    german, output = folder / "de.safetensors", tmp_path / "calibrated.safetensors"
    # Half of the people see something else, so that there is something right and wrong.
    lines = [json.loads(line) for line in (folder / "de.jsonl").read_text("utf-8").splitlines()]
    for number, line in enumerate(lines):
        line["captions"] = ["Eine Katze schläft"] if number % 2 else line["captions"]
        line["split"] = "train" if number < 2 else "dev"
    data = tmp_path / "de.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = ["--data", str(data), "--images", str(folder / "images"), "--quiet"]
    model = ["--model", str(folder / "start.safetensors"), "--language", str(german)]
    assert cli.main(["calibrate", *given, *model, "--output", str(output)]) == 0
    capsys.readouterr()
    plain, calibrated = (
        caption(folder, tmp_path / f"{n}.jsonl", "--language", str(file), "--tags", "0.1")
        for n, file in enumerate((german, output))
    )
    assert {record["calibrated"] for record in plain} == {False}
    assert {record["calibrated"] for record in calibrated} == {True}
    assert [record["text"] for record in plain] == [record["text"] for record in calibrated]
    assert {tag["name"] for tag in calibrated[0]["tags"]} <= {"Hund", "laufen", "Straße"}
    assert 0.3 < sum(record["confidence"] for record in calibrated) / 12 < 0.8
    with safe_open(output, "pt") as opened:
        assert opened.metadata()["format"] == "captioner-language-1"
