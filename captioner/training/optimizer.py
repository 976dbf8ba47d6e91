"""The optimiser of training: its groups of parameters, and their learning rates over the run."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR


def adamw(
    encoder: nn.Module,
    decoder: nn.Module,
    *,
    lr_encoder: float,
    lr_decoder: float,
    weight_decay: float,
) -> AdamW:
    """AdamW with a learning rate for each part (Loshchilov and Hutter 2019).

    The groups of the decoder are the last. Parameters that are not trained are in none. It is not
    fused: that would save 2% of a step of the decoder, but such steps do not count as changes
    of a weight (``Tensor._version``), which copies for inference look at, and Lightning refuses to
    clip gradients with them in mixed precision.
    """
    groups = [
        *parameter_groups(encoder, lr_encoder, weight_decay),
        *parameter_groups(decoder, lr_decoder, weight_decay),
    ]
    return AdamW(groups, betas=(0.9, 0.98))


def parameter_groups(part: nn.Module, rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices with weight decay, vectors (biases, scales) without; no empty group."""
    trained = [parameter for parameter in part.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "lr": rate, "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "lr": rate, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def warmup_and_cosine(optimizer: Optimizer, steps: int, warmup_share: float) -> LambdaLR:
    """Learning rates that rise to their highest, then fall along half a cosine to 0.

    Args:
        optimizer: its rates are the highest ones.
        steps: of the whole training.
        warmup_share: share of the steps in which the rates rise, at least one step.
    """
    warmup = max(1, round(warmup_share * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return LambdaLR(optimizer, factor)
