"""A tiny model, and the command line run in this process in a folder of its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from captioner.cli import entry as cli
from captioner.model.caption_model import CaptionModel
from helpers.models import make_talker


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    make_talker().save(path)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run a command; returns its exit code and standard error."""
    return cli.main(list(arguments)), capsys.readouterr().err


@pytest.fixture
def caption(
    model_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Run `captioner caption`; returns its exit code and standard error."""
    monkeypatch.chdir(tmp_path)

    options = ["--device", "cpu", "--workers", "0", "--batch-size", "4"]
    return partial(run, capsys, "caption", "--model", str(model_file), *options)


@pytest.fixture
def tag(
    tagging_model: CaptionModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Run `captioner tag`; returns its exit code and standard error."""
    monkeypatch.chdir(tmp_path)

    options = ["--device", "cpu", "--max-length", "6"]
    return partial(run, capsys, "tag", "--model", str(tagging_model.path), *options)
