"""`captioner tag` without a folder to write to, and its options."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from captioner.cli import entry as cli
from captioner.model.caption_model import CaptionModel
from helpers.videos import numbered_video

BOM = b"\xef\xbb\xbf"


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


@pytest.fixture
def run_tag(model_file: Path, capsys: pytest.CaptureFixture[str]):
    """Run the command in this process; returns (exit code, standard error)."""

    def run(*arguments: str | Path) -> tuple[int, str]:
        code = cli.main(
            ["tag", *map(str, arguments), "--model", str(model_file), "--device", "cpu"]
        )
        return code, capsys.readouterr().err

    return run


def test_csv_with_a_byte_order_mark(tmp_path: Path, run_tag) -> None:
    video, out = numbered_video(tmp_path / "käse.mp4", 12), tmp_path / "out"
    command = (video, "--output-dir", out, "--format", "csv,json")
    assert run_tag(*command, "--csv-bom")[0] == 0
    data = (out / "käse.csv").read_bytes()
    assert data.startswith(BOM + b"file_name,tag,")
    assert not (out / "käse.json").read_bytes().startswith(BOM)
    with (out / "käse.csv").open(encoding="utf-8-sig", newline="") as file:
        assert next(csv.reader(file))[0] == "file_name"
    # The same again is finished; a folder holds one kind of CSV.
    assert "1 finished before" in run_tag(*command, "--csv-bom")[1]
    code, message = run_tag(*command)
    assert (code, "--csv-bom: True there, None now" in message) == (2, True)
    assert run_tag(*command, "--overwrite")[0] == 0
    assert not (out / "käse.csv").read_bytes().startswith(BOM)
    assert "csv_bom" not in json.loads((out / "käse.json").read_text("utf-8"))["settings"]


def test_a_byte_order_mark_is_for_csv(tmp_path: Path, run_tag) -> None:
    video = numbered_video(tmp_path / "a.mp4", 12)
    code, message = run_tag(
        video, "--output-dir", tmp_path / "out", "--csv-bom", "--format", "json,srt"
    )
    assert code == 2
    assert message == "captioner: error: --csv-bom: is for the format csv, not for json, srt\n"
    assert not (tmp_path / "out").exists()
