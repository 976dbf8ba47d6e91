"""The review in a real browser: keys, undo, two tabs, a kill, another origin, many images."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from captioner.model.caption_model import CaptionModel
from helpers.browser import CONTRAST, OpenPage, Watch, axe_findings, wait_until
from helpers.images import noise
from helpers.reviews import Place, Server, serving, texts_of, verdicts_in


@pytest.fixture
def server(place: Place, tagging_model: CaptionModel) -> Iterator[Server]:
    place("jsonl")
    with serving("captions.jsonl", "--model", str(tagging_model.path)) as server:
        yield server


def until(is_so: Callable[[], bool], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


def ready(page: Any) -> Any:
    wait_until(page, "document.body.dataset.ready === 'yes'", 20)
    return page


def keys(page: Any, *pressed: str) -> None:
    for key in pressed:
        page.keyboard.press(key)


def names(page: Any) -> list[str]:
    """Of the images in the list, as it is read."""
    found: list[str] = page.locator(".row .name").all_text_contents()
    return found


def chosen(page: Any) -> str:
    name: str = page.locator("#name").text_content()
    return name


def saved(page: Any, expected: dict[str, str | None]) -> None:
    """Wait until the file holds this and the page has heard of it."""
    until(lambda: texts_of("jsonl") == expected)


def test_everything_by_keyboard_and_saved_at_once(server: Server, open_page: OpenPage) -> None:
    now = texts_of("jsonl")
    start = dict(now)
    page = ready(open_page(server.address, viewport={"width": 1300, "height": 850}))
    assert names(page) == ["a.png", "b.jpg", "broken.jpg", "c über.png", "sub/a.png", "z.jpg"]
    keys(page, "a")
    assert chosen(page) == "b.jpg"
    keys(page, "e", "Control+a")
    page.keyboard.type("a  wet <dog> ")
    keys(page, "Enter")
    now["b.jpg"] = "a wet <dog>"
    saved(page, now)
    assert chosen(page) == "broken.jpg" and page.locator("#text").is_disabled()
    keys(page, "a", "x", "n")
    assert chosen(page) == "c über.png"
    keys(page, "x")
    now["c über.png"] = None
    saved(page, now)
    assert page.locator("#progress").text_content() == (
        "3 of 6 reviewed · 1 accepted · 1 corrected · 1 rejected"
    )
    assert page.locator(".mark").all_text_contents() == ["accepted", "corrected", "rejected"]
    assert page.locator(".row del").all_text_contents() == [start["c über.png"]]
    keys(page, "e")
    page.keyboard.type(" and what is not kept")
    keys(page, "Escape", "u")
    now["c über.png"] = start["c über.png"]
    saved(page, now)
    wait_until(page, "document.querySelector('#name').textContent === 'c über.png'")
    keys(page, "Control+z", "u")
    saved(page, start)
    until(lambda: verdicts_in(Path()) == [])
    wait_until(page, "document.querySelector('#progress').textContent === '0 of 6 reviewed'")
    keys(page, "End", "k", "Home", "j", "?")
    assert page.locator("#help").is_visible()


def test_an_edit_is_saved_when_another_image_is_chosen(server: Server, open_page: OpenPage) -> None:
    now = texts_of("jsonl")
    page = ready(open_page(server.address))
    page.locator("#text").fill("a cat")
    page.locator(".row").nth(1).click()
    saved(page, {**now, "a.png": "a cat"})
    page.get_by_role("button", name="Undo").click()
    saved(page, now)


def test_an_image_is_captioned_again_from_given_words(server: Server, open_page: OpenPage) -> None:
    now = texts_of("jsonl")
    page = ready(open_page(server.address))
    keys(page, "p")
    page.keyboard.type("red ball on")
    keys(page, "Enter")
    page.locator("#proposals button").first.wait_for(timeout=60_000)
    proposals = page.locator("#proposals button").all_text_contents()
    assert len(proposals) == 3
    assert all(text[:13] == f"{n} red ball on" for n, text in enumerate(proposals, 1))
    assert texts_of("jsonl") == now
    keys(page, "2")
    saved(page, {**now, "a.png": proposals[1][2:]})
    assert chosen(page) == "b.jpg"


def test_words_that_the_model_does_not_know_are_named(
    server: Server, open_page: OpenPage, watch: Watch
) -> None:
    page = ready(open_page(server.address))
    keys(page, "p")
    page.keyboard.type("xylophone")
    keys(page, "Enter")
    page.locator("#trouble").wait_for(timeout=60_000)
    assert "xylophone" in page.locator("#trouble").text_content()
    assert all("400 (Bad Request)" in each for each in watch.found)
    watch.found.clear()


def test_images_are_filtered_by_verdict_confidence_tag_and_words(
    server: Server, open_page: OpenPage
) -> None:
    records = [json.loads(line) for line in Path("captions.jsonl").read_text("utf-8").splitlines()]
    page = ready(open_page(server.address, viewport={"width": 1300, "height": 1000}))
    sure = {each["file_name"]: each["confidence"] for each in records if each["text"]}
    middle = round(100 * sorted(sure.values())[2])
    page.locator("#to").fill(str(middle))
    assert names(page) == [name for name, value in sure.items() if value <= middle / 100]
    page.locator("#from").fill(str(middle))
    page.locator("#to").fill("100")
    assert names(page) == [name for name, value in sure.items() if value >= middle / 100]
    page.get_by_role("button", name="Clear filters").click()
    tag = records[0]["tags"][0]["name"]
    page.locator("#tag").select_option(tag)
    assert names(page) == [
        each["file_name"]
        for each in records
        if tag in [found["name"] for found in each.get("tags") or []]
    ]
    page.get_by_role("button", name="Clear filters").click()
    page.locator("#sort").select_option("unsure")
    assert names(page)[:5] == sorted(sure, key=lambda name: sure[name])
    page.locator("#sort").select_option("order")
    page.locator("#search").fill("ÜBER")
    assert names(page) == ["c über.png"]
    page.get_by_role("button", name="Clear filters").click()
    page.locator("#show").select_option("open")
    page.locator("#list").focus()
    keys(page, "Home", "a")
    assert names(page) == ["b.jpg", "c über.png", "sub/a.png", "z.jpg"] and chosen(page) == "b.jpg"
    page.locator("#show").select_option("accepted")
    assert names(page) == ["a.png"]


def test_two_tabs_show_the_same(server: Server, open_page: OpenPage, watch: Watch) -> None:
    now = texts_of("jsonl")
    first = ready(open_page(server.address))
    second = first.context.new_page()
    watch.over(second)
    second.goto(server.address)
    ready(second)
    first.bring_to_front()
    first.locator("#text").fill("a cat")
    keys(first, "Enter")
    wait_until(second, "document.querySelector('.row .caption').textContent === 'a cat'")
    assert second.locator("#text").input_value() == "a cat"
    saved(first, {**now, "a.png": "a cat"})


def test_a_tab_that_knows_an_older_caption_does_not_overwrite_it(
    server: Server, open_page: OpenPage, watch: Watch
) -> None:
    now = texts_of("jsonl")
    first, other = ready(open_page(server.address)), ready(open_page(server.address))
    keys(first, "e", "Control+a")
    first.keyboard.type("a cat")
    keys(first, "Enter")
    saved(first, {**now, "a.png": "a cat"})
    keys(other, "x")
    other.locator("#trouble").wait_for()
    assert "a.png: not saved: the caption was changed elsewhere" in (
        other.locator("#trouble").text_content()
    )
    assert chosen(other) == "a.png" and other.locator("#text").input_value() == "a cat"
    assert texts_of("jsonl") == {**now, "a.png": "a cat"}
    assert all("409 (Conflict)" in each for each in watch.found) and watch.found
    watch.found.clear()


def test_a_kill_loses_at_most_the_open_edit(
    server: Server, open_page: OpenPage, watch: Watch
) -> None:
    now = texts_of("jsonl")
    page = ready(open_page(server.address))
    keys(page, "x", "e", "Control+a")
    page.keyboard.type("an open edit")
    saved(page, {**now, "a.png": None})
    page.locator(".row .mark").wait_for()  # The answer has arrived, too.
    server.kill()
    keys(page, "Enter")
    page.locator("#trouble").wait_for()
    assert "b.jpg: not saved: captioner review does not answer" in (
        page.locator("#trouble").text_content()
    )
    assert chosen(page) == "b.jpg" and page.locator("#text").input_value() == "an open edit"
    watch.found.clear()
    with serving("captions.jsonl") as again:
        page = ready(open_page(again.address))
        assert page.locator(".row .mark").all_text_contents() == ["rejected"]
        assert texts_of("jsonl") == {**now, "a.png": None}
        keys(page, "u")
        saved(page, now)
        page.close()


ATTACK = """
<!doctype html><title>elsewhere</title><p id="said"></p><script>
const said = [];
(async () => {
  const address = decodeURIComponent(location.hash.slice(1));
  const body = '{"name": "a.png", "seen": null}';
  const ways = {
    json: {method: "POST", headers: {"Content-Type": "application/json"}, body},
    plain: {method: "POST", mode: "no-cors", body},
    read: {},
  };
  for (const [name, options] of Object.entries(ways)) {
    try {
      const answer = await fetch(address + (name === "read" ? "items" : "undo"), options);
      said.push(`${name}: ${answer.type}`);
    } catch { said.push(`${name}: refused`); }
  }
  const image = new Image();
  image.onload = image.onerror = (event) => {
    said.push(`image: ${event.type}`);
    document.querySelector("#said").textContent = said.join(", ");
  };
  image.src = address + "view?name=a.png";
})();
</script>
"""


def test_a_page_of_another_origin_is_refused(
    server: Server, open_page: OpenPage, watch: Watch, tmp_path: Path
) -> None:
    # It even knows the token.
    now = texts_of("jsonl")
    page = ready(open_page(server.address))
    keys(page, "x")
    saved(page, {**now, "a.png": None})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "index.html").write_text(ATTACK)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    serve = partial(Quiet, directory=str(tmp_path / "elsewhere"))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        foreign = open_page(f"http://127.0.0.1:{other.server_port}/#{server.address}")
        wait_until(foreign, "document.querySelector('#said').textContent !== ''")
        said = foreign.locator("#said").text_content()
        other.shutdown()
    assert said == "json: refused, plain: refused, read: refused, image: error"
    assert texts_of("jsonl") == {**now, "a.png": None}  # what was to be undone is not
    watch.found.clear()


@pytest.mark.parametrize("system", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1300])
def test_the_page_is_accessible_and_nothing_leaves_the_window(
    server: Server, open_page: OpenPage, system: str, width: int
) -> None:
    page = ready(
        open_page(server.address, color_scheme=system, viewport={"width": width, "height": 844})
    )
    assert axe_findings(page) == {}
    keys(page, "a", "x", "p")
    assert page.evaluate(CONTRAST) == {} == axe_findings(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    keys(page, "Escape", "?")
    assert page.evaluate(CONTRAST) == {} == axe_findings(page)


FLY = """
async () => {
  for (let step = 0; step < 100; step++) {
    document.querySelector("#list").scrollTop = 4000 * step;
    await new Promise(requestAnimationFrame);
  }
}
"""


def test_thousands_of_images_stay_fluent(
    open_page: OpenPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    noise(0, 800, 600).save("0.jpg")
    rows = []
    for index in range(5000):
        if index:
            os.link("0.jpg", f"{index}.jpg")
        row = {"file_name": f"{index}.jpg", "text": f"a dog {index}", "confidence": index / 5000}
        rows.append(json.dumps({**row, "error": None}))
    Path("captions.jsonl").write_text("".join(f"{row}\n" for row in rows))
    with serving("captions.jsonl") as server:
        start = time.perf_counter()
        page = ready(open_page(server.address, viewport={"width": 1300, "height": 900}))
        assert time.perf_counter() - start < 10  # 0.6 s on an idle machine
        views: list[str] = []
        page.on("request", lambda request: views.append(request.url))
        assert page.locator("#count").text_content() == "5,000 images"
        assert page.locator(".row").count() < 40
        page.evaluate(FLY)
        keys(page, "End")
        wait_until(page, "document.querySelector('#name').textContent === '4999.jpg'")
        wait_until(page, "[...document.querySelectorAll('.row img')].every((i) => i.naturalWidth)")
        assert page.locator(".row").count() < 40
        assert len(views) < 300  # of 5,000: only what stood still
        start = time.perf_counter()
        keys(page, "Home", *["a", "x"] * 5)
        until(lambda: len(verdicts_in(Path())) == 10)
        assert time.perf_counter() - start < 30  # 1.5 s on an idle machine
        until(lambda: '"text": null' in Path("captions.jsonl").read_text().splitlines()[9])
        assert Path("captions.jsonl").read_text().count('null, "confidence"') == 5
        page.close()
