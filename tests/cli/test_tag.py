"""`captioner tag` without a folder to write to."""

from __future__ import annotations

from pathlib import Path

import pytest

from captioner.cli import entry as cli
from captioner.model.caption_model import CaptionModel
from helpers.videos import numbered_video


def test_summaries_are_printed_where_no_folder_is_named(
    tagging_model: CaptionModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "library"
    library.mkdir()
    for name in ("a.avi", "b.avi"):
        numbered_video(library / name, 12, codec="mpeg4")
    (library / "c.mp4").write_text("no video\n" * 100)
    command = ["tag", str(library), "--model", str(tagging_model.path), "--device", "cpu"]
    files = ["--output-dir", str(tmp_path / "tags"), "--format", "txt", "--quiet"]
    assert cli.main([*command, *files]) == 1
    expected = [(tmp_path / "tags" / f"{name}.txt").read_text("utf-8") for name in "ab"]
    capsys.readouterr()
    assert cli.main(command) == 1
    out, err = capsys.readouterr()
    assert out == "\n".join(expected)
    assert out.startswith("a.avi\n")
    assert err.splitlines()[-1] == "captioner: 2 tagged, 1 failed"
    assert f"captioner: {library / 'c.mp4'}: " in err
    assert {path.name for path in tmp_path.iterdir()} == {"library", "tags"}
