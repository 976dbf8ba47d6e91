"""Files of video tags: exact contents, read back by the formats' own strict readers."""

from __future__ import annotations

import copy
import csv
import html
import io
import json
import re
import unicodedata
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import srt
import webvtt
from hypothesis import example, given
from hypothesis import strategies as st

from captioner.files.writing import replace_file
from captioner.tagging.passages import passages
from captioner.tagging.writers import (
    LINE_LENGTH,
    LONGEST_CUE_MS,
    TAG_WRITERS,
    make_cues,
    summary_line,
)

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "video-tags.md").read_text("utf-8")
SCHEMA = json.loads((DOCS / "video-tags.schema.json").read_text("utf-8"))
SCHEMA_OF_RECORDS = jsonschema.Draft202012Validator(SCHEMA)

DOG = {"name": "dog", "type": "noun", "confidence": 0.9}
RIDE = {"name": "ride", "type": "verb", "confidence": 0.5012}


def segment(start: float, end: float, text: str, confidence: float = 0.72) -> dict[str, Any]:
    return {
        "start": start,
        "end": end,
        "shot": 0,
        "text": text,
        "confidence": confidence,
        "avg_logprob": -0.3285,
        "agreement": 1.0,
        "frames": [0],
        "tags": [DOG],
    }


def video_tag(tag: dict[str, Any], coverage: float, *spans: tuple[float, float]) -> dict[str, Any]:
    return {
        **tag,
        "coverage": coverage,
        "score": 1.25,
        "segments": [
            {"start": start, "end": end, "confidence": 0.8, "frames": [0]} for start, end in spans
        ],
    }


def record(**changes: Any) -> dict[str, Any]:
    """A clip of seven seconds with a cut, and whatever is said to be different."""
    return {
        "schema": "captioner-video-2",
        "status": "ok",
        "error": None,
        "video": {
            "file_name": "trips/käse.mp4",
            "duration_s": 7.04,
            "width": 1280,
            "height": 720,
            "rotation": 0,
            "average_fps": 29.97,
            "is_vfr": False,
            "frame_count": 211,
            "decode_failures": 0,
        },
        "shots": [{"start": 0.0, "end": 3.0}, {"start": 3.0, "end": 7.04}],
        "segments": [
            segment(0.0, 3.0, "a dog"),
            segment(3.0, 7.04, "a man in a red shirt rides a bike along a dirt road", 0.5),
        ],
        "frames": [
            {
                "time": 0.0,
                "frame_index": 0,
                "shot": 0,
                "text": "a dog",
                "confidence": 0.72,
                "avg_logprob": -0.3285,
                "tags": [DOG, RIDE],
            }
        ],
        "tags": [
            video_tag(RIDE, 0.5739, (3.0, 7.04)),
            video_tag(DOG, 0.9858, (0.0, 3.0), (3.1, 7.04)),
        ],
        "model": {"encoder": "lite0", "calibrated": True},
        "settings": {"sampling": {"fps": 1.0}},
        **changes,
    }


def named(name: str) -> dict[str, Any]:
    return record(video={**record()["video"], "file_name": name})


PARTIAL = record(
    status="partial",
    error={"code": "cut_off", "message": "it ends after 7.04 s, and 90.00 s were announced"},
)
FAILED = record(
    status="failed",
    error={"code": "empty_file", "message": "empty file"},
    video={**dict.fromkeys(record()["video"]), "file_name": "a.mp4", "duration_s": 0.0},
    shots=[],
    segments=[],
    frames=[],
    tags=[],
)
UNTAGGED = record(tags=[], segments=[])


def text_of(format: str, values: dict[str, Any], **options: Any) -> str:
    return TAG_WRITERS[format](**options).text(values)


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


# --- SRT and WebVTT ------------------------------------------------------------------------

NOTE = 'NOTE What the video shows, told by a program; for <track kind="descriptions">\n'


