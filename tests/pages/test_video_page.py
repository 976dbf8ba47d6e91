"""The pages of videos in a real browser: what people see, find, seek and take away."""

from __future__ import annotations

import io
import json
import random
import re
import shutil
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from captioner.cli.entry import main
from captioner.pages.video_index import TagPages
from captioner.pages.video_page import page_data, render
from helpers.browser import OpenPage, Watch, axe_findings, wait_until
from helpers.images import noise
from helpers.videos import EXAMPLES, photo, write_video

ATTACK = "<img src=x onerror=alert(1)>.mp4"
NOW = "document.getElementById('video').currentTime"
READY = "document.getElementById('video').readyState >= 2"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages through the real command: a film of three shots under several names, and bad ones.

    By the shipped model, which says something else of every shot.
    """
    root = tmp_path_factory.mktemp("pages")
    folder = root / "Vidéos 100% #1?"
    (folder / "sub").mkdir(parents=True)
    names = ("stairs", "cameraman", "raccoon")
    slides = [photo(name) for name in names for _ in range(20)]
    film = write_video(folder / ATTACK, slides, [100 * i for i in range(60)], rate=10)
    shutil.copy(film, folder / "sub" / "ü b&c.mp4")
    write_video(
        folder / "sub" / "vp9.webm", slides, [100 * i for i in range(60)], rate=10,
        codec="libvpx-vp9",
    )  # fmt: skip
    # A codec that browsers do not have.
    write_video(
        folder / "old.avi", slides[:40], [100 * i for i in range(40)], rate=10, codec="mpeg4"
    )
    (folder / "text.mp4").write_text("no video\n" * 100)
    arguments = ["--device", "cpu", "--min-confidence", "0.15", "--quiet", "--fps", "1"]
    out = root / "out"
    assert main(["tag", str(folder), "--output-dir", str(out), *arguments]) == 1
    return out


@pytest.fixture(scope="module")
def film(output: Path) -> Path:
    return output / "sub" / "ü b&c.html"


def record_of(page: Path) -> Any:
    return json.loads(page.with_suffix(".json").read_text("utf-8"))


def now_of(page: Any) -> float:
    time: float = page.evaluate(NOW)
    return time


def rows(page: Any) -> list[str]:
    """Captions of the transcript's rows that are shown."""
    return [each.text_content() for each in page.locator("#rows li:not([hidden]) .what").all()]


def names(page: Any) -> list[str]:
    found: list[str] = page.locator("#videos .name").all_text_contents()
    return found


# --- the player ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sub/ü b&c.html", "sub/vp9.html"])
def test_the_page_plays_the_video_beside_it(output: Path, open_page: OpenPage, name: str) -> None:
    page = open_page(output / name)
    wait_until(page, READY)
    record = record_of(output / name)
    assert page.title() == record["video"]["file_name"]
    assert page.evaluate("document.getElementById('video').duration") == pytest.approx(
        record["video"]["duration_s"], abs=0.1
    )
    assert page.locator("#trouble").is_hidden()
    assert page.locator("#video").evaluate("each => each.textTracks.length") == 1
    cues = page.evaluate(
        "[...document.getElementById('video').textTracks[0].cues].map("
        "(each) => [each.startTime, each.endTime, each.getCueAsHTML().textContent])"
    )
    assert cues == [
        [each["start"], each["end"], each["text"]]
        for each in record["segments"]
        if each["confidence"] >= record["settings"]["min_caption_confidence"]
    ]


