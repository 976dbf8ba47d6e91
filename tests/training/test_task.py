"""Training: it learns, what it reports is true, and what it writes can be read."""

from __future__ import annotations

import csv
import math
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.nn import functional

from captioner.data.datasets import load_caption_data
from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError
from captioner.evaluation.evaluate import evaluate
from captioner.model.checkpoints import export_checkpoint, load_checkpoint
from captioner.networks.decoder import shift
from captioner.networks.features import ImageFeatures
from captioner.text.tokenizer import PAD_ID
from captioner.training.datamodule import CaptionDataModule
from captioner.training.lightning_cli import main
from captioner.training.task import CaptionTask
from captioner.training.tensorboard import captioned_image

ROOT = Path(__file__).parents[2]
IMAGES, EPOCHS, STEPS = 300, 18, 15  # 240 of the images to train, 16 at once
LEARNS = (
    "--config",
    str(ROOT / "configs" / "shapes.yaml"),
    f"--trainer.max_epochs={EPOCHS}",
    "--data.batch_size=16",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
)


pytestmark = [pytest.mark.arithmetic, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def shapes(
    tmp_path_factory: pytest.TempPathFactory, make_shapes: Callable[[Path, int], Path]
) -> Path:
    return make_shapes(tmp_path_factory.mktemp("toy") / "shapes", IMAGES)


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the toy configuration, shortened to half the images."""
    folder = tmp_path_factory.mktemp("runs") / "toy"
    assert main(["fit", *LEARNS, f"--data.root={shapes}", f"--run_dir={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def frozen_run(shapes: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One more epoch from its best checkpoint, with the encoder frozen and its features kept."""
    folder = tmp_path_factory.mktemp("runs") / "frozen"
    code = main(
        [
            "fit",
            *LEARNS,
            f"--data.root={shapes}",
            f"--run_dir={folder}",
            f"--model.init_from={run / 'checkpoints' / 'best.ckpt'}",
            "--model.encoder.trainable=none",
            "--trainer.max_epochs=1",
            "--model.lr_decoder=1e-4",
            f"--data.cache_dir={folder / 'cache'}",
        ]
    )
    assert code == 0
    return folder


def metrics(run: Path, name: str) -> list[float]:
    with (run / "metrics" / "version_0" / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def validate(
    monkeypatch: pytest.MonkeyPatch, run: Path, shapes: Path, *options: str
) -> tuple[dict[str, str], dict[str, float]]:
    """Captions and scores of `captioner validate` on a run's best checkpoint."""
    said: dict[str, str] = {}
    scores: dict[str, float] = {}
    score = CaptionTask._score

    def listen(task: CaptionTask, name: str, split: str) -> None:
        said.update(task._validation.said)
        score(task, name, split)
        scores.update({k: float(v) for k, v in task.trainer.callback_metrics.items()})

    monkeypatch.setattr(CaptionTask, "_score", listen)
    config = ["--config", str(run / "config.yaml"), "--ckpt_path", "best"]
    assert main(["validate", *config, "--trainer.enable_progress_bar=false", *options]) == 0
    return said, scores


# "a small circle above a small square" is right: as in validation, no words are blocked.
AS_LEARNT = DecodingOptions(no_repeat_ngram=0)


# --- it learns -----------------------------------------------------------------------------


def test_the_toy_set_is_learnt(run: Path) -> None:
    scores = metrics(run, "val/cider_d")
    assert len(scores) == EPOCHS
    # It depends on the processor's rounding: 7.87 to 9.2 were seen; 0.1 is what chance gets.
    assert max(scores) > 7
    losses = metrics(run, "val/loss")
    assert losses[-1] < losses[0] / 4


@pytest.mark.slow
def test_the_whole_toy_configuration_passes_nine_tenths_of_the_maximum(tmp_path: Path) -> None:
    # A process of its own, and the whole set, as a person would.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    captioner = [sys.executable, "-m", "captioner"]
    script = ROOT / "data" / "make_shapes.py"
    subprocess.run([sys.executable, script, "data/shapes"], cwd=tmp_path, check=True)
    config = ROOT / "configs" / "shapes.yaml"
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    before = used.ru_utime + used.ru_stime
    done = subprocess.run(
        [*captioner, "fit", "--config", config],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert used.ru_utime + used.ru_stime - before < 120  # seconds of one core, with the start
    assert max(metrics(tmp_path / "runs" / "shapes", "val/cider_d")) > 9.3
    checkpoint = tmp_path / "runs" / "shapes" / "checkpoints" / "best.ckpt"
    model = export_checkpoint(checkpoint, tmp_path / "shapes.safetensors")
    examples = load_caption_data(tmp_path / "data" / "shapes").split("test")
    texts = [each.text for each in model.caption([example.path for example in examples], AS_LEARNT)]
    right = sum(text in example.captions for text, example in zip(texts, examples, strict=True))
    assert right >= 0.9 * len(examples)


def test_an_exported_model_says_what_is_in_the_images(
    run: Path, shapes: Path, tmp_path: Path
) -> None:
    model = export_checkpoint(run / "checkpoints" / "best.ckpt", tmp_path / "toy.safetensors")
    examples = load_caption_data(shapes).split("test")
    texts = [each.text for each in model.caption([example.path for example in examples], AS_LEARNT)]
    right = [text == example.captions[0] for text, example in zip(texts, examples, strict=True)]
    # How many of them depends on the processor's rounding: 14 and 15 of 30 were seen.
    assert sum(right) >= len(right) / 3
    # One caption of a hundred thousand possible ones is right by chance never.
    assert len(set(texts)) > len(texts) / 2


def test_rewards_teach_more_than_the_words_did(shapes: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "words", tmp_path / "rewards"
    place = f"--data.root={shapes}"
    short = "--trainer.max_epochs=8"
    assert main(["fit", *LEARNS, short, place, f"--run_dir={first}"]) == 0
    start = f"--model.init_from={first / 'checkpoints' / 'best.ckpt'}"
    options = ["--model.objective=self_critical", "--average.decay=0.8", start]
    # Higher rates lose what the words taught, and the scores of 30 images jump up and down.
    options += ["--model.lr_decoder=5e-4"]
    options += ["--trainer.max_epochs=12", "--early_stopping.patience=12"]
    assert main(["fit", *LEARNS, place, f"--run_dir={second}", *options]) == 0
    assert max(metrics(second, "val/cider_d")) > max(metrics(first, "val/cider_d")) + 0.3
    rewards = metrics(second, "train/reward")
    assert sum(rewards[-6:]) > 1.2 * sum(rewards[:6])
    provenance = load_checkpoint(second / "checkpoints" / "best.ckpt").provenance
    assert (provenance["objective"], provenance["samples"]) == ("self_critical", 5)
    assert (provenance["cross_entropy_weight"], provenance["average_decay"]) == (0.0, 0.8)
    assert provenance["init_from"] == "words/checkpoints/best.ckpt"


def test_the_words_can_be_learnt_beside_the_rewards(
    run: Path, shapes: Path, tmp_path: Path
) -> None:
    options = ["--model.objective=self_critical", "--trainer.limit_train_batches=2"]
    options += [f"--model.init_from={run / 'checkpoints' / 'best.ckpt'}", "--trainer.max_epochs=1"]
    options += [f"--data.root={shapes}", "--trainer.log_every_n_steps=1"]
    losses = []
    for weight in (0, 1, 2):
        folder = tmp_path / str(weight)
        both = [f"--run_dir={folder}", f"--model.cross_entropy_weight={weight}"]
        assert main(["fit", *LEARNS, *options, *both]) == 0
        losses.append(metrics(folder, "train/loss")[0])  # before the weights differ
    # The same samples each time, and dropout is drawn in the same order.
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=1e-4)
    assert losses[1] - losses[0] > 0.01


# --- what it reports is true ---------------------------------------------------------------


def test_validation_says_what_the_saved_model_says(
    run: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, scores = validate(monkeypatch, run, shapes)
    model = load_checkpoint(run / "checkpoints" / "best.ckpt")
    examples = load_caption_data(shapes).split("dev")
    result = evaluate(model, examples, AS_LEARNT, batch_size=16)
    assert said == {image.image_id: image.caption for image in result.images}
    assert scores["val/cider_d"] == pytest.approx(result.scores["CIDEr-D"], abs=1e-6)
    assert scores["val/bleu_4"] == pytest.approx(result.scores["BLEU-4"], abs=1e-6)
    assert scores["val/rouge_l"] == pytest.approx(result.scores["ROUGE-L"], abs=1e-6)
    assert scores["val/cider_d"] == pytest.approx(max(metrics(run, "val/cider_d")), abs=1e-6)


def test_cached_features_of_a_frozen_encoder_are_those_of_the_saved_model(
    run: Path, frozen_run: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, scores = validate(monkeypatch, frozen_run, shapes)
    path = tmp_path / "frozen.safetensors"
    model = export_checkpoint(frozen_run / "checkpoints" / "best.ckpt", path)
    examples = load_caption_data(shapes).split("dev")
    result = evaluate(model, examples, AS_LEARNT)
    # Rounded to half precision once here and once there: at most a word or two may differ.
    same = [said[image.image_id] == image.caption for image in result.images]
    assert sum(same) >= len(same) - 2
    assert scores["val/cider_d"] == pytest.approx(result.scores["CIDEr-D"], abs=0.3)
    # The encoder is the learnt one, not one drawn anew.
    assert scores["val/cider_d"] > 0.9 * max(metrics(run, "val/cider_d"))


def test_a_frozen_encoder_stays_as_it_was(run: Path, frozen_run: Path) -> None:
    before = load_checkpoint(run / "checkpoints" / "best.ckpt")
    after = load_checkpoint(frozen_run / "checkpoints" / "last.ckpt")
    frozen = before.encoder.state_dict()
    assert all(torch.equal(frozen[n], t) for n, t in after.encoder.state_dict().items())
    learnt = before.decoder.state_dict()
    assert not all(torch.equal(learnt[n], t) for n, t in after.decoder.state_dict().items())
    assert after.tokenizer == before.tokenizer


def test_a_frozen_encoder_with_random_weights_is_the_one_of_the_features(
    shapes: Path, tmp_path: Path
) -> None:
    options = ["--model.encoder.trainable=none", "--trainer.max_epochs=1", "--seed_everything=3"]
    places = [
        f"--data.root={shapes}",
        f"--run_dir={tmp_path}",
        f"--data.cache_dir={tmp_path / 'c'}",
    ]
    assert main(["fit", *LEARNS, *options, *places, "--trainer.limit_train_batches=1"]) == 0
    model = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    data = CaptionDataModule(
        str(shapes), encoder=model.encoder.config, min_count=1, cache_dir=str(tmp_path / "d")
    )
    data._make_encoder = lambda: model.encoder  # type: ignore[method-assign]
    data.setup("validate")
    kept = next(iter(data.val_dataloader())).images
    arrays = [np.load(path, mmap_mode="r") for path in (tmp_path / "c").glob("*/grid.npy")]
    dev = next(array for array in arrays if len(array) == IMAGES // 10)
    assert np.array_equal(kept.numpy(), dev[: len(kept)])


def test_metrics_are_in_the_csv_and_in_tensorboard(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    names = {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d", "loss"}
    assert {f"val/{name}" for name in names} | {"train/loss"} <= set(events.Tags()["scalars"])
    for name in sorted(names):
        shown = [event.value for event in events.Scalars(f"val/{name}")]
        assert shown == pytest.approx(metrics(run, f"val/{name}"), rel=1e-5)
    assert len(metrics(run, "train/loss")) == EPOCHS * STEPS // 5  # log_every_n_steps


def test_tensorboard_shows_images_with_what_was_said(run: Path, shapes: Path) -> None:
    import io

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run), size_guidance={"images": 0})
    events.Reload()
    examples = load_caption_data(shapes).split("dev")[:8]
    assert set(events.Tags()["images"]) == {f"captions/{each.image_id}" for each in examples}
    model = load_checkpoint(run / "checkpoints" / "last.ckpt")
    shown = events.Images(f"captions/{examples[0].image_id}")
    assert [image.step for image in shown] == [STEPS * epoch for epoch in range(1, EPOCHS + 1)]
    text = model.caption([examples[0].path], AS_LEARNT)[0].text
    expected = captioned_image(Image.open(examples[0].path).convert("RGB"), text)
    image = Image.open(io.BytesIO(shown[-1].encoded_image_string)).convert("RGB")
    assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_the_checkpoint_tells_where_it_comes_from(run: Path) -> None:
    provenance = load_checkpoint(run / "checkpoints" / "best.ckpt").provenance
    scores = metrics(run, "val/cider_d")
    assert provenance["data"] == {
        "name": "shapes",
        "format": "jsonl",
        "images": {"train": 240, "dev": 30, "test": 30},
    }
    assert provenance["epoch"] == scores.index(max(scores))
    assert provenance["steps"] == STEPS * (provenance["epoch"] + 1)
    assert provenance["validation"]["val/cider_d"] == pytest.approx(max(scores), abs=1e-6)
    assert (provenance["seed"], provenance["batch_size"], provenance["init_from"]) == (0, 16, None)


# --- the steps -----------------------------------------------------------------------------


def test_the_loss_is_the_mean_over_the_words_and_leaves_padding_out(task: CaptionTask) -> None:
    task.eval()
    size = task.model.encoder.feature_size
    features = ImageFeatures.from_grid(torch.randn(2, 4, size))
    captions = torch.tensor([[[1, 4, 5, 2], [1, 6, 2, 0]], [[1, 2, 0, 0], [0, 0, 0, 0]]])
    inputs, targets = shift(captions)
    log_probs = task.model.decoder.logits(task.model.decoder(features, inputs)).log_softmax(-1)
    words = [(0, 0, 0, 4), (0, 0, 1, 5), (0, 0, 2, 2), (0, 1, 0, 6), (0, 1, 1, 2), (1, 0, 0, 2)]
    assert (targets != PAD_ID).sum() == len(words)
    expected = -sum(log_probs[word] for word in words) / len(words)
    assert torch.allclose(task.loss(features, captions), torch.as_tensor(expected), atol=1e-6)


def test_labels_are_smoothed_in_training_only(task: CaptionTask) -> None:
    task.model.decoder.dropout.p = 0.0
    features = ImageFeatures.from_grid(torch.randn(1, 4, task.model.encoder.feature_size))
    captions = torch.tensor([[[1, 4, 5, 2]]])
    inputs, targets = shift(captions)
    logits = task.model.decoder.logits(task.model.decoder(features, inputs)).flatten(0, 2)
    for mode, smoothing in ((True, 0.2), (False, 0.0)):
        task.train(mode)
        expected = functional.cross_entropy(logits, targets.flatten(), label_smoothing=smoothing)
        assert torch.allclose(task.loss(features, captions), expected, atol=1e-6)


def test_the_rate_rises_and_falls_to_nothing(run: Path) -> None:
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    (optimizer,) = checkpoint["optimizer_states"]
    assert [group["lr"] for group in optimizer["param_groups"]] == [0.0] * 4
    assert [group["initial_lr"] for group in optimizer["param_groups"]] == [2e-3] * 4
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    step, total, warmup = best["global_step"], EPOCHS * STEPS, round(0.05 * EPOCHS * STEPS)
    expected = 2e-3 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
    assert best["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(expected)


def test_dropout_is_drawn_in_the_same_way_in_every_process() -> None:
    code = "print(hash((7, 3, 11)))"
    texts = {
        subprocess.check_output([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    }
    assert texts == {f"{hash((7, 3, 11))}\n".encode()}


@pytest.mark.parametrize("trainable", ["all", "none"])
def test_half_precision_on_a_cpu(
    shapes: Path, tmp_path: Path, trainable: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        f"--data.root={shapes}",
        f"--run_dir={tmp_path}",
        f"--data.cache_dir={tmp_path / 'c'}",
    ]
    options += [f"--model.encoder.trainable={trainable}", "--trainer.precision=bf16-mixed"]
    options += ["--trainer.max_epochs=1", "--trainer.limit_train_batches=3"]
    assert main(["fit", *LEARNS, *options, "--trainer.log_every_n_steps=1"]) == 0
    supported = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert ("training in float32 (32-true)" in capsys.readouterr().err) == (not supported)
    kept = yaml.safe_load((tmp_path / "config.yaml").read_text())["trainer"]["precision"]
    assert kept == ("bf16-mixed" if supported else "32-true")
    losses = metrics(tmp_path, "train/loss")
    assert len(losses) == 3
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]
    weights = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert {tensor.dtype for tensor in weights.values()} <= {torch.float32, torch.int64}


def test_training_stops_when_the_score_no_longer_rises(shapes: Path, tmp_path: Path) -> None:
    options = [f"--data.root={shapes}", f"--run_dir={tmp_path}", "--trainer.limit_train_batches=1"]
    # No rise is large enough, so the second epoch without one is the last.
    options += ["--early_stopping.min_delta=11", "--early_stopping.patience=2"]
    assert main(["fit", *LEARNS, *options]) == 0
    assert len(metrics(tmp_path, "val/cider_d")) == 3


# --- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr_decoder": 0.0}, r"^model\.lr_decoder=0\.0: must be above 0$"),
        ({"lr_encoder": float("nan")}, r"^model\.lr_encoder=nan: must be above 0$"),
        ({"weight_decay": -0.1}, r"^model\.weight_decay=-0\.1: must be at least 0$"),
        ({"sample_captions": -1}, r"^model\.sample_captions=-1: must be at least 0$"),
        ({"label_smoothing": 1.0}, r"^model\.label_smoothing=1\.0: must be at least 0 and below"),
        (
            {"objective": "scst"},
            r"^model\.objective='scst': choose one of cross_entropy, self_crit",
        ),
        ({"samples": 1}, r"^model\.samples=1: must be at least 2, each is compared"),
        ({"objective": "self_critical"}, r"improves a model that can caption: name one.*init_from"),
        ({"temperature": 0.0}, r"^model\.temperature=0\.0: must be above 0$"),
        ({"bleu_weight": -2.0}, r"^model\.bleu_weight=-2\.0: must be at least 0$"),
        ({"cross_entropy_weight": -1.0}, r"^model\.cross_entropy_weight=-1\.0: must be at least 0"),
        ({"warmup_share": -0.5}, r"^model\.warmup_share=-0\.5: must be at least 0 and below 1$"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CaptionerError, match=message):
        CaptionTask(**options)
