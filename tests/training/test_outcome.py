"""What is said when a training ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from captioner.training.outcome import best_text, scores_text, warnings_of


def test_scores_are_shown_times_100_and_losses_as_they_are() -> None:
    scores = {"val/loss": 3.25, "val/cider_d": 0.659, "val/a/bleu_4": 0.2, "CIDEr-D": 65.9}
    assert scores_text(scores, "val").splitlines() == [
        "loss        3.25",
        "CIDEr-D    65.90",
        "a: BLEU-4  20.00",
        "(metrics times 100; loss in nats per word)",
    ]


def test_the_next_command_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = best_text("val/loss", 2.5, tmp_path / "my runs/best.ckpt", tmp_path / "my runs")
    assert text == (
        "best validation val/loss: 2.50, my runs/best.ckpt\n"
        "next: captioner export --checkpoint 'my runs/best.ckpt' --output 'my runs.safetensors'"
    )


@pytest.mark.parametrize(
    ("cider_d", "captions", "init_from", "said"),
    [
        (0.0, 150, None, ["stayed near zero (0.00)", "--model.init_from default"]),
        (0.2, 150, None, ["150 captions of 30 images are few", "--model.init_from default"]),
        (0.01, 30_000, "default", ["stayed near zero (1.00)", "compare some captions"]),
        (0.2, 150, "default", None),
        (0.2, 30_000, None, None),
        (9.9, 150, None, None),  # a toy set
    ],
)
def test_a_useless_model_is_called_so(
    cider_d: float, captions: int, init_from: str | None, said: list[str] | None
) -> None:
    warnings = list(warnings_of(cider_d, 30, captions, init_from))
    assert len(warnings) == (said is not None)
    for part in said or ():
        assert part in warnings[0]
