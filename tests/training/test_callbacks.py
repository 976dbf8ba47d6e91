"""The average of the weights: its values, who sees it, and that a resumed run has the same one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from captioner.errors import CaptionerError
from captioner.training.callbacks import CURRENT, WeightAverage

pytestmark = pytest.mark.arithmetic


class Falling(pl.LightningModule):
    """A weight that falls by one with every step, under two names, and one that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.tied = self.weight
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        self.validated: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.weight.sum()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.validated.append(self.weight.item())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


def fit(
    decay: float, folder: Path, epochs: int, ckpt_path: Path | None = None, start_share: float = 0.0
) -> Any:
    """Train for epochs of two batches; returns the trainer."""
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[WeightAverage(decay, start_share)],
    )
    batches = DataLoader(torch.zeros(2, 1))  # type: ignore[arg-type]
    trainer.fit(Falling(), batches, DataLoader(torch.zeros(1, 1)), ckpt_path=ckpt_path)  # type: ignore[arg-type]
    trainer.save_checkpoint(folder / "end.ckpt")
    return trainer


def read(folder: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(folder / "end.ckpt", weights_only=True)
    return checkpoint


def test_the_average_is_validated_and_saved_and_the_weights_go_on(tmp_path: Path) -> None:
    trainer = fit(0.5, tmp_path, 2)
    # Weights -1, -2, -3, -4: averages -1/2, -5/4, -17/8, -49/16.
    assert trainer.lightning_module.validated == [-1.25, -3.0625]
    assert trainer.lightning_module.weight.item() == -4
    checkpoint = read(tmp_path)
    state = {name: tensor.item() for name, tensor in checkpoint["state_dict"].items()}
    assert state == {"weight": -3.0625, "tied": -3.0625, "frozen": 1.0}
    assert {name: tensor.item() for name, tensor in checkpoint[CURRENT].items()} == {"weight": -4}


def test_a_resumed_run_has_the_same_average(tmp_path: Path) -> None:
    fit(0.5, tmp_path / "cut", 1)
    trainer = fit(0.5, tmp_path / "cut", 2, tmp_path / "cut" / "end.ckpt")
    assert trainer.lightning_module.validated == [-3.0625]
    assert trainer.lightning_module.weight.item() == -4


def test_the_first_weights_have_their_share_in_what_is_validated_and_saved(tmp_path: Path) -> None:
    # The average is that of above; the first weight is 0.
    trainer = fit(0.5, tmp_path, 2, start_share=0.25)
    assert trainer.lightning_module.validated == [-1.25 * 0.75, -3.0625 * 0.75]
    assert trainer.lightning_module.weight.item() == -4
    state = {name: tensor.item() for name, tensor in read(tmp_path)["state_dict"].items()}
    assert state == {"weight": -2.296875, "tied": -2.296875, "frozen": 1.0}


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_resumed_run_has_the_same_first_weights(tmp_path: Path, decay: float) -> None:
    whole = fit(decay, tmp_path / "whole", 2, start_share=0.25)
    fit(decay, tmp_path / "cut", 1, start_share=0.25)
    cut = fit(decay, tmp_path / "cut", 2, tmp_path / "cut" / "end.ckpt", start_share=0.25)
    assert cut.lightning_module.validated == whole.lightning_module.validated[1:]
    assert read(tmp_path / "cut")["state_dict"] == read(tmp_path / "whole")["state_dict"]
    assert cut.lightning_module.weight.item() == -4


def test_without_a_decay_nothing_is_averaged(tmp_path: Path) -> None:
    trainer = fit(0.0, tmp_path, 2)
    assert trainer.lightning_module.validated == [-2.0, -4.0]
    checkpoint = read(tmp_path)
    assert checkpoint["state_dict"]["weight"].item() == -4
    assert CURRENT not in checkpoint


def test_a_checkpoint_without_an_average_begins_one(tmp_path: Path) -> None:
    fit(0.0, tmp_path, 1)
    trainer = fit(0.5, tmp_path, 2, tmp_path / "end.ckpt")
    assert trainer.lightning_module.validated == [-3.25]  # from -2 by -3 and -4


def test_validating_a_checkpoint_validates_its_average(tmp_path: Path) -> None:
    fit(0.5, tmp_path, 2)
    trainer = pl.Trainer(accelerator="cpu", logger=False, callbacks=[WeightAverage(0.5)])
    module = Falling()
    batches = DataLoader(torch.zeros(1, 1))  # type: ignore[arg-type]
    trainer.validate(module, batches, ckpt_path=tmp_path / "end.ckpt", verbose=False)
    assert module.validated == [-3.0625]


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_that_averages_nothing_is_refused(decay: float) -> None:
    with pytest.raises(CaptionerError, match=rf"^average\.decay={decay}: must be at least 0 and"):
        WeightAverage(decay)
    with pytest.raises(CaptionerError, match=rf"^average\.start_share={decay}: must be at least 0"):
        WeightAverage(start_share=decay)
