"""Unsure captions and empty frames on pages, in a real browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from captioner.pages.report import write_report
from captioner.pages.report_job import ReportJob
from captioner.pages.video_page import page_data, render
from helpers.browser import OpenPage
from helpers.images import noise

CONFIDENCES = {"a.png": 0.9, "b.png": 0.24, "c.png": 0.25, "d.png": 0.02}


@pytest.fixture
def report(tmp_path: Path) -> Path:
    folder = tmp_path / "holiday"
    folder.mkdir()
    records: list[dict[str, Any]] = []
    for index, (name, confidence) in enumerate(CONFIDENCES.items()):
        noise(index, 60, 40).save(folder / name)
        records.append({"file_name": name, "text": f"a dog {index}", "confidence": confidence})
    records[3]["calibrated"] = False
    records[0]["candidates"] = [
        {"text": text, "avg_logprob": -1.0, "words": []}
        for text in ("a dog 0", "a dog 0 in the snow", "the cat", "this is a dog 0", "the cat sits")
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "captions.jsonl").write_text(lines)
    write_report(ReportJob(folder / "captions.jsonl", tmp_path / "report.html"))
    return tmp_path / "report.html"


def names(page: Any) -> list[str]:
    found: list[str] = page.locator(".card .name").all_text_contents()
    return found


def test_unsure_captions_are_marked_and_can_be_hidden(open_page: OpenPage, report: Path) -> None:
    page = open_page(report)
    assert page.title() == page.locator("h1").text_content() == "holiday"
    assert page.locator(".card.unsure .name").all_text_contents() == ["b.png"]
    assert page.locator(".card.unsure .doubt").all_text_contents() == ["unsure"]
    sure, unsure = (
        page.locator(f".card{kind} .caption").first.evaluate("(e) => getComputedStyle(e).color")
        for kind in ("", ".unsure")
    )
    assert sure != unsure
    page.get_by_label("Hide unsure").check()
    assert names(page) == ["a.png", "c.png", "d.png"]
    page.get_by_role("button", name="Clear filters").click()
    assert names(page) == list(CONFIDENCES)
    # Who corrects a caption is sure of it.
    card = page.locator(".card").nth(1)
    card.hover()
    card.get_by_role("button", name="Edit").click()
    page.get_by_label("Caption", exact=True).fill("two dogs")
    page.keyboard.press("Enter")
    assert page.locator(".card.unsure").count() == 0


def test_a_card_shows_what_differs_and_the_details_lead_to_the_file(
    open_page: OpenPage, report: Path
) -> None:
    page = open_page(report)
    assert page.locator(".card .others li").all_text_contents() == ["the cat", "the cat sits"]
    card = page.locator(".card").first
    actions = card.locator(".actions")
    page.mouse.move(0, 0)
    assert actions.evaluate("(e) => getComputedStyle(e).opacity") == "0"
    card.hover()
    assert actions.evaluate("(e) => getComputedStyle(e).opacity") == "1"
    assert card.locator("img").evaluate("(e) => getComputedStyle(e).objectFit") == "cover"
    card.get_by_role("button", name="Details").click()
    link = page.get_by_role("link", name="Open the file")
    assert link.get_attribute("href") == "holiday/a.png"


def test_unsure_segments_and_empty_ones(open_page: OpenPage, tmp_path: Path) -> None:
    video = {"file_name": "a.mp4", "duration_s": 12.0, "width": 640, "height": 360}
    said = [("a dog runs", 0.8), ("a man in the snow", 0.01), (None, 0.0)]
    segments = [
        {
            "start": 4.0 * place,
            "end": 4.0 * place + 4,
            "text": text,
            "confidence": confidence,
            "tags": [],
        }
        for place, (text, confidence) in enumerate(said)
    ]
    shots = [{"start": 0.0, "end": 12.0}]
    record = {"video": video, "segments": segments, "shots": shots, "tags": [], "model": {}}
    data = page_data({**record, "status": "ok", "error": None})
    (tmp_path / "a.html").write_text(render({**data, "unsure_below": 0.25}))
    page = open_page(tmp_path / "a.html")

    def rows() -> list[str]:
        return [each.text_content() for each in page.locator("#rows li:not([hidden]) .what").all()]

    assert rows() == ["a dog runs", "a man in the snow", "Nothing to see"]
    assert page.locator("#rows li.unsure .when").text_content() == (
        "0:04.0 – 0:08.0 · 1% sure · unsure"
    )
    assert page.locator("#rows li.nothing .when").text_content() == "0:08.0 – 0:12.0"
    cues = "[...document.getElementById('video').textTracks[0].cues].map((cue) => cue.text)"
    assert page.evaluate(cues) == ["a dog runs"]
    page.get_by_role("button", name="Hide unsure").click()
    assert rows() == ["a dog runs", "Nothing to see"]
    assert page.locator("#count").text_content() == "2 of 3 segments"
    page.get_by_role("button", name="Hide unsure").click()
    assert len(rows()) == 3
    # Where the blocks are too narrow there is no text in them.
    text = page.locator(".segments .what > span").first
    assert text.is_visible()
    page.set_viewport_size({"width": 390, "height": 700})
    assert not text.is_visible()
