"""`captioner fit` on archives and tables that are streamed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from captioner.cli import entry as cli
from captioner.data.sources import DataSource
from captioner.errors import CaptionerError
from captioner.model.checkpoints import load_checkpoint
from captioner.training.datamodule import CaptionDataModule
from helpers.streams import make_stream
from helpers.training import arguments, read, scores

ROOT = Path(__file__).parents[2]
FEW = ("--trainer.max_epochs=2", "--last.every_n_steps=1")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pattern(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """32 images in three archives."""
    return make_stream(shapes, tmp_path_factory.mktemp("stream") / "tars", [10, 3, 19])


@pytest.fixture(scope="module")
def streamed(
    shapes: Path, pattern: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., list[str]]:
    """The command that trains on the archives, with a run in a folder of its own."""
    folder = tmp_path_factory.mktemp("run")

    def streamed(name: str, *options: str) -> list[str]:
        run = folder / name
        places = (f"--data.root={pattern}", f"--data.val_root={shapes}")
        return arguments(shapes, folder, run, *places, *FEW, *options)

    return streamed


@pytest.fixture(scope="module")
def finished(streamed: Callable[..., list[str]]) -> Path:
    command = streamed("finished")
    assert cli.main(command) == 0
    (run,) = (each.partition("=")[2] for each in command if each.startswith("--run_dir="))
    return Path(run)


def test_a_stream_teaches_what_the_folder_teaches(
    shapes: Path, finished: Path, tmp_path: Path
) -> None:
    assert cli.main(arguments(shapes, tmp_path, tmp_path / "folder", *FEW)) == 0
    one, two = (read(run)["captioner"] for run in (finished, tmp_path / "folder"))
    assert one["tokenizer"] == two["tokenizer"]
    assert load_checkpoint(finished / "checkpoints" / "last.ckpt").lexicon is not None
    # The features of a frozen CNN are not kept, and are the same.
    assert len(scores(finished)) == 2
    assert one["provenance"]["data"] == {
        "name": "tars",
        "format": "webdataset",
        "images": {"train": 32, "dev": 4, "test": 4},
    }
    assert one["provenance"]["steps"] == two["provenance"]["steps"] == 8
    assert read(finished)["CaptionDataModule"] == {
        "batch_size": 8,
        "workers": 0,
        "shuffle_window": 2000,
    }
    assert "CaptionDataModule" not in read(tmp_path / "folder")


@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_run_on_a_stream_is_scored(
    finished: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["--config", str(finished / "config.yaml"), "--ckpt_path=last"]
    assert cli.main([command, *config, "--data.shuffle_window=7"]) == 0
    assert "CIDEr-D" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "--data.workers=3",
            "data.workers=3: the order of the images follows from it; resume with",
        ),
        ("--data.shuffle_window=9", "--data.shuffle_window 2000"),
        ("--data.batch_size=4", "--data.batch_size 8"),
    ],
)
def test_another_order_is_not_resumed(
    finished: Path, option: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", "--config", str(finished / "config.yaml"), "--ckpt_path=last", option]
    assert cli.main([*command, "--trainer.max_epochs=3"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_root": None}, "data.val_root is missing: a stream holds out no images"),
        ({"views": 1}, "data.views=1: nothing of a stream is kept"),
        ({"objective": "self_critical"}, "model.objective=self_critical: needs all captions"),
        ({"objective": "language"}, "model.objective=language: needs all captions"),
        ({"images": "x"}, "data.images=x: does not go with a data.root that streams"),
        ({"sidecar_suffix": ".a"}, "data.sidecar_suffix=.a: does not go"),
        ({"sources": [DataSource("x", "x")]}, "data.sources="),
        ({"shuffle_window": 0}, "data.shuffle_window=0: must be at least 1"),
        ({"root": "data"}, "data.val_root=x: validates what is streamed"),
    ],
)
def test_what_does_not_go_with_a_stream_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CaptionerError) as caught:
        CaptionDataModule(**{"root": "{a,b}.tar", "val_root": "x", **options})
    assert str(caught.value).startswith(message)


def test_a_stream_is_not_one_of_several_sources(pattern: str, shapes: Path, tmp_path: Path) -> None:
    sources = [DataSource(str(shapes), "a"), DataSource(pattern, "b")]
    data = CaptionDataModule(sources=sources, cache_dir=str(tmp_path))
    with pytest.raises(CaptionerError, match="data.sources, b: patterns and addresses are"):
        data.setup("fit")


def test_shards_validate(
    shapes: Path, pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    dev = make_stream(shapes, tmp_path / "dev", [3, 1], kind="parquet", split="dev")
    data = CaptionDataModule(
        root=pattern, val_root=dev, min_count=1, lexicon="none", cache_dir=str(tmp_path)
    )
    data.setup("validate")
    expected = CaptionDataModule(root=str(shapes), min_count=1, lexicon="none")
    expected.setup("validate")
    assert data.tokenizer == expected.tokenizer
    for one, two in zip(data.examples["dev"], expected.examples["dev"], strict=True):
        assert one.captions == two.captions
        assert one.path.read_bytes() == two.path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_the_toy_set_is_learnt(
    make_shapes: Callable[[Path, int], Path], tmp_path: Path, kind: str
) -> None:
    shapes = make_shapes(tmp_path / "shapes", 600)
    pattern = make_stream(shapes, tmp_path / "set", [100, 70, 150, 60, 100], kind=kind)
    options = {
        "config": ROOT / "configs" / "shapes.yaml",
        "run_dir": tmp_path / "run",
        "data.root": pattern,
        "data.val_root": shapes,
        "data.format": "auto",
        "data.workers": 1,
        "data.shuffle_window": 100,
        "trainer.enable_progress_bar": "false",
    }
    command = [f"--{name}={value}" for name, value in options.items()]
    assert cli.main(["fit", *command]) == 0
    assert max(scores(tmp_path / "run")) > 9
