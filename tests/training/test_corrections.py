"""Look, correct, teach: captions of a model, corrected in a review, teach it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from captioner.cli import entry as cli
from captioner.data.datasets import load_caption_data
from captioner.model.checkpoints import load_checkpoint
from captioner.review.options import ReviewOptions
from captioner.review.run import open_session
from helpers.training import QUIET, scores

CONFIG = str(Path(__file__).parents[2] / "configs" / "corrections.yaml")


def test_corrections_teach_a_model_and_its_score_before_is_reported(
    shapes: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, captions = tmp_path / "model.safetensors", tmp_path / "captions.jsonl"
    checkpoint = finished / "checkpoints" / "best.ckpt"
    assert cli.main(["export", "--checkpoint", str(checkpoint), "--output", str(model)]) == 0
    images = shapes / "images"
    command = ["caption", str(images), "--model", str(model), "--output", str(captions)]
    assert cli.main([*command, "--quiet"]) == 0
    right = {each.path.name: each.captions[0] for each in load_caption_data(shapes).examples}
    with open_session(captions, ReviewOptions(images=str(images))) as session:
        for shown in session.reviewed():
            session.correct(shown.item.name, shown.item.text, right[shown.item.name])
    run = tmp_path / "run"
    options = [f"--data.root={tmp_path}", f"--run_dir={run}", f"--data.cache_dir={tmp_path / 'c'}"]
    options += [f"--model.init_from={model}", "--trainer.max_epochs=2", "--data.min_count=1"]
    capsys.readouterr()
    assert cli.main(["fit", "--config", CONFIG, *QUIET, *options]) == 0
    said = capsys.readouterr().out
    found = re.search(r"^validation CIDEr-D before training: (.+), after it: ([+-].+)$", said, re.M)
    assert found is not None
    best = max(scores(run))
    assert float(found[1]) + float(found[2]) == pytest.approx(100 * best, abs=0.02)
    taught = load_checkpoint(run / "checkpoints" / "best.ckpt")
    assert sum(taught.provenance["data"]["images"].values()) == 40
    assert 1 <= taught.provenance["data"]["images"]["dev"] <= 15
    resume = ["--ckpt_path", "last", "--trainer.max_epochs=3"]
    assert cli.main(["fit", "--config", CONFIG, *QUIET, *options, *resume]) == 0
    assert f"before training: {found[1]}," in capsys.readouterr().out
