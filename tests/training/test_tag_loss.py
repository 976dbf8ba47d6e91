"""What captions name teaches the CNN beside what they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from captioner.cli import entry as cli
from captioner.data.datasets import Example
from captioner.errors import CaptionerError
from captioner.text.lexicon_builder import build_lexicon
from captioner.training.tag_loss import TagLoss, check_tag_loss
from helpers.training import arguments, scores

pytestmark = pytest.mark.arithmetic

CAPTIONS = (("a dog runs", "the dogs sleep"), ("a red ball",), ("a dog",))
WEIGHT = "--model.tag_weight=0.5"
TRAINED = "--model.encoder.trainable=all"
FROM_SCRATCH = (TRAINED, "--model.encoder.freeze_batch_norm=false", "--model.lr_encoder=3e-3")


def make_loss(size: int = 4) -> TagLoss:
    words = sorted({word for texts in CAPTIONS for text in texts for word in text.split()})
    examples = [Example(str(n), Path(f"{n}.png"), texts) for n, texts in enumerate(CAPTIONS)]
    return TagLoss(build_lexicon(words, CAPTIONS), examples, size)


def test_it_is_the_cross_entropy_of_what_all_captions_name() -> None:
    loss = make_loss()
    names = [lemma.name for lemma in loss.lemmas]
    assert sorted(names) == ["ball", "dog", "red", "run", "sleep"]
    # Before anything is learnt, a lemma is as probable as it is frequent.
    rates = torch.tensor([{"dog": 2 / 3}.get(name, 1 / 3) for name in names])
    dog, ball = (
        torch.tensor([float(name in named) for name in names])
        for named in (("dog", "run", "sleep"), ("red", "ball"))
    )
    expected = [-(t * rates.log() + (1 - t) * (1 - rates).log()).sum() for t in (dog, ball)]
    pooled = torch.rand(2, 4)
    assert loss(pooled, [0, 1]).item() == pytest.approx(sum(expected).item() / 2)
    # Features count by their direction alone, at a length of 2.
    with torch.no_grad():
        loss.classifier.weight[0, 0] = 1.0
    logits = loss.classifier.bias + torch.tensor([2.0, 0, 0, 0, 0])
    expected_first = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, dog, reduction="sum"
    )
    assert loss(torch.tensor([[9.0, 0, 0, 0]]), [0]).item() == pytest.approx(expected_first.item())


def test_the_cnn_learns_from_it(fit: Callable[..., int], shapes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert fit(run, WEIGHT, *FROM_SCRATCH) == 0
    losses = scores(run, name="train/tag_loss")
    assert len(losses) == 16
    assert losses[-1] < 0.9 * losses[0]
    again = arguments(shapes, tmp_path, run)[1:]
    best = ["--ckpt_path", "best"]
    assert cli.main(["validate", *again, WEIGHT, *FROM_SCRATCH, *best]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.tag_weight=-1"], "model.tag_weight=-1.0: must be at least 0"),
        ([WEIGHT], "model.tag_weight=0.5: is for a CNN that is trained"),
        ([WEIGHT, TRAINED, "--data.language=cs"], "captions in a language that is tagged"),
    ],
)
def test_where_it_cannot_work_it_is_refused(
    options: list[str],
    message: str,
    fit: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert fit(tmp_path / "run", *options) == 2
    assert message in capsys.readouterr().err


def test_a_run_is_resumed_with_its_own_weight() -> None:
    loss = make_loss()
    state = {f"tag_loss.{name}": tensor for name, tensor in loss.state_dict().items()}
    check_tag_loss(state, 0.5, loss)
    assert len(state) == 2
    for given, weight in ((state, 0.0), ({}, 0.5)):
        with pytest.raises(CaptionerError, match=r"model\.tag_weight="):
            check_tag_loss(given, weight, None)
    check_tag_loss(state, 0.5, None)  # to validate
    assert not state