def test_a_click_on_a_tag_goes_to_where_it_begins(film: Path, open_page: OpenPage) -> None:
    page = open_page(film)
    wait_until(page, READY)
    # One whose times are elsewhere than at the beginning.
    place, tag = next(
        (place, tag)
        for place, tag in enumerate(record_of(film)["tags"])
        if tag["segments"][0]["start"] > 1
    )
    lane = page.locator(".tag-lane").nth(place)
    lane.locator(".label").click()
    assert now_of(page) == pytest.approx(tag["segments"][0]["start"], abs=0.1)
    for span, part in zip(lane.locator(".span").all(), tag["segments"], strict=True):
        span.click()
        assert now_of(page) == pytest.approx(part["start"], abs=0.1)
        assert "current" in span.get_attribute("class")
    # The same with the keyboard.
    page.keyboard.press("k")
    page.evaluate("document.getElementById('video').pause()")
    for key in ("Enter", " "):
        page.evaluate("document.getElementById('video').currentTime = 0")
        wait_until(page, f"{NOW} === 0")
        lane.locator(".span").first.focus()
        page.keyboard.press(key)
        assert now_of(page) == pytest.approx(tag["segments"][0]["start"], abs=0.1)


def test_a_click_on_a_segment_goes_to_where_it_begins(film: Path, open_page: OpenPage) -> None:
    page = open_page(film)
    wait_until(page, READY)
    segments = record_of(film)["segments"]
    assert len(segments) >= 3 and segments[-1]["start"] >= 4
    for place in (2, 1):
        page.locator(".segments .track button").nth(place).click()
        assert now_of(page) == pytest.approx(segments[place]["start"], abs=0.1)
        page.locator(".row").nth(place - 1).click()
        assert now_of(page) == pytest.approx(segments[place - 1]["start"], abs=0.1)
    # What is shown then is the new shot, and not the last frame of the one before.
    wait_until(page, "!document.getElementById('video').seeking")
    page.locator(".row").nth(len(segments) - 1).press("Enter")
    assert now_of(page) == pytest.approx(segments[-1]["start"], abs=0.1)
    # A click into a lane where nothing is.
    track = page.locator(".axis .track")
    box = track.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + 5)
    assert now_of(page) == pytest.approx(record_of(film)["video"]["duration_s"] / 2, abs=0.1)


def test_what_is_shown_now_is_marked(film: Path, open_page: OpenPage) -> None:
    page = open_page(film)
    wait_until(page, READY)
    segments = record_of(film)["segments"]
    for place in (len(segments) - 1, 0, 1):
        middle = (segments[place]["start"] + segments[place]["end"]) / 2
        page.evaluate(f"document.getElementById('video').currentTime = {middle}")
        wait_until(page, "!document.getElementById('video').seeking")
        current = page.locator(".row[aria-current=true] .what")
        assert current.all_text_contents() == [segments[place]["text"]]
        block = page.locator(".segments .track [aria-current=true]")
        assert block.count() == 1
        assert block.get_attribute("aria-label").endswith(segments[place]["text"])
        assert page.locator("#now-text").text_content() == segments[place]["text"]
    # And while it plays.
    page.evaluate("document.getElementById('video').currentTime = 0")
    page.evaluate("document.getElementById('video').muted = true")
    page.locator("body").press("k")
    wait_until(
        page,
        f"{NOW} > {segments[1]['start'] + 0.1} && "
        "document.querySelectorAll('.row')[1].getAttribute('aria-current') === 'true'",
    )
    page.locator("body").press("k")
    assert page.evaluate("document.getElementById('video').paused")


def test_keys(film: Path, open_page: OpenPage) -> None:
    page = open_page(film)
    wait_until(page, READY)
    segments = record_of(film)["segments"]
    page.keyboard.press("n")
    page.keyboard.press("n")
    assert now_of(page) == pytest.approx(segments[2]["start"], abs=0.1)
    page.keyboard.press("p")
    assert now_of(page) == pytest.approx(segments[1]["start"], abs=0.1)
    page.keyboard.press("ArrowRight")
    duration = record_of(film)["video"]["duration_s"]
    assert now_of(page) == pytest.approx(min(segments[1]["start"] + 5, duration), abs=0.1)
    captions = page.get_by_role("button", name="Captions")
    assert captions.get_attribute("aria-pressed") == "true"
    page.keyboard.press("c")
    assert captions.get_attribute("aria-pressed") == "false"
    assert page.evaluate("document.getElementById('video').textTracks[0].mode") == "hidden"
    kept = "localStorage.getItem('captioner.captions')"
    assert page.evaluate(kept) == "off"
    page.reload()
    wait_until(page, READY)
    shown = page.evaluate(kept) != "off"  # Where the browser has kept nothing, as at first.
    wait_until(page, f"document.getElementById('captions').ariaPressed === '{str(shown).lower()}'")
    # In the timeline and in the transcript, arrows go from one to the next.
    page.locator(".segments .track button").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(
        "document.activeElement === document.querySelectorAll('.segments button')[1]"
    )
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.className").startswith("span")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert now_of(page) == pytest.approx(segments[1]["start"], abs=0.1)
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").is_hidden()


