"""A tiny untrained model, a few images, and the command line run in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner.cli import entry as cli
from captioner.model.caption_model import CaptionModel
from helpers.models import make_talker


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = make_talker()
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    model.save(path)
    return path


@pytest.fixture(scope="session")
def model(model_file: Path) -> CaptionModel:
    return CaptionModel.load(model_file, device="cpu")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three images, one of them in a subfolder; the tests run beside it."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for index, name in enumerate(["a.png", "b.jpg", "sub/a.png"]):
        pixels = np.random.default_rng(index).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((80, 60)).save(folder / name)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def run(model_file: Path, capsys: pytest.CaptureFixture[str]):
    """Run main() in this process; returns (exit code, standard output, standard error)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        command, *rest = arguments
        if command != "export":
            rest = ["--model", str(model_file), "--device", "cpu", "--workers", "0", *rest]
        try:
            code = cli.main([command, *rest])
        except SystemExit as end:  # argparse ends so
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
