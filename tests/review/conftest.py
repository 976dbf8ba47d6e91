"""Captions made by the real command, and the command again afterwards."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from captioner.cli import entry as cli
from captioner.model.caption_model import CaptionModel
from helpers.images import noise
from helpers.reviews import NAMES, OUTPUTS, Caption


@pytest.fixture(scope="session")
def captioned(tmp_path_factory: pytest.TempPathFactory, tagging_model: CaptionModel) -> Path:
    """A folder for each of `OUTPUTS`: photos, one of them broken, and their captions."""
    root = tmp_path_factory.mktemp("captioned")
    for output, options in OUTPUTS.items():
        photos = root / output / "photos"
        for index, name in enumerate(NAMES):
            (photos / name).parent.mkdir(parents=True, exist_ok=True)
            noise(index, 90, 60).save(photos / name)
        (photos / "broken.jpg").write_bytes(b"no image")
        arguments = [each.format(folder=root / output) for each in options]
        model = ["--model", str(tagging_model.path), "--device", "cpu", "--max-length", "6"]
        assert cli.main(["caption", str(photos), *model, *arguments, "--quiet"]) == 1
    return root


@pytest.fixture
def place(captioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """``place(output)``: a copy of one of those folders, in which the test then runs."""

    def place(output: str) -> Path:
        folder = tmp_path / output
        shutil.copytree(captioned / output, folder)
        monkeypatch.chdir(folder)
        return folder

    return place


@pytest.fixture
def caption(tagging_model: CaptionModel, capsys: pytest.CaptureFixture[str]) -> Caption:
    """``caption(output, *more)``: the command again; its exit code and its last line."""

    def caption(output: str, *more: str) -> tuple[int, str]:
        arguments = [each.format(folder=os.getcwd()) for each in OUTPUTS[output]]
        model = ["--model", str(tagging_model.path), "--device", "cpu", "--max-length", "6"]
        code = cli.main(["caption", "photos", *model, *arguments, *more])
        return code, capsys.readouterr().err.strip().splitlines()[-1]

    return caption