def test_srt() -> None:
    assert text_of("srt", record()) == (
        "1\n00:00:00,000 --> 00:00:03,000\na dog\n"
        "\n2\n00:00:03,000 --> 00:00:07,040\n"
        "a man in a red shirt rides\na bike along a dirt road\n"
    )


def test_vtt() -> None:
    assert text_of("vtt", record()) == (
        f"WEBVTT\n\n{NOTE}"
        "\n1\n00:00:00.000 --> 00:00:03.000\na dog\n"
        "\n2\n00:00:03.000 --> 00:00:07.040\n"
        "a man in a red shirt rides\na bike along a dirt road\n"
    )


def test_subtitles_of_nothing_are_valid_files() -> None:
    assert text_of("srt", UNTAGGED) == ""
    assert text_of("vtt", UNTAGGED) == f"WEBVTT\n\n{NOTE}"
    assert list(srt.parse("", ignore_errors=False)) == []
    assert len(webvtt.WebVTT.from_string(text_of("vtt", UNTAGGED), strict=True)) == 0
    assert strict_vtt(text_of("vtt", UNTAGGED)) == []


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


def cues(*segments: dict[str, Any]) -> list[tuple[int, int, str]]:
    return [(cue.start_ms, cue.end_ms, "|".join(cue.lines)) for cue in make_cues(segments)]


def test_a_cue_ends_after_seven_seconds() -> None:
    assert cues(segment(1.0, 8.0, "a dog"), segment(8.0, 60.0, "a cat")) == [
        (1000, 8000, "a dog"),
        (8000, 15000, "a cat"),
    ]


def test_neighbours_with_one_caption_have_one_subtitle_and_one_line() -> None:
    parts = [
        segment(0.0, 2.0, "a dog", 0.9),
        segment(2.0, 5.0, "a dog", 0.4),
        segment(5.0, 6.0, "a cat", 0.5),
        segment(6.5, 7.0, "a cat", 0.5),
    ]
    assert cues(*parts) == [(0, 5000, "a dog"), (5000, 6000, "a cat"), (6500, 7000, "a cat")]
    # In the mean over its time the first is sure by (2 * 0.9 + 3 * 0.4) / 5.
    assert [cue.start_ms for cue in make_cues(parts, 0.6)] == [0]
    assert make_cues(parts, 0.61) == []
    assert text_of("txt", record(segments=parts)).endswith(
        "0:00.0-0:05.0  60%  a dog\n0:05.0-0:06.0  50%  a cat\n0:06.5-0:07.0  50%  a cat\n"
    )


def test_a_long_text_shares_the_time_of_its_segment() -> None:
    x, y, z = "x" * 30, "y" * 30, "z" * 15
    assert cues(segment(2.0, 4.0, f"{x} {y} {z}")) == [
        (2000, 3600, f"{x}|{y}"),
        (3600, 4000, z),
    ]
    # Each for seven seconds of its share at most.
    assert cues(segment(0.0, 20.0, f"{x} {y} {z}")) == [
        (0, 7000, f"{x}|{y}"),
        (16000, 20000, z),
    ]


def test_a_long_text_is_spread_evenly() -> None:
    text = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    assert cues(segment(2.0, 4.0, f"{text} fifteen")) == [
        (2000, 3255, "one two three four five six|seven eight nine ten eleven"),
        (3255, 4000, "twelve thirteen fourteen fifteen"),
    ]


def test_lines_are_balanced_and_no_word_stands_alone() -> None:
    text = "a young boy in a blue shirt is jumping high"
    assert len(text) == 43
    assert cues(segment(0, 1, text)) == [(0, 1000, "a young boy in a blue|shirt is jumping high")]
    # Evenly it would be "fifteenletters1 tenletters|..." with the long word by itself.
    long = "fifteenletters1 tenletters thirtyletters-thirtyletters-12"
    assert cues(segment(0, 1, long)) == [
        (0, 1000, "fifteenletters1|tenletters thirtyletters-thirtyletters-12")
    ]
    assert cues(segment(0, 1, "x" * 30 + " " + "y" * 30)) == [(0, 1000, "x" * 30 + "|" + "y" * 30)]
    assert cues(segment(0, 1, "x" * 42)) == [(0, 1000, "x" * 42)]
    assert cues(segment(0, 1, "猫" * 50)) == [(0, 1000, "猫" * 42 + "|" + "猫" * 8)]


