"""Width, direction and line ends of texts in any script."""

from __future__ import annotations

import pytest

from captioner.text.scripts import (
    display_width,
    is_right_to_left,
    is_wide,
    pieces,
    with_direction_marks,
    wrap,
)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("a dog", 5),
        ("Straße", 6),
        ("一只狗", 6),
        ("ｶﾀｶﾅ", 4),  # half-width
        ("كلب", 3),
        ("كَلْبٌ", 3),
        ("e\u0301", 1),
        ("\u200f", 0),
        ("👨\u200d👩\u200d👧", 2),
    ],
)
def test_display_width(text: str, columns: int) -> None:
    assert display_width(text) == columns


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a dog runs", ["a", " dog", " runs"]),
        ("Straßen-Bahn", ["Straßen-Bahn"]),
        ("一只狗，在跑。", ["一", "只", "狗，", "在", "跑。"]),
        ("他说“你好”（笑）", ["他", "说", "“你", "好”", "（笑）"]),
        ("穿T恤的人", ["穿", "T", "恤", "的", "人"]),
        ("كلب يركض", ["كلب", " يركض"]),
        ("", []),
    ],
)
def test_pieces(text: str, parts: list[str]) -> None:
    assert pieces(text) == parts


@pytest.mark.parametrize(
    ("text", "columns", "lines"),
    [
        ("a dog runs", 6, ["a dog", "runs"]),
        ("a dog", 5, ["a dog"]),
        ("ab " + "x" * 6, 4, ["ab x", "xxxx", "x"]),
        ("猫" * 5, 5, ["猫猫", "猫猫", "猫"]),
        ("猫猫，猫", 4, ["猫", "猫，", "猫"]),
        ("كَلْبٌ يَرْكُضُ", 7, ["كَلْبٌ", "يَرْكُضُ"]),
        ("", 9, []),
        ("  ", 9, []),
    ],
)
def test_wrap(text: str, columns: int, lines: list[str]) -> None:
    assert ["".join(line).strip() for line in wrap(text, columns)] == lines


def test_most_of_the_letters_say_what_a_text_is() -> None:
    assert (
        is_right_to_left("دراجة BMX") and is_right_to_left("BMX دراجة") and not is_right_to_left("")
    )
    assert not is_right_to_left("ein Hund (כלב)") and not is_right_to_left("一只狗")
    assert is_wide("一只狗 on") and not is_wide("a dog 狗") and not is_wide("")


@pytest.mark.parametrize(
    ("line", "marked"),
    [
        ("كلب يركض", "كلب يركض"),
        ("كلب يركض.", "كلب يركض.\u200f"),
        ("2 كلاب", "\u200f2 كلاب"),
        ("كلاب 2", "كلاب 2\u200f"),
        ("BMX دراجة", "\u200fBMX دراجة"),
        ("دراجة BMX", "دراجة BMX"),
        ("كَلْبٌ", "كَلْبٌ"),
    ],
)
def test_direction_marks_stand_where_a_line_would_be_shown_in_another_order(
    line: str, marked: str
) -> None:
    assert with_direction_marks(line) == marked
