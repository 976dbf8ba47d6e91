"""Files of video tags: exact contents, read back by the formats' own strict readers."""

from __future__ import annotations

import copy
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from captioner.files.writing import replace_file
from captioner.tagging.writers import TAG_WRITERS, summary_line
from helpers.tag_records import (
    DOG,
    FAILED,
    NOTE,
    PARTIAL,
    UNTAGGED,
    named,
    record,
    segment,
    text_of,
    video_tag,
)

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "video-tags.md").read_text("utf-8")
SCHEMA = json.loads((DOCS / "video-tags.schema.json").read_text("utf-8"))
SCHEMA_OF_RECORDS = jsonschema.Draft202012Validator(SCHEMA)

# --- JSON and its schema -------------------------------------------------------------------


def test_json_is_indented_and_its_keys_are_in_order() -> None:
    text = text_of("json", record())
    assert json.loads(text) == record()
    assert " ".join(json.loads(text)) == (
        "schema status error video model settings shots segments frames tags"
    )
    assert text.startswith(
        '{\n  "schema": "captioner-video-2",\n  "status": "ok",\n  "error": null,\n'
        '  "video": {\n    "file_name": "trips/käse.mp4",\n    "duration_s": 7.04,\n'
    )
    assert text.endswith("  ]\n}\n")


def test_json_has_no_numbers_that_json_has_not() -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            text_of("json", record(model={"loss": value}))


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("values", [record(), PARTIAL, FAILED, record(tags=[])])
def test_records_are_valid(values: dict[str, Any]) -> None:
    SCHEMA_OF_RECORDS.validate(json.loads(text_of("json", values)))


WRONG: list[tuple[tuple[str | int, ...], Any]] = [
    (("schema",), "captioner-video-1"),
    (("status",), "fine"),
    (("status",), "partial"),  # without an error
    (("status",), "failed"),  # with frames
    (("error",), {"code": "cut_off", "message": "it is"}),  # with the status ok
    (("new",), 1),
    (("video", "new"), 1),
    (("video", "file_name"), ""),
    (("video", "width"), 0),
    (("video", "rotation"), 45),
    (("video", "is_vfr"), 1),
    (("shots",), []),
    (("shots", 0, "start"), -0.001),
    (("shots", 0, "new"), 1),
    (("frames",), []),
    (("frames", 0, "time"), "0:01"),
    (("frames", 0, "frame_index"), 0.5),
    (("frames", 0, "new"), 1),
    (("segments",), []),
    (("segments", 0, "confidence"), 1.01),
    (("segments", 0, "avg_logprob"), 0.1),
    (("segments", 0, "frames"), []),
    (("segments", 0, "frames"), [1, 1]),
    (("segments", 0, "tags", 0, "score"), 1.0),
    (("tags", 0, "type"), "adverb"),
    (("tags", 0, "coverage"), 1.01),
    (("tags", 0, "score"), -0.1),
    (("tags", 0, "segments"), []),
    (("tags", 0, "segments", 0, "end"), None),
    (("model",), None),
    (("model", "calibrated"), None),
]


@pytest.mark.parametrize(("path", "value"), WRONG)
def test_the_schema_refuses_what_is_wrong(path: tuple[str | int, ...], value: Any) -> None:
    values = copy.deepcopy(record())
    place: Any = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert not SCHEMA_OF_RECORDS.is_valid(values)


def test_the_schema_wants_every_field() -> None:
    def without_one(values: Any) -> Any:
        for key in values if isinstance(values, dict) else range(len(values)):
            if isinstance(values, dict):
                yield {name: value for name, value in values.items() if name != key}
            if isinstance(values[key], dict | list) and key not in ("model", "settings", "tags"):
                for less in without_one(values[key]):
                    yield {**values, key: less} if isinstance(values, dict) else [less]

    found = [less for less in without_one(record()) if SCHEMA_OF_RECORDS.is_valid(less)]
    assert found == []


def in_guide(language: str) -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    return block


def test_the_guides_example_is_what_the_writers_write() -> None:
    values = json.loads(in_guide("json"))
    SCHEMA_OF_RECORDS.validate(values)
    for format in ("json", "srt", "txt"):
        assert text_of(format, values) == in_guide(format)


def test_the_guide_and_the_schema_name_the_same_errors() -> None:
    codes = SCHEMA["$defs"]["error"]["properties"]["code"]["enum"]
    assert [code for code in codes if f"`{code}`" not in GUIDE] == []


# --- CSV -----------------------------------------------------------------------------------


def test_csv() -> None:
    assert text_of("csv", record()) == (
        "file_name,tag,type,confidence,coverage,start,end,span_confidence\r\n"
        "trips/käse.mp4,ride,verb,0.5012,0.5739,3.0,7.04,0.8\r\n"
        "trips/käse.mp4,dog,noun,0.9,0.9858,0.0,3.0,0.8\r\n"
        "trips/käse.mp4,dog,noun,0.9,0.9858,3.1,7.04,0.8\r\n"
    )
    assert text_of("csv", UNTAGGED) == (
        "file_name,tag,type,confidence,coverage,start,end,span_confidence\r\n"
    )


