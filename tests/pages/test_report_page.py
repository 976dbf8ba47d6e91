"""The report in a real browser: what people see, find, correct and take away."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from captioner.captioning.writers import CsvWriter
from captioner.cli.entry import main
from captioner.model.caption_model import CaptionModel
from captioner.pages.report import write_report
from captioner.pages.report_job import ReportJob
from helpers.browser import CONTRAST, OpenPage, axe_findings, wait_until
from helpers.images import noise

ATTACK = "<img src=x onerror=alert(1)>.jpg"
NAMES = [ATTACK, "a1.png", "a10.png", "a2.png", "=sum(1).png", "sub/ü b.png", "zero.png"]

NO_MEMORY = """
Object.defineProperty(window, "localStorage", {get() { throw new DOMException("no"); }});
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, tagging_model: CaptionModel) -> Path:
    """A page through the real command: seven images and a broken one."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "photos" / "sub").mkdir(parents=True)
    for index, name in enumerate(NAMES):
        noise(index, 400, 300 if index % 2 else 500).save(folder / "photos" / name)
    (folder / "photos" / "broken.jpg").write_bytes(b"not an image")
    page = folder / "report.html"
    arguments = ["--model", str(tagging_model.path), "--device", "cpu", "--tags", "0.05"]
    code = main(["caption", str(folder / "photos"), "--output", str(page), *arguments, "--quiet"])
    assert code == 1
    return page


def records_of(report: Path) -> list[dict[str, Any]]:
    path = report.with_name(f"{report.stem}_files") / "captions.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def names(page: Any) -> list[str]:
    """Of the cards, as they are read."""
    found: list[str] = page.locator(".card .name").all_text_contents()
    return found


def card(page: Any, name: str) -> Any:
    return page.locator(".card").filter(has=page.locator(f'.name[title="{name}"]'))


def percent(share: float) -> str:
    return f"{math.floor(100 * share + 0.5)}%"


def saved(page: Any, button: str) -> tuple[str, bytes]:
    """What a button gives to save: its name and its bytes."""
    with page.expect_download() as waiting:
        page.get_by_role("button", name=button).click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


# --- what is shown -------------------------------------------------------------------------


def test_a_card_for_every_record(open_page: OpenPage, report: Path) -> None:
    page = open_page(report, viewport={"width": 1300, "height": 1200})
    records = records_of(report)
    assert names(page) == [record["file_name"] for record in records]
    assert page.locator("#count").text_content() == "8 images"
    for record in records:
        shown = card(page, record["file_name"])
        if record["error"] is not None:
            assert shown.locator(".caption").text_content() == record["error"]
            assert shown.locator("img").count() == 0
            assert shown.locator(".why").text_content() == record["error"]
            continue
        assert shown.locator(".caption").text_content() == record["text"]
        assert shown.locator("img").get_attribute("alt") == record["text"]
        assert shown.locator("img").get_attribute("loading") == "lazy"
        assert shown.locator(".number").text_content() == percent(record["confidence"])
        assert shown.locator(".sure abbr").count() == (not record["calibrated"])
        assert shown.get_by_role("meter").get_attribute("aria-valuenow") == str(
            math.floor(100 * record["confidence"] + 0.5)
        )
        assert shown.locator(".tag").all_text_contents() == [
            f"{tag['name']} {percent(tag['confidence'])}" for tag in record["tags"]
        ]
    wait_until(page, "[...document.images].every((each) => each.naturalWidth > 0)")
    assert page.evaluate("document.images.length") == 7


def test_the_details_say_how_probable_a_word_of_the_other_captions_is(
    open_page: OpenPage, report: Path
) -> None:
    page = open_page(report)
    lines = (report.with_name("report_files") / "captions.jsonl").read_text("utf-8").splitlines()
    record = next(each for each in map(json.loads, lines) if each["error"] is None)
    card(page, record["file_name"]).get_by_role("button", name="Details").click()
    others = record["candidates"][1:]
    assert len(others) == 2
    assert page.locator("#details .others li span").all_text_contents() == [
        f"{percent(math.exp(other['avg_logprob']))} a word" for other in others
    ]


def test_names_are_text_whatever_they_say(open_page: OpenPage, report: Path) -> None:
    page = open_page(report)
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    assert card(page, ATTACK).locator(".name").text_content() == ATTACK
    card(page, ATTACK).get_by_role("button", name="Details").click()
    assert page.locator("#details-name").text_content() == ATTACK
    assert page.locator("img:not([src^='report_files/'])").count() == 0
    page.wait_for_timeout(50)
    assert asked == []


def test_the_page_and_its_folder_can_be_moved(
    open_page: OpenPage, report: Path, tmp_path: Path
) -> None:
    shutil.copy(report, tmp_path / "report.html")
    shutil.copytree(report.with_name("report_files"), tmp_path / "report_files")
    page = open_page(tmp_path / "report.html")
    wait_until(page, "[...document.images].every((each) => each.naturalWidth > 0)")


@pytest.mark.parametrize("width", [320, 390, 1300])
def test_nothing_is_wider_than_the_window(open_page: OpenPage, report: Path, width: int) -> None:
    page = open_page(report, viewport={"width": width, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.get_by_role("button", name="Details").first.click()
    box = page.locator("#details").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    assert page.evaluate(
        "document.querySelector('#details').scrollWidth <= "
        "document.querySelector('#details').clientWidth"
    )


# --- finding -------------------------------------------------------------------------------


def choose(page: Any, **fields: str) -> list[str]:
    """Set fields of the toolbar, and give the names that are left."""
    for name, value in fields.items():
        field = page.locator(f"#{name}")
        if name in ("sort", "tag", "show"):
            field.select_option(value)
        else:
            field.fill(value)
    return names(page)


def test_search_filters_and_order(open_page: OpenPage, report: Path) -> None:
    page = open_page(report, viewport={"width": 1300, "height": 1200})
    records = records_of(report)

    def expected(keep: Callable[[dict[str, Any]], bool]) -> list[str]:
        return [record["file_name"] for record in records if keep(record)]

    words = {word for record in records for word in (record["text"] or "").split()}
    texts = [record["text"] or "" for record in records]
    some = next(word for word in sorted(words) if 0 < sum(word in text for text in texts) < 7)

    def says(record: dict[str, Any]) -> bool:
        tags = " ".join(tag["name"] for tag in record.get("tags", []))
        return some in f"{record['text'] or ''} {record['file_name']} {record['error']} {tags}"

    assert choose(page, search=some.upper()) == expected(says)
    shown = len(expected(says))
    assert page.locator("#count").text_content() == f"{shown} of 8 images"
    assert choose(page, search="ü B") == ["sub/ü b.png"]
    assert choose(page, search="nothing like it") == []
    assert page.locator("#nothing").is_visible()
    page.get_by_role("button", name="Clear filters").click()
    assert len(names(page)) == 8

    assert choose(page, show="errors") == ["broken.jpg"]
    assert choose(page, show="captioned") == expected(lambda r: r["error"] is None)
    assert choose(page, show="edited") == []
    choose(page, show="all")

    tags = [{tag["name"] for tag in record.get("tags", [])} for record in records]
    counts = {name: sum(name in each for each in tags) for name in set().union(*tags)}
    options = page.locator("#tag option").all_text_contents()[1:]
    assert sorted(options) == sorted(f"{name} ({count})" for name, count in counts.items())
    found = [int(re.search(r"\((\d+)\)", option)[1]) for option in options]  # type: ignore[index]
    assert found == sorted(found, reverse=True)
    rare = min(counts, key=lambda name: (counts[name], name))
    assert choose(page, tag=rare) == expected(
        lambda r: rare in {tag["name"] for tag in r.get("tags", [])}
    )
    choose(page, tag="")

    sure = sorted(record["confidence"] for record in records if record["error"] is None)
    floor = math.ceil(100 * sure[3])
    assert choose(page, least=str(floor)) == expected(
        lambda r: r["confidence"] is not None and r["confidence"] >= floor / 100
    )
    assert page.locator("#least-shown").text_content() == f"{floor}%"
    choose(page, least="0")


def test_orders(open_page: OpenPage, report: Path) -> None:
    page = open_page(report, viewport={"width": 1300, "height": 1200})
    records = records_of(report)
    known = [record for record in records if record["error"] is None]
    up = [r["file_name"] for r in sorted(known, key=lambda r: r["confidence"])]
    down = [r["file_name"] for r in sorted(known, key=lambda r: -r["confidence"])]
    assert len({record["confidence"] for record in known}) == 7
    assert choose(page, sort="unsure") == [*up, "broken.jpg"]
    assert choose(page, sort="sure") == [*down, "broken.jpg"]
    by_name = choose(page, sort="name")
    assert [name for name in by_name if name.startswith("a")] == ["a1.png", "a2.png", "a10.png"]
    assert choose(page, sort="order") == [record["file_name"] for record in records]


def test_a_tag_of_a_card_filters(open_page: OpenPage, report: Path) -> None:
    page = open_page(report, viewport={"width": 1300, "height": 1200})
    tag = card(page, "a1.png").locator(".tag").first
    name = tag.locator(".tag-name").text_content()
    tag.click()
    assert page.locator("#tag").input_value() == name
    assert "a1.png" in names(page)


# --- correcting ----------------------------------------------------------------------------


def test_corrections_are_saved_and_nothing_is_lost(open_page: OpenPage, report: Path) -> None:
    page = open_page(report, keeps=True, viewport={"width": 1300, "height": 1200})
    records = records_of(report)
    name, data = saved(page, "Save JSONL")
    assert name == "captions-corrected.jsonl"
    assert [json.loads(line) for line in data.decode().splitlines()] == records
    _, data = saved(page, "Save CSV")
    assert data == b"".join(CsvWriter().pieces((record, report) for record in records))

    new = ' =1+1, a "cat" \nü '
    card(page, "a1.png").get_by_role("button", name="Edit").click()
    page.get_by_label("Caption", exact=True).fill(new)
    page.keyboard.press("Enter")
    edited = '=1+1, a "cat" ü'
    assert card(page, "a1.png").locator(".caption").text_content() == edited
    assert card(page, "a1.png").locator(".edited").is_visible()
    assert card(page, "a1.png").locator("img").get_attribute("alt") == edited
    assert choose(page, show="edited") == ["a1.png"]
    assert choose(page, show="all", search="cat") == ["a1.png"]
    choose(page, search="")

    expected = [dict(record) for record in records]
    next(r for r in expected if r["file_name"] == "a1.png")["text"] = edited
    _, data = saved(page, "Save JSONL")
    lines = [json.loads(line) for line in data.decode().splitlines()]
    assert lines == expected and [list(line) for line in lines] == [list(r) for r in records]
    _, data = saved(page, "Save CSV")
    assert data == b"".join(CsvWriter().pieces((record, report) for record in expected))
    rows = list(csv.reader(io.StringIO(data.decode())))
    assert rows[0] == ["file_name", "text", "confidence", "error"]
    row = next(row for row in rows if row[0] == "a1.png")
    assert row[1] == f"'{edited}"
    assert any(row[0] == "'=sum(1).png" for row in rows)

    page.reload()  # The browser keeps corrections of this report.
    assert card(page, "a1.png").locator(".caption").text_content() == edited
    card(page, "a1.png").get_by_role("button", name="Details").click()
    page.get_by_role("button", name="Take it back").click()
    page.keyboard.press("Escape")
    original = next(r["text"] for r in records if r["file_name"] == "a1.png")
    assert card(page, "a1.png").locator(".caption").text_content() == original
    assert page.evaluate("Object.keys(localStorage)") == []


def test_records_of_others_lose_nothing(open_page: OpenPage, tmp_path: Path) -> None:
    records = [
        {
            "id": 2**60 + 1,
            "file_name": "a.jpg",
            "text": "a dog",
            "more": ["text", "text_", {"n": 1}],
        },
        {"file_name": "half\udcfc.jpg", "text": None, "extra": {"deep": [1.5, None, "ü"]}},
        {"more": -(2**53), "text": 'a "dog"', "file_name": "c.jpg"},
    ]
    captions = tmp_path / "others.jsonl"
    captions.write_text("".join(json.dumps(record) + "\n" for record in records))
    write_report(ReportJob(captions, tmp_path / "report.html"))
    page = open_page(tmp_path / "report.html")
    name, data = saved(page, "Save JSONL")
    assert name == "others-corrected.jsonl"
    assert [json.loads(line) for line in data.decode().splitlines()] == records
    card(page, "c.jpg").get_by_role("button", name="Edit").click()
    page.keyboard.type("a cat")
    page.keyboard.press("Enter")
    _, data = saved(page, "Save JSONL")
    expected = [*records[:2], {**records[2], "text": "a cat"}]
    assert [json.loads(line) for line in data.decode().splitlines()] == expected
    assert list(json.loads(data.decode().splitlines()[2])) == list(records[2])


def test_escape_leaves_a_caption_as_it_was(open_page: OpenPage, report: Path) -> None:
    page = open_page(report)
    before = card(page, "a1.png").locator(".caption").text_content()
    card(page, "a1.png").get_by_role("button", name="Edit").click()
    page.keyboard.type("something else")
    page.keyboard.press("Escape")
    assert card(page, "a1.png").locator(".caption").text_content() == before
    # Leaving the field keeps what was written.
    card(page, "a1.png").get_by_role("button", name="Edit").click()
    page.keyboard.type("kept")
    page.locator("#search").click()
    assert card(page, "a1.png").locator(".caption").text_content() == "kept"


def test_another_caption_can_be_used(open_page: OpenPage, report: Path) -> None:
    page = open_page(report)
    other = next(r for r in records_of(report) if r["file_name"] == "a1.png")["candidates"][1]
    card(page, "a1.png").get_by_role("button", name="Details").click()
    page.get_by_role("button", name=f"Use “{other['text']}”").click()
    assert page.locator("#details .caption").text_content() == other["text"]
    page.keyboard.press("Escape")
    assert card(page, "a1.png").locator(".caption").text_content() == other["text"]


def test_without_memory_it_works_until_it_is_closed(open_page: OpenPage, report: Path) -> None:
    page = open_page(report, script=NO_MEMORY)
    card(page, "a1.png").get_by_role("button", name="Edit").click()
    page.keyboard.type("a cat")
    page.keyboard.press("Enter")
    assert card(page, "a1.png").locator(".caption").text_content() == "a cat"
    _, data = saved(page, "Save JSONL")
    assert '"text":"a cat"' in data.decode()
    asked = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    page.reload()
    assert asked == ["beforeunload"]


def test_a_caption_is_copied(open_page: OpenPage, report: Path) -> None:
    page = open_page(report, permissions=["clipboard-read", "clipboard-write"])
    card(page, "a2.png").get_by_role("button", name="Copy").click()
    wait_until(page, "document.getElementById('live').textContent === 'Copied'")
    text = next(r["text"] for r in records_of(report) if r["file_name"] == "a2.png")
    assert page.evaluate("navigator.clipboard.readText()") == text


# --- words ---------------------------------------------------------------------------------

LIGHTEST = """
(selector) => {
  const canvas = document.querySelector(selector);
  const {data, width, height} = canvas.getContext("2d")
    .getImageData(0, 0, canvas.width, canvas.height);
  let best = -1, at = 0;
  for (let i = 0; i < data.length; i += 4) {
    const light = data[i] + data[i + 1] + data[i + 2];
    if (light > best) { best = light; at = i / 4; }
  }
  return [(at % width) / width, Math.floor(at / width) / height];
}
"""


def test_a_word_shows_where_the_captioner_looked(open_page: OpenPage, report: Path) -> None:
    page = open_page(report)
    record = next(r for r in records_of(report) if r["file_name"] == "a1.png")
    item = next(i for i in page.evaluate("page.data.items") if i["record"]["file_name"] == "a1.png")
    rows, columns = page.evaluate("page.data.grid")
    levels = np.array(
        page.evaluate("(text) => [...atob(text)].map((c) => c.charCodeAt(0))", item["levels"])
    ).reshape(-1, rows, columns)
    words = [pair for pair in record["candidates"][0]["words"] if pair[0] is not None]
    card(page, "a1.png").get_by_role("button", name="Details").click()
    wait_until(page, "document.querySelector('#details img').naturalWidth > 0")
    buttons = page.locator("#details .words button")
    assert buttons.all_text_contents() == [word + percent(prob) for word, prob in words]
    assert page.locator("#details .heat").count() == 0
    for place, (word, prob) in enumerate(words):
        buttons.nth(place).click()
        assert buttons.nth(place).get_attribute("aria-pressed") == "true"
        assert page.locator("#details .words [aria-pressed=true]").count() == 1
        said = page.locator("#details figcaption").text_content()
        assert said.startswith(f"“{word}”: {percent(prob)}. The captioner looked most ")
        x, y = page.evaluate(LIGHTEST, "#details .heat")
        row, column = np.unravel_index(levels[place].argmax(), levels[place].shape)
        assert (int(y * rows), int(x * columns)) == (row, column)
    buttons.nth(len(words) - 1).click()
    assert page.locator("#details .heat").count() == 0


@pytest.mark.parametrize(("name", "ratio"), [("a1.png", 400 / 300), ("a10.png", 400 / 500)])
def test_the_map_lies_over_the_image_and_not_the_box_around_it(
    open_page: OpenPage, report: Path, name: str, ratio: float
) -> None:
    page = open_page(report)
    card(page, name).get_by_role("button", name="Details").click()
    wait_until(page, "document.querySelector('#details img').naturalWidth > 0")
    page.locator("#details .words button").first.click()
    box = page.locator("#details .picture").bounding_box()
    heat = page.locator("#details .heat").bounding_box()
    width = min(box["width"], box["height"] * ratio)
    expected = {
        "width": width,
        "height": width / ratio,
        "x": box["x"] + (box["width"] - width) / 2,
        "y": box["y"] + (box["height"] - width / ratio) / 2,
    }
    assert heat == pytest.approx(expected, abs=1.5)


def test_words_of_a_card_show_it_too(open_page: OpenPage, report: Path) -> None:
    page = open_page(report)
    shown = card(page, "a1.png")
    wait_until(page, "[...document.images].every((each) => each.naturalWidth > 0)")
    word = shown.locator(".caption .word").nth(1)
    word.click()
    # It lies over the image, which fills its box and is cut off more below than above.
    box, heat = (shown.locator(each).bounding_box() for each in (".picture", ".heat"))
    width = max(box["width"], box["height"] * 400 / 300)
    expected = (
        box["x"] + (box["width"] - width) / 2,
        box["y"] + (box["height"] - width * 0.75) / 4,
    )
    assert (heat["x"], heat["y"], heat["width"]) == pytest.approx((*expected, width), abs=1.5)
    record = next(r for r in records_of(report) if r["file_name"] == "a1.png")
    said, prob = record["candidates"][0]["words"][1]
    assert word.get_attribute("title") == f"“{said}”: {percent(prob)}"
    word.click()
    assert shown.locator(".heat").count() == 0


# --- keys ----------------------------------------------------------------------------------


def focused(page: Any) -> str:
    """The name of the card with the focus."""
    name: str = page.evaluate(
        "document.activeElement.closest('.card')?.querySelector('.name').title ?? "
        "document.activeElement.id"
    )
    return name


def test_keys(open_page: OpenPage, report: Path) -> None:
    page = open_page(report, viewport={"width": 1300, "height": 600})
    order = [record["file_name"] for record in records_of(report)]
    press = page.keyboard.press
    press("/")
    assert focused(page) == "search"
    page.keyboard.type("zero")
    press("Enter")
    assert focused(page) == "zero.png"
    press("/")
    press("Escape")
    press("ArrowDown")
    assert focused(page) == order[0]
    for key, place in (("j", 1), ("ArrowRight", 2), ("k", 1), ("ArrowLeft", 0), ("End", 7)):
        press(key)
        assert focused(page) == order[place], key
    press("Home")
    press("ArrowDown")
    assert focused(page) == order[4]  # four cards stand in a row
    card(page, order[4]).wait_for()
    box = card(page, order[4]).bounding_box()
    assert box["y"] >= 0 and box["y"] + box["height"] <= 600 + 1
    press("Enter")
    assert page.locator("#details").is_visible()
    assert page.locator("#details-name").text_content() == order[4]
    press("j")
    assert page.locator("#details-name").text_content() == order[5] == "broken.jpg"
    press("j")
    assert page.locator("#details-name").text_content() == order[6]
    first = page.locator(".words button").first
    assert page.evaluate("document.activeElement.matches('.words button')")
    press("ArrowRight")
    assert page.evaluate("document.activeElement.closest('li').previousSibling !== null")
    press("ArrowLeft")
    press("Enter")
    assert first.get_attribute("aria-pressed") == "true"
    press("Escape")
    assert not page.locator("#details").is_visible()
    # The browser says that a dialog is closed a moment after it has gone.
    page.wait_for_function(
        "name => document.activeElement.closest('.card')?.querySelector('.name').title === name",
        arg=order[6],
    )
    assert focused(page) == order[6]
    press("e")
    assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"
    page.keyboard.type("jek/")  # keys of the page are letters here
    press("Enter")
    assert card(page, order[6]).locator(".caption").text_content() == "jek/"
    assert focused(page) == order[6]
    press("?")
    assert page.locator("#help").is_visible()
    press("Escape")
    assert not page.locator("#help").is_visible()


def test_every_control_has_a_name_and_one_card_is_on_the_way(
    open_page: OpenPage, report: Path
) -> None:
    page = open_page(report)
    unnamed = page.evaluate("""
        [...document.querySelectorAll("button, input, select")].filter((each) =>
            !(each.textContent.trim() || each.getAttribute("aria-label") || each.labels?.length)
        ).map((each) => each.outerHTML)
    """)
    assert unnamed == []
    on_the_way = page.evaluate("""
        [...document.querySelectorAll(".card, .card *")].filter((each) => each.tabIndex >= 0)
            .map((each) => each.closest(".card").querySelector(".name").title)
    """)
    assert set(on_the_way) == {records_of(report)[0]["file_name"]} and len(on_the_way) == 4
    place = page.locator(".card").first
    assert place.get_attribute("aria-posinset") == "1"
    assert place.get_attribute("aria-setsize") == "8"


@pytest.mark.parametrize("system", ["light", "dark"])
def test_the_page_is_accessible(open_page: OpenPage, report: Path, system: str) -> None:
    page = open_page(report, color_scheme=system)
    card(page, "a1.png").get_by_role("button", name="Edit").click()
    page.keyboard.type("edited")
    page.keyboard.press("Enter")
    assert page.evaluate(CONTRAST) == {} == axe_findings(page)
    card(page, "a1.png").get_by_role("button", name="Details").click()
    assert page.evaluate(CONTRAST) == {} == axe_findings(page)


# --- many ----------------------------------------------------------------------------------


def test_ten_thousand_images(open_page: OpenPage, tmp_path: Path) -> None:
    chance = random.Random(0)
    captions = tmp_path / "captions.jsonl"
    with captions.open("w") as file:
        for index in range(10_000):
            text = " ".join(chance.choices(["dog", "man", "ball", "red", "snow"], k=8))
            record = {"file_name": f"{index}.jpg", "text": f"{text} {index}"}
            file.write(json.dumps(record | {"confidence": chance.random(), "error": None}) + "\n")
    write_report(ReportJob(captions, tmp_path / "report.html"))
    start = time.perf_counter()
    page = open_page(tmp_path / "report.html", viewport={"width": 1300, "height": 900})
    assert page.locator("#count").text_content() == "10,000 images"
    assert time.perf_counter() - start < 10  # 0.5 s on an idle machine
    assert names(page)[0] == "0.jpg"
    assert page.locator(".card").count() < 60
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight / 2)")
    wait_until(
        page, "Number(document.querySelectorAll('.card .name')[4].title.split('.')[0]) > 4000"
    )
    assert page.locator(".card").count() < 60
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    card(page, "9999.jpg").wait_for()
    assert card(page, "9999.jpg").get_attribute("aria-posinset") == "10000"
    page.locator("#search").fill("9876")
    assert names(page) == ["9876.jpg"]
