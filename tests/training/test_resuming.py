"""Runs that are killed or interrupted, and resumed."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from captioner.training.callbacks import CURRENT
from helpers.streams import make_stream
from helpers.training import at_batch, in_child, kill_at, read, scores

SELF_CRITICAL = (
    "--model.objective=self_critical",
    "--average.decay=0.8",
    "--average.start_share=0.5",
)
FROZEN: tuple[str, ...] = ()
LAYERED = ("--model.decoder.attention=layered", "--model.decoder.layers=2")
TRAINED = ("--model.encoder.trainable=all", "--data.augment=true", "--data.workers=1")

pytestmark = [pytest.mark.arithmetic, pytest.mark.usefixtures("one_thread")]


def assert_same_run(cut: Path, whole: Path) -> None:
    """Weights, optimiser, scores, patience and provenance are equal to the last digit."""
    one, two = read(cut), read(whole)
    assert one["state_dict"].keys() == two["state_dict"].keys()
    assert all(torch.equal(t, two["state_dict"][name]) for name, t in one["state_dict"].items())
    moments = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (one, two)]
    assert moments[0].keys() == moments[1].keys()
    for number, state in moments[0].items():
        assert all(torch.equal(t, moments[1][number][name]) for name, t in state.items())
    assert one["lr_schedulers"] == two["lr_schedulers"]
    assert one["captioner"] == two["captioner"]
    assert one["loops"]["fit_loop"]["epoch_progress"] == two["loops"]["fit_loop"]["epoch_progress"]
    for key, state in one["callbacks"].items():
        for name in {"wait_count", "best_score", "best_model_score", "kth_value"} & state.keys():
            assert state[name] == two["callbacks"][key][name], (key, name)
    # With a moving average, the checkpoint also holds the weights that training resumes from.
    assert (CURRENT in one) == (CURRENT in two)
    assert all(torch.equal(t, two[CURRENT][n]) for n, t in one.get(CURRENT, {}).items())
    best = [read(folder, "best") for folder in (cut, whole)]
    assert best[0]["captioner"] == best[1]["captioner"]
    assert all(torch.equal(t, best[1]["state_dict"][n]) for n, t in best[0]["state_dict"].items())


@pytest.mark.parametrize(
    ("options", "batches"),
    [
        (FROZEN, 4),
        (TRAINED, 4),
        # Saved within the epoch: every step, and every second batch where two make a step.
        ((*FROZEN, "--last.every_n_steps=1"), 3),
        ((*TRAINED, "--last.every_n_steps=1", "--trainer.accumulate_grad_batches=2"), 2),
        ((*TRAINED, "--last.every_n_steps=1", "--model.tag_weight=0.5"), 3),
        ((*TRAINED, "--last.every_n_steps=1", *LAYERED), 3),
    ],
    ids=["frozen", "trained", "frozen, mid-epoch", "trained, mid-epoch", "tags", "layered"],
)
def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(
    fit: Callable[..., int], tmp_path: Path, options: tuple[str, ...], batches: int
) -> None:
    assert kill_and_resume(fit, tmp_path, *options) == batches


@pytest.mark.parametrize(
    ("options", "batches"),
    [
        (("--last.every_n_steps=1",), 3),
        (("--last.every_n_steps=1", "--data.augment=true"), 3),
        ((*TRAINED, "--last.every_n_steps=1", "--trainer.accumulate_grad_batches=2"), 2),
    ],
    ids=["frozen", "frozen, views", "trained"],
)
def test_a_killed_run_draws_the_samples_and_keeps_the_average_it_would_have_had(
    fit: Callable[..., int], tmp_path: Path, options: tuple[str, ...], batches: int
) -> None:
    assert fit(tmp_path / "start", "--trainer.max_epochs=1") == 0
    start = f"--model.init_from={tmp_path / 'start' / 'checkpoints' / 'best.ckpt'}"
    assert kill_and_resume(fit, tmp_path, start, *SELF_CRITICAL, *options) == batches
    whole = scores(tmp_path / "whole", 0, "train/reward")
    again = scores(tmp_path / "cut", 1, "train/reward")
    assert len(set(whole)) == len(whole) == read(tmp_path / "whole")["global_step"]
    assert 0 < len(again) < len(whole)
    assert whole[-len(again) :] == again


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_on_a_stream_ends_as_if_nothing_had_happened(
    fit: Callable[..., int], shapes: Path, tmp_path: Path, workers: int
) -> None:
    options = (
        f"--data.root={make_stream(shapes, tmp_path / 'tars', [10, 3, 19])}",
        f"--data.val_root={shapes}",
        "--data.shuffle_window=5",
        "--model.encoder.trainable=all",
        "--data.augment=true",
        f"--data.workers={workers}",
        "--last.every_n_steps=1",
    )
    assert kill_and_resume(fit, tmp_path, *options) == 3


def kill_and_resume(fit: Callable[..., int], tmp_path: Path, *options: str) -> int:
    """Compare a run that was killed and goes on with one that was not.

    Returns:
        Batches of the interrupted epoch that are not repeated; 4 are the whole epoch before.
    """
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert fit(whole, *options, "--trainer.max_epochs=3") == 0

    def begin() -> int:
        kill_at(1, 3)
        return fit(cut, *options, "--trainer.max_epochs=3")

    assert in_child(begin, tmp_path / "log") == -signal.SIGKILL
    saved = read(cut)["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["ready"]
    assert fit(cut, *options, "--trainer.max_epochs=3", "--ckpt_path=last") == 0
    assert_same_run(cut, whole)
    assert scores(cut, 1) == scores(whole)[1:]
    return int(saved)


def test_last_is_the_last_epoch_and_not_the_last_best_one(
    fit: Callable[..., int], tmp_path: Path
) -> None:
    # The rate is so small that no epoch is better than the first.
    options = ("--model.lr_decoder=1e-12", "--early_stopping.patience=10")
    assert fit(tmp_path / "run", *options) == 0
    assert len(set(scores(tmp_path / "run"))) == 1
    assert (read(tmp_path / "run", "best")["epoch"], read(tmp_path / "run")["epoch"]) == (0, 3)


def test_patience_is_not_renewed_by_a_resumption(fit: Callable[..., int], tmp_path: Path) -> None:
    options = ("--early_stopping.min_delta=11", "--early_stopping.patience=3")

    def begin() -> int:
        kill_at(2, 1)
        return fit(tmp_path / "run", *options, "--trainer.max_epochs=9")

    assert in_child(begin, tmp_path / "log") == -signal.SIGKILL
    assert fit(tmp_path / "run", *options, "--trainer.max_epochs=9", "--ckpt_path=last") == 0
    assert read(tmp_path / "run")["epoch"] == 3  # three epochs after the first, one of them resumed


def test_last_begins_a_run_that_has_no_checkpoint_yet(
    fit: Callable[..., int], tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert fit(whole) == 0

    def begin() -> int:
        kill_at(0, 2)
        return fit(cut, "--model.decoder.dropout=0.1")

    assert in_child(begin, tmp_path / "log") == -signal.SIGKILL
    assert (cut / "config.yaml").is_file()
    assert fit(cut, "--ckpt_path=last") == 0  # one command line for the first start and all others
    assert scores(cut, 1) == scores(whole)
    assert yaml.safe_load((cut / "config.yaml").read_text())["model"]["decoder"]["dropout"] == 0.5


def test_a_run_killed_while_it_saves_keeps_the_checkpoint_before(
    fit: Callable[..., int], tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert fit(whole) == 0
    save = torch.save

    def half(checkpoint: dict[str, Any], file: Any) -> None:
        if checkpoint["epoch"] == 2:
            file.write(b"PK half a file")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        save(checkpoint, file)

    def begin() -> int:
        torch.save = half
        return fit(cut)

    assert in_child(begin, tmp_path / "log") == -signal.SIGKILL
    assert read(cut)["epoch"] == 1
    assert len(list((cut / "checkpoints").glob(".*.part"))) == 1
    assert fit(cut, "--ckpt_path=last") == 0
    assert_same_run(cut, whole)
    assert [path.name for path in sorted((cut / "checkpoints").iterdir())] == [
        "best.ckpt",
        "last.ckpt",
    ]


def test_a_full_disk_ends_a_run_with_a_message(fit: Callable[..., int], tmp_path: Path) -> None:
    cut = tmp_path / "cut"

    def limit() -> None:
        # Stands for a full disk: from now on no file of this process can grow beyond 100 kB.
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    def begin() -> int:
        at_batch(2, 0, limit)
        return fit(cut)

    assert in_child(begin, tmp_path / "log") == 2
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert last == (
        f"captioner: error: checkpoint {cut / 'checkpoints'}/{last.split('/')[-1].split(':')[0]}: "
        "File too large; make room there, then resume with --ckpt_path last"
    )
    assert read(cut)["epoch"] == 1
    assert not list((cut / "checkpoints").glob(".*"))


def test_control_c_ends_with_130_and_the_run_can_go_on(
    fit: Callable[..., int], tmp_path: Path
) -> None:
    def begin() -> int:
        at_batch(1, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
        return fit(tmp_path / "run")

    assert in_child(begin, tmp_path / "log") == 130
    assert (
        (tmp_path / "log")
        .read_text()
        .endswith(
            f"captioner: {tmp_path}/run/checkpoints/last.ckpt was saved: run the same command with "
            "--ckpt_path last to resume\ncaptioner: interrupted\n"
        )
    )
    assert read(tmp_path / "run")["epoch"] == 0
    assert fit(tmp_path / "run", "--ckpt_path=last") == 0
    assert read(tmp_path / "run")["epoch"] == 3


def test_a_moved_run_keeps_its_best_score(fit: Callable[..., int], tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    assert fit(old, "--trainer.max_epochs=2", "--model.lr_decoder=1e-12") == 0
    best = read(old, "best")["callbacks"]
    old.rename(new)
    more = ("--trainer.max_epochs=3", "--model.lr_decoder=1e-12", "--ckpt_path=last")
    assert fit(new, *more) == 0
    (key,) = [key for key in best if key.startswith("ModelCheckpoint")]
    state = read(new)["callbacks"][key]
    assert state["best_model_score"] == best[key]["best_model_score"]
    assert state["best_model_path"] == str(new / "checkpoints" / "best.ckpt")
    assert read(new, "best")["epoch"] == 0  # not written over by a third epoch that is no better


def test_a_finished_run_is_not_trained_any_further(
    fit: Callable[..., int], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    assert fit(run, "--trainer.max_epochs=2", "--ckpt_path=last") == 0
    assert {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()} == before
    best = max(scores(finished))
    assert capsys.readouterr().out.startswith(f"best validation CIDEr-D: {100 * best:.2f}, ")
