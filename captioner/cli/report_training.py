"""`captioner report-training`: parse, call, print."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.cli.options import say
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.writing import (
    check_folder,
    keep_matplotlib_in_cache,
    make_folder,
    replace_file,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = ("learning-curves", "validation-metrics", "calibration", "captions", "comparison")
NUMBERS = "training-report.json"

REPORT_TRAINING_EXAMPLES = """\
examples:
  captioner report-training runs/mine                    figures into runs/mine/report
  captioner report-training runs --output plots          all runs below, drawn over one another
  captioner report-training lightning_logs --output plots
  captioner report-training runs/mine --calibration calibration.json --captions captions.jsonl
  captioner report-training runs --comparison docs/cells.csv --output plots --overwrite

Every figure is written as PNG and as SVG: learning-curves (losses, rewards, learning rate),
validation-metrics (BLEU, ROUGE-L and CIDEr-D by epoch) and, where it is given a file for them,
calibration, captions and comparison. training-report.json holds the numbers that are drawn. An
unfinished run is drawn up to its last step. The figures need matplotlib:
pip install "captioner[plots,train]"
"""


def add_report_training(parser: argparse.ArgumentParser) -> None:
    """The options of the command, and its examples."""
    parser.epilog = REPORT_TRAINING_EXAMPLES
    parser.set_defaults(command=_report_training)
    parser.add_argument(
        "log_dir", type=Path, metavar="LOG_DIR", help="a run of `captioner fit`, or several"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="of the figures (default: LOG_DIR/report)"
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE.json",
        help="of `captioner calibrate --report` (default: LOG_DIR/calibration.json, if it exists)",
    )
    parser.add_argument(
        "--captions",
        type=Path,
        metavar="FILE.jsonl",
        help="of `captioner caption`: lengths of captions and words said",
    )
    parser.add_argument(
        "--comparison",
        type=Path,
        metavar="FILE.csv",
        help="with the columns cell, bleu_4 and cider_d and a line for each run",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace figures that are there")
    parser.add_argument("--quiet", action="store_true", help="no names of what was written")


def _report_training(args: argparse.Namespace) -> int:
    keep_matplotlib_in_cache()
    try:
        from captioner.training import plots as training_plots
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "captioner":
            raise
        raise CaptionerError(
            f"`captioner report-training` needs {error.name}, which is not installed; "
            'pip install "captioner[plots]"'
        ) from error
    folder = args.output or args.log_dir / "report"
    _check_output(folder, args.overwrite)
    figures, numbers = _figures(args)
    make_folder(folder)
    for name, figure in figures.items():
        for path in training_plots.save_figure(figure, folder, name):
            _report_written(path, args.quiet)
    replace_file(folder / NUMBERS, json.dumps(numbers, ensure_ascii=False, indent=2) + "\n")
    _report_written(folder / NUMBERS, args.quiet)
    return 0


def _figures(args: argparse.Namespace) -> tuple[dict[str, Figure], dict[str, Any]]:
    """All figures, and the numbers in them."""
    from captioner.training import plots, report

    runs, warnings = report.read_runs(args.log_dir)
    for warning in warnings:
        say(f"captioner: {warning}")
    numbers: dict[str, Any] = {"runs": [asdict(run) for run in runs]}
    figures = {"learning-curves": plots.learning_curves(runs)}
    if any(metric in run.scalars for run in runs for metric in plots.METRICS):
        figures["validation-metrics"] = plots.validation_metrics(runs)
    beside = args.log_dir / "calibration.json"
    calibration = args.calibration or (beside if beside.is_file() else None)
    if calibration is not None:
        numbers["calibration"] = report.read_calibration(calibration)
        figures["calibration"] = plots.calibration(numbers["calibration"])
    if args.captions is not None:
        statistics = report.read_captions(args.captions)
        numbers["captions"] = asdict(statistics)
        figures["captions"] = plots.caption_statistics(statistics)
    if args.comparison is not None:
        numbers["comparison"] = report.read_comparison(args.comparison)
        figures["comparison"] = plots.comparison(numbers["comparison"])
    return figures, numbers


def _check_output(folder: Path, overwrite: bool) -> None:
    check_folder(folder)
    for name in (*(f"{name}.{suffix}" for name in FIGURES for suffix in ("png", "svg")), NUMBERS):
        path = folder / name
        if path.is_dir():
            raise CaptionerError(f"output {shown(path)} is a folder: name another --output")
        if path.exists() and not overwrite:
            raise CaptionerError(
                f"output {shown(path)} already exists; pass --overwrite to replace it"
            )


def _report_written(path: Path, quiet: bool) -> None:
    if not quiet:
        print(shown(path))
