"""`captioner report-training` draws what runs of the real `captioner fit` have logged."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

import captioner
from captioner.cli import entry as cli
from captioner.errors import CaptionerError
from captioner.training import plots as training_plots
from captioner.training.report import (
    read_calibration,
    read_captions,
    read_comparison,
    read_runs,
)
from helpers.training import arguments as fit_arguments

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[2]
CALIBRATION = {
    "scores": {
        "brier": 0.1,
        "calibration_error": 0.02,
        "bins": [
            {"tags": 9, "predicted": 0.2, "observed": 0.25},
            {"tags": 9, "predicted": 0.8, "observed": 0.75},
        ],
    },
    "coverage": [
        {"share": 0.5, "predicted": 0.7, "right": 0.75, "cider_d": 0.6},
        {"share": 1.0, "predicted": 0.6, "right": 0.5, "cider_d": 0.4},
    ],
}


@pytest.fixture(scope="module")
def logs(
    tmp_path_factory: pytest.TempPathFactory, make_shapes: Callable[[Path, int], Path]
) -> Path:
    """Two runs of two epochs, the second self-critical. Do not change them."""
    top = tmp_path_factory.mktemp("logs")
    shapes = make_shapes(top / "shapes", 40)
    first = top / "runs/über 1"
    for name, options in (("runs/über 1", ()), ("runs/two", self_critical(first))):
        command = fit_arguments(shapes, top, top / name, "--trainer.max_epochs=2", *options)
        assert cli.main(command) == 0
    return top / "runs"


def self_critical(first: Path) -> tuple[str, ...]:
    """The options of a run that goes on from the best of another."""
    best = f"--model.init_from={first}/checkpoints/best.ckpt"
    return (best, "--model.objective=self_critical", "--average.decay=0.8")


@pytest.fixture
def runs(logs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(logs, tmp_path / "runs"))


def table(run: Path) -> list[dict[str, str]]:
    with (run / "metrics/version_0/metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def logged(run: Path, name: str) -> list[tuple[int, float]]:
    return [(int(row["step"]), float(row[name])) for row in table(run) if row.get(name)]


def points(line) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in line.get_xydata()]


def lines_of(panel) -> dict[str, list[tuple[float, float]]]:
    return {line.get_label(): points(line) for line in panel.get_lines()}


def close(found: list[tuple[float, float]], expected: list[tuple[float, float]]) -> bool:
    return len(found) == len(expected) > 0 and all(
        a == pytest.approx(b, rel=1e-6) for a, b in zip(found, expected, strict=True)
    )


def test_the_points_drawn_are_what_the_runs_logged(runs: Path) -> None:
    found, warnings = read_runs(runs)
    assert [run.name for run in found] == ["two", "über 1"]
    assert warnings == []
    loss, reward, rate = training_plots.learning_curves(found).axes
    for name in ("two", "über 1"):
        assert close(lines_of(loss)[name], logged(runs / name, "val/loss"))
    training = [points(line) for line in loss.get_lines() if line.get_label()[0] == "_"]
    assert len(training) == 1  # of the self-critical one, the reward
    assert close(training[0], logged(runs / "über 1", "train/loss"))
    assert close(points(reward.get_lines()[0]), logged(runs / "two", "train/reward"))
    rates = [points(line) for line in rate.get_lines()]
    assert close(rates[0], logged(runs / "two", "train/learning_rate"))
    assert len(rates) == 2 and len(rates[0]) == 8
    axes = training_plots.validation_metrics(found).axes
    assert [panel.get_title() for panel in axes] == list(training_plots.METRICS.values())
    for panel, name in zip(axes, training_plots.METRICS, strict=True):
        for run in ("two", "über 1"):
            values = [(e, 100 * v) for e, (_, v) in enumerate(logged(runs / run, name), start=1)]
            assert len(values) == 2
            assert close(lines_of(panel)[run], values)


def test_events_and_tables_say_the_same(runs: Path) -> None:
    by_events, _ = read_runs(runs)
    for path in runs.rglob("events*"):
        path.unlink()
    by_tables, warnings = read_runs(runs)
    assert warnings == []
    for events, tables in zip(by_events, by_tables, strict=True):
        assert set(events.scalars) - {"epoch"} == set(tables.scalars)
        for name, values in tables.scalars.items():
            assert list(events.scalars[name]) == list(values)
            assert list(events.scalars[name].values()) == pytest.approx(list(values.values()))
        assert {events.epochs[s] for s in events.scalars["val/loss"]} == {1, 2}
        assert events.by_epoch("val/loss")[0] == tables.by_epoch("val/loss")[0] == [1, 2]


def test_the_learning_rate_rises_and_falls(runs: Path) -> None:
    (_, run), _ = read_runs(runs)
    rates = run.by_step("train/learning_rate")[1]
    assert 0 < rates[-1] < max(rates)


def test_the_command_writes_figures_and_their_numbers(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "calibration.json").write_text(json.dumps(CALIBRATION))
    captions = runs.parent / "captions.jsonl"
    captions.write_text('{"text": "a dog"}\n{"text": null}\n{"text": "A big dog"}\n')
    more = ["--captions", str(captions), "--comparison", str(ROOT / "docs/cells.csv")]
    assert cli.main(["report-training", str(runs), *more]) == 0
    names = ["learning-curves", "validation-metrics", "calibration", "captions", "comparison"]
    expected = [f"{name}.{suffix}" for name in names for suffix in ("png", "svg")]
    expected.append("training-report.json")
    printed = capsys.readouterr().out.splitlines()
    assert printed == [f"{runs}/report/{name}" for name in expected]
    assert sorted(os.listdir(runs / "report")) == sorted(expected)
    for name in names:
        with Image.open(runs / "report" / f"{name}.png") as image:
            assert image.width > 1000
        top = ElementTree.parse(runs / "report" / f"{name}.svg").getroot()
        assert top.tag == "{http://www.w3.org/2000/svg}svg"
    numbers = json.loads((runs / "report/training-report.json").read_text("utf-8"))
    losses = numbers["runs"][1]["scalars"]["val/loss"]
    assert close([(int(s), v) for s, v in losses.items()], logged(runs / "über 1", "val/loss"))
    assert numbers["calibration"] == CALIBRATION
    assert numbers["captions"]["words"] == {"a": 2, "dog": 2, "big": 1}
    assert numbers["comparison"]["rnn"][0] == {"bleu_4": 17.09, "cider_d": 37.59}
    before = (runs / "report/comparison.svg").read_bytes()
    assert cli.main(["report-training", str(runs), *more]) == 2
    assert "already exists; pass --overwrite to replace it" in capsys.readouterr().err
    assert cli.main(["report-training", str(runs), *more, "--overwrite", "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert (runs / "report/comparison.svg").read_bytes() == before


def test_one_run_and_lightnings_own_folders(runs: Path) -> None:
    (only,), _ = read_runs(runs / "two")
    assert only.name == "two"
    other = runs.parent / "lightning_logs"
    for number, name in enumerate(("two", "über 1")):
        (other / f"version_{number}").mkdir(parents=True)
        source = runs / name / "metrics/version_0/metrics.csv"
        shutil.copy(source, other / f"version_{number}")
    found, _ = read_runs(other)
    assert [run.name for run in found] == ["version_0", "version_1"]


def test_a_run_that_was_taken_up_again_is_one_line(runs: Path, logs: Path, tmp_path: Path) -> None:
    command = fit_arguments(logs.parent / "shapes", tmp_path, runs / "two", "--ckpt_path=last")
    more = ["--trainer.max_epochs=3", *self_critical(logs / "über 1")]
    assert cli.main([*command, *more]) == 0
    for remove in ((), runs.rglob("events*")):
        for path in remove:
            path.unlink()
        (run,), _ = read_runs(runs / "two")
        assert run.by_epoch("val/cider_d")[0] == [1, 2, 3]
        steps = run.by_step("train/loss")[0]
        assert steps == sorted(set(steps)) and len(steps) == 12


def test_damage_is_told_and_the_rest_is_drawn(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (runs / "two").glob("events*"):
        path.write_bytes(path.read_bytes()[:100] + b"\xff" * 500)
    for path in (runs / "über 1").glob("events*"):
        path.unlink()
    torn = runs / "über 1/metrics/version_0/metrics.csv"
    torn.write_text(torn.read_text() + "2,ab,\0,nonsense\n7")
    (runs / "new/metrics/version_0").mkdir(parents=True)
    (runs / "new/metrics/version_0/metrics.csv").touch()
    assert cli.main(["report-training", str(runs), "--quiet"]) == 0
    errors = capsys.readouterr().err
    assert "über 1: 2 damaged lines of metrics.csv were left out" in errors
    assert f"{runs}/new: nothing is logged there yet" in errors
    assert "Traceback" not in errors
    numbers = json.loads((runs / "report/training-report.json").read_text("utf-8"))
    assert [run["name"] for run in numbers["runs"]] == ["two", "über 1"]
    # Where the events are damaged from the start, the table is read.
    assert len(numbers["runs"][0]["scalars"]["val/loss"]) == 2


def test_what_is_no_run_is_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for folder, expected in (
        ("empty", "holds no run to report: no events.out.tfevents* and no metrics.csv lies there"),
        ("none", "is not a folder: give a --run_dir of `captioner fit`"),
    ):
        assert cli.main(["report-training", str(tmp_path / folder)]) == 2
        assert expected in capsys.readouterr().err
        assert not (tmp_path / folder / "report").exists()
    bad = tmp_path / "bad"
    bad.write_text('{"scores": 1}\n')
    for option, expected in (
        ("--calibration", "is not a report of `captioner calibrate --report`"),
        ("--captions", "line 1: no record of a caption"),
        ("--comparison", "needs the columns cell, bleu_4 and cider_d"),
    ):
        assert cli.main(["report-training", str(runs), option, str(bad)]) == 2
        assert expected in capsys.readouterr().err
        assert cli.main(["report-training", str(runs), option, str(tmp_path / "gone")]) == 2
        assert "gone cannot be read: no such file" in capsys.readouterr().err
    assert not (runs / "report").exists()


def test_calibration_is_drawn_as_reported(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(CALIBRATION))
    tags, risk, cider = training_plots.calibration(read_calibration(tmp_path / "c.json")).axes
    assert lines_of(tags)["tags"] == [(0.2, 0.25), (0.8, 0.75)]
    assert lines_of(risk)["observed"] == [(0.5, 0.25), (1.0, 0.5)]
    assert close(lines_of(risk)["predicted"], [(0.5, 0.3), (1.0, 0.4)])
    assert close(points(cider.get_lines()[0]), [(0.5, 60.0), (1.0, 40.0)])


def test_captions_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in ["a dog", "a dog", "a", None]))
    statistics = read_captions(path)
    assert (statistics.captions, statistics.distinct_captions) == (3, 2)
    assert (statistics.lengths, statistics.words) == ({1: 1, 2: 2}, {"a": 3, "dog": 2})
    assert statistics.mean_length == pytest.approx(5 / 3)
    length, rank = training_plots.caption_statistics(statistics).axes
    assert [bar.get_height() for bar in length.patches] == [1, 2]
    assert points(rank.get_lines()[0]) == [(1, 3), (2, 2)]
    path.write_text('{"text": null}\n')
    with pytest.raises(CaptionerError, match="holds no caption"):
        read_captions(path)


def test_every_run_of_a_comparison_is_a_point() -> None:
    bleu, cider = training_plots.comparison(read_comparison(ROOT / "docs/cells.csv")).axes
    assert [label.get_text() for label in bleu.get_xticklabels()] == ["lstm", "gru", "rnn"]
    assert [y for _, y in points(bleu.get_lines()[0])] == [15.99, 16.21, 16.03]
    assert [text.get_text() for text in cider.texts] == ["36.0", "36.8", "37.8"]


def test_without_matplotlib_the_remedy_is_named(runs: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from captioner.cli.entry import main\n"
        f"sys.exit(main(['report-training', {str(runs)!r}]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(captioner.__file__).parents[1])}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 2
    assert run.stderr == (
        "captioner: error: `captioner report-training` needs matplotlib, which is not installed; "
        'pip install "captioner[plots]"\n'
    )
