"""The scores of the weights that training begins with."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class StartScores(Callback):
    """Keeps the scores of the weights that training begins with.

    Only where all validation images are looked at before training, where
    ``trainer.num_sanity_val_steps`` is -1. A checkpoint keeps them for a run that is resumed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scores: dict[str, float] = {}

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep them: Lightning forgets them next."""
        if trainer.num_sanity_val_steps == float("inf") and trainer.ckpt_path is None:
            metrics = trainer.callback_metrics
            self.scores = {name: float(value) for name, value in metrics.items()}

    def state_dict(self) -> dict[str, Any]:
        """The scores."""
        return dict(self.scores)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Those of the run that is resumed."""
        self.scores = dict(state_dict)