def test_no_cue_of_no_length_or_later_than_srt_can_say() -> None:
    assert cues(segment(1.0, 1.0, "a dog"), segment(1.0, 1.001, "a cat")) == [(1000, 1001, "a cat")]
    assert cues(segment(0, 1, ""), segment(1, 2, " \n\t")) == []
    last = 100 * 3600
    assert cues(segment(last - 1, last + 1, "a dog"), segment(last + 1, last + 2, "a cat")) == [
        (1000 * (last - 1), 1000 * last - 1, "a dog")
    ]


NASTY = r"x --> y <i>1 < 2 > 1</i> {\an8} R&B &lt; &amp;amp; a\nb\hc\N {\p1} {a}"


def test_nothing_in_a_text_is_a_command() -> None:
    written = text_of("vtt", record(segments=[segment(0, 7, "x --> <b>{\\an8}\\N&lt;")]))
    assert written.endswith("\nx --&gt; &lt;b&gt;{&#92;an8}&#92;N&amp;lt;\n")
    written = text_of("srt", record(segments=[segment(0, 7, "R&B --> <b>{\\an8}\\N&lt;")]))
    assert written.endswith("\nR&B --＞ ＜b＞｛＼an8｝＼N＆lt;\n")
    assert read_srt([segment(0, 7, NASTY)])[0][2] == NASTY
    assert read_vtt([segment(0, 7, NASTY)])[0][2] == NASTY


def strict_vtt(text: str) -> list[tuple[int, int, str]]:
    """A file's cues, if it follows the grammar of the W3C's WebVTT, sections 4.1 and 4.2."""
    stamp = r"(?:([0-9]{2,}):)?([0-5][0-9]):([0-5][0-9])\.([0-9]{3})"
    timing = re.compile(rf"{stamp}[ \t]+-->[ \t]+{stamp}")
    # Text without & and <, or a character reference; no span is written.
    line_of_text = re.compile(r"(?:[^&<\n\r]|&(?:amp|lt|gt|#92);)+")
    assert "\0" not in text and "\r" not in text
    header, *blocks = re.split(r"\n{2,}", text.removesuffix("\n"))
    assert header == "WEBVTT"
    found = []
    for block in blocks:
        first, *lines = block.split("\n")
        if first.startswith("NOTE "):
            assert "-->" not in block
            continue
        assert first == str(len(found) + 1)  # an identifier: the cue's number
        times = timing.fullmatch(lines[0])
        assert times is not None
        hours, minutes, seconds, ms = (
            [int(times[field] or 0), int(times[field + 4] or 0)] for field in (1, 2, 3, 4)
        )
        start_ms, end_ms = (
            ((hours[i] * 60 + minutes[i]) * 60 + seconds[i]) * 1000 + ms[i] for i in (0, 1)
        )
        assert start_ms < end_ms
        assert not found or found[-1][0] <= start_ms
        assert lines[1:] and all(line_of_text.fullmatch(line) for line in lines[1:])
        assert not any("-->" in line for line in lines[1:])
        found.append((start_ms, end_ms, html.unescape("\n".join(lines[1:]))))
    return found


def read_vtt(segments: list[dict[str, Any]]) -> list[tuple[int, int, str]]:
    """What two strict readers make of the file, lines of a cue joined by spaces."""
    text = text_of("vtt", record(segments=segments))
    text.encode("utf-8")
    read = [
        (cue.start_time.in_milliseconds(), cue.end_time.in_milliseconds(), html.unescape(cue.text))
        for cue in webvtt.WebVTT.from_string(text, strict=True)
    ]
    assert read == strict_vtt(text)
    return [(start, end, text.replace("\n", " ")) for start, end, text in read]


