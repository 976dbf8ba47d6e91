"""The models that ship: what the README and the model cards say of them is true."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from PIL import Image, ImageCms
from safetensors import safe_open

from captioner.cli.entry import main
from captioner.model.options import SHIPPED, SHIPPED_LANGUAGES
from captioner.model.tags import TagCalibration
from captioner.text.lexicon import Lexicon
from helpers.icc import D50_XY, PROPHOTO, rgb_profile

pytestmark = pytest.mark.arithmetic

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "data" / "examples"
SHARED = ROOT.parent / "shared"
FOLDER = Path(str(resources.files("captioner"))) / "weights"
WEIGHTS = FOLDER / "default.safetensors"
CARDS = {"default": "MODEL_CARD.md", "flickr8k": "docs/model-flickr8k.md"}

OFFLINE = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("the network was used")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from captioner.cli.entry import main
sys.exit(main(["caption", sys.argv[1]]))
"""


def card(name: str = "default") -> str:
    return (ROOT / CARDS[name]).read_text(encoding="utf-8")


def test_the_models_that_ship_are_those_with_a_name():
    languages = {f"language_{tag}" for tag in SHIPPED_LANGUAGES}
    assert {path.stem for path in FOLDER.glob("*.safetensors")} == set(SHIPPED) | languages
    assert set(SHIPPED) == set(CARDS)


