"""Videos captioned in several languages: subtitles of each, one record, one page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import srt

from captioner.cli.entry import main
from captioner.tagging.writers import TAG_WRITERS
from helpers.browser import OpenPage
from helpers.languages import write_languages
from helpers.models import make_talker
from helpers.tag_records import record, segment

CLIP = Path(__file__).parents[2] / "data" / "examples" / "slideshow.mp4"
SCHEMA = Path(__file__).parents[2] / "docs" / "video-tags.schema.json"
SEGMENTS = [
    segment(0, 3, "a dog") | {"other_languages": {"ar": {"text": "كلب يركض.", "confidence": 0.5}}},
    segment(3, 4, "a cat") | {"other_languages": {"ar": {"text": "كلب يركض.", "confidence": 0.9}}},
]
MODEL = {"sha256": "00", "language": "en", "other_languages": {"ar": "01"}}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all files of the example clip, in German, Arabic and Chinese."""
    folder = tmp_path_factory.mktemp("tags")
    shutil.copy(CLIP, folder / "clip.mp4")
    model = make_talker()
    model.save(folder / "model.safetensors", half=False)
    languages = ",".join(map(str, write_languages(model, folder, "de", "ar", "zh")))
    options = ["--model", str(folder / "model.safetensors"), "--device", "cpu", "--quiet"]
    options += ["--language", languages, "--max-length", "5", "--output-dir", str(folder / "out")]
    assert main(["tag", str(folder / "clip.mp4"), *options]) == 0
    return folder / "out"


def read(results: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((results / "clip.json").read_text("utf-8"))
    return found


def test_each_language_has_subtitles_as_players_look_for_them(results: Path) -> None:
    names = {path.name for path in results.glob("clip.*")}
    assert names == {
        *("clip.json", "clip.csv", "clip.txt", "clip.html"),
        *(f"clip.{language}.{kind}" for language in ("de", "ar", "zh") for kind in ("srt", "vtt")),
    }
    segments = read(results)["segments"]
    for language in ("de", "ar", "zh"):
        said = [
            each["text"] if language == "de" else each["other_languages"][language]["text"]
            for each in segments
        ]
        shown = srt.parse((results / f"clip.{language}.srt").read_text("utf-8"))
        texts = {cue.content.replace("\n", "" if language == "zh" else " ") for cue in shown}
        assert texts == set(said)


def test_a_record_has_the_captions_of_all_languages(results: Path) -> None:
    found = read(results)
    jsonschema.validate(found, json.loads(SCHEMA.read_text("utf-8")))
    assert found["model"]["language"] == "de"
    assert list(found["model"]["other_languages"]) == ["ar", "zh"]
    for each in found["segments"]:
        assert list(each["other_languages"]) == ["ar", "zh"]


def test_subtitles_and_summary_of_another_language() -> None:
    about = record(segments=SEGMENTS, model=MODEL)
    writer = TAG_WRITERS["srt"](language="ar", is_first=False, min_confidence=0.6)
    assert writer.suffix == ".ar.srt"
    # Sure by (3 * 0.5 + 1 * 0.9) / 4 = 0.6, from the one segment into the other.
    assert writer.text(about) == "1\n00:00:00,000 --> 00:00:04,000\nكلب يركض.\u200f\n"
    english = TAG_WRITERS["vtt"](language="en")
    assert english.suffix == ".en.vtt" and "a dog" in english.text(about)
    assert TAG_WRITERS["txt"](language="en").suffix == ".txt"
    assert (
        TAG_WRITERS["txt"]()
        .text(about)
        .endswith(
            "0:00.0-0:03.0  72%  a dog\n0:03.0-0:04.0  72%  a cat\n\n"
            "In Arabic:\n0:00.0-0:04.0  60%  كلب يركض.\n"
        )
    )


def test_a_page_in_one_language_at_a_time(open_page: OpenPage, results: Path) -> None:
    page = open_page(results / "clip.html")
    segments = read(results)["segments"]

    def rows() -> set[tuple[str | None, str | None, str | None]]:
        return {
            (each.get_attribute("lang"), each.get_attribute("dir"), each.text_content())
            for each in page.locator("#rows .what").all()
        }

    assert rows() == {("de", "ltr", each["text"]) for each in segments}
    assert page.locator("#language option").all_text_contents() == ["Deutsch", "العربية", "中文"]
    page.locator("#language").select_option("ar")
    page.locator("#rows .what[lang=ar]").first.wait_for()
    assert rows() == {("ar", "rtl", each["other_languages"]["ar"]["text"]) for each in segments}
    track = "document.getElementById('video').textTracks[0].language"
    assert page.evaluate(track) == "ar"
    assert page.locator("#now-text").get_attribute("dir") == "rtl"