def read_srt(segments: list[dict[str, Any]]) -> list[tuple[int, int, str]]:
    """What a strict reader makes of the file, with the full-width forms turned back."""
    text = text_of("srt", record(segments=segments))
    text.encode("utf-8")
    cues = list(srt.parse(text, ignore_errors=False))
    assert [cue.index for cue in cues] == list(range(1, len(cues) + 1))
    assert not any(cue.proprietary for cue in cues)
    ms = timedelta(milliseconds=1)
    back = {ord(char): unicodedata.normalize("NFKC", char) for char in "＜＞｛｝＼＆"}
    return [
        (cue.start // ms, cue.end // ms, cue.content.replace("\n", " ").translate(back))
        for cue in cues
    ]


ODD = ["-->", "<b>", "{\\an8}", "&lt;", "\\N", "{", "}", "12", "NOTE", "x" * 50, "猫" * 20]
CHARACTERS = st.characters(exclude_characters="＜＞｛｝＼＆")
WORDS = st.sampled_from([*ODD, "a", "dog", "rides"]) | st.text(CHARACTERS, max_size=9)
TEXTS = st.lists(WORDS, max_size=24).map(" ".join)


@st.composite
def segment_lists(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Segments that follow each other, some without a gap, some of no length."""
    edges_ms = sorted(draw(st.lists(st.integers(0, 100_000), min_size=2, max_size=5)))
    pairs = zip(edges_ms, edges_ms[1:], strict=False)
    return [segment(a / 1000, b / 1000, draw(TEXTS)) for a, b in pairs if draw(st.booleans())]


@given(segment_lists())
@example([segment(0.0, 0.001, "word " * 40)])
@example([segment(0.1 + 0.2, 1.1 + 2.2, "word " * 40), segment(1.1 + 2.2, 9.0, "x" * 200)])
def test_the_rules_of_cues(segments: list[dict[str, Any]]) -> None:
    before_ms = 0
    joined = [
        segment(each.start_s, each.end_s, each.text, each.confidence) for each in passages(segments)
    ]
    for each in joined:
        found = make_cues([each])
        for cue in found:
            assert before_ms <= cue.start_ms < cue.end_ms <= cue.start_ms + LONGEST_CUE_MS
            before_ms = cue.end_ms
            assert 1 <= len(cue.lines) <= 2
            assert all(0 < len(line) <= LINE_LENGTH for line in cue.lines)
            assert all(line == " ".join(line.split()) for line in cue.lines)
            if len(cue.lines) == 2 and " " not in cue.lines[1]:
                # One word less above does not fit below.
                *_, last = cue.lines[0].split(" ")
                assert " " not in cue.lines[0] or len(f"{last} {cue.lines[1]}") > LINE_LENGTH
        if found:
            assert found[0].start_ms >= round(1000 * each["start"])
            assert found[-1].end_ms <= round(1000 * each["end"])
    assert make_cues(segments) == [cue for each in joined for cue in make_cues([each])]


@given(TEXTS)
def test_all_words_are_shown_in_their_order(text: str) -> None:
    shown = [line for cue in make_cues([segment(0, 100, text)]) for line in cue.lines]
    wanted = re.sub("[\x00-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", " ".join(text.split()))
    # Only words too long for a line are broken.
    if all(len(word) <= LINE_LENGTH for word in wanted.split()):
        assert " ".join(shown) == wanted
    assert "".join(shown).replace(" ", "") == wanted.replace(" ", "")


@given(segment_lists())
@example([segment(0, 9, NASTY), segment(9, 10, "12"), segment(10, 11, "x " * 21 + "12")])
@example([segment(0, 9, "1\n00:00:01,000 --> 00:00:02,000\n\n<v x>")])
@example([segment(360_000 - 9, 360_000, "a dog")])
def test_strict_readers_read_what_was_meant(segments: list[dict[str, Any]]) -> None:
    meant = [(c.start_ms, c.end_ms, " ".join(c.lines)) for c in make_cues(segments)]
    assert read_srt(segments) == meant
    assert read_vtt(segments) == meant


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
