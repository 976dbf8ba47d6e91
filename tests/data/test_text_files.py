from __future__ import annotations

from pathlib import Path

import pytest

from captioner.data.datasets import load_caption_data
from captioner.errors import CaptionerError
from helpers.captioned import write


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_in_other_encodings(flickr: Path, encoding: str) -> None:
    before = load_caption_data(flickr)
    for file in flickr.glob("*.txt"):
        file.write_bytes(file.read_text().encode(encoding))
    assert load_caption_data(flickr) == before


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