def test_a_link_to_a_moment(film: Path, open_page: OpenPage) -> None:
    page = open_page(film)
    page.goto(film.as_uri() + "#t=4.5")
    page.reload()
    wait_until(page, READY)
    assert now_of(page) == pytest.approx(4.5, abs=0.1)


def test_a_video_that_the_browser_cannot_play(output: Path, open_page: OpenPage) -> None:
    page = open_page(output / "old.html")
    trouble = page.locator("#trouble")
    trouble.wait_for()
    assert "cannot be played here" in trouble.text_content()
    link = trouble.get_by_role("link").evaluate("each => each.href")
    assert link.endswith("/Vid%C3%A9os%20100%25%20%231%3F/old.avi")
    assert page.locator("#video").is_hidden()
    segments = record_of(output / "old.html")["segments"]
    page.locator(".row").nth(1).click()
    assert page.locator("#now-text").text_content() == segments[1]["text"]
    assert page.locator(".row[aria-current=true]").count() == 1
    wait_until(page, "document.getElementById('still').naturalWidth > 0")
    page.keyboard.press("p")
    assert page.locator("#now-text").text_content() == segments[0]["text"]


def test_a_video_that_is_gone(
    film: Path, open_page: OpenPage, watch: Watch, tmp_path: Path
) -> None:
    page = open_page(Path(shutil.copy(film, tmp_path / "moved.html")))
    page.locator("#trouble").wait_for()
    assert all("ERR_FILE_NOT_FOUND" in line for line in watch.found)
    watch.found.clear()


# --- the transcript ------------------------------------------------------------------------


def test_search_finds_captions_and_tags(film: Path, open_page: OpenPage) -> None:
    page = open_page(film)
    record = record_of(film)
    texts = [each["text"] for each in record["segments"]]
    assert rows(page) == texts
    word = next(w for text in texts for w in text.split() if not all(w in t for t in texts))
    page.locator("#search").fill(word.upper())
    found = rows(page)
    assert {text for text in texts if word in text} <= set(found)
    assert len(found) < len(texts) or word in {tag["name"] for tag in record["tags"]}
    assert page.locator("#rows mark").first.text_content() == word
    # A tag: the rows are those over which its spans lie.
    tag = next(t for t in record["tags"] if t["segments"][0]["start"] > 1)
    page.locator("#search").fill(tag["name"])
    expected = [
        each["text"]
        for each in record["segments"]
        if tag["name"] in each["text"]
        or any(named["name"] == tag["name"] for named in each["tags"])
        or any(s["start"] < each["end"] and s["end"] > each["start"] for s in tag["segments"])
    ]
    assert rows(page) == expected
    assert page.locator("#count").text_content() == f"{len(expected)} of {len(texts)} segments"
    lanes = page.locator(".tag-lane:not([hidden]) .label > span:first-child").all_text_contents()
    assert tag["name"] in lanes and all(tag["name"] in name for name in lanes)
    page.locator("#search").fill("zeppelin")
    assert rows(page) == []
    assert page.get_by_text("Nothing in this video matches.").is_visible()
    page.keyboard.press("Escape")
    assert rows(page) == texts


