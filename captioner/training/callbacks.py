"""An exponential moving average of the weights, validated and kept instead of the last weights.

Lightning has `EMAWeightAveraging` (2.6) for that, with the same scores, and it is not used: it
averages the frozen weights as well, as ``decay * w + (1 - decay) * w``, whose rounding moves them
away from those that cached features come from, so that a run with a frozen CNN cannot be resumed.
Its average is made before the model is on its device, so that on a GPU every step copies all
weights to the CPU; and its checkpoints hold the frozen CNN twice.
"""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from captioner.errors import CaptionerError

CURRENT = "current_weights"


class WeightAverage(Callback):
    """Average the trained weights over the steps; validate and save the average.

    After every step average = decay * average + (1 - decay) * weights, beginning with the weights
    that training begins with (Polyak and Juditsky 1992 average all steps alike). A checkpoint
    holds the average as the model's weights, and beside it the weights that are trained further.

    Args:
        decay: share of the average that stays in a step; 0: no averaging. The average looks back
            some 1 / (1 - decay) steps: 0.99 is half an epoch of 200.

    Raises:
        CaptionerError: when the decay is not from 0 to below 1.
    """

    def __init__(self, decay: float = 0.0) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise CaptionerError(f"average.decay={decay}: must be at least 0 and below 1")
        self.decay = decay
        self._average: dict[str, Tensor] = {}
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the present weights, unless a checkpoint brought the average."""
        self._step = trainer.global_step
        if self.decay and not self._average:
            self._average = {name: p.detach().clone() for name, p in _trained(pl_module).items()}

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the step into the average; batches whose gradients are gathered make no step."""
        if not self.decay or trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        for name, parameter in _trained(pl_module).items():
            self._average[name].lerp_(parameter, 1 - self.decay)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the average."""
        self._swap(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train on with the weights."""
        self._swap(pl_module)

    @torch.no_grad()
    def _swap(self, module: LightningModule) -> None:
        for name, average in self._average.items():
            parameter = module.get_parameter(name)
            kept = parameter.clone()
            parameter.copy_(average)
            average.copy_(kept)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the average in the place of the weights, and the weights beside it."""
        if not self._average:
            return
        state = checkpoint["state_dict"] = dict(checkpoint["state_dict"])
        checkpoint[CURRENT] = {name: state[name] for name in self._average}
        averages = {id(p): self._average[n] for n, p in _trained(pl_module).items()}
        # A tied matrix has two names.
        for name, parameter in pl_module.named_parameters(remove_duplicate=False):
            if id(parameter) in averages:
                state[name] = averages[id(parameter)]

    @torch.no_grad()
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on with both; a checkpoint without an average begins one with its weights."""
        if not self.decay or not trainer.training or CURRENT not in checkpoint:
            return
        for name, parameter in _trained(pl_module).items():
            self._average[name] = checkpoint["state_dict"][name].to(parameter.device, copy=True)
            parameter.copy_(checkpoint[CURRENT][name])


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}
