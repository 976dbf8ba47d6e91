"""Captions in other languages, and in several at once, in every output: exact contents."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from captioner.captioning.formats import open_writer

DOG = {"file_name": "a.jpg", "text": "a dog runs", "confidence": 0.5123, "error": None}


def write(output: Path | None, records: list[dict[str, Any]], **options: Any) -> None:
    with open_writer(output, **options) as writer:
        for record in records:
            writer.write(record)


def test_fields_from_right_to_left_keep_their_places_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [
        {**DOG, "file_name": "صورة 1.jpg", "text": "كلب يركض."},
        {**DOG, "text": "一只狗"},
        {**DOG, "text": "ה\u2069dog"},
    ]
    write(None, records)
    plain = "صورة 1.jpg\tكلب يركض.\na.jpg\t一只狗\na.jpg\tה\\u2069dog\n"
    assert capsys.readouterr().out == plain
    write(tmp_path / "x.tsv", records)
    assert (tmp_path / "x.tsv").read_text("utf-8") == plain
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    write(None, records)
    assert capsys.readouterr().out == (
        "\u2068صورة 1.jpg\u2069\t 51%\t\u2068كلب يركض.\u2069\n"
        "a.jpg\t 51%\t一只狗\na.jpg\t 51%\t\u2068ה\\u2069dog\u2069\n"
    )
