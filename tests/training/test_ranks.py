"""Training in two processes: it ends where one process ends, and all of it ends together."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from captioner.cli import entry as cli
from captioner.data.datasets import load_caption_data
from captioner.data.sources import DataSource
from captioner.training.batches import EpochSampler, Part
from helpers.streams import make_stream
from helpers.training import arguments, read, scores

ROOT = Path(__file__).parents[2]
START = (
    "import os, sys\nfrom captioner.cli.entry import main\n{before}\nsys.exit(main(sys.argv[1:]))"
)
HINT = (
    "captioner: {run}/checkpoints/last.ckpt was saved: run the same command with --ckpt_path last "
    "to resume\n"
)
NO_DROPOUT = "--model.decoder.dropout=0"  # each process draws its own
TWO = (NO_DROPOUT, "--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=4")
FEW = ("--trainer.max_epochs=2", "--trainer.accelerator=cpu")

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]


@pytest.fixture(scope="module")
def shapes(
    tmp_path_factory: pytest.TempPathFactory, make_shapes: Callable[[Path, int], Path]
) -> Path:
    """51 images: 41 to train, 5 to validate: neither can be dealt out evenly."""
    return make_shapes(tmp_path_factory.mktemp("toy") / "shapes", 51)


def run(command: list[str], before: str = "") -> subprocess.CompletedProcess[str]:
    """A process of its own, in a group of its own, that runs the command in as many as it asks."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
    }
    return subprocess.run(
        [sys.executable, "-c", START.format(before=before), *command],
        capture_output=True,
        text=True,
        env=environment,
        start_new_session=True,
    )


def still_running(run_dir: Path) -> list[str]:
    """The processes of the run that have not ended within ten seconds."""
    found = []
    for _ in range(50):
        commands = [path for path in Path("/proc").glob("[0-9]*/cmdline") if path.parent.exists()]
        found = [path.parent.name for path in commands if str(run_dir) in _text(path)]
        if not found:
            break
        time.sleep(0.2)
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has just ended
        return ""


def logged(run_dir: Path, version: int = 0) -> list[dict[str, float]]:
    """What a run logged, without what depends on the clock."""
    with (run_dir / "metrics" / f"version_{version}" / "metrics.csv").open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return [row for row in rows if "train/epoch_seconds" not in row]


def assert_close(run_dir: Path, other: Path) -> None:
    """The last weights of two runs are equal but for the order of sums."""
    one, two = (read(folder)["state_dict"] for folder in (run_dir, other))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-4, rtol=1e-4, msg=name)


@pytest.fixture(scope="module")
def both(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str, str]:
    """The run of one process and that of two with half its batch; what the second printed."""
    folder = tmp_path_factory.mktemp("both")
    one, two = folder / "one", folder / "two"
    assert cli.main(arguments(shapes, folder, one, *FEW, NO_DROPOUT)) == 0
    (folder / "c").rename(folder / "of one")  # two processes keep their features themselves
    done = run(arguments(shapes, folder, two, *FEW, *TWO))
    assert done.returncode == 0, done.stderr
    return one, two, done.stdout, done.stderr


def test_two_processes_end_where_one_ends(both: tuple[Path, Path, str, str]) -> None:
    one, two, _, _ = both
    assert len(scores(one)) == 2
    for row, other in zip(logged(one), logged(two), strict=True):
        assert other == pytest.approx(row, abs=1e-5)
    assert_close(one, two)
    found = read(two)["captioner"]["provenance"]
    assert (found["processes"], found["batch_size"], found["steps"]) == (2, 4, 12)


def test_one_process_speaks_and_writes_for_both(
    shapes: Path, both: tuple[Path, Path, str, str]
) -> None:
    _, two, out, error = both
    assert out == (
        f"best validation CIDEr-D: {100 * max(scores(two)):.2f}, "
        f"{os.path.relpath(two)}/checkpoints/best.ckpt\n"
        f"next: captioner export --checkpoint {os.path.relpath(two)}/checkpoints/best.ckpt "
        "--output two.safetensors\n"
    )
    lines = [line.split(":")[0] for line in error.splitlines() if not line.startswith("TPU")]
    assert lines == [
        "Seed set to 0",
        "GPU available",
        str(shapes),
        f"{shapes.name}, train",
        f"{shapes.name}, dev",
        "`Trainer.fit` stopped",
        "captioner",
    ]
    assert sorted(path.name for path in two.iterdir() if "tfevents" not in path.name) == [
        "checkpoints",
        "config.yaml",
        "hparams.yaml",
        "metrics",
    ]
    assert len(list(two.glob("*tfevents*"))) == 1
    assert sorted(path.name for path in (two / "checkpoints").iterdir()) == [
        "best.ckpt",
        "last.ckpt",
    ]


