"""A small model, a folder of images, and the command on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from captioner.cli import entry as cli
from captioner.model.caption_model import CaptionModel
from helpers.images import draw


@pytest.fixture(scope="module")
def model_file(tiny_model: CaptionModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    tiny_model.save(path, half=False)
    return path


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six images, two of them in a subfolder, and one that cannot be read; tests run beside it."""
    folder = tmp_path / "Meine Fotos"
    draw(folder, ["a.png", "c über.png", "d.png", "sub dir/a.png", "sub dir/ä b.png", "z.png"])
    (folder / "b.jpg").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def command(model_file: Path) -> list[str]:
    model = ["--model", str(model_file), "--device", "cpu"]
    return ["caption", *model, "--workers", "0", "--batch-size", "2", "--max-length", "6"]


@pytest.fixture
def run(command: list[str], capsys: pytest.CaptureFixture[str]):
    """Run the command in this process; returns (exit code, standard error)."""

    def run(*arguments: str) -> tuple[int, str]:
        try:
            code = cli.main([*command, *arguments])
        except SystemExit as end:  # argparse ends so
            code = int(end.code or 0)
        return code, capsys.readouterr().err

    return run
