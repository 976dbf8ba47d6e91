"""What a checkpoint says about the run that it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer

from captioner.training.callbacks import WeightAverage
from captioner.training.datamodule import CaptionDataModule


def provenance(
    trainer: Trainer,
    data: CaptionDataModule,
    init_from: str | None,
    objective: Mapping[str, Any],
    optimisation: Mapping[str, Any],
) -> dict[str, Any]:
    """Where the weights come from, as JSON primitives.

    Args:
        trainer: that of the run, with the scores of the last validation.
        data: what it is trained on.
        init_from: the file that it started from.
        objective: the objective and its options.
        optimisation: the other options of the task.
    """
    return {
        "data": _describe_data(data),
        # RUN/checkpoints/best.ckpt; the folders above are one machine's.
        "init_from": "/".join(Path(init_from).parts[-3:]) if init_from else None,
        "epoch": trainer.current_epoch,
        "steps": trainer.global_step,
        "batch_size": data.batch_size,
        # Each with a batch of that size.
        **({"processes": trainer.world_size} if trainer.world_size > 1 else {}),
        **objective,
        **_averages(trainer),
        **optimisation,
        "validation": {
            name: round(float(value), 6)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("val/")
        },
    }


def _describe_data(data: CaptionDataModule) -> dict[str, Any]:
    described: list[dict[str, Any]] = [
        {"name": each.name, "format": each.format, "images": dict(each.splits)}
        for each in data.data.values()
    ]
    if data.stream is not None:
        images = {"train": data.stream.images, **described[0]["images"]}
        return {"name": data.stream.name, "format": data.stream.format, "images": images}
    if len(described) == 1:
        return described[0]
    return {
        "sources": [
            {**each, "name": source.name, "weight": source.weight, "style": source.style}
            for each, source in zip(described, data.sources, strict=True)
        ]
    }


def _averages(trainer: Trainer) -> dict[str, float]:
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    found = [each for each in callbacks if isinstance(each, WeightAverage)]
    return {
        "average_decay": sum(each.decay for each in found),
        "average_start_share": sum(each.start_share for each in found),
    }