def test_a_photo_in_another_colour_space_is_filled_in_with_the_same_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = ImageCms.ImageCmsProfile(io.BytesIO(rgb_profile(PROPHOTO, 1.8, D50_XY)))
    with Image.open(EXAMPLES / "astronaut.jpg") as photo:
        photo.save(tmp_path / "srgb.png")
        stored = ImageCms.profileToProfile(photo, ImageCms.createProfile("sRGB"), wide)
    assert stored is not None
    stored.save(tmp_path / "prophoto.png", icc_profile=wide.tobytes())
    command = ["fill", str(tmp_path / "*.png"), "a man in a ___ suit", "--format", "jsonl"]
    assert main([*command, "--device", "cpu", "--quiet"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["file_name"] for record in records] == ["prophoto.png", "srgb.png"]
    first, second = (record["fillings"][0]["text"] for record in records)
    assert first == second


def test_it_is_one_file_of_at_most_60_mb_with_all_it_needs_inside():
    assert WEIGHTS.stat().st_size <= 60_000_000
    with safe_open(WEIGHTS, framework="pt") as file:
        description = json.loads(file.metadata()["model"])
        sizes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    assert description["encoder"]["name"] == "timm/tf_efficientnet_lite2"
    assert description["transform"]["resize"] == "squash"
    assert description["decoder"]["styles"] == ["people", "machine", "web"]
    assert description["decoding"] == {"length_penalty": 1.0}
    assert (description["decoder"]["layers"], description["decoder"]["attention"]) == (2, "layered")
    provenance = description["provenance"]
    assert provenance["weights"] == [0.2, 0.1, 0.1, 0.3, 0.3]
    *branches, first, again = provenance["averaged"]
    assert [(run["objective"], run["seed"]) for run in branches] == [
        ("self_critical", 9),
        ("cross_entropy", 17),
        ("self_critical", 17),
    ]
    for mean, seed in ((first, 6), (again, 14)):
        assert mean["weights"] == [0.35, 0.2, 0.2, 0.25]
        *parts, eight = mean["averaged"]
        assert [run["seed"] for run in parts] == [seed, 5, 5]
        larger, smaller = eight["averaged"]  # on 288 pixels, and on 256
        runs = [*parts, larger, *smaller["averaged"]]
        assert [(run["objective"], run["epoch"]) for run in runs] == [
            ("self_critical", 0),
            ("self_critical", 0),
            ("self_critical", 1),
            ("self_critical", 0),
            ("self_critical", 1),
            ("self_critical", 2),
        ]
        for run in runs:
            assert [source["name"] for source in run["data"]["sources"]] == ["people", "flickr8k"]
    words = description["tokenizer"]["words"]
    assert sizes["decoder.embedding.weight"][0] == len(words) + 4
    assert f"| {len(words)} words" in card()


def test_its_tags_are_calibrated_on_images_that_it_was_not_trained_on():
    with safe_open(WEIGHTS, framework="pt") as file:
        description = json.loads(file.metadata()["model"])
    lexicon = Lexicon.from_dict(description["lexicon"], description["tokenizer"]["words"])
    found = {word: lexicon.lemma_of(word) for word in ("men", "running", "white", "front", "the")}
    assert [lemma and (lemma.name, lemma.type) for lemma in found.values()] == [
        ("man", "noun"),
        ("run", "verb"),
        ("white", "adjective"),
        None,
        None,
    ]
    fitted_on = TagCalibration.from_dict(description["tag_calibration"]).fitted_on
    assert (fitted_on["split"], fitted_on["images"]) == ("dev", 1500)
    assert fitted_on["brier"] < 0.85 * fitted_on["base_brier"]
    assert fitted_on["calibration_error"] < 0.03


def test_the_languages_that_ship_are_small_and_named_by_their_card():
    files = [FOLDER / f"language_{tag}.safetensors" for tag in SHIPPED_LANGUAGES]
    assert sum(file.stat().st_size for file in files) < 25_000_000
    text = (ROOT / "docs" / "model-languages.md").read_text(encoding="utf-8")
    for file in files:
        assert hashlib.sha256(file.read_bytes()).hexdigest() in text


@pytest.mark.parametrize("name", CARDS)
def test_the_card_names_this_very_file(name: str):
    path = FOLDER / f"{name}.safetensors"
    assert hashlib.sha256(path.read_bytes()).hexdigest() in card(name)


def test_another_model_that_ships_has_a_name(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["caption", "data/examples/coffee.jpg", "--model", "flickr8k"]) == 0
    assert capsys.readouterr().out == "data/examples/coffee.jpg\ta man is sitting on a couch\n"


def test_the_readme_shows_what_the_command_prints(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["caption", "data/examples"]) == 0
    printed = capsys.readouterr().out.splitlines()
    block = (ROOT / "README.md").read_text(encoding="utf-8").split("$ captioner caption", 1)[1]
    shown = [re.sub(r"\s{2,}", "\t", line) for line in block.split("```")[0].splitlines()[1:]]
    assert len(printed) == len(shown) == len(list(EXAMPLES.glob("*.jpg")))
    # Another processor rounds differently, which may turn a near tie: in one caption, no more.
    assert sum(a != b for a, b in zip(printed, shown, strict=True)) <= 1


def test_the_page_of_languages_shows_what_they_say(capsys, monkeypatch):
    monkeypatch.chdir(EXAMPLES)
    command = ["caption", ".", "--language", ",".join(SHIPPED_LANGUAGES), "--format", "jsonl"]
    assert main([*command, "--device", "cpu", "--quiet"]) == 0
    printed = []
    for record in map(json.loads, capsys.readouterr().out.splitlines()):
        answers = [record, *(record["other_languages"][tag] for tag in SHIPPED_LANGUAGES[1:])]
        printed.append([record["file_name"].removesuffix(".jpg"), *(a["text"] for a in answers)])
    page = (ROOT / "docs" / "languages.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    names = {path.stem for path in EXAMPLES.glob("*.jpg")}
    shown = [[cell.split(" (")[0] for cell in row] for row in rows if row[0] in names]
    assert len(shown) == len(names)
    # Another processor rounds differently, which may turn a near tie.
    assert sum(a != b for a, b in zip(sum(printed, []), sum(shown, []), strict=True)) <= 2


def test_it_captions_without_a_network():
    photo = EXAMPLES / "stairs.jpg"
    run = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(photo)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    path, caption = run.stdout.rstrip("\n").split("\t")
    assert path == str(photo)
    assert len(caption.split()) >= 4


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the data sets are not beside the checkout")
@pytest.mark.parametrize(("data", "column"), [("photos", 0), ("flickr8k", 1)])
def test_the_card_states_the_scores_that_evaluate_prints(tmp_path, data: str, column: int):
    output = tmp_path / "scores.json"
    arguments = ["--data", str(SHARED / data), "--split", "dev", "--beam-size", "3"]
    assert main(["evaluate", *arguments, "--output", str(output)]) == 0
    scores = json.loads(output.read_text(encoding="utf-8"))["scores"]
    rows = re.findall(r"^\| (\S+) \| ([\d.]+) \| ([\d.]+) \|$", card(), re.M)
    stated = {row[0]: float(row[1 + column]) for row in rows}
    assert set(stated) == set(scores)
    for name, value in stated.items():
        assert 100 * scores[name] == pytest.approx(value, abs=0.2), name