def test_captions_can_be_copied(film: Path, open_page: OpenPage) -> None:
    page = open_page(film, permissions=["clipboard-read", "clipboard-write"])
    segments = record_of(film)["segments"]
    page.get_by_role("button", name="Copy", exact=True).click()
    text = page.evaluate("navigator.clipboard.readText()")
    assert [line.split("\t")[1] for line in text.splitlines()] == [s["text"] for s in segments]
    assert text.startswith("0:00.0\t")
    page.locator("#rows .copy").nth(1).click()
    wait_until(
        page, f"navigator.clipboard.readText().then((text) => text === {segments[1]['text']!r})"
    )


def test_names_and_captions_are_text(output: Path, open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(output / f"{Path(ATTACK).stem}.html")
    wait_until(page, READY)
    assert page.title() == ATTACK
    assert page.locator("h1").text_content() == ATTACK
    record = record_of(output / f"{Path(ATTACK).stem}.html")
    evil = "</script><script>alert(1)</script><b>&amp;"
    for number, part in enumerate(record["segments"]):
        part["text"] = f"{number} {evil}"  # neighbours that say the same would be one row
        part["tags"] = [{"name": evil, "type": "noun", "confidence": 0.5}]
    for tag in record["tags"]:
        tag["name"] = evil
    record |= {"status": "partial", "error": {"code": "cut_off", "message": evil}}
    (tmp_path / "evil.html").write_text(render(page_data(record)))
    page = open_page(tmp_path / "evil.html")
    said = [part["text"] for part in record["segments"]]
    assert rows(page) == said
    note = page.locator("main > .notice").text_content()
    assert note == f"Only a part of this video could be read: {evil}."
    page.locator("#search").fill("alert(1)")
    assert rows(page) == said
    assert page.locator(".tag-lane .label > span").first.text_content() == evil
    cue = "document.getElementById('video').textTracks[0].cues[0].getCueAsHTML().textContent"
    assert page.evaluate(cue) == said[0]


# --- many, small, and for all --------------------------------------------------------------


def many_segments(count: int) -> dict[str, Any]:
    dice = random.Random(0)
    words = ["a", "dog", "runs", "snow", "man", "red", "ball", "grass", "child", "jumps", "water"]
    segments: list[dict[str, Any]] = []
    for place in range(count):
        start = segments[-1]["end"] if segments else 0.0
        segments.append(
            {
                "start": start,
                "end": round(start + dice.uniform(0.5, 9), 3),
                "text": f"number {place:03} " + " ".join(dice.sample(words, 8)),
                "confidence": dice.random(),
                "tags": [],
            }
        )
    tags = [
        {
            "name": name,
            "type": "noun",
            "confidence": 0.5,
            "coverage": 0.3,
            "segments": [
                {"start": each["start"], "end": each["end"], "confidence": dice.random()}
                for each in segments
                if dice.random() < 0.3
            ],
        }
        for name in [*words, "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    ]
    video = {"file_name": "long.mp4", "duration_s": segments[-1]["end"], "width": 64, "height": 48}
    about = {"status": "ok", "error": None, "model": {}, "shots": [{"start": 0, "end": 1}]}
    return {**about, "video": video, "segments": segments, "tags": tags}


def test_a_thousand_segments(open_page: OpenPage, tmp_path: Path) -> None:
    data = io.BytesIO()
    noise(3, 112, 84).save(data, "JPEG")
    record = many_segments(1000)
    path = tmp_path / "long.html"
    path.write_text(render(page_data(record, None, [data.getvalue()] * 1000)))
    page = open_page(path)
    wait_until(page, "document.querySelectorAll('#rows li').length >= 1000")
    # They can be hit: two dozen pixels each, on average.
    widths = "[...document.querySelectorAll('.segments .track button')].map((e) => e.offsetWidth)"
    found = page.evaluate(widths)
    assert sum(found) / len(found) > 20 and min(found) >= 3
    page.locator(".segments .track button").nth(500).click()
    assert page.locator("#now-text").text_content() == record["segments"][500]["text"]
    # The transcript goes there as well, and images are made where they are seen only.
    in_sight = (
        "(() => { const row = document.querySelector('#rows li.current').getBoundingClientRect(), "
        "box = document.getElementById('rows').getBoundingClientRect(); "
        "return row.top >= box.top - 1 && row.bottom <= box.bottom + 1; })()"
    )
    wait_until(page, in_sight)
    assert page.evaluate("document.querySelectorAll('#rows img[src]').length") < 100
    page.locator("#search").fill("number 077")
    assert rows(page) == [record["segments"][77]["text"]]
    page.keyboard.press("Enter")
    assert page.locator("#now-text").text_content() == record["segments"][77]["text"]
    page.get_by_role("button", name="Fit").click()
    assert page.evaluate("lanes.scrollWidth <= lanes.clientWidth")
    assert page.evaluate(f"Math.min(...{widths})") >= 3


@pytest.mark.parametrize("calibrated", [True, False])
def test_what_is_not_calibrated_is_called_so(
    open_page: OpenPage, tmp_path: Path, calibrated: bool
) -> None:
    record = many_segments(4)
    record["model"] = {"calibrated": calibrated}
    path = tmp_path / "a.html"
    path.write_text(render(page_data(record)))
    title = open_page(path).locator(".segments .track button").first.get_attribute("title")
    assert ("sure (not calibrated)" in title) is not calibrated


def test_neighbours_with_one_caption_share_a_row(open_page: OpenPage, tmp_path: Path) -> None:
    record = many_segments(4)
    first, second, third, _ = record["segments"]
    second["text"] = third["text"] = first["text"] = "zebras cross"
    path = tmp_path / "a.html"
    path.write_text(render(page_data(record)))
    page = open_page(path)
    assert rows(page) == ["zebras cross", record["segments"][3]["text"]]
    assert page.locator(".segments .track button").count() == 4
    assert page.locator("#count").text_content() == "4 segments"
    page.locator(".segments .track button").nth(1).click()
    assert page.locator("#rows li.current .what").text_content() == "zebras cross"
    page.locator("#search").fill("zebras")
    assert page.locator("#count").text_content() == "3 of 4 segments"
    assert page.locator(".segments .track button.other").count() == 1


@pytest.mark.parametrize("width", [320, 390, 900, 1240])
def test_nothing_is_wider_than_the_window(
    output: Path, film: Path, open_page: OpenPage, width: int
) -> None:
    for path in (film, output / "index.html"):
        page = open_page(path, viewport={"width": width, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        unnamed = page.evaluate(
            "[...document.querySelectorAll('button, a, input, select')].filter((e) => "
            "!(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).length"
        )
        assert unnamed == 0


@pytest.mark.parametrize("system", ["light", "dark"])
def test_the_pages_are_accessible(
    output: Path, film: Path, open_page: OpenPage, system: str
) -> None:
    for path in (film, output / "index.html"):
        page = open_page(path, color_scheme=system)
        assert axe_findings(page) == {}


# --- the index -----------------------------------------------------------------------------


def test_the_index_leads_to_the_pages(output: Path, open_page: OpenPage) -> None:
    page = open_page(output / "index.html")
    assert names(page) == [ATTACK, "old.avi", "sub/vp9.webm", "sub/ü b&c.mp4", "text.mp4"]
    wait_until(page, "[...document.images].every((each) => each.naturalWidth > 0)")
    assert page.evaluate("document.images.length") == 4
    failed = page.locator(".video").last
    assert failed.locator(".error").text_content() == "not a video that can be read"
    assert failed.get_by_role("link").count() == 0
    assert page.locator(".length").first.text_content() == "0:06"
    for name in (ATTACK, "sub/ü b&c.mp4"):
        page.goto((output / "index.html").as_uri())
        page.get_by_role("link", name=name, exact=True).click()
        wait_until(page, READY)
        assert page.title() == name
        page.get_by_role("link", name="All videos").click()
        assert page.title() == "Videos"


def test_the_index_is_searched_and_filtered(output: Path, open_page: OpenPage) -> None:
    page = open_page(output / "index.html")
    lines = [json.loads(x) for x in (output / "tags.jsonl").read_text("utf-8").splitlines()]
    tags = {line["file_name"]: {tag["name"] for tag in line["tags"]} for line in lines}
    shown = page.locator("#tags button").all_text_contents()
    counts = {
        name: sum(name in each for each in tags.values()) for name in set().union(*tags.values())
    }
    assert {text.split()[0]: int(text.split()[1]) for text in shown} == counts
    assert [int(text.split()[1]) for text in shown] == sorted(counts.values(), reverse=True)
    # A tag that not all have, if there is one.
    first = min(counts, key=lambda name: (counts[name], name))
    facet = page.locator("#tags").get_by_role("button", name=re.compile(rf"^{first} \d"))
    facet.click()
    expected = [name for name in tags if first in tags[name]]
    assert names(page) == sorted(expected, key=list(tags).index) != []
    assert facet.get_attribute("aria-pressed") == "true"
    assert page.evaluate("document.activeElement.dataset.name") == first
    page.get_by_role("button", name="Clear filters").click()
    assert len(names(page)) == 5
    for text, wanted in (
        ("VP9", ["sub/vp9.webm"]),
        ("cannot be read", []),
        ("can be read", ["text.mp4"]),
        (f"{first} old.avi", ["old.avi"] if first in tags["old.avi"] else []),
    ):
        page.locator("#search").fill(text)
        assert names(page) == wanted
    assert page.get_by_text("No videos match.").is_visible() == (names(page) == [])
    page.keyboard.press("Escape")
    page.locator("#show").select_option("failed")
    assert names(page) == ["text.mp4"]
    page.locator("#show").select_option("all")
    page.locator("#sort").select_option("shortest")
    assert names(page)[0] == "old.avi" and names(page)[-1] == "text.mp4"


def test_a_thousand_videos(open_page: OpenPage, tmp_path: Path) -> None:
    dice = random.Random(0)
    words = [f"tag{place}" for place in range(80)]
    lines = [
        {
            "file_name": f"trip/clip {place}.mp4",
            "status": "ok",
            "error": None,
            "duration_s": dice.uniform(1, 9000),
            "segments": place,
            "tags": [
                {"name": name, "confidence": 0.5, "coverage": 0.5}
                for name in dice.sample(words, 20)
            ],
        }
        for place in range(1000)
    ]
    TagPages(tmp_path).write_index(lines)
    page = open_page(tmp_path / "index.html")
    assert page.locator("#count").text_content() == "1,000 videos"
    assert page.locator("#tags button").count() == 30
    page.locator("#search").fill("clip 999")
    assert names(page) == ["trip/clip 999.mp4"]
    page.locator("#search").fill("")
    assert len(names(page)) == 120
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    wait_until(page, "document.querySelectorAll('.video').length > 120")
    page.locator("#tags button").first.click()
    page.locator("#tags button").nth(1).click()
    chosen = page.locator("#tags [aria-pressed=true] span:first-child").all_text_contents()
    expected = sum(set(chosen) <= {tag["name"] for tag in line["tags"]} for line in lines)
    assert page.locator("#count").text_content() == f"{expected} of 1,000 videos"


# --- the whole way -------------------------------------------------------------------------


def test_the_example_film_with_the_shipped_model(tmp_path: Path, open_page: OpenPage) -> None:
    arguments = ["tag", str(EXAMPLES / "slideshow.mp4"), "--output-dir", str(tmp_path)]
    assert main([*arguments, "--format", "html,json", "--quiet"]) == 0
    page = open_page(tmp_path / "slideshow.html")
    wait_until(page, READY)
    record = record_of(tmp_path / "slideshow.html")
    assert [each["start"] for each in record["segments"]] == [0.0, 4.0, 7.0, 10.48]
    for place in (2, 3):
        page.locator(".row").nth(place).click()
        assert now_of(page) == pytest.approx(record["segments"][place]["start"], abs=0.1)
    # The image of a segment is one of that segment: the third is a rocket at night.
    images = page.evaluate("page.data.thumbnails")
    from PIL import Image, ImageStat

    means = [
        ImageStat.Stat(Image.open(io.BytesIO(b64decode(each))).convert("L")).mean[0]
        for each in images
    ]
    assert means.index(min(means)) == 2
