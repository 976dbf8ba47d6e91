"""Captions that are not to be trusted, and frames that have none."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from captioner.cli import entry as cli
from captioner.images.blank import is_blank
from captioner.model.caption_model import CaptionModel
from captioner.model.tags import FEATURES, TagCalibration
from captioner.pages.video_page import read_data
from helpers.videos import CAT, COFFEE, clip_of

SCHEMA = Path(__file__).parents[2] / "docs" / "video-tags.schema.json"
WHITE = np.full_like(CAT, 255)


@pytest.fixture(scope="module")
def unsure_model(tagging_model: CaptionModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of whose words one in eight is right, whatever it says."""
    assert tagging_model.path is not None
    model = CaptionModel.load(tagging_model.path, device="cpu")
    model.tag_calibration = TagCalibration((np.log(1 / 7).item(), *[0.0] * (len(FEATURES) - 1)))
    path = tmp_path_factory.mktemp("unsure") / "unsure.safetensors"
    model.save(path, half=False)
    return path


def tag(model: Path | None, clip: Path, out: Path, *arguments: str) -> int:
    options = ["--model", str(model), "--device", "cpu", "--quiet", "--fps", "2"]
    options += ["--max-length", "5"]
    return cli.main(["tag", str(clip), "--output-dir", str(out), *options, *arguments])


def test_a_frame_of_one_colour_has_no_caption(tagging_model: CaptionModel, tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "a.mp4", (CAT, 50), (WHITE, 50), (COFFEE, 50))
    assert tag(tagging_model.path, clip, tmp_path) == 0
    record = json.loads((tmp_path / "a.json").read_text("utf-8"))
    jsonschema.validate(record, json.loads(SCHEMA.read_text("utf-8")))
    assert record["schema"] == "captioner-video-2"
    empty = [frame for frame in record["frames"] if 2 <= frame["time"] < 4]
    assert len(empty) >= 4
    for frame in empty:
        assert (frame["text"], frame["confidence"], frame["avg_logprob"]) == (None, 0, None)
        assert frame["tags"] == []
    assert [segment["text"] is None for segment in record["segments"]] == [False, True, False]
    assert (record["segments"][1]["start"], record["segments"][1]["end"]) == (2, 4)
    assert all(
        span["end"] <= 2 or span["start"] >= 4 for t in record["tags"] for span in t["segments"]
    )
    times = [line for line in (tmp_path / "a.srt").read_text("utf-8").splitlines() if "-->" in line]
    assert times == ["00:00:00,000 --> 00:00:02,000", "00:00:04,000 --> 00:00:06,000"]
    assert "0:02.0-0:04.0       nothing to see\n" in (tmp_path / "a.txt").read_text("utf-8")


def test_what_is_nearly_one_colour() -> None:
    noise = np.random.default_rng(0).normal(0, 2, CAT.shape)
    grey = np.clip(128 + noise, 0, 255).astype(np.uint8)
    assert is_blank(grey)
    assert is_blank(np.broadcast_to(np.array([200, 30, 90], np.uint8), CAT.shape))
    written = grey.copy()
    written[50:54, 40:80] = 255
    assert not is_blank(written)
    assert not is_blank(CAT)


def test_unsure_captions_get_no_subtitle_unless_they_are_asked_for(
    unsure_model: Path, tmp_path: Path
) -> None:
    clip = clip_of(tmp_path / "a.mp4", (CAT, 50))
    assert tag(unsure_model, clip, tmp_path / "usual") == 0
    assert tag(unsure_model, clip, tmp_path / "all", "--min-caption-confidence", "0") == 0
    for folder, floor in ((tmp_path / "usual", 0.25), (tmp_path / "all", 0)):
        record = json.loads((folder / "a.json").read_text("utf-8"))
        assert [segment["confidence"] for segment in record["segments"]] == [0.125]
        assert record["segments"][0]["text"]
        assert record["settings"].get("min_caption_confidence", 0) == floor
        for name in ("a.srt", "a.vtt"):
            cues = (folder / name).read_text("utf-8").count(" --> ")
            assert cues == (0 if floor else 1), name
        page = read_data(folder / "a.html")
        assert page is not None and page["unsure_below"] == floor


def test_a_folder_of_before_says_how_to_resume(
    unsure_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = clip_of(tmp_path / "a.mp4", (CAT, 25))
    out, as_before = tmp_path / "out", ["--min-caption-confidence", "0"]
    assert tag(unsure_model, clip, out, *as_before) == 0
    assert tag(unsure_model, clip, out) == 2
    assert "(--min-caption-confidence: None there, 0.25 now); resume with the old settings " in (
        error := capsys.readouterr().err
    )
    assert "by --min-caption-confidence 0, choose another --output-dir, or start over" in error
    assert tag(unsure_model, clip, out, *as_before) == 0
    assert tag(unsure_model, clip, out, "--fps", "1") == 2
    assert "old settings" not in capsys.readouterr().err