def test_the_run_of_another_number_of_processes_is_not_resumed(
    shapes: Path, both: tuple[Path, Path, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    _, two, _, _ = both
    before = read(two)["global_step"]
    more = ("--trainer.max_epochs=3", "--ckpt_path=last")
    assert cli.main(arguments(shapes, two.parent, two, *more)) == 2
    assert "run has 2 processes, this one 1: resume with as many (trainer.devices" in (
        capsys.readouterr().err
    )
    assert read(two)["global_step"] == before


@pytest.mark.slow
def test_scores_of_two_processes_are_those_of_one(
    shapes: Path, both: tuple[Path, Path, str, str]
) -> None:
    one, _, _, _ = both
    command = ["validate", "--config", str(one / "config.yaml"), "--ckpt_path", "best"]
    assert cli.main(command) == 0
    # The second process has two of five images, and one batch of two less than the first.
    more = ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=2"]
    done = run([*command, *more])
    assert done.returncode == 0, done.stderr
    (alone,), (together,) = logged(one, 1), logged(one, 2)
    assert together == pytest.approx(alone, abs=1e-6)
    assert done.stdout.count("CIDEr-D") == 1


@pytest.mark.slow
def test_two_processes_share_a_stream(shapes: Path, tmp_path: Path) -> None:
    stream = (
        f"--data.root={make_stream(shapes, tmp_path / 'tars', [20, 1, 20])}",
        f"--data.val_root={shapes}",
        "--data.workers=1",
        "--last.every_n_steps=1",
    )
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = run(arguments(shapes, tmp_path, whole, *FEW, *TWO, *stream))
    assert done.returncode == 0, done.stderr
    assert read(whole)["global_step"] == 12  # 21 and 20 images, in 6 batches each, twice
    command = arguments(shapes, tmp_path, cut, *FEW, *TWO, *stream)
    killed = run(command, "from helpers.training import kill_at; kill_at(1, 3)")
    assert killed.returncode == -9
    assert still_running(cut) == []
    done = run([*command, "--ckpt_path=last"])
    assert done.returncode == 0, done.stderr
    assert scores(cut, 1) == pytest.approx(scores(whole)[1:], abs=1e-6)
    assert_close(whole, cut)


@pytest.mark.slow
def test_rewards_for_the_cnn_too_killed_in_mid_epoch_and_resumed(
    shapes: Path, tmp_path: Path
) -> None:
    assert cli.main(arguments(shapes, tmp_path, tmp_path / "start", *FEW)) == 0
    options = (
        *FEW,
        f"--model.init_from={tmp_path / 'start' / 'checkpoints' / 'best.ckpt'}",
        "--model.objective=self_critical",
        "--model.cross_entropy_weight=0.1",
        "--model.encoder.trainable=1",
        "--average.decay=0.8",
        "--last.every_n_steps=1",
    )
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert cli.main(arguments(shapes, tmp_path, whole, *options, NO_DROPOUT)) == 0
    command = arguments(shapes, tmp_path, cut, *options, *TWO)
    killed = run(command, "from helpers.training import kill_at; kill_at(1, 3)")
    assert killed.returncode == -9
    assert still_running(cut) == []
    assert read(cut)["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["ready"] == 3
    done = run([*command, "--ckpt_path=last"])
    assert done.returncode == 0, done.stderr
    rewards = [scores(folder, n, "train/reward") for folder, n in ((whole, 0), (cut, 0), (cut, 1))]
    assert rewards[1][:9] + rewards[2] == pytest.approx(rewards[0], abs=1e-5)
    assert scores(cut, 1) == pytest.approx(scores(whole)[1:], abs=1e-6)
    assert_close(whole, cut)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("act", "code", "said"),
    [
        # As a terminal does for Ctrl-C, and as `kill` and containers do.
        ("os.killpg(0, signal.SIGINT)", 130, HINT + "captioner: interrupted\n"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143, ""),
    ],
    ids=["control-c", "terminated"],
)
def test_a_signal_ends_both(shapes: Path, tmp_path: Path, act: str, code: int, said: str) -> None:
    command = arguments(shapes, tmp_path, tmp_path / "run", *FEW, *TWO)
    imports = "import signal; from helpers.training import at_batch"
    done = run(command, f"{imports}; at_batch(1, 1, lambda: {act})")
    assert done.returncode == code
    assert done.stderr.endswith(said.format(run=tmp_path / "run"))
    assert done.stderr.count("interrupted") == said.count("interrupted")
    assert "Traceback" not in done.stderr
    assert still_running(tmp_path / "run") == []


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_other(shapes: Path, tmp_path: Path) -> None:
    command = arguments(shapes, tmp_path, tmp_path / "run", *FEW, *TWO)
    act = "at_batch(0, 1, lambda: [os.kill(child, 9) for child in children()])"
    imports = "from helpers.training import at_batch; from helpers.processes import children"
    done = run(command, f"{imports}; {act}")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "captioner: error: process 2 of 2 was ended by signal 9, as a system does that runs out of "
        "memory; resume with --ckpt_path last"
    )
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trainable", "rank"), [("none", 0), ("all", 1)], ids=["features", "the second process"]
)
def test_what_one_process_cannot_read_is_said_once(
    shapes: Path, tmp_path: Path, trainable: str, rank: int
) -> None:
    data = Path(shutil.copytree(shapes, tmp_path / "shapes"))
    images = [each.path for each in load_caption_data(data).examples if each.split == "train"]
    source = DataSource(str(data), "shapes")
    order = [index for _, index in EpochSampler([Part(0, len(images), source)], 0, shuffle=True)]
    images[order[rank]].write_bytes(b"not an image")
    options = (*FEW, *TWO, f"--model.encoder.trainable={trainable}")
    done = run(arguments(data, tmp_path, tmp_path / "run", *options))
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    assert len(errors) == 1
    assert errors[0].startswith("captioner: error: ") and images[order[rank]].name in errors[0]
    assert "Traceback" not in done.stderr
    assert still_running(tmp_path / "run") == []
    assert not (tmp_path / "run").exists()
