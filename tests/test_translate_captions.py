"""Captions are translated by a network that learns from sentence pairs."""

from __future__ import annotations

import gzip
import itertools
import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "data" / "translate_captions.py"

NOUNS = {
    "dog": ("er", "Hund"),
    "man": ("er", "Mann"),
    "child": ("es", "Kind"),
    "horse": ("es", "Pferd"),
}
ADJECTIVES = {"small": "klein", "big": "groß", "old": "alt"}
VERBS = {"runs": "läuft", "sits": "sitzt", "sleeps": "schläft"}
PLACES = {"in the snow": "im Schnee", "in the park": "im Park", "near the water": "am Wasser"}


def pairs() -> list[tuple[str, str]]:
    """All sentences of a small grammar, in English and in German."""
    made = []
    for noun, adjective, verb, place in itertools.product(NOUNS, ADJECTIVES, VERBS, PLACES):
        ending, name = NOUNS[noun]
        english = f"A {adjective} {noun} {verb} {place}."
        german = f"Ein {ADJECTIVES[adjective]}{ending} {name} {VERBS[verb]} {PLACES[place]}."
        made.append((english, german))
    return made


def write_pairs(folder: Path, split: str, lines: list[tuple[str, str]]) -> None:
    for language, sentences in zip(("en", "de"), zip(*lines, strict=True), strict=True):
        with gzip.open(folder / f"{split}.{language}.gz", "wt", encoding="utf-8") as file:
            file.writelines(sentence + "\n" for sentence in sentences)


def test_translations_that_are_sure_are_kept_for_the_images_that_match(tmp_path: Path) -> None:
    every = pairs()
    unseen = every[::9]
    seen = [pair for pair in every if pair not in unseen]
    write_pairs(tmp_path, "train", seen * 8)
    write_pairs(tmp_path, "val", unseen)
    images = [
        {"file_name": "coco/a.jpg", "captions": [unseen[0][0], unseen[5][0]]},
        {"file_name": "web/b.jpg", "captions": [unseen[1][0]]},
        {"file_name": "coco/c.jpg", "captions": ["zxq qqk vvj zzx kqj wvx."]},
    ]
    lines = "".join(json.dumps(image) + "\n" for image in images)
    (tmp_path / "captions.jsonl").write_text(lines, encoding="utf-8")
    output = tmp_path / "translated.jsonl"
    command = [sys.executable, str(SCRIPT), "--pairs", str(tmp_path), "--language", "de"]
    command += ["--captions", str(tmp_path / "captions.jsonl"), "--only", "coco/*"]
    command += ["--output", str(output), "--surest", "0.5", "--pieces", "80", "--epochs", "10"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr
    assert "2 of 3 captions, of 1 of 2 images" in run.stdout
    (record,) = map(json.loads, output.read_text(encoding="utf-8").splitlines())
    assert record == {
        "file_name": "coco/a.jpg",
        "captions": [unseen[0][1], unseen[5][1]],
        "split": "train",
    }
    bleu = float(run.stdout.split(" sentences: ")[1].split()[0])
    assert bleu > 90
