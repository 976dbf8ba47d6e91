"""Captions in several languages under review: an edit changes one and keeps the others."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from captioner.captioning.xmp import Sidecar, read_xmp
from captioner.cli import entry as cli
from captioner.review.options import ReviewOptions
from captioner.review.run import open_session
from helpers.browser import OpenPage, wait_until
from helpers.images import noise
from helpers.languages import write_languages
from helpers.models import make_talker
from helpers.reviews import serving

EDITED = "رجل يركض"

Run = Callable[..., int]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    model = make_talker()
    model.save(folder / "model.safetensors", half=False)
    write_languages(model, folder, "ar", "de")
    return folder


@pytest.fixture
def run(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Caption two photos in Arabic and German, in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    for index, name in enumerate(["a.png", "b.png"]):
        Path("photos").mkdir(exist_ok=True)
        noise(index, 90, 60).save(Path("photos", name))
    languages = f"{models / 'ar.safetensors'},{models / 'de.safetensors'}"
    options = ["--model", str(models / "model.safetensors"), "--device", "cpu", "--quiet"]
    options += ["--language", languages, "--max-length", "5"]

    def run(*arguments: str) -> int:
        return cli.main(["caption", "photos", *options, *arguments])

    return run


def correct(path: Path, text: str | None, suffix: str | None = None) -> tuple[str | None, Any]:
    """Correct or reject the caption of ``a.png``; its language, and the caption before."""
    with open_session(path, ReviewOptions(sidecar_suffix=suffix)) as session:
        item = session.item("a.png")
        assert item is not None
        if text is None:
            session.reject("a.png", item.text)
        else:
            session.correct("a.png", item.text, text)
        return item.language, item.text


def files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path().rglob("*.txt")}


def test_jsonl(run: Run) -> None:
    run("--output", "x.jsonl")
    before = list(map(json.loads, Path("x.jsonl").read_text("utf-8").splitlines()))
    assert correct(Path("x.jsonl"), EDITED) == ("ar", before[0]["text"])
    after = Path("x.jsonl").read_bytes()
    records = list(map(json.loads, after.decode("utf-8").splitlines()))
    assert records == [{**before[0], "text": EDITED}, before[1]]
    assert run("--output", "x.jsonl") == 0 and Path("x.jsonl").read_bytes() == after


def test_csv(run: Run) -> None:
    run("--output", "x.csv")
    before = Path("x.csv").read_bytes().decode("utf-8")
    language, text = correct(Path("x.csv"), EDITED)
    after = Path("x.csv").read_bytes().decode("utf-8")
    assert language == "ar" and after == before.replace(text, EDITED, 1)
    rows = list(csv.DictReader(io.StringIO(after, newline="")))
    assert (rows[0]["text"], rows[0]["language"]) == (EDITED, "ar") and rows[0]["text_de"]
    assert run("--output", "x.csv") == 0
    assert Path("x.csv").read_bytes().decode("utf-8") == after


def test_text_files(run: Run) -> None:
    run("--format", "txt")
    before = files()
    assert correct(Path("photos"), EDITED)[0] == "ar"
    german = correct(Path("photos"), "Ein Mann läuft", ".de.txt")
    assert german == ("de", before["a.de.txt"].decode("utf-8").strip())
    after = files()
    assert run("--format", "txt") == 0 and files() == after
    assert {name: data for name, data in after.items() if data != before.get(name)} == {
        "a.txt": f"{EDITED}\n".encode(),
        "a.de.txt": "Ein Mann läuft\n".encode(),
    }


def test_xmp(run: Run) -> None:
    run("--format", "xmp")
    path = Path("photos", "a.png.xmp")
    before = read_xmp(path)
    assert before is not None
    others = {"de": before.alternatives["de"]}
    assert correct(Path("photos"), EDITED) == ("ar", before.text)
    assert read_xmp(path) == Sidecar(EDITED, (), {"ar": EDITED, **others})
    data = path.read_bytes()
    assert run("--format", "xmp") == 0 and path.read_bytes() == data
    # Of a rejected caption only the other languages stay, also when the job runs again.
    assert correct(Path("photos"), None) == ("ar", EDITED)
    assert read_xmp(path) == Sidecar(others["de"], (), others)
    assert run("--format", "xmp") == 0
    assert read_xmp(path) == Sidecar(others["de"], (), others)
    assert correct(Path("photos"), before.text) == ("ar", None)
    assert read_xmp(path) == before


def test_the_page_writes_in_the_language_of_the_caption(
    run: Run, models: Path, open_page: OpenPage
) -> None:
    run("--output", "x.jsonl")
    options = ["--model", str(models / "model.safetensors"), "--device", "cpu"]
    with serving("x.jsonl", *options) as server:
        page = open_page(server.address)
        page.locator("body[data-ready]").wait_for()
        field = page.locator("#text")
        assert (field.get_attribute("lang"), field.get_attribute("dir")) == ("ar", "rtl")
        row = page.locator(".row .caption").first
        assert (row.get_attribute("lang"), row.get_attribute("dir")) == ("ar", "rtl")
        field.fill(EDITED)
        field.press("Enter")
        wait_until(page, "document.getElementById('live').textContent === 'corrected'", 20)
    records = list(map(json.loads, Path("x.jsonl").read_text("utf-8").splitlines()))
    assert (records[0]["language"], records[0]["text"]) == ("ar", EDITED)
