"""SRT and WebVTT: exact contents, read back by the formats' own strict readers."""

from __future__ import annotations

import html
import re
import unicodedata
from datetime import timedelta
from typing import Any

import srt
import webvtt
from hypothesis import example, given
from hypothesis import strategies as st

from captioner.tagging.passages import passages
from captioner.tagging.subtitles import (
    LINE_LENGTH,
    LONGEST_CUE_MS,
    WIDE_LINE_LENGTH,
    make_cues,
)
from captioner.text.scripts import display_width, is_wide
from helpers.tag_records import (
    NOTE,
    UNTAGGED,
    record,
    segment,
    text_of,
)


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


def test_lines_in_other_scripts() -> None:
    # Chinese has no blanks: 16 characters are a line, and closing marks stay with what they close.
    assert cues(segment(0, 1, "一只棕色的狗叼着一个红色的球")) == [
        (0, 1000, "一只棕色的狗叼着一个红色的球")
    ]
    assert cues(segment(0, 1, "一个穿着红色衬衫的男人骑着自行车，在泥土路上")) == [
        (0, 1000, "一个穿着红色衬衫的男人|骑着自行车，在泥土路上")
    ]
    assert cues(segment(0, 1, "猫" * 31 + "。")) == [(0, 1000, "猫" * 16 + "|" + "猫" * 15 + "。")]
    assert cues(segment(0, 9, "猫" * 40)) == [
        (0, 6300, "猫" * 14 + "|" + "猫" * 14),
        (6300, 9000, "猫" * 12),
    ]
    # Marks above Arabic letters take no room.
    arabic = "كَلْبٌ بُنِّيٌّ يَرْكُضُ عَلَى العُشْبِ الأَخْضَرِ"
    assert (len(arabic), cues(segment(0, 1, arabic))) == (50, [(0, 1000, arabic)])
    german = "ein Geländewagen fährt an einer Straßenbahnhaltestelle vorbei"
    assert cues(segment(0, 1, german)) == [
        (0, 1000, "ein Geländewagen fährt an einer|Straßenbahnhaltestelle vorbei")
    ]


def test_lines_from_right_to_left_keep_their_order_in_players() -> None:
    # U+200F keeps a full stop at the left end, and a line that starts with a Latin word in order.
    segments = [
        segment(0, 1, "كلب يركض"),
        segment(1, 2, "كلب يركض في الحديقة."),
        segment(2, 3, "BMX دراجة"),
        segment(3, 4, "ein Hund (כלב)."),
    ]
    assert text_of("srt", record(segments=segments)) == (
        "1\n00:00:00,000 --> 00:00:01,000\nكلب يركض\n"
        "\n2\n00:00:01,000 --> 00:00:02,000\nكلب يركض في الحديقة.\u200f\n"
        "\n3\n00:00:02,000 --> 00:00:03,000\n\u200fBMX دراجة\n"
        "\n4\n00:00:03,000 --> 00:00:04,000\nein Hund (כלב).\n"
    )
    assert text_of("vtt", record(segments=segments[1:2])).endswith(
        "00:00:01.000 --> 00:00:02.000\nكلب يركض في الحديقة.\u200f\n"
    )


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


def has_wide(text: str) -> bool:
    return any(unicodedata.east_asian_width(each) in "WF" for each in text)


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
            most = WIDE_LINE_LENGTH if is_wide(each["text"]) else LINE_LENGTH
            assert all(line and display_width(line) <= most for line in cue.lines)
            assert all(line == " ".join(line.split()) for line in cue.lines)
            if len(cue.lines) == 2 and not has_wide(each["text"]) and " " not in cue.lines[1]:
                # One word less above does not fit below.
                *_, last = cue.lines[0].split(" ")
                below = display_width(f"{last} {cue.lines[1]}")
                assert " " not in cue.lines[0] or below > LINE_LENGTH
        if found:
            assert found[0].start_ms >= round(1000 * each["start"])
            assert found[-1].end_ms <= round(1000 * each["end"])
    assert make_cues(segments) == [cue for each in joined for cue in make_cues([each])]


@given(TEXTS)
def test_all_words_are_shown_in_their_order(text: str) -> None:
    shown = [line for cue in make_cues([segment(0, 100, text)]) for line in cue.lines]
    wanted = re.sub("[\x00-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", " ".join(text.split()))
    # Only words too long for a line are broken.
    is_whole = all(display_width(word) <= LINE_LENGTH for word in wanted.split())
    if is_whole and not has_wide(text):
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
