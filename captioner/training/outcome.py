"""What people read when a training ends: scores, the next command, what is wrong with the model."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from captioner.files.escaping import shown

METRICS = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider_d": "CIDEr-D",
}
"""What is logged, and what it is called. It is logged as it is, and shown times 100."""

NEAR_ZERO = 0.05
"""A validation CIDEr-D (from 0 to 10) that no useful model has."""
FEW_CAPTIONS = 5000
"""With fewer, a model that begins from nothing learns no language worth the name."""
GOOD = 0.5
"""Validation CIDEr-D that shows that few captions were enough."""


def scores_text(scores: Mapping[str, float], prefix: str) -> str:
    """The scores of a validation or a test, a line each.

    Args:
        scores: all that was logged; of it what begins with the prefix.
        prefix: ``val`` or ``test``.
    """
    lines = []
    for name, value in scores.items():
        place, _, metric = name.rpartition("/")
        if place.partition("/")[0] != prefix:
            continue
        source = place.partition("/")[2]
        label = f"{source}: " * bool(source) + METRICS.get(metric, metric)
        lines.append((label, 100 * value if metric in METRICS else value))
    width = max((len(label) for label, _ in lines), default=0)
    table = [f"{shown(label):<{width}} {value:6.2f}" for label, value in lines]
    return "\n".join([*table, "(metrics times 100; loss in nats per word)"])


def start_text(monitor: str, before: float, after: float) -> str:
    """The score of the weights that training began with, beside that of the best checkpoint."""
    label, scale = _shown_as(monitor)
    change = scale * (after - before)
    return f"validation {label} before training: {scale * before:.2f}, after it: {change:+.2f}"


def best_text(monitor: str, value: float, checkpoint: Path, run_dir: Path) -> str:
    """The score of the checkpoint that was kept, and what to do with it."""
    label, scale = _shown_as(monitor)
    path = os.path.relpath(checkpoint)
    output = f"{run_dir.resolve().name}.safetensors"
    command = shlex.join(["captioner", "export", "--checkpoint", path, "--output", output])
    return f"best validation {label}: {scale * value:.2f}, {shown(path)}\nnext: {shown(command)}"


def _shown_as(monitor: str) -> tuple[str, int]:
    metric = monitor.rpartition("/")[2]
    return (METRICS[metric], 100) if metric in METRICS else (monitor, 1)


def warnings_of(cider_d: float, images: int, captions: int, init_from: str | None) -> Iterator[str]:
    """What is wrong with a model that was trained by cross-entropy; often nothing.

    Args:
        cider_d: the best of the validation, from 0 to 10.
        images: of the training.
        captions: of these images.
        init_from: the model that it started from.
    """
    remedy = "start from the shipped model (--model.init_from default) or give more captions"
    if init_from is not None:
        remedy = "compare some captions of the data with their images, or train for longer"
    if cider_d < NEAR_ZERO:
        yield (
            f"the validation CIDEr-D stayed near zero ({100 * cider_d:.2f}): the captions of this "
            f"model are useless; {remedy}"
        )
    elif init_from is None and captions < FEW_CAPTIONS and cider_d < GOOD:
        yield (
            f"{captions} captions of {images} images are few for a model that begins from nothing "
            f"(CIDEr-D {100 * cider_d:.2f}); {remedy}"
        )