NAMES = ['a, "b".mp4', "a\r\nb.mp4", "猫/ä.mp4", "=1+1.mp4", "@x.mp4", "-x.mp4", "+x", "\tx", "\rx"]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_in_csv(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    replace_file(path, text_of("csv", named(name)))
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file, strict=True))
    assert {len(row) for row in rows} == {8}
    assert {row[0] for row in rows[1:]} == {"'" + name if name[0] in "=@-+\t\r" else name}


def test_odd_tags_in_csv() -> None:
    tag = {**DOG, "name": '=HYPERLINK("x")'}
    text = text_of("csv", record(tags=[video_tag(tag, 1.0, (0.0, 1.0))]))
    assert list(csv.reader(io.StringIO(text, newline="")))[1][1] == "'" + tag["name"]


# --- the summary ---------------------------------------------------------------------------


def test_txt() -> None:
    assert text_of("txt", record()) == (
        "trips/käse.mp4\n"
        "0:00:07, 1280x720\n"
        "Status: ok\n"
        "\n"
        "Tags, each with its share of the time:\n"
        " 57%  ride (verb)\n"
        " 99%  dog (noun)\n"
        "\n"
        "What it shows, and how sure that is:\n"
        "0:00.0-0:03.0  72%  a dog\n"
        "0:03.0-0:07.0  50%  a man in a red shirt rides a bike along a dirt road\n"
    )


def test_txt_says_what_is_missing() -> None:
    assert text_of("txt", PARTIAL).splitlines()[:3] == [
        "trips/käse.mp4",
        "0:00:07, 1280x720",
        "Status: partial (it ends after 7.04 s, and 90.00 s were announced)",
    ]
    assert text_of("txt", FAILED) == (
        "a.mp4\n0:00:00\nStatus: failed (empty file)\n\nNo tags.\n\nNo segments.\n"
    )


def test_times_in_txt_carry_over_and_line_up() -> None:
    segments = [
        segment(0.04, 59.96, "a"),
        segment(59.96, 599.94, "b", 1.0),
        segment(599.94, 3599.96, "c", 0.0),
        segment(3599.96, 36061.0, "d"),
    ]
    video = {**record()["video"], "duration_s": 36059.7}
    lines = text_of("txt", record(segments=segments, video=video)).splitlines()
    assert lines[1] == "10:01:00, 1280x720"
    assert lines[-4:] == [
        "       0:00.0-1:00.0  72%  a",
        "       1:00.0-9:59.9 100%  b",
        "    9:59.9-1:00:00.0   0%  c",
        "1:00:00.0-10:01:01.0  72%  d",
    ]


def test_names_and_texts_cannot_break_the_lines_of_txt() -> None:
    odd = {**named("a\nb\x1b[31m\u202e.mp4"), "segments": [segment(0, 1, "a\tdog\nruns")]}
    lines = text_of("txt", odd).splitlines()
    assert lines[0] == "a\\nb\\x1b[31m\\u202e.mp4"
    assert lines[-1] == "0:00.0-0:01.0  72%  a\\tdog\\nruns"


# --- all of them ---------------------------------------------------------------------------


def test_every_format_is_in_the_registry_under_its_name() -> None:
    assert list(TAG_WRITERS) == ["json", "srt", "vtt", "csv", "txt", "html"]
    for name, writer in TAG_WRITERS.items():
        assert (writer.format, writer.suffix) == (name, f".{name}")
        assert writer.summary


def test_unsure_segments_have_no_subtitle() -> None:
    for format, cues in (("srt", 1), ("vtt", 1)):
        assert text_of(format, record(), min_confidence=0.51).count("-->") == cues
        assert text_of(format, record(), min_confidence=0.5).count("-->") == cues + 1
    assert text_of("txt", record(), min_confidence=1.0) == text_of("txt", record())
    nothing = record(segments=[{**segment(0.0, 3.0, "", 0.0), "text": None, "avg_logprob": None}])
    SCHEMA_OF_RECORDS.validate(nothing)
    assert "-->" not in text_of("srt", nothing) + text_of("vtt", nothing).partition(NOTE)[2]
    assert "\n0:00.0-0:03.0       nothing to see\n" in text_of("txt", nothing)
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="give a number from 0 to 1"):
            TAG_WRITERS["srt"](min_confidence=wrong)


@pytest.mark.parametrize("format", list(TAG_WRITERS))
@pytest.mark.parametrize("values", [record(), PARTIAL, FAILED, UNTAGGED])
def test_writing_changes_no_record(format: str, values: dict[str, Any]) -> None:
    before = copy.deepcopy(values)
    writer = TAG_WRITERS[format]()
    assert writer.text(values) == writer.text(values)
    assert values == before


def test_summary_line() -> None:
    assert summary_line(PARTIAL) == {
        "file_name": "trips/käse.mp4",
        "status": "partial",
        "error": {
            "code": "cut_off",
            "message": "it ends after 7.04 s, and 90.00 s were announced",
        },
        "duration_s": 7.04,
        "segments": 2,
        "calibrated": True,
        "tags": [
            {"name": "ride", "type": "verb", "confidence": 0.5012, "coverage": 0.5739},
            {"name": "dog", "type": "noun", "confidence": 0.9, "coverage": 0.9858},
        ],
    }
    assert summary_line(FAILED)["tags"] == []
