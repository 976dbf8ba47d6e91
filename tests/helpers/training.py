"""Options of short training runs."""

from __future__ import annotations

from pathlib import Path

TINY = (
    "--model.encoder.name=timm/test_resnet",
    "--model.encoder.weights=none",
    "--model.encoder.image_size=32",
    "--model.decoder.hidden_size=16",
    "--model.decoder.embed_size=16",
    "--data.min_count=1",
)
QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")


def arguments(shapes: Path, tmp_path: Path, run_dir: Path, *options: str) -> list[str]:
    places = [f"--data.root={shapes}", f"--run_dir={run_dir}", f"--data.cache_dir={tmp_path / 'c'}"]
    more = ["--data.batch_size=8", "--trainer.max_epochs=4", "--trainer.log_every_n_steps=1"]
    return ["fit", *TINY, *QUIET, "--model.decoder.heads=2", *places, *more, *options]
