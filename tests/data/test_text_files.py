from __future__ import annotations

from pathlib import Path

import pytest

from captioner.data.datasets import load_caption_data
from captioner.errors import CaptionerError
from helpers.captioned import captions, photos, write


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_in_other_encodings(flickr: Path, encoding: str, line_end: str) -> None:
    before = load_caption_data(flickr)
    for file in flickr.glob("*.txt"):
        file.write_bytes(file.read_text().replace("\n", line_end).encode(encoding))
    assert load_caption_data(flickr) == before


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_that_begins_with_no_latin_letter(
    tmp_path: Path, encoding: str
) -> None:
    names = ("猫.jpg", "一.jpg")
    photos(tmp_path, *names)
    lines = "".join(f"{name}#0\t一只{n}猫。\n" for n, name in enumerate(names))
    write(tmp_path / "all.token.txt", lines.encode(encoding))
    assert captions(load_caption_data(tmp_path)) == {
        "猫.jpg": ("一只0猫。",),
        "一.jpg": ("一只1猫。",),
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{\x00\x00\xd8{\x00", r"begins as UTF-16-LE text, but is broken at byte 2; save it as U"),
        (b"\xff\xfe{\x00b", r"begins as UTF-16 text, but is broken at byte 4; save it as UTF-8"),
    ],
)
def test_utf16_that_is_broken_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    write(tmp_path / "metadata.jsonl", data)
    with pytest.raises(CaptionerError, match=f"metadata.jsonl: {message}"):
        load_caption_data(tmp_path)
