"""Pages of captions in other languages, in a real browser."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from captioner.cli.entry import main
from helpers.browser import CONTRAST, OpenPage, wait_until
from helpers.images import noise
from helpers.languages import write_languages
from helpers.models import make_talker

OTHERS = ["de", "zh"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model.safetensors`` and language files."""
    folder = tmp_path_factory.mktemp("models")
    model = make_talker()
    model.save(folder / "model.safetensors", half=False)
    write_languages(model, folder, "de", "ar", "zh")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for index, name in enumerate(["a.png", "صورة.png", "照片.png"]):
        noise(index, 400, 300).save(folder / name)
    return folder


def caption(models: Path, photos: Path, output: Path, *languages: str) -> list[dict[str, Any]]:
    """Make a page; returns its records."""
    files = ",".join("en" if each == "en" else f"{models / each}.safetensors" for each in languages)
    options = ["--model", str(models / "model.safetensors"), "--device", "cpu", "--quiet"]
    options += ["--language", files, "--max-length", "5", "--output", str(output)]
    assert main(["caption", str(photos), *options]) == 0
    lines = (output.parent / f"{output.stem}_files" / "captions.jsonl").read_text("utf-8")
    return list(map(json.loads, lines.splitlines()))


@pytest.fixture(scope="module")
def arabic(models: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page in Arabic, German and Chinese."""
    page = tmp_path_factory.mktemp("arabic") / "report.html"
    caption(models, photos, page, "ar", *OTHERS)
    return page


def records_of(page: Path) -> list[dict[str, Any]]:
    lines = (page.parent / "report_files" / "captions.jsonl").read_text("utf-8").splitlines()
    return list(map(json.loads, lines))


def written(element: Any) -> tuple[str | None, str | None, str | None]:
    """The language, the direction and the text of an element."""
    return (
        element.get_attribute("lang"),
        element.get_attribute("dir"),
        element.text_content(),
    )


def test_every_text_says_its_language_and_direction(open_page: OpenPage, arabic: Path) -> None:
    page = open_page(arabic, viewport={"width": 1300, "height": 900})
    for record, card in zip(records_of(arabic), page.locator(".card").all(), strict=True):
        assert written(card.locator(".caption")) == ("ar", "rtl", record["text"])
        others = record["other_languages"]
        lines = [(each, "ltr", others[each]["text"]) for each in OTHERS]
        assert [written(each) for each in card.locator(".others q").all()][:2] == lines
    page.locator(".card").first.focus()
    page.keyboard.press("Enter")
    details = page.locator("#details")
    record = records_of(arabic)[0]
    assert written(details.locator(".columns .caption")) == ("ar", "rtl", record["text"])
    assert [written(each) for each in details.locator(".versions dd").all()] == [
        (each, "ltr", record["other_languages"][each]["text"]) for each in OTHERS
    ]
    assert [each.split()[0] for each in details.locator(".versions dt").all_text_contents()] == [
        "Deutsch",
        "中文",
    ]
    assert page.evaluate(CONTRAST) == {}


def test_words_from_right_to_left(open_page: OpenPage, arabic: Path) -> None:
    """They stand in the order in which they are read, and the arrows follow the eye."""
    page = open_page(arabic, viewport={"width": 1300, "height": 900})
    page.locator(".card").first.focus()
    page.keyboard.press("Enter")
    buttons = page.locator("#details .words button")
    places = [each.bounding_box() for each in buttons.all()]
    assert len(places) > 1
    assert [box["x"] for box in places] == sorted((box["x"] for box in places), reverse=True)
    buttons.nth(0).focus()
    page.keyboard.press("ArrowLeft")
    focused = "document.activeElement.firstChild.textContent"
    assert page.evaluate(focused) == buttons.nth(1).evaluate("e => e.firstChild.textContent")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == buttons.nth(0).evaluate("e => e.firstChild.textContent")
    page.keyboard.press("Enter")
    assert page.locator("#details .heat").count() == 1


def test_words_without_blanks(
    open_page: OpenPage, models: Path, photos: Path, tmp_path: Path
) -> None:
    records = caption(models, photos, tmp_path / "report.html", "zh")
    page = open_page(tmp_path / "report.html")
    for record, card in zip(records, page.locator(".card").all(), strict=True):
        words = [word for word, _ in record["candidates"][0]["words"] if word is not None]
        assert card.locator(".caption .word").all_text_contents() == words
        assert written(card.locator(".caption")) == ("zh", "ltr", "".join(words))


def test_an_edit_keeps_the_language(open_page: OpenPage, arabic: Path) -> None:
    page = open_page(arabic)
    page.locator(".card").first.focus()
    page.keyboard.press("e")
    field = page.locator("textarea")
    assert written(field)[:2] == ("ar", "rtl")
    field.fill("رجل يركض")
    page.keyboard.press("Enter")
    assert written(page.locator(".card .caption").first) == ("ar", "rtl", "رجل يركض")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Save JSONL").click()
    lines = Path(waiting.value.path()).read_text("utf-8").splitlines()
    first, *rest = records_of(arabic)
    assert list(map(json.loads, lines)) == [{**first, "text": "رجل يركض"}, *rest]
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Save CSV").click()
    data = Path(waiting.value.path()).read_bytes().decode("utf-8")
    rows = list(csv.DictReader(io.StringIO(data, newline="")))
    assert list(rows[0]) == [
        *("file_name", "language", "text", "confidence", "text_de", "confidence_de"),
        *("text_zh", "confidence_zh", "error"),
    ]
    assert (rows[0]["language"], rows[0]["text"]) == ("ar", "رجل يركض")
    assert rows[1]["text_zh"] == rest[0]["other_languages"]["zh"]["text"]


def test_captions_in_another_language_than_the_model(
    open_page: OpenPage, models: Path, photos: Path, arabic: Path, tmp_path: Path
) -> None:
    captions = arabic.parent / "report_files" / "captions.jsonl"
    options = ["--model", str(models / "model.safetensors"), "--device", "cpu", "--quiet"]
    assert main(["report", str(captions), "-o", str(tmp_path / "x.html"), *options]) == 0
    page = open_page(tmp_path / "x.html")
    assert page.locator(".notice").all_text_contents() == [
        "3 of the captions are in another language than the report's model (English), which "
        "therefore cannot show where it looked: --language ar chooses another."
    ]
    assert page.locator(".card .word").count() == 0
    options += ["--language", str(models / "ar.safetensors")]
    assert main(["report", str(captions), "-o", str(tmp_path / "y.html"), *options]) == 0
    page = open_page(tmp_path / "y.html")
    assert page.locator(".notice").count() == 0
    wait_until(page, "document.querySelectorAll('.card .word').length > 5")


def test_texts_of_people_in_any_script(open_page: OpenPage, photos: Path, tmp_path: Path) -> None:
    """Where nobody says the language, the letters say the direction."""
    texts = {"a.png": "كلب يركض.", "照片.png": "一只狗"}
    lines = [json.dumps({"file_name": name, "text": text}) for name, text in texts.items()]
    (photos / "own.jsonl").write_text("\n".join(lines), "utf-8")
    page_file = tmp_path / "own.html"
    arguments = [str(photos / "own.jsonl"), "-o", str(page_file), "--no-attention", "--quiet"]
    assert main(["report", *arguments]) == 0
    page = open_page(page_file)
    captions = page.locator(".card .caption")
    assert [written(each) for each in captions.all()] == [
        (None, "auto", text) for text in texts.values()
    ]
    directions = (
        "[...document.querySelectorAll('.card .caption')].map((e) => getComputedStyle(e).direction)"
    )
    assert page.evaluate(directions) == ["rtl", "ltr"]
