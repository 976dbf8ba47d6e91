"""Averages of the weights, validated and kept instead of the last weights.

Lightning has `EMAWeightAveraging` (2.6) for that, with the same scores, and it is not used: it
averages the frozen weights as well, as ``decay * w + (1 - decay) * w``, whose rounding moves them
away from those that cached features come from, so that a run with a frozen CNN cannot be resumed.
Its average is made before the model is on its device, so that on a GPU every step copies all
weights to the CPU; and its checkpoints hold the frozen CNN twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from captioner.errors import CaptionerError

CURRENT, AVERAGE, START = "current_weights", "average_weights", "start_weights"
"""What a checkpoint holds beside the model's weights."""

Weights = dict[str, Tensor]


class WeightAverage(Callback):
    """Average the trained weights over the steps and with the first ones; validate and save that.

    After every step average = decay * average + (1 - decay) * weights, beginning with the weights
    that training begins with (Polyak and Juditsky 1992 average all steps alike). The model's
    weights are start_share * first weights + (1 - start_share) * average in validations and in
    checkpoints, which hold beside them what is trained further. Between the weights before and
    after a fine-tuning often lie better ones than both, above all for images unlike those that were
    taught (Wortsman et al. 2022, arXiv:2109.01903, equation 1).

    Args:
        decay: share of the average that stays in a step; 0: no averaging over the steps. The
            average looks back some 1 / (1 - decay) steps: 0.99 is half an epoch of 200.
        start_share: share of the weights that training begins with, of `model.init_from`; 0: none.

    Raises:
        CaptionerError: when one of them is not from 0 to below 1.
    """

    def __init__(self, decay: float = 0.0, start_share: float = 0.0) -> None:
        super().__init__()
        for name, value in (("decay", decay), ("start_share", start_share)):
            if not 0 <= value < 1:
                raise CaptionerError(f"average.{name}={value}: must be at least 0 and below 1")
        self.decay, self.start_share = decay, start_share
        self._average: Weights = {}
        self._start: Weights = {}
        self._current: Weights = {}
        """The weights that are trained, while a validation has the others."""
        self._step = 0

    @property
    def _averages(self) -> bool:
        return bool(self.decay or self.start_share)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the present weights, unless a checkpoint brought others."""
        self._step = trainer.global_step
        if self._averages and not self._average:
            self._average = _copies(_trained(pl_module))
        if self.start_share and not self._start:
            self._start = _copies(self._average)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the step into the average; batches whose gradients are gathered make no step."""
        if not self._averages or trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        for name, parameter in _trained(pl_module).items():
            self._average[name].lerp_(parameter, 1 - self.decay)

    @torch.no_grad()
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the average."""
        for name, average in self._result().items():
            parameter = pl_module.get_parameter(name)
            self._current[name] = parameter.clone()
            parameter.copy_(average)

    @torch.no_grad()
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train on with the weights."""
        for name, weights in self._current.items():
            pl_module.get_parameter(name).copy_(weights)
        self._current.clear()

    def _result(self) -> Weights:
        """The weights to validate and to save."""
        if not self._start:
            return self._average
        return {
            name: average.lerp(self._start[name], self.start_share)
            for name, average in self._average.items()
        }

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the average in the place of the weights, and what is trained further beside it."""
        if not self._average:
            return
        state = checkpoint["state_dict"] = dict(checkpoint["state_dict"])
        checkpoint[CURRENT] = {name: state[name] for name in self._average}
        if self._start:
            checkpoint[AVERAGE], checkpoint[START] = dict(self._average), dict(self._start)
        result = self._result()
        results = {id(p): result[n] for n, p in _trained(pl_module).items()}
        # A tied matrix has two names.
        for name, parameter in pl_module.named_parameters(remove_duplicate=False):
            if id(parameter) in results:
                state[name] = results[id(parameter)]

    @torch.no_grad()
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Resume with all of them; a checkpoint without an average begins one with its weights."""
        if not self._averages or not trainer.training or CURRENT not in checkpoint:
            return
        trained = _trained(pl_module)
        averages = checkpoint.get(AVERAGE, checkpoint["state_dict"])
        self._average = _copies({name: averages[name] for name in trained}, trained)
        if self.start_share and START in checkpoint:
            self._start = _copies(checkpoint[START], trained)
        for name, parameter in trained.items():
            parameter.copy_(checkpoint[CURRENT][name])


def _copies(weights: Mapping[str, Tensor], like: Mapping[str, Tensor] | None = None) -> Weights:
    """Copies of the weights, on the devices of others."""
    devices = {name: each.device for name, each in (like or weights).items()}
    return {name: each.detach().to(devices[name], copy=True) for name, each in weights.items()}


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}
